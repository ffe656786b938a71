//! What the node gives to one invocation.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Effects, FunctionName, Payload, Timestamp};

use crate::Hardware;

/// Why the node could not answer. The guest sees it as `other`, the dispatcher in its own log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{0}")]
pub struct HostError(pub String);

/// Why another function gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum InvokeError {
    /// Nothing of that name is deployed.
    #[error("no such function")]
    NoSuchFunction,
    /// Not granted.
    #[error("denied")]
    Denied,
    /// Functions invoke each other too deep.
    #[error("invoked too deep")]
    DepthExceeded,
    /// It ran past its deadline, or the caller's.
    #[error("timeout")]
    Timeout,
    /// It failed.
    #[error("failed: {0}")]
    Failed(String),
}

/// The world outside, as one invocation may ask about it. Everything it answers is recorded; nothing is written through
/// it, because effects are staged in the outcome.
pub trait Host: Send {
    /// The value of a key, and the version of the state it was read at, for the conflict check.
    fn get(&mut self, namespace: &str, key: &str) -> Result<(Option<Bytes>, u64), HostError>;
    /// At most `limit` keys of a namespace in ascending byte order, beginning after `after`.
    fn keys(&mut self, namespace: &str, after: Option<&str>, limit: usize) -> Result<Vec<Arc<str>>, HostError>;
    /// Runs another function and waits. The grant has been checked; depth and budget have not.
    ///
    /// `before` is what the caller has staged so far. It happens before what the other function does, whatever comes of
    /// that, and is not in the caller's outcome any more. [`Host::get`] and [`Host::keys`] answer by it from here on,
    /// and by the other function's writes if that succeeds, with a version that no later write makes stale.
    fn invoke(
        &mut self,
        function: &FunctionName,
        input: Payload,
        before: Effects,
    ) -> Result<Option<Payload>, InvokeError>;
    /// The node's clock.
    fn now(&self) -> Timestamp;
    /// A fresh event id.
    fn new_id(&mut self) -> Arc<str>;
    /// The board, if the node has one.
    fn hardware(&mut self) -> Option<&mut dyn Hardware> {
        None
    }
    /// The guest takes its time: it has run for a tick, or is about to sleep. Whoever put something off until its end
    /// does it now.
    fn linger(&mut self) {}
}
