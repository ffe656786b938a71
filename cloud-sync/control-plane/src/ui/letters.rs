//! Dead letters: which devices have some, and what they say of them. What was in them stays on the device, and so does what becomes of
//! them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use holm_core::Timestamp;
use holm_protocol::{Ask, DEAD_LETTER_STREAM, ThingName};
use maud::{Markup, html};
use serde_json::Value;

use super::failure::Failure;
use super::fleet::{presence, reported};
use super::frame::{Place, frame};
use super::session::Session;
use super::shown::{ago, count, counted, moment};
use crate::asks;
use crate::plane::Plane;
use crate::records::{Device, DeviceStatus};

/// How long a page waits for a device that is there.
const PATIENCE: Duration = Duration::from_secs(4);

/// Devices that are looked through.
const MOST: usize = 10_000;

/// Devices on the page.
const SHOWN: usize = 200;

pub(super) async fn page(session: Session, State(plane): State<Arc<Plane>>) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let devices = plane.records.devices(None, Some(DeviceStatus::Active), None, MOST).await?;
    let mut found: Vec<(u64, Device)> = devices
        .into_iter()
        .filter_map(|device| Some((reported(&device)?.health.dead_letters, device)))
        .filter(|(letters, _)| *letters > 0)
        .collect();
    found.sort_by(|(a, one), (b, other)| b.cmp(a).then(one.thing.cmp(&other.thing)));
    let body = html! {
        h1 { "Dead letters" }
        p.help { "Events that no attempt could handle, as devices last reported. They report figures every six hours, and sooner when something has failed." }
        @if found.is_empty() {
            p.empty { "No device has reported any." }
        } @else {
            div.wide { table.stack {
                thead { tr { th { "Device" } th { "State" } th.number { "Dead letters" } th { "Reported" } } }
                tbody { @for (letters, device) in found.iter().take(SHOWN) { tr {
                    td data-name="Device" { a href={ "/devices/" (device.thing) "/dead-letters" } { (device.thing) } }
                    td data-name="State" { (presence(&plane, device)) }
                    td.number data-name="Dead letters" { (count(*letters)) }
                    td data-name="Reported" { @if let Some(time) = device.reported_at { (ago(time, now)) } }
                } } }
            } }
            @if found.len() > SHOWN { p.help { (found.len() - SHOWN) " more devices have some." } }
        }
    };
    Ok(frame(&session, Place::Letters, "Dead letters", body))
}

/// Asks the device if it is there. To look at the list changes nothing on it.
pub(super) async fn of_device(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Markup, Failure> {
    let Ok(name) = ThingName::new(&thing) else { return Err(Failure::no_device(&thing)) };
    let Some(device) = plane.records.device(name.clone()).await? else { return Err(Failure::no_device(&thing)) };
    let now = (plane.clock)();
    let asked = asks::answer(&plane, &name, DEAD_LETTER_STREAM, |id| Ask::DeadLetters { id }, PATIENCE).await?;
    let is_fresh = asked.is_some();
    let last = asks::latest(&plane, &name, DEAD_LETTER_STREAM, 1).await?.pop();
    let body = html! {
        p.crumb { a href="/dead-letters" { "Dead letters" } " / " a href={ "/devices/" (device.thing) } { (device.thing) } }
        div.title { h1 { "Dead letters of " (device.thing) } (presence(&plane, &device)) }
        @match &last {
            None => p.empty { "It has not told of any: it may be away, or its configuration says no." },
            Some((time, answer)) => {
                @if !is_fresh { p.help { "As it told " (ago(*time, now)) "; it does not answer now." } }
                (list(answer, now))
            }
        }
        p.help {
            "What was in them stays on the device. There, " code { "holm dlq show ID" } " shows one, " code { "holm dlq replay ID" }
            " hands it to its function again, and " code { "holm dlq drop ID" } " forgets it."
        }
    };
    Ok(frame(&session, Place::Letters, "Dead letters", body))
}

fn list(answer: &Value, now: Timestamp) -> Markup {
    let letters = answer.get("letters").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let text = |letter: &Value, name: &str| match letter.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let time = |letter: &Value, name: &str| letter.get(name).and_then(Value::as_i64).map(Timestamp);
    html! {
        @if letters.is_empty() {
            p.empty { "It has none." }
        } @else {
            p.help { "The last " (counted(u64::try_from(letters.len()).unwrap_or(0), "one", "ones")) ", the latest first." }
            div.wide { table.stack {
                thead { tr { th { "Id" } th { "Function" } th { "Event" } th { "Why" } th.number { "Attempts" } th.number { "Bytes" } th { "Buried" } th { "Kept until" } } }
                tbody { @for letter in letters { tr {
                    td data-name="Id" { (text(letter, "letter")) }
                    td data-name="Function" { (text(letter, "function")) }
                    td data-name="Event" { (text(letter, "source")) " " (text(letter, "subject")) }
                    td data-name="Why" { (text(letter, "kind")) ": " (text(letter, "fault")) }
                    td.number data-name="Attempts" { (text(letter, "attempts")) }
                    td.number data-name="Bytes" { (text(letter, "bytes")) }
                    td data-name="Buried" { @if let Some(time) = time(letter, "buried") { (ago(time, now)) } }
                    td data-name="Kept until" { @if let Some(time) = time(letter, "expires") { (moment(time)) } }
                } } }
            } }
        }
    }
}
