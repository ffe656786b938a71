//! Rows of the series that the manifest declares: uploaded to the cloud, and plotted.

use serde::Serialize;

use crate::{Error, backend, json};

/// Records a number, which must be finite.
pub fn record(series: &str, value: f64) -> Result<(), Error> {
    backend::record_value(series, value)
}

/// Records a value as JSON.
pub fn record_json<T: Serialize + ?Sized>(series: &str, value: &T) -> Result<(), Error> {
    backend::record_json(series, json::to_vec(value)?)
}
