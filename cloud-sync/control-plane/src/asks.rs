//! Asking a device for something, and waiting for what it answers.
//!
//! An ask is told once, to who is there, and nothing of it is kept: whoever wants to know asks again, which does nothing twice (see
//! [`holm_protocol::Ask`]). The answer comes as every record
//! does, and is stored; it is known by the id that it was asked with.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::{Ask, ClientToken, Lane, ThingName};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::CloudError;
use crate::plane::Plane;
use crate::records::{Row, Selection};
use crate::secret::Secret;

/// Answers of a stream that are looked through: others may have asked too.
const LOOKED_AT: usize = 8;

/// Between two looks, at least.
const SPACING: Duration = Duration::from_millis(50);

/// Between two looks where nothing wakes us.
const LOOK: Duration = Duration::from_millis(500);

/// Devices whose dead letters are known to [`Left`].
const MOST_KNOWN: usize = 10_000;

/// How many dead letters devices have, as they said when they were asked last: what they report by themselves may be hours old. A help for
/// pages and no record, so it is lost at a restart.
#[derive(Default)]
pub(crate) struct Left(Mutex<BTreeMap<String, (Timestamp, u64)>>);

impl Left {
    fn note(&self, thing: &ThingName, now: Timestamp, left: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(thing.to_string(), (now, left));
    }

    /// What a device said after this time, both by our clock.
    pub(crate) fn since(&self, thing: &str, time: Option<Timestamp>) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(thing).filter(|(said, _)| time.is_none_or(|time| *said > time)).map(|(_, left)| *left)
    }
}

/// Asks, and waits for so long. `None`: it has not answered; it may be away, or decline.
pub(crate) async fn answer(
    plane: &Plane,
    thing: &ThingName,
    stream: &str,
    ask: impl FnOnce(ClientToken) -> Ask,
    patience: Duration,
) -> Result<Option<Value>, CloudError> {
    if !plane.bus.is_connected(thing.as_str()) {
        return Ok(None);
    }
    let id = ClientToken::new(&format!("ask-{}", Secret::make()?.hash().hex().get(..16).unwrap_or("0")))?;
    let deadline = Instant::now() + patience;
    let mut watcher = plane.arrivals.watch(Some(thing.as_str()));
    plane.uplink.ask(thing, ask(id.clone()));
    loop {
        let found = latest(plane, thing, stream, LOOKED_AT).await?.into_iter().map(|(_, answer)| answer);
        let mut found = found.filter(|answer| answer.get("id").and_then(Value::as_str) == Some(id.as_str()));
        if let Some(answer) = found.next() {
            if let Some(left) = answer.get("left").and_then(Value::as_u64).filter(|_| answer.get("declined").is_none())
            {
                plane.left.note(thing, (plane.clock)(), left);
            }
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        match &mut watcher {
            Some(watcher) => drop(timeout_at(deadline.min(Instant::now() + LOOK), watcher.changed()).await),
            None => sleep(LOOK).await,
        }
        sleep(SPACING).await;
    }
}

/// The last answers of a device, the latest last.
pub(crate) async fn latest(
    plane: &Plane,
    thing: &ThingName,
    stream: &str,
    limit: usize,
) -> Result<Vec<(Timestamp, Value)>, CloudError> {
    let selection = Selection {
        lane: Lane::Logs,
        stream: Some(stream.to_owned()),
        device: Some(thing.to_string()),
        group: None,
        since: Timestamp(i64::MIN),
        until: Timestamp(i64::MAX),
        after: None,
        limit,
        latest: true,
    };
    let read = |row: Row| Some((row.time, serde_json::from_slice(&row.data).ok()?));
    Ok(plane.records.select(selection).await?.rows.into_iter().filter_map(read).collect())
}
