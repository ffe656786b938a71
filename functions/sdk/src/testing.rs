//! A node for tests: what it is told, a handler finds; what a handler stages, it shows.
//!
//! Everything is granted unless denied here, and limits are not kept: those are the manifest's, and tested with
//! `holm test`.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::log::Level;
use crate::{Event, Failure, Payload, Publish};

mod board;

type Handler = fn(Event) -> Result<Option<Payload>, Failure>;
type Keys = BTreeMap<(String, String), Vec<u8>>;
type Invoked = fn(Payload) -> Result<Option<Payload>, crate::Error>;

/// A node in memory.
#[derive(Debug, Clone, Default)]
pub struct TestHost {
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, Vec<u8>>,
    denied: Vec<String>,
    functions: BTreeMap<String, Invoked>,
    committed: Keys,
    board: board::TestBoard,
    staged: Staged,
    logs: Vec<(Level, String)>,
}

/// What a run staged.
#[derive(Debug, Clone, Default)]
struct Staged {
    keys: Keys,
    publishes: Vec<Publish>,
    results: Vec<(String, serde_json::Value)>,
    enqueued: Vec<(String, Payload)>,
}

thread_local! {
    /// The node of the handler that runs on this thread.
    static CURRENT: RefCell<TestHost> = RefCell::default();
}

impl TestHost {
    /// An empty node.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a parameter.
    pub fn with_config(mut self, name: &str, value: &str) -> Self {
        self.config.insert(name.to_owned(), value.to_owned());
        self
    }

    /// With a secret.
    pub fn with_secret(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.secrets.insert(name.to_owned(), value.into());
        self
    }

    /// With a value, as JSON text or any bytes; the function's own namespace is `self`.
    pub fn with_key(mut self, namespace: &str, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.committed.insert((namespace.to_owned(), key.to_owned()), value.into());
        self
    }

    /// With a topic, namespace, series, function, secret, sensor, line, bus or device that is not granted.
    pub fn with_denied(mut self, name: &str) -> Self {
        self.denied.push(name.to_owned());
        self
    }

    /// With another function to invoke.
    pub fn with_function(mut self, name: &str, function: Invoked) -> Self {
        self.functions.insert(name.to_owned(), function);
        self
    }

    /// Runs a handler as the node would: its effects happen only if it succeeds. What an earlier run published or
    /// recorded is forgotten; state and log go on.
    pub fn run(&mut self, handler: Handler, event: Event) -> Result<Option<Payload>, Failure> {
        self.staged = Staged { keys: self.committed.clone(), ..Staged::default() };
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self));
        let answer = handler(event);
        CURRENT.with_borrow_mut(|current| std::mem::swap(current, self));
        match &answer {
            Ok(_) => self.committed = self.staged.keys.clone(),
            Err(_) => self.staged = Staged::default(),
        }
        answer
    }

    /// The messages of the last run, in order.
    pub fn publishes(&self) -> &[Publish] {
        &self.staged.publishes
    }

    /// The results of the last run, in order: series and value.
    pub fn results(&self) -> &[(String, serde_json::Value)] {
        &self.staged.results
    }

    /// The messages to other functions of the last run, in order.
    pub fn enqueued(&self) -> &[(String, Payload)] {
        &self.staged.enqueued
    }

    /// The log of all runs.
    pub fn logs(&self) -> &[(Level, String)] {
        &self.logs
    }

    /// A value as it is after the last run.
    pub fn key(&self, namespace: &str, key: &str) -> Option<&[u8]> {
        self.committed.get(&(namespace.to_owned(), key.to_owned())).map(Vec::as_slice)
    }

    fn check(&self, name: &str) -> Result<(), crate::Error> {
        let denied = self.denied.iter().any(|denied| denied == name);
        if denied { Err(crate::Error::Denied(name.to_owned())) } else { Ok(()) }
    }
}

/// The calls that the rest of the SDK is made of; `wasm` has the same ones.
pub(crate) mod backend {
    use std::time::Duration;

    use super::CURRENT;
    pub(crate) use super::board::{gpio_get, gpio_set, i2c, sensor_latest, sensor_names, sensor_read, spi};
    use crate::log::Level;
    use crate::{Error, Payload, Publish};

    #[derive(Debug)]
    pub(crate) struct Bucket(String);

    pub(crate) fn publish(message: Publish) -> Result<(), Error> {
        if message.topic.is_empty() || message.topic.contains(['+', '#', '\0']) {
            return Err(Error::Invalid(format!("`{}` is not a topic", message.topic)));
        }
        CURRENT.with_borrow_mut(|host| {
            host.check(&message.topic)?;
            host.staged.publishes.push(message);
            Ok(())
        })
    }

    pub(crate) fn open(name: &str) -> Result<Bucket, Error> {
        CURRENT.with_borrow(|host| host.check(name).map(|()| Bucket(name.to_owned())))
    }

    fn place(bucket: &Bucket, key: &str) -> (String, String) {
        (bucket.0.clone(), key.to_owned())
    }

    pub(crate) fn get(bucket: &Bucket, key: &str) -> Result<Option<Vec<u8>>, Error> {
        CURRENT.with_borrow(|host| Ok(host.staged.keys.get(&place(bucket, key)).cloned()))
    }

    pub(crate) fn set(bucket: &Bucket, key: &str, value: Vec<u8>) -> Result<(), Error> {
        CURRENT.with_borrow_mut(|host| host.staged.keys.insert(place(bucket, key), value));
        Ok(())
    }

    pub(crate) fn delete(bucket: &Bucket, key: &str) -> Result<(), Error> {
        CURRENT.with_borrow_mut(|host| host.staged.keys.remove(&place(bucket, key)));
        Ok(())
    }

    pub(crate) fn increment(bucket: &Bucket, key: &str, delta: u64) -> Result<u64, Error> {
        let number = match get(bucket, key)? {
            Some(bytes) => std::str::from_utf8(&bytes).ok().and_then(|text| text.parse::<u64>().ok()),
            None => Some(0),
        };
        let sum = number.and_then(|number| number.checked_add(delta));
        let sum = sum.ok_or_else(|| Error::Unavailable(format!("`{key}` is not a number, or too large")))?;
        set(bucket, key, sum.to_string().into_bytes())?;
        Ok(sum)
    }

    pub(crate) fn keys(bucket: &Bucket) -> Result<Vec<String>, Error> {
        CURRENT.with_borrow(|host| {
            let own = host.staged.keys.keys().filter(|(namespace, _)| *namespace == bucket.0);
            Ok(own.map(|(_, key)| key.clone()).collect())
        })
    }

    fn record(series: &str, value: serde_json::Value) -> Result<(), Error> {
        CURRENT.with_borrow_mut(|host| {
            host.check(series)?;
            host.staged.results.push((series.to_owned(), value));
            Ok(())
        })
    }

    pub(crate) fn record_value(series: &str, value: f64) -> Result<(), Error> {
        if !value.is_finite() {
            return Err(Error::Invalid("not a finite number".to_owned()));
        }
        record(series, value.into())
    }

    pub(crate) fn record_json(series: &str, json: Vec<u8>) -> Result<(), Error> {
        record(series, serde_json::from_slice(&json)?)
    }

    pub(crate) fn config(name: &str) -> Result<Option<String>, Error> {
        CURRENT.with_borrow(|host| Ok(host.config.get(name).cloned()))
    }

    pub(crate) fn secret(name: &str) -> Result<Vec<u8>, Error> {
        CURRENT.with_borrow(|host| {
            host.check(name)?;
            host.secrets.get(name).cloned().ok_or_else(|| Error::NotFound(format!("secret {name}")))
        })
    }

    pub(crate) fn log(level: Level, message: &str) {
        CURRENT.with_borrow_mut(|host| host.logs.push((level, message.to_owned())));
    }

    pub(crate) fn random() -> u64 {
        // The standard library's hasher keys are random; a test needs no more than that.
        use std::hash::BuildHasher;
        std::collections::hash_map::RandomState::new().hash_one(0_u8)
    }

    pub(crate) fn invoke(function: &str, input: Payload) -> Result<Option<Payload>, Error> {
        let called = CURRENT.with_borrow(|host| {
            host.check(function)?;
            host.functions.get(function).copied().ok_or_else(|| Error::NotFound(format!("function {function}")))
        });
        called?(input)
    }

    pub(crate) fn enqueue(function: &str, input: Payload, _: Option<Duration>) -> Result<String, Error> {
        CURRENT.with_borrow_mut(|host| {
            host.check(function)?;
            host.staged.enqueued.push((function.to_owned(), input));
            Ok(format!("enqueued-{}", host.staged.enqueued.len()))
        })
    }
}
