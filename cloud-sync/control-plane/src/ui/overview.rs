//! The fleet at a glance.

use std::sync::Arc;

use axum::extract::State as Shared;
use maud::{Markup, html};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::failure::Failure;
use super::frame::{Place, frame};
use super::live::LOOK;
use super::rollouts::table;
use super::session::Session;
use super::shown::{ago, count, counted, job, payload};
use crate::CloudError;
use crate::plane::Plane;
use crate::records::RolloutOverview;
use crate::rollouts::State;

/// Series on the page.
const SERIES: usize = 8;

/// Characters of a value.
const VALUE: usize = 60;

pub(super) async fn page(session: Session, Shared(plane): Shared<Arc<Plane>>) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let (tiles, failed, series) =
        (tiles(&plane).await?, plane.records.failed().await?, plane.records.series(None).await?);
    let rollouts = under_way(&plane).await?;
    let body = html! {
        h1 { "Overview" }
        div data-live="/live/overview" {
            div #tiles .tiles { (tiles) }
            p.live role="status" data-live-state="" {}
        }
        @if !rollouts.is_empty() {
            section aria-labelledby="rollouts" {
                h2 #rollouts { "Rollouts under way" }
                (table(&rollouts, now))
            }
        }
        section aria-labelledby="failed" {
            h2 #failed { "Deployments that did not end well" }
            @if failed.is_empty() {
                p.empty { "None: the last deployment of every device is confirmed or on its way." }
            } @else {
                div.wide { table.stack {
                    thead { tr { th { "Device" } th { "State" } th { "Why" } th { "When" } } }
                    tbody { @for failed in &failed { tr {
                        td data-name="Device" { a href={ "/devices/" (failed.thing) } { (failed.thing) } }
                        td data-name="State" { (job(&failed.status)) }
                        td data-name="Why" { (why(&failed.details)) }
                        td data-name="When" { (ago(failed.updated, now)) }
                    } } }
                } }
            }
        }
        section aria-labelledby="results" {
            h2 #results { "Latest results" }
            @if series.is_empty() {
                p.empty {
                    "Nothing has come yet. Functions record results; devices send them here when they are connected. "
                    a href="/enrol" { "Enrol a device" } " to begin."
                }
            } @else {
                div.wide { table.stack {
                    thead { tr { th { "Series" } th { "Last value" } th { "Device" } th { "When" } } }
                    tbody { @for series in series.iter().take(SERIES) { tr {
                        td data-name="Series" { a href={ "/results?series=" (series.name) } { (series.name) } }
                        td.value data-name="Last value" { (payload(&series.value, VALUE)) }
                        td data-name="Device" { a href={ "/devices/" (series.thing) } { (series.thing) } }
                        td data-name="When" { (ago(series.last, now)) }
                    } } }
                } }
                @if series.len() > SERIES {
                    p { a href="/results" { "All " (series.len()) " series" } }
                }
            }
        }
    };
    Ok(frame(&session, Place::Overview, "Overview", body))
}

async fn under_way(plane: &Plane) -> Result<Vec<RolloutOverview>, CloudError> {
    let mut found = Vec::new();
    for state in [State::Running, State::Paused, State::Aborting] {
        found.extend(plane.records.rollouts(Some(state), None, None, SERIES).await?);
    }
    Ok(found)
}

/// The tiles as they were made last, for all who watch: adding up the fleet costs the same for one and for many.
#[derive(Default)]
pub(crate) struct Glance(Mutex<Option<(Instant, Markup)>>);

/// The part that is live, no older than [`LOOK`].
pub(super) async fn glance(plane: &Plane) -> Result<Markup, CloudError> {
    // Held while it is made, so that it is made once. Cancel safe: who gives up leaves the old one.
    let mut last = plane.glance.0.lock().await;
    if let Some((made, tiles)) = &*last
        && made.elapsed() < LOOK
    {
        return Ok(tiles.clone());
    }
    let tiles = tiles(plane).await?;
    *last = Some((Instant::now(), tiles.clone()));
    Ok(tiles)
}

async fn tiles(plane: &Plane) -> Result<Markup, CloudError> {
    let sums = plane.records.sums().await?;
    let online = u64::try_from(plane.bus.connected()).unwrap_or(u64::MAX).min(sums.devices);
    let offline = sums.devices - online;
    Ok(html! {
        a.tile href="/fleet?state=online" { span.figure { (count(online)) } span { "online" } }
        a.tile.bad[offline > 0] href="/fleet?state=offline" { span.figure { (count(offline)) } span { "offline" } }
        div.tile { span.figure { (count(sums.backlog)) } span { "records wait on devices" } }
        div.tile.bad[sums.dropped > 0] { span.figure { (count(sums.dropped)) } span { "records dropped" } }
        div.tile.bad[sums.faults > 0] {
            span.figure { (count(sums.faults)) }
            span { "failures in " (counted(sums.invocations, "invocation", "invocations")) }
        }
        div.tile.bad[sums.dead_letters > 0] { span.figure { (count(sums.dead_letters)) } span { "dead letters" } }
    })
}

/// What a device said of a deployment: its reason as a sentence, and its message.
pub(super) fn why(details: &std::collections::BTreeMap<String, String>) -> Markup {
    let reason = details.get("reason").map(|code| holm_protocol::ReasonCode::parse(code));
    let message = details.get("message").filter(|text| !text.is_empty());
    html! {
        @if let Some(reason) = &reason { (reason.explanation()) }
        @if let Some(message) = message {
            @if reason.is_some() { ": " }
            (message)
        }
        @if reason.is_none() && message.is_none() { "–" }
    }
}
