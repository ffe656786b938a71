//! What operators did, for those who ask.

use holm_core::Timestamp;
use rusqlite::params;

use super::Records;
use super::tokens::audit;
use crate::CloudError;
use crate::error::sql;

/// Something that was done.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Deed {
    /// Goes up with each.
    pub(crate) id: i64,
    pub(crate) time: Timestamp,
    /// Who; empty for a device, or the control plane itself.
    pub(crate) operator: String,
    pub(crate) action: String,
    /// To what.
    pub(crate) object: String,
}

impl Records {
    /// Writes down what is about to be done elsewhere: whether it was may never be known here.
    pub(crate) async fn note_deed(
        &self,
        operator: String,
        action: &'static str,
        object: String,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        self.write(move |connection| audit(connection, now, &operator, action, &object)).await
    }

    /// The latest first, before one or from the last on, at most `limit`.
    pub(crate) async fn deeds(&self, before: Option<i64>, limit: usize) -> Result<Vec<Deed>, CloudError> {
        self.read(move |connection| {
            let action = "read the audit";
            let statement =
                "SELECT id, time, operator, action, object FROM audit WHERE id < ?1 ORDER BY id DESC LIMIT ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![before.unwrap_or(i64::MAX), limit], |row| {
                Ok(Deed {
                    id: row.get(0)?,
                    time: Timestamp(row.get(1)?),
                    operator: row.get(2)?,
                    action: row.get(3)?,
                    object: row.get(4)?,
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }
}
