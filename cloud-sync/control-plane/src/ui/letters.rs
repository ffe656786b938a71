//! Dead letters: which devices have some, what they say of them, and what admins have them do. The letters are on the devices; what was in one
//! comes here when an admin opens it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Redirect;
use holm_core::{FunctionName, Timestamp};
use holm_protocol::{Ask, DEAD_LETTER_STREAM, Health, LetterWay, MOVED_STREAM, MovedLetters, ThingName};
use maud::{Markup, html};
use serde_json::Value;

use super::failure::Failure;
use super::fleet::{presence, reported};
use super::frame::{Place, frame, proof};
use super::session::{Form, Session};
use super::shown::{ago, bytes, count, counted, moment, payload};
use crate::api::letters::{Errand, look, run};
use crate::asks;
use crate::plane::Plane;
use crate::records::{Device, DeviceStatus};

/// How long a page waits for a device that is there.
const PATIENCE: Duration = Duration::from_secs(4);

/// Devices that are looked through.
const MOST: usize = 10_000;

/// Devices on the page.
const SHOWN: usize = 200;

/// Errands that are shown with what became of them.
const LATELY: usize = 5;

/// Numbers of letters in one of those.
const NUMBERS: usize = 20;

/// Characters of what was in a letter: a device tells no more.
const DATA: usize = 64 << 10;

pub(super) async fn page(session: Session, State(plane): State<Arc<Plane>>) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let devices = plane.records.devices(None, Some(DeviceStatus::Active), None, MOST).await?;
    let mut found: Vec<(u64, Device)> = devices
        .into_iter()
        .filter_map(|device| Some((left(&plane, &device, &reported(&device)?.health), device)))
        .filter(|(letters, _)| *letters > 0)
        .collect();
    found.sort_by(|(a, one), (b, other)| b.cmp(a).then(one.thing.cmp(&other.thing)));
    let body = html! {
        h1 { "Dead letters" }
        p.help { "Events that no attempt could handle, as devices last said. They report figures every six hours, and sooner when something has failed." }
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

/// How many a device has, as it said last.
pub(super) fn left(plane: &Plane, device: &Device, health: &Health) -> u64 {
    plane.left.since(&device.thing, device.reported_at).unwrap_or(health.dead_letters)
}

async fn find(plane: &Plane, thing: &str) -> Result<(ThingName, Device), Failure> {
    let Ok(name) = ThingName::new(thing) else { return Err(Failure::no_device(thing)) };
    let device = plane.records.device(name.clone()).await?.ok_or_else(|| Failure::no_device(thing))?;
    Ok((name, device))
}

/// Asks the device if it is there. To look at the list changes nothing on it.
pub(super) async fn of_device(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Markup, Failure> {
    let (name, device) = find(&plane, &thing).await?;
    let now = (plane.clock)();
    let asked = asks::answer(&plane, &name, DEAD_LETTER_STREAM, |id| Ask::DeadLetters { id }, PATIENCE).await?;
    let last = asks::latest(&plane, &name, DEAD_LETTER_STREAM, 1).await?.pop();
    let lately = asks::latest(&plane, &name, MOVED_STREAM, LATELY).await?;
    // What a device said some time ago is nothing to act on.
    let hands = session.is_admin().then_some(&session).filter(|_| asked.is_some());
    let body = html! {
        p.crumb { a href="/dead-letters" { "Dead letters" } " / " a href={ "/devices/" (device.thing) } { (device.thing) } }
        div.title { h1 { "Dead letters of " (device.thing) } (presence(&plane, &device)) }
        @match asked.as_ref().map(|answer| (now, answer)).or(last.as_ref().map(|(time, answer)| (*time, answer))) {
            None => p.empty { "It has not told of any: it may be away, or its configuration says no." },
            Some((time, answer)) => {
                @if asked.is_none() { p.help { "As it told " (ago(time, now)) "; it does not answer now, so nothing can be done about them." } }
                (list(answer, &path(&device), hands, now))
            }
        }
        (moved(&lately, now))
        p.help {
            "On the device, " code { "holm dlq show ID" } " shows one, " code { "holm dlq replay ID" }
            " hands it to its function again, and " code { "holm dlq drop ID" } " forgets it; with " code { "--device " (device.thing) }
            " from anywhere."
            @if !session.is_admin() { " You are a viewer: admins replay and drop them." }
        }
    };
    Ok(frame(&session, Place::Letters, "Dead letters", body))
}

fn path(device: &Device) -> String {
    format!("/devices/{}/dead-letters", device.thing)
}

fn text(letter: &Value, name: &str) -> String {
    match letter.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn time(letter: &Value, name: &str) -> Option<Timestamp> {
    letter.get(name).and_then(Value::as_i64).map(Timestamp)
}

fn list(answer: &Value, path: &str, hands: Option<&Session>, now: Timestamp) -> Markup {
    let letters = answer.get("letters").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let left = answer.get("left").and_then(Value::as_u64);
    let shown = u64::try_from(letters.len()).unwrap_or(0);
    html! {
        @if letters.is_empty() {
            p.empty { "It has none." }
        } @else {
            p.help {
                "The last " (counted(shown, "one", "ones"))
                @if let Some(left) = left.filter(|left| *left > shown) { " of " (count(left)) } ", the latest first."
            }
            div.wide { table.stack {
                thead { tr {
                    th { "Id" } th { "Function" } th { "Event" } th { "Why" } th.number { "Attempts" } th.number { "Bytes" } th { "Buried" } th { "Kept until" }
                    @if hands.is_some() { th { "What to do" } }
                } }
                tbody { @for letter in letters { tr {
                    @let id = text(letter, "letter");
                    td data-name="Id" {
                        @if hands.is_some() { a href={ (path) "/" (id) } { (id) } } @else { (id) }
                    }
                    td data-name="Function" { (text(letter, "function")) }
                    td data-name="Event" { (text(letter, "source")) " " (text(letter, "subject")) }
                    td data-name="Why" { (text(letter, "kind")) ": " (text(letter, "fault")) }
                    td.number data-name="Attempts" { (text(letter, "attempts")) }
                    td.number data-name="Bytes" { (text(letter, "bytes")) }
                    td data-name="Buried" { @if let Some(time) = time(letter, "buried") { (ago(time, now)) } }
                    td data-name="Kept until" { @if let Some(time) = time(letter, "expires") { (moment(time)) } }
                    @if let Some(session) = hands { td data-name="What to do" { div.deeds {
                        (replay(session, path, &id))
                        " " a.button.quiet href={ (path) "/" (id) } aria-label={ "Look at dead letter " (id) } { "Look…" }
                    } } }
                } } }
            } }
            @if let Some(session) = hands { (all_of(letters, path, session)) }
        }
    }
}

fn replay(session: &Session, path: &str, id: &str) -> Markup {
    html! { form method="post" action={ (path) "/replay" } {
        (proof(session))
        input type="hidden" name="letter" value=(id);
        button.quiet aria-label={ "Replay dead letter " (id) } { "Replay" }
    } }
}

/// Up to the last one that is listed: what fails again meanwhile is another letter.
fn all_of(letters: &[Value], path: &str, session: &Session) -> Markup {
    let mut functions: BTreeMap<String, usize> = BTreeMap::new();
    for letter in letters {
        *functions.entry(text(letter, "function")).or_default() += 1;
    }
    let until = letters.iter().filter_map(|letter| letter.get("letter")?.as_i64()).max().unwrap_or_default();
    functions.retain(|_, count| *count > 1);
    html! {
        @if !functions.is_empty() {
            section.actions aria-label="What to do with several" {
                @for function in functions.keys() {
                    form method="post" action={ (path) "/replay" } {
                        (proof(session))
                        input type="hidden" name="function" value=(function);
                        input type="hidden" name="until" value=(until);
                        button.quiet { "Replay all of " (function) }
                    }
                }
            }
        }
    }
}

/// What devices did last when they were asked: also what was answered to nobody.
fn moved(lately: &[(Timestamp, Value)], now: Timestamp) -> Markup {
    let read = |(time, answer): &(Timestamp, Value)| Some((*time, serde_json::from_value(answer.clone()).ok()?));
    let lately: Vec<(Timestamp, MovedLetters)> = lately.iter().rev().filter_map(read).collect();
    html! {
        @if !lately.is_empty() {
            section aria-labelledby="lately" {
                h2 #lately { "Done lately from here" }
                ul.plain #moved { @for (time, letters) in &lately { li { (words(letters)) " " span.dim { (ago(*time, now)) } } } }
            }
        }
    }
}

fn words(letters: &MovedLetters) -> String {
    let listed = |ids: &[i64]| {
        let mut words: Vec<String> = ids.iter().take(NUMBERS).map(i64::to_string).collect();
        if ids.len() > NUMBERS {
            words.push(format!("and {} more", ids.len() - NUMBERS));
        }
        words.join(" ")
    };
    if let Some(why) = &letters.declined {
        return format!("Nothing: {why}");
    }
    let verb = match letters.way {
        LetterWay::Replay => "Replayed",
        LetterWay::Drop => "Dropped",
    };
    let mut parts = Vec::new();
    if !letters.done.is_empty() {
        parts.push(format!("{verb} {}", listed(&letters.done)));
    }
    if !letters.gone.is_empty() {
        parts.push(format!("Not there any more: {}", listed(&letters.gone)));
    }
    if letters.more {
        parts.push("There are more".to_owned());
    }
    if parts.is_empty() { format!("{verb} none") } else { parts.join(". ") }
}

/// One whole. Only for admins: what was in it leaves the device for that.
pub(super) async fn one(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path((thing, letter)): Path<(String, String)>,
) -> Result<Markup, Failure> {
    let (_, device) = find(&plane, &thing).await?;
    if !session.is_admin() {
        return Err(Failure::only_admins(&session.operator.name));
    }
    let back = path(&device);
    let Some(id) = letter.parse::<i64>().ok().filter(|id| *id > 0) else {
        return Err(Failure::nothing_here("dead letter").next(back, "All dead letters of it"));
    };
    let answer = look(&plane, &device.thing, id).await;
    let answer = answer.map_err(|problem| Failure::from(problem).next(&*back, "All dead letters of it"))?;
    let now = (plane.clock)();
    let letter = answer.get("letter").cloned().unwrap_or_default();
    let data = match letter.get("data") {
        Some(Value::String(text)) => payload(text.as_bytes(), DATA),
        Some(Value::Array(numbers)) => {
            let bytes: Vec<u8> = numbers.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            payload(&bytes, DATA)
        }
        _ => String::new(),
    };
    let is = |name: &str| answer.get(name).and_then(Value::as_bool).unwrap_or_default();
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let body = html! {
        p.crumb {
            a href="/dead-letters" { "Dead letters" } " / " a href={ "/devices/" (device.thing) } { (device.thing) }
            " / " a href=(back) { "all of it" }
        }
        h1 { "Dead letter " (id) " of " (device.thing) }
        dl.facts {
            (fact("Function", html! { (text(&letter, "function")) }))
            (fact("Event", html! { (text(&letter, "source")) " " (text(&letter, "subject")) }))
            (fact("Event’s id", html! { code { (text(&letter, "event")) } }))
            (fact("Attempts", html! { (text(&letter, "attempts")) }))
            (fact("Size", html! { (bytes(letter.get("bytes").and_then(Value::as_u64).unwrap_or_default())) }))
            (fact("Buried", html! { @if let Some(time) = time(&letter, "buried") { (ago(time, now)) } }))
            (fact("Kept until", html! { @if let Some(time) = time(&letter, "expires") { (moment(time)) } }))
        }
        h2 { "Why" }
        pre tabindex="0" { (text(&letter, "kind")) ": " (text(&letter, "fault")) }
        h2 { "What was in it" }
        @if is("withheld") {
            p.empty { "The device keeps that to itself (" code { "cloud.traps" } ")." }
        } @else {
            pre tabindex="0" { code #data { (data) } }
            @if is("cut") { p.help { "This is its begin; all of it is on the device." } }
        }
        section.actions aria-label="What you can do" {
            (replay(&session, &back, &id.to_string()))
            form method="post" action={ (back) "/drop" } {
                (proof(&session))
                input type="hidden" name="letter" value=(id);
                button.danger { "Drop it for good" }
            }
        }
    };
    Ok(frame(&session, Place::Letters, "Dead letter", body))
}

/// `replay` with `letter`, or with `function` and `until`; `drop` with `letter`.
pub(super) async fn turn(
    State(plane): State<Arc<Plane>>,
    Path((thing, verb)): Path<(String, String)>,
    Form { session, mut fields }: Form,
) -> Result<Redirect, Failure> {
    let (_, device) = find(&plane, &thing).await?;
    let letter = fields.number("letter", 1, i64::MAX);
    let function: Option<FunctionName> = fields.parse("function");
    let until = fields.number("until", 1, i64::MAX);
    let errand = match (verb.as_str(), letter, function, until) {
        ("replay", Some(letter), None, None) => Some(Errand::Replay(vec![letter])),
        ("replay", None, Some(function), Some(until)) => Some(Errand::ReplayFunction(function, until)),
        ("drop", Some(letter), None, None) => Some(Errand::Drop(vec![letter])),
        ("replay" | "drop", ..) => {
            fields.problem("the form does not say which".to_owned());
            None
        }
        _ => return Err(Failure::nothing_here("page")),
    };
    fields.finish()?;
    let back = path(&device);
    if let Some(errand) = errand {
        let done = run(&plane, &device.thing, session.operator, errand).await;
        done.map_err(|problem| Failure::from(problem).next(&*back, "All dead letters of it"))?;
    }
    Ok(Redirect::to(&back))
}
