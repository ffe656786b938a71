//! Asking a device for something, and waiting for what it answers.
//!
//! An ask is told once, to who is there, and nothing of it is kept: whoever wants to know asks again. The answer comes as every record
//! does, and is stored; it is known by the id that it was asked with.

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
