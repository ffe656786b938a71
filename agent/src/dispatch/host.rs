//! What an invocation may ask the node.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Event, Fault, FunctionName, Outcome, Payload, Source, Timestamp};
use holm_runtime::{Host, HostError, InvokeError};
use holm_store::StateReader;

use super::settle::Held;
use super::{Dispatcher, Loaded};
use crate::clock;

/// How deep functions may invoke each other. Each level holds an instance.
const MAX_DEPTH: u32 = 4;

/// Invocations below this one that succeeded: their effects settle with the caller's.
pub(super) type Children = Arc<std::sync::Mutex<Vec<(FunctionName, Outcome)>>>;

/// One invocation's view of the node.
pub(super) struct NodeHost {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) reader: Arc<std::sync::Mutex<StateReader>>,
    pub(super) children: Children,
    pub(super) depth: u32,
    pub(super) hops: u8,
    /// What the worker has not let go yet.
    pub(super) held: Arc<std::sync::Mutex<Vec<Held>>>,
}

impl Host for NodeHost {
    fn get(&mut self, namespace: &str, key: &str) -> Result<(Option<Bytes>, u64), HostError> {
        let reader = super::lock(&self.reader);
        match reader.get(&Arc::from(namespace), &Arc::from(key)) {
            Ok(versioned) => Ok((versioned.value, versioned.version)),
            Err(error) => Err(HostError(error.to_string())),
        }
    }

    fn keys(&mut self, namespace: &str, after: Option<&str>, limit: usize) -> Result<Vec<Arc<str>>, HostError> {
        super::lock(&self.reader).keys(namespace, after, limit).map_err(|error| HostError(error.to_string()))
    }

    fn invoke(&mut self, function: &FunctionName, input: Payload) -> Result<Option<Payload>, InvokeError> {
        if self.depth >= MAX_DEPTH {
            return Err(InvokeError::DepthExceeded);
        }
        let loaded =
            self.dispatcher.slot(function).and_then(|slot| slot.is_runnable().then(|| slot.loaded()).flatten());
        let loaded = loaded.ok_or(InvokeError::NoSuchFunction)?;
        // The caller's own memory stays taken: to wait for more could be to wait for oneself.
        let memory = loaded.manifest.limits.memory;
        if !self.dispatcher.reserve(memory) {
            return Err(InvokeError::Failed("the node has no memory left for it (`functions.memory`)".to_owned()));
        }
        let before = super::lock(&self.children).len();
        let outcome = self.call(&loaded, function, input);
        self.dispatcher.unreserve(memory);
        let outcome = outcome?;
        let mut children = super::lock(&self.children);
        match &outcome.result {
            Ok(answer) => {
                let answer = answer.clone();
                children.push((function.clone(), outcome));
                Ok(answer)
            }
            Err(fault) => {
                // Nothing of a failed function happens: nor of those that it invoked.
                children.truncate(before);
                Err(match fault {
                    Fault::Timeout { .. } => InvokeError::Timeout,
                    fault => InvokeError::Failed(fault.message()),
                })
            }
        }
    }

    fn now(&self) -> Timestamp {
        clock::now()
    }

    fn new_id(&mut self) -> Arc<str> {
        self.dispatcher.new_id().0
    }

    fn linger(&mut self) {
        self.dispatcher.let_all_go(&self.held);
    }
}

impl NodeHost {
    /// Runs `function` in an instance of its own, one level deeper.
    fn call(&self, loaded: &Loaded, function: &FunctionName, input: Payload) -> Result<Outcome, InvokeError> {
        let prepared = loaded.function.prepare().map_err(|error| InvokeError::Failed(error.to_string()))?;
        let now = clock::now();
        let event = Event {
            id: self.dispatcher.new_id(),
            source: Source::Invoke,
            subject: function.shared(),
            content_type: input.content_type,
            data: input.data,
            time: now,
            time_synced: clock::plausible(now),
            attempt: 1,
            hops: self.hops,
            attributes: Vec::new(),
        };
        let host = Self {
            dispatcher: self.dispatcher.clone(),
            reader: self.reader.clone(),
            children: self.children.clone(),
            depth: self.depth + 1,
            hops: self.hops,
            held: self.held.clone(),
        };
        Ok(prepared.call(&event, Box::new(host)))
    }
}
