//! The manifest's parameters, which can be changed without a new version.

use std::str::FromStr;

use crate::{Error, backend, json};

/// A parameter as text.
pub fn text(name: &str) -> Result<Option<String>, Error> {
    backend::config(name)
}

/// A parameter as a number: what [`get`] does for `f64`, in a component that is 15 KB smaller.
pub fn number(name: &str) -> Result<Option<f64>, Error> {
    match text(name)? {
        Some(text) => match json::from_slice(text.as_bytes()) {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Invalid(["config ", name, " is ", &text].concat())),
        },
        None => Ok(None),
    }
}

/// A parameter as a boolean, an integer, or whatever else reads itself from text.
pub fn get<T: FromStr>(name: &str) -> Result<Option<T>, Error> {
    match text(name)? {
        Some(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Error::Invalid(["config ", name, " is ", &text].concat())),
        },
        None => Ok(None),
    }
}
