//! Other functions that the manifest lets this one reach.

use std::time::Duration;

use crate::{Error, Payload, backend};

/// Runs another function now, and waits for its answer.
pub fn invoke(function: &str, input: Payload) -> Result<Option<Payload>, Error> {
    backend::invoke(function, input)
}

/// Stages a message to another function, and returns the id of its event.
pub fn enqueue(function: &str, input: Payload, delay: Option<Duration>) -> Result<String, Error> {
    backend::enqueue(function, input, delay)
}
