//! The parts of pages that change while somebody looks: server-sent events.
//!
//! An event is `part`, with the id of an element and its new contents; or `rows`, with lines to be put at the top of one; or `end`:
//! the session is over. The contents are written here, like the page itself, so a browser that has lost its connection and comes
//! back needs to know nothing: it is sent the whole parts first.
//!
//! What came is read when the device's [`Watcher`] wakes us, at most a few times a second. Everything else is looked at every
//! [`LOOK`], and sent when it differs.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::unfold;
use holm_core::LogLevel;
use holm_protocol::{Ask, ThingName};
use maud::{Markup, html};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::device::{LINES, lines, vitals};
use super::failure::Failure;
use super::overview::glance;
use super::rollouts;
use super::session::Session;
use crate::CloudError;
use crate::arrivals::Watcher;
use crate::error::chain;
use crate::plane::{Plane, stopping};
use crate::records::{RolloutId, Seen};

/// Between two looks at what changes without a wake-up: who is connected, and whether the session lasts.
pub(super) const LOOK: Duration = Duration::from_secs(2);

/// Between two looks at what came, at least: a device that sends a lot shall not keep the readers busy.
const SPACING: Duration = Duration::from_millis(200);

/// So long, in seconds, a device sends log lines after it was told that somebody looks, and how often it is told.
const LEASE_S: u32 = 60;
/// See [`LEASE_S`].
const ASK_EVERY: Duration = Duration::from_secs(20);

/// How long a browser waits before it comes back.
const RETRY: Duration = Duration::from_secs(2);

/// Says to whatever is in between that the connection is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// What is watched.
enum What {
    Overview,
    /// And where one is in its streams.
    Device(ThingName, Seen),
    Rollout(RolloutId),
}

/// One who watches.
struct Live {
    plane: Arc<Plane>,
    session: Session,
    shutdown: watch::Receiver<bool>,
    watcher: Watcher,
    what: What,
    /// The part as it was sent last.
    sent: String,
    is_first: bool,
    waiting: VecDeque<Event>,
    over: bool,
    /// When the device was last told that somebody looks at its log.
    asked: Option<Instant>,
}

pub(super) async fn overview(session: Session, State(plane): State<Arc<Plane>>) -> Result<Response, Failure> {
    stream(session, plane, What::Overview)
}

pub(super) async fn device(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Failure> {
    let Ok(name) = ThingName::new(&thing) else { return Err(Failure::no_device(&thing)) };
    if plane.records.device(name.clone()).await?.is_none() {
        return Err(Failure::no_device(&thing));
    }
    stream(session, plane, What::Device(name, Seen::default()))
}

pub(super) async fn rollout(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    stream(session, plane, What::Rollout(rollouts::number(&id)?))
}

fn stream(session: Session, plane: Arc<Plane>, what: What) -> Result<Response, Failure> {
    let device = match &what {
        What::Device(thing, _) => Some(thing.as_str()),
        What::Overview | What::Rollout(_) => None,
    };
    let watcher = plane.arrivals.watch(device).ok_or_else(Failure::too_many_watch)?;
    let live = Live {
        shutdown: plane.shutdown.clone(),
        plane,
        session,
        watcher,
        what,
        sent: String::new(),
        is_first: true,
        waiting: VecDeque::from([Event::default().retry(RETRY)]),
        over: false,
        asked: None,
    };
    let events = unfold(live, |mut live| async {
        let event = live.next().await?;
        Some((Ok::<_, Infallible>(event), live))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

impl Live {
    /// The next event, when there is one. `None` at shutdown, and after the last.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            if !self.is_first {
                let look = Instant::now() + LOOK;
                tokio::select! {
                    () = stopping(&mut self.shutdown) => return None,
                    () = self.watcher.changed() => sleep(SPACING).await,
                    () = sleep_until(look) => {}
                }
            }
            match self.look().await {
                Ok(()) => {}
                // Whoever watches sees the connection end, and comes back by himself.
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a page's live part could not be read");
                    return None;
                }
            }
            self.is_first = false;
        }
    }

    async fn look(&mut self) -> Result<(), CloudError> {
        if !self.session.lasts(&self.plane).await? {
            self.over = true;
            self.waiting.extend(event("end", "", html! {}));
            return Ok(());
        }
        let (id, part) = match &mut self.what {
            What::Overview => ("tiles", glance(&self.plane).await?),
            What::Rollout(id) => ("rollout", rollouts::live(&self.plane, *id).await?.unwrap_or_default()),
            What::Device(thing, seen) => {
                if self.asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                    self.plane.uplink.ask(thing, Ask::Logs { level: LogLevel::Info, for_s: LEASE_S });
                    self.asked = Some(Instant::now());
                }
                let tail = self.plane.records.tail(thing.clone(), std::mem::take(seen), LINES).await?;
                *seen = tail.seen;
                // The first ones replace what the page came with, in which something may be missing by now.
                let kind = if self.is_first { "part" } else { "rows" };
                if self.is_first || !tail.arrivals.is_empty() {
                    let cut = tail.cut && !self.is_first;
                    let rows = html! {
                        (lines(&tail.arrivals))
                        @if cut { li.gap { "More came at once than is shown here: see the results." } }
                    };
                    self.waiting.extend(event(kind, "tail", rows));
                }
                let device = self.plane.records.device(thing.clone()).await?;
                let now = (self.plane.clock)();
                ("state", device.map(|device| vitals(&self.plane, &device, now)).unwrap_or_default())
            }
        };
        let part: String = part.into_string();
        if part != self.sent {
            self.waiting.extend(event("part", id, maud::PreEscaped(part.clone())));
            self.sent = part;
        }
        Ok(())
    }
}

/// As JSON, so that whatever a device has written fits into the lines of an event.
fn event(kind: &str, id: &str, contents: Markup) -> Option<Event> {
    Event::default().event(kind).json_data(json!({ "id": id, "html": contents.into_string() })).ok()
}
