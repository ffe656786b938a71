//! wasi:keyvalue over staged writes and the host's state.
//!
//! A bucket's handle is the index of a granted namespace: only `open` makes one, and it checks the grant. A key is asked
//! for once; what was seen then is what the invocation goes on seeing, and its version is in the read set. Only when it
//! invokes another function, which may write the same keys, does it ask again.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;

use crate::bindings::wasi::keyvalue::store::{Error, KeyResponse};
use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::recorder::Nature;
use crate::staging::Refused;
use crate::state::State;

/// A granted namespace.
pub struct Bucket;

/// Keys of one page of `list-keys`.
const PAGE: usize = 256;
/// Longest key, in bytes: keys are columns of an index.
const MAX_KEY: usize = 512;

type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// Runs a fallible block whose error is the guest's to see, inside one whose error ends the guest.
macro_rules! or_answer {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        }
    };
}

fn refused(refused: Refused) -> Error {
    Error::Other(match refused {
        Refused::TooLarge(limit) => format!("more than the {limit} bytes of state this function may have"),
        Refused::Full => "the state this function may write in one event is used up".to_owned(),
    })
}

fn check_key(key: &str) -> Result<(), Error> {
    if (1..=MAX_KEY).contains(&key.len()) {
        Ok(())
    } else {
        Err(Error::Other(format!("a key has 1 to {MAX_KEY} bytes")))
    }
}

impl State {
    fn read(&mut self, bucket: u32, key: &str) -> Answer<Option<Bytes>> {
        or_answer!(check_key(key));
        if let Some(known) = self.staging.known(bucket, key) {
            return Ok(Ok(known));
        }
        let grants = self.grants.clone();
        let Some(namespace) = grants.namespace(bucket) else { return Ok(Err(Error::NoSuchStore)) };
        let answer =
            self.ask(Nature::World, "keyvalue.get", &(&*namespace.name, key), |host| host.get(&namespace.name, key))?;
        let (value, version) = or_answer!(answer.map_err(|error| Error::Other(error.to_string())));
        or_answer!(self.staging.saw(bucket, key, value.clone(), version).map_err(refused));
        Ok(Ok(value))
    }

    fn write(&mut self, bucket: u32, key: &str, value: Option<Bytes>) -> Result<(), Error> {
        check_key(key)?;
        match self.grants.namespace(bucket) {
            Some(namespace) if namespace.writable => {}
            Some(_) => return Err(Error::AccessDenied),
            None => return Err(Error::NoSuchStore),
        }
        self.staging.write(&self.grants, bucket, key, value).map_err(refused)
    }
}

impl store::Host for State {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        match self.grants.open(&identifier) {
            Some(handle) => {
                self.open_handle()?;
                Ok(Ok(Resource::new_own(handle)))
            }
            // Whether it exists is not the guest's to know.
            None => Ok(Err(Error::AccessDenied)),
        }
    }
}

impl store::HostBucket for State {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        Ok(self.read(bucket.rep(), &key)?.map(|value| value.map(Vec::from)))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        Ok(self.write(bucket.rep(), &key, Some(Bytes::from(value))))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        Ok(self.write(bucket.rep(), &key, None))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        Ok(self.read(bucket.rep(), &key)?.map(|value| value.is_some()))
    }

    fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<u64>) -> Answer<KeyResponse> {
        let grants = self.grants.clone();
        let Some(namespace) = grants.namespace(bucket.rep()) else { return Ok(Err(Error::NoSuchStore)) };
        let after = match cursor {
            None => None,
            Some(cursor) => match self.staging.cursor(cursor) {
                Some(key) => Some(key),
                None => return Ok(Err(Error::Other("not a cursor of this invocation".to_owned()))),
            },
        };
        let answer = self.ask(Nature::World, "keyvalue.list-keys", &(&*namespace.name, after.as_deref()), |host| {
            host.keys(&namespace.name, after.as_deref(), PAGE)
        })?;
        let mut keys: Vec<Arc<str>> = or_answer!(answer.map_err(|error| Error::Other(error.to_string())));
        // A full page ends at its last key; staged keys beyond it belong to a later page.
        let until = if keys.len() >= PAGE { keys.last().cloned() } else { None };
        self.staging.overlay(bucket.rep(), after.as_deref(), until.as_deref(), &mut keys);
        let cursor = match until {
            Some(until) => Some(or_answer!(self.staging.remember_cursor(until).map_err(refused))),
            None => None,
        };
        Ok(Ok(KeyResponse { keys: keys.iter().map(|key| key.to_string()).collect(), cursor }))
    }

    fn drop(&mut self, _: Resource<Bucket>) -> wasmtime::Result<()> {
        self.close_handle()
    }
}

impl atomics::Host for State {
    /// Counters are decimal text, so that they can be read with `get` and by people. Atomic because the read is in the
    /// read set: a concurrent change makes the invocation run again.
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: u64) -> Answer<u64> {
        let value = or_answer!(self.read(bucket.rep(), &key)?);
        let number = match &value {
            None => Some(0),
            Some(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<u64>().ok()),
        };
        let sum = number.and_then(|number| number.checked_add(delta));
        let Some(sum) = sum else { return Ok(Err(Error::Other("the value is not a number, or too large".to_owned()))) };
        Ok(self.write(bucket.rep(), &key, Some(Bytes::from(sum.to_string()))).map(|()| sum))
    }
}

impl batch::Host for State {
    fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = or_answer!(self.read(bucket.rep(), &key)?);
            values.push(value.map(|value| (key, Vec::from(value))));
        }
        Ok(Ok(values))
    }

    fn set_many(&mut self, bucket: Resource<Bucket>, pairs: Vec<(String, Vec<u8>)>) -> Answer<()> {
        for (key, value) in pairs {
            or_answer!(self.write(bucket.rep(), &key, Some(Bytes::from(value))));
        }
        Ok(Ok(()))
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        for key in keys {
            or_answer!(self.write(bucket.rep(), &key, None));
        }
        Ok(Ok(()))
    }
}
