//! State that lasts: keys and values, in the function's own namespace or a shared one that the manifest grants.
//!
//! Reads see this event's own writes. Writes happen, with all else, if the handler succeeds; if another event has
//! changed a key that was read, the node runs the handler again.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, backend, json};

/// A namespace.
#[derive(Debug)]
pub struct Bucket(backend::Bucket);

/// The function's own namespace: the manifest grants it as `rw:self`.
pub fn own() -> Result<Bucket, Error> {
    open("self")
}

/// A namespace by its name in the manifest, such as `shared/site`.
pub fn open(name: &str) -> Result<Bucket, Error> {
    backend::open(name).map(Bucket)
}

impl Bucket {
    /// The bytes of a key.
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        backend::get(&self.0, key)
    }

    /// The value of a key, from JSON.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        match self.get_bytes(key)? {
            Some(bytes) => Ok(Some(json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Sets a key to bytes.
    pub fn set_bytes(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), Error> {
        backend::set(&self.0, key, value.into())
    }

    /// Sets a key to a value, as JSON.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.set_bytes(key, json::to_vec(value)?)
    }

    /// Removes a key.
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        backend::delete(&self.0, key)
    }

    /// Adds to a counter, which begins at 0, and returns the sum. Counters are JSON numbers: [`Bucket::get`] reads them.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        backend::increment(&self.0, key, delta)
    }

    /// All keys, in order.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        backend::keys(&self.0)
    }
}
