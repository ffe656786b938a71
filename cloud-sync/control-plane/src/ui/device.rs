//! One device: what it shall run and what it runs, how it is, and what comes from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Redirect;
use holm_core::{LogLevel, Timestamp};
use holm_protocol::{DesiredFunction, DesiredState, Envelope, FunctionState, LogRecord, Reported, ThingName};
use maud::{Markup, html};

use super::failure::Failure;
use super::fleet::{presence, reported};
use super::frame::{Place, frame, proof};
use super::letters::left;
use super::overview::why;
use super::session::{Form, Session};
use super::shown::{Mood, ago, bytes, clock, count, counted, job, moment, payload, span, state};
use crate::plane::Plane;
use crate::records::{Arrival, Arrived, Device, DeviceStatus, Seen};

/// Lines of the live tail that a page begins with.
pub(super) const LINES: usize = 50;

/// Characters of a value in the tail.
const VALUE: usize = 2_000;

/// So many days before its end, a certificate is told of. Devices renew at two thirds of its life.
const SOON: i64 = 30 * 86_400_000;

pub(super) async fn page(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Markup, Failure> {
    let (name, device) = find(&plane, &thing).await?;
    let now = (plane.clock)();
    let (jobs, document) = plane.records.jobs(name.clone()).await?;
    let certificates = plane.records.certificates(name.clone()).await?;
    let series = plane.records.series(Some(device.thing.clone())).await?;
    let tail = plane.records.tail(name, Seen::default(), LINES).await?;
    let desired = document.and_then(|text| DesiredState::read(&Envelope::read(&text).ok()?).ok());
    let path = format!("/devices/{}", device.thing);
    let body = html! {
        p.crumb { a href="/fleet" { "Fleet" } }
        div data-live={ "/live" (path) } {
            div #state { (vitals(&plane, &device, now)) }
            section aria-labelledby="tail-title" {
                div.title {
                    h2 #tail-title { "What comes from it" }
                    p.live role="status" data-live-state="" {}
                    button.quiet type="button" data-live-pause="" hidden { "Pause" }
                }
                ol #tail .tail role="log" aria-live="off" aria-labelledby="tail-title" tabindex="0" {
                    (lines(&tail.arrivals))
                }
                p.help { "Results and logs as they are stored here, the latest first; times by the device’s clock, in UTC. It sends its functions’ logs while somebody looks here." }
            }
        }
        section aria-labelledby="functions" {
            h2 #functions { "Functions" }
            (functions(desired.as_ref(), reported(&device).as_ref()))
        }
        @if !series.is_empty() {
            section aria-labelledby="series" {
                h2 #series { "Series" }
                ul.plain { @for series in &series { li {
                    a href={ "/results?series=" (series.name) "&device=" (device.thing) } { (series.name) }
                    " " span.value { (payload(&series.value, 40)) } " " span.dim { (ago(series.last, now)) }
                } } }
            }
        }
        section aria-labelledby="deployments" {
            h2 #deployments { "Deployments" }
            @if jobs.is_empty() {
                p.empty { "None yet: " code { "holm deploy FUNCTION@VERSION --device " (device.thing) } }
            } @else {
                div.wide { table.stack {
                    thead { tr { th { "Generation" } th { "State" } th { "Phase" } th { "Why" } th { "Queued" } th { "Changed" } } }
                    tbody { @for found in &jobs { tr {
                        td data-name="Generation" { (found.generation) }
                        td data-name="State" { (job(&found.status)) }
                        td data-name="Phase" { (found.details.get("phase").map_or("–", String::as_str)) }
                        td data-name="Why" { (why(&found.details)) }
                        td data-name="Queued" { (ago(found.queued, now)) }
                        td data-name="Changed" { (ago(found.updated, now)) }
                    } } }
                } }
            }
        }
        section aria-labelledby="certificates" {
            h2 #certificates { "Certificates" }
            div.wide { table.stack {
                thead { tr { th { "Serial" } th { "Issued" } th { "Age" } th { "Expires" } th { "State" } } }
                tbody { @for found in &certificates { tr {
                    td data-name="Serial" { code { (serial(&found.serial)) } }
                    td data-name="Issued" { (moment(found.issued)) }
                    td data-name="Age" { (span(now.0.saturating_sub(found.issued.0))) }
                    td data-name="Expires" { (ago(found.expires, now)) }
                    td data-name="State" { @match found.ended {
                        Some(_) => { (state(Mood::Quiet, "ended")) }
                        None if found.expires < now => { (state(Mood::Bad, "expired")) }
                        None if found.expires.0.saturating_sub(now.0) < SOON => { (state(Mood::Bad, "expires soon")) }
                        None => { (state(Mood::Good, "good")) }
                    } }
                } } }
            } }
        }
        @if session.is_admin() && device.status == DeviceStatus::Active {
            p { a.button.danger href={ (path) "/revoke" } { "Revoke this device…" } }
        }
    };
    Ok(frame(&session, Place::Fleet, &device.thing, body))
}

async fn find(plane: &Plane, thing: &str) -> Result<(ThingName, Device), Failure> {
    // What cannot be a name is the name of no device.
    let Ok(name) = ThingName::new(thing) else { return Err(Failure::no_device(thing)) };
    let device = plane.records.device(name.clone()).await?.ok_or_else(|| Failure::no_device(thing))?;
    Ok((name, device))
}

/// The part that is live.
pub(super) fn vitals(plane: &Plane, device: &Device, now: Timestamp) -> Markup {
    let reported = reported(device);
    html! {
        div.title { h1 { (device.thing) } (presence(plane, device)) }
        dl.facts {
            (fact("Groups", &html! { @if device.groups.is_empty() { "none" } @else { (device.groups.join(", ")) } }))
            (fact("Agent", &html! { (device.agent.version) " on " (device.agent.arch) ", engine " (device.agent.engine) ", profile " (device.agent.profile) }))
            (fact("Enrolled", &ago(device.enrolled, now)))
            @if !plane.bus.is_connected(&device.thing) { (fact("Last heard of", &ago(device.seen, now))) }
            @let held = plane.bus.held(&device.thing);
            @if held > 0 { (fact("Held up", &html! { (counted(held, "message", "messages")) ", because it sends too fast" })) }
            @if let Some(reported) = &reported {
                @let health = &reported.health;
                (fact("Deployment", &html! { "generation " (reported.generation) ", " (reported.phase.as_str()) }))
                (fact("Backlog", &html! { (counted(health.backlog, "record", "records")) }))
                (fact("Dropped", &html! { (counted(health.dropped, "record", "records")) }))
                (fact("Waiting events", &html! { (count(health.inbox)) }))
                (fact("Dead letters", &html! {
                    @let dead = left(plane, device, health);
                    @if dead == 0 { "0" }
                    @else { a href={ "/devices/" (device.thing) "/dead-letters" } { (count(dead)) } }
                }))
                (fact("Failures", &html! { (count(health.faults)) " in " (counted(health.invocations, "invocation", "invocations")) }))
                (fact("Memory", &html! { (bytes(health.memory_bytes)) }))
                (fact("Free disk", &html! { (bytes(health.disk_free_bytes)) }))
                (fact("Clock", &html! { @if health.clock_synced { "set" } @else { "not known to be right" } }))
                (fact("Up for", &html! { (span(i64::try_from(health.uptime_s).unwrap_or(i64::MAX).saturating_mul(1_000))) }))
            }
        }
        p.help {
            @match device.reported_at {
                Some(time) => { "As it reported " (ago(time, now)) ". It reports when what runs has changed or something has failed, and figures every six hours." }
                None => { "It has not reported anything yet." }
            }
        }
    }
}

fn fact(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// What shall run beside what runs.
fn functions(desired: Option<&DesiredState>, reported: Option<&Reported>) -> Markup {
    let wanted: &[DesiredFunction] = desired.map_or(&[], |state| &state.functions);
    let running = reported.map_or(&[][..], |reported| &reported.functions);
    let names: BTreeSet<_> =
        wanted.iter().map(|function| &function.name).chain(running.iter().map(|f| &f.name)).collect();
    html! {
        @if names.is_empty() {
            p.empty { "It runs none, and shall run none." }
        } @else {
            div.wide { table.stack {
                thead { tr { th { "Function" } th { "Shall run" } th { "Runs" } th { "State" } th { "Digest" } } }
                tbody { @for name in names {
                    @let shall = wanted.iter().find(|function| function.name == *name);
                    @let runs = running.iter().find(|function| function.name == *name);
                    @let differs = shall.map(|function| &function.version) != runs.map(|function| &function.version);
                    tr {
                        td data-name="Function" { a href="/functions" { (name) } }
                        td data-name="Shall run" { @match shall { Some(function) => (function.version), None => { "–" } } }
                        td data-name="Runs" { @match runs { Some(function) => (function.version), None => { "–" } } }
                        td data-name="State" { @match runs {
                            // What was deployed on the device itself is nobody's desired state.
                            Some(_) if desired.is_none() => { (state(Mood::Quiet, "deployed on the device")) }
                            _ if differs => { (state(Mood::Busy, "differs")) }
                            Some(function) => { (health(&function.state)) }
                            None => { "–" }
                        } }
                        td data-name="Digest" {
                            @let digest = runs.map(|f| f.sha256).or(shall.map(|f| f.bundle.sha256));
                            @if let Some(digest) = digest { code title=(digest) { (short(&digest.to_string())) } }
                        }
                    }
                } }
            } }
            @if let Some(more) = reported.map(|reported| reported.functions_omitted).filter(|more| *more > 0) {
                p.help { (more) " more functions run that had no room in its report." }
            }
        }
    }
}

fn health(found: &FunctionState) -> Markup {
    let mood = match found {
        FunctionState::Confirmed | FunctionState::Unexercised => Mood::Good,
        FunctionState::Trial => Mood::Busy,
        _ => Mood::Bad,
    };
    state(mood, if *found == FunctionState::Unexercised { "confirmed, no event yet" } else { found.as_str() })
}

/// Enough of a digest to tell two apart.
pub(super) fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

fn serial(bytes: &[u8]) -> String {
    bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Lines of the tail, the latest first.
pub(super) fn lines(arrivals: &[Arrival]) -> Markup {
    html! { @for arrival in arrivals.iter().rev() { (line(arrival)) } }
}

fn line(arrival: &Arrival) -> Markup {
    if let (Some(function), Arrived::Record(data)) = (arrival.stream.strip_prefix("log"), &arrival.what)
        && let Ok(record) = serde_json::from_slice::<LogRecord>(data)
    {
        return log(arrival.time, function.trim_start_matches('.'), &record);
    }
    let (kind, stream) = match arrival.stream.split_once('.') {
        Some(("result", name)) => ("result", name),
        Some(("log", name)) => ("log", name),
        _ => ("other", arrival.stream.as_str()),
    };
    html! {
        @match &arrival.what {
            Arrived::Record(data) => { li class=(kind) {
                (clock(arrival.time)) span.stream { (stream) } span.value { (payload(data, VALUE)) }
            } }
            Arrived::Gap { count: dropped, reason } => { li.gap {
                (clock(arrival.time)) span.stream { (stream) }
                span.value { (count(*dropped)) " dropped on the device: " (reason) }
            } }
        }
    }
}

fn log(time: Timestamp, function: &str, record: &LogRecord) -> Markup {
    let stream = if function.is_empty() { "functions" } else { function };
    html! {
        @match record {
            LogRecord::Line { level, message, .. } => { li.log.loud[*level >= LogLevel::Warn] {
                (clock(time)) span.stream { (stream) } span.value { (word(*level)) " " (payload(message.as_bytes(), VALUE)) }
            } }
            LogRecord::Gap { gap, reason } => { li.gap {
                (clock(time)) span.stream { (stream) }
                span.value { (count(*gap)) " lines are not here: " @if reason == "rate" { "more than may be sent" } @else { "overwritten on the device" } }
            } }
        }
    }
}

fn word(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warn => "warn",
        LogLevel::Error => "error",
        LogLevel::Critical => "critical",
    }
}

pub(super) async fn ask_revoke(
    session: Session,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Markup, Failure> {
    let (_, device) = find(&plane, &thing).await?;
    let path = format!("/devices/{}", device.thing);
    let body = html! {
        p.crumb { a href="/fleet" { "Fleet" } " / " a href=(path) { (device.thing) } }
        h1 { "Revoke " (device.thing) "?" }
        p { "Its certificates are worth nothing from then on, and its connection ends. What it has sent stays here." }
        p { "This cannot be taken back: to let the device in again, enrol it under another name." }
        form method="post" action={ (path) "/revoke" } {
            (proof(&session))
            button.danger { "Revoke " (device.thing) }
            " " a.button.quiet href=(path) { "Keep it" }
        }
    };
    Ok(frame(&session, Place::Fleet, "Revoke a device", body))
}

pub(super) async fn revoke(
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Form { session, fields }: Form,
) -> Result<Redirect, Failure> {
    fields.finish()?;
    let Ok(name) = ThingName::new(&thing) else { return Err(Failure::no_device(&thing)) };
    crate::api::revoke(&plane, name, session.operator.name).await?;
    Ok(Redirect::to(&format!("/devices/{thing}")))
}
