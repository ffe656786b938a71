//! The shadow `holm`: what a device says about itself, kept as it said it.

use holm_core::Timestamp;
use holm_protocol::{ShadowUpdate, ThingName};
use rusqlite::params;
use serde_json::value::RawValue;

use super::devices::{self, DeviceStatus};
use super::{Records, unsigned};
use crate::CloudError;
use crate::error::sql;

/// What is stored now.
#[derive(Debug)]
pub(crate) struct ShadowAnswer {
    pub(crate) reported: Box<RawValue>,
    pub(crate) version: u64,
}

impl Records {
    /// A device reports. `done` is called after the commit; with `None` for one that is not active.
    pub(crate) fn report(
        &self,
        thing: ThingName,
        update: &ShadowUpdate,
        now: Timestamp,
        done: impl FnOnce(Result<Option<ShadowAnswer>, CloudError>) + Send + 'static,
    ) -> Result<(), CloudError> {
        let bad = |error: serde_json::Error| CloudError::Row { what: "report", problem: error.to_string() };
        let reported = serde_json::value::to_raw_value(update.reported()).map_err(bad)?;
        let build = update.reported().build.clone();
        let change = move |connection: &rusqlite::Connection| {
            let action = "keep a report";
            let device = devices::find(connection, &thing)?.filter(|device| device.status == DeviceStatus::Active);
            let Some(device) = device else { return Ok(None) };
            let statement = "UPDATE device SET reported = ?2, reported_at = ?3, seen = ?3, \
                             reported_version = reported_version + 1 WHERE id = ?1 RETURNING reported_version";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let version = statement
                .query_row(params![device.id, reported.get(), now.0], |row| row.get(0))
                .map_err(sql(action))?;
            if let Some(build) = &build {
                devices::note_build(connection, device.id, build)?;
            }
            Ok(Some(ShadowAnswer { reported, version: unsigned(version) }))
        };
        self.offer(0, change, done)
    }
}
