//! The devices, as a table.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use holm_protocol::{GroupName, Reported, ThingName};
use maud::{Markup, html};

use super::failure::Failure;
use super::frame::{Place, frame};
use super::session::Session;
use super::shown::{Mood, ago, count, job, state};
use crate::CloudError;
use crate::api::fields::{Fields, encode};
use crate::plane::Plane;
use crate::records::{Device, DeviceStatus, Sought};

/// Devices on a page.
const PAGE: usize = 50;

/// Devices that are read at once while those in a state are sought.
const READ: usize = 500;

/// What may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filter {
    Online,
    Offline,
    /// Revoked or replaced.
    Ended,
}

const FILTERS: [(&str, Filter); 3] =
    [("online", Filter::Online), ("offline", Filter::Offline), ("ended", Filter::Ended)];

/// `?q=&group=&state=&after=`.
pub(super) async fn page(
    session: Session,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let mut fields = Fields::of_query(query.as_deref());
    let given = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let text = given(fields.parse("q"));
    let group = given(fields.parse("group"));
    let group = group.map(|name| GroupName::new(&name)).transpose().map_err(crate::api::problem::Problem::from)?;
    let group = group.map(|name| name.to_string());
    let word = given(fields.parse("state"));
    let filter =
        word.as_ref().and_then(|word| FILTERS.iter().find(|(known, _)| known == word)).map(|(_, filter)| *filter);
    if let (Some(word), None) = (&word, filter) {
        fields.problem(format!("state: {word} is none of online, offline, ended"));
    }
    let after: Option<ThingName> = fields.parse("after");
    fields.finish()?;
    let after = after.map(|name| name.to_string()).unwrap_or_default();
    let sought = Sought { text: text.clone(), group: group.clone(), after, limit: READ };
    let (devices, next) = find(&plane, sought, filter).await?;
    let groups = plane.records.groups().await?;
    let is_filtered = text.is_some() || group.is_some() || filter.is_some();
    let body = html! {
        h1 { "Fleet" }
        form.filters method="get" action="/fleet" role="search" {
            div { label for="q" { "Name" } input #q type="search" name="q" value=[&text] placeholder="part of a name"; }
            div {
                label for="group" { "Group" }
                select #group name="group" {
                    option value="" { "any" }
                    @for (name, size) in &groups {
                        option value=(name) selected[group.as_ref() == Some(name)] { (name) " (" (count(*size)) ")" }
                    }
                }
            }
            div {
                label for="state" { "State" }
                select #state name="state" {
                    option value="" { "any" }
                    @for (name, known) in FILTERS { option value=(name) selected[filter == Some(known)] { (name) } }
                }
            }
            button { "Show" }
        }
        @if devices.is_empty() {
            p.empty {
                @if is_filtered { "No device is like that. " a href="/fleet" { "Show all" } }
                @else { "There is no device yet. " a href="/enrol" { "Enrol the first one" } "." }
            }
        } @else {
            div.wide { table.stack {
                caption.hidden { "Devices by name" }
                thead { tr {
                    th { "Device" } th { "State" } th { "Groups" } th { "Functions" } th { "Deployment" }
                    th.number { "Backlog" } th { "Agent" } th { "Last heard of" }
                } }
                tbody { @for device in &devices { (row(&plane, device, now)) } }
            } }
        }
        @if let Some(next) = next {
            @let pairs = [("q", &text), ("group", &group), ("state", &word)];
            @let kept: String = pairs.iter().filter_map(|(name, value)| Some(format!("&{name}={}", encode(value.as_ref()?)))).collect();
            nav aria-label="More devices" { a.button href={ "/fleet?after=" (encode(&next)) (kept) } rel="next" { "Next page" } }
        }
    };
    Ok(frame(&session, Place::Fleet, "Fleet", body))
}

/// A page of devices in a state, and the name after which the next one begins. Who is connected is not in the database, so it
/// is read until a page is full.
async fn find(
    plane: &Plane,
    mut sought: Sought,
    filter: Option<Filter>,
) -> Result<(Vec<Device>, Option<String>), CloudError> {
    let mut found = Vec::new();
    loop {
        let devices = plane.records.seek(sought.clone()).await?;
        let is_last = devices.len() < sought.limit;
        for device in devices {
            sought.after.clone_from(&device.thing);
            let fits = filter.is_none_or(|filter| filter == of(plane, &device));
            if fits && found.len() == PAGE {
                let last = found.last().map(|device: &Device| device.thing.clone());
                return Ok((found, last));
            }
            if fits {
                found.push(device);
            }
        }
        if is_last {
            return Ok((found, None));
        }
    }
}

fn of(plane: &Plane, device: &Device) -> Filter {
    match device.status {
        DeviceStatus::Active if plane.bus.is_connected(&device.thing) => Filter::Online,
        DeviceStatus::Active => Filter::Offline,
        DeviceStatus::Replaced | DeviceStatus::Revoked => Filter::Ended,
    }
}

/// Whether a device is there, in words.
pub(super) fn presence(plane: &Plane, device: &Device) -> Markup {
    match of(plane, device) {
        Filter::Online => state(Mood::Good, "online"),
        Filter::Offline => state(Mood::Bad, "offline"),
        Filter::Ended => state(Mood::Quiet, device.status.as_str()),
    }
}

/// What a device said last, if this release can read it.
pub(super) fn reported(device: &Device) -> Option<Reported> {
    serde_json::from_str(device.reported.as_ref()?.get()).ok()
}

fn row(plane: &Plane, device: &Device, now: holm_core::Timestamp) -> Markup {
    let reported = reported(device);
    let health = reported.as_ref().map(|reported| &reported.health);
    html! { tr {
        td data-name="Device" { a href={ "/devices/" (device.thing) } { (device.thing) } }
        td data-name="State" { (presence(plane, device)) }
        td data-name="Groups" { (device.groups.join(", ")) }
        td data-name="Functions" {
            @match &reported {
                Some(reported) if !reported.functions.is_empty() => {
                    @for (index, function) in reported.functions.iter().take(3).enumerate() {
                        @if index > 0 { ", " }
                        span.nowrap { (function.name) " " (function.version) }
                    }
                    @let more = reported.functions.len().saturating_sub(3) + reported.functions_omitted;
                    @if more > 0 { " and " (more) " more" }
                }
                Some(_) => { "none" }
                None => { "–" }
            }
        }
        td data-name="Deployment" { @match &device.job { Some((_, _, status)) => (job(status)), None => { "–" } } }
        td.number data-name="Backlog" { @match health { Some(health) => (count(health.backlog)), None => { "–" } } }
        td data-name="Agent" { (device.agent.version) }
        td data-name="Last heard of" {
            @if of(plane, device) == Filter::Online { "now" } @else { (ago(device.seen, now)) }
        }
    } }
}
