//! Rollouts: all of them, and one with its stages, its devices and what an admin can do about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, RawQuery, State as Shared};
use axum::response::Redirect;
use holm_core::Timestamp;
use maud::{Markup, html};

use super::failure::{Failure, sentence};
use super::frame::{Place, frame, proof};
use super::session::{Form, Session};
use super::shown::{Mood, ago, clock, counted, span, state};
use crate::CloudError;
use crate::api::fields::Fields;
use crate::plane::Plane;
use crate::records::{Member, Refused, RolloutId, RolloutOverview};
use crate::rollouts::{Standing, State};

/// Rollouts on a page.
const PAGE: usize = 50;

/// Devices of one rollout that are shown; those that somebody should look at come first.
const MEMBERS: usize = 200;

/// Characters of a reason.
const MAX_WHY: usize = 400;

/// `?before=`.
pub(super) async fn list(
    session: Session,
    Shared(plane): Shared<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let mut fields = Fields::of_query(query.as_deref());
    let before: Option<RolloutId> = fields.parse("before");
    fields.finish()?;
    let rollouts = plane.records.rollouts(None, None, before, PAGE).await?;
    let next = rollouts.last().filter(|_| rollouts.len() >= PAGE).map(|rollout| rollout.id);
    let body = html! {
        h1 { "Rollouts" }
        @if rollouts.is_empty() {
            p.empty { "None yet: " code { "holm deploy FUNCTION@VERSION --group GROUP --canary 5%" } }
        } @else { (table(&rollouts, now)) }
        @if let Some(next) = next {
            nav aria-label="Older" { a.button href={ "/rollouts?before=" (next) } rel="next" { "Older" } }
        }
    };
    Ok(frame(&session, Place::Rollouts, "Rollouts", body))
}

/// Rollouts a row each.
pub(super) fn table(rollouts: &[RolloutOverview], now: Timestamp) -> Markup {
    html! {
        div.wide { table.stack {
            thead { tr { th { "Rollout" } th { "State" } th { "Change" } th { "For" } th { "Devices" } th { "Stage" } th { "By" } th { "Begun" } } }
            tbody { @for rollout in rollouts { tr {
                td data-name="Rollout" { a href={ "/rollouts/" (rollout.id) } { (rollout.id) } }
                td data-name="State" { (how(rollout.state)) }
                td data-name="Change" { (rollout.function) " " (rollout.what) }
                td data-name="For" { (rollout.group.as_deref().unwrap_or("devices by name")) }
                td data-name="Devices" { div { (bar(&rollout.counts)) (words(&rollout.counts)) } }
                td data-name="Stage" { (rollout.stage) " of " (rollout.stages.len()) }
                td data-name="By" { (rollout.operator) }
                td data-name="Begun" { (ago(rollout.made, now)) }
            } } }
        } }
    }
}

pub(super) async fn page(
    session: Session,
    Shared(plane): Shared<Arc<Plane>>,
    Path(id): Path<String>,
) -> Result<Markup, Failure> {
    let id = number(&id)?;
    let rollout = plane.records.rollout(id).await?.ok_or(Refused::NoSuchRollout)?;
    let contents = contents(&plane, &rollout).await?;
    let path = format!("/rollouts/{id}");
    let body = html! {
        p.crumb { a href="/rollouts" { "Rollouts" } }
        div data-live={ "/live" (path) } {
            div #rollout { (contents) }
            p.live role="status" data-live-state="" {}
        }
        @if session.is_admin() && rollout.state != State::Aborted { (actions(&session, &rollout, &path)) }
    };
    Ok(frame(&session, Place::Rollouts, &format!("{id}: {}", rollout.function), body))
}

/// The part that is live; `None` if there is no such rollout.
pub(super) async fn live(plane: &Plane, id: RolloutId) -> Result<Option<Markup>, CloudError> {
    match plane.records.rollout(id).await? {
        Some(rollout) => contents(plane, &rollout).await.map(Some),
        None => Ok(None),
    }
}

async fn contents(plane: &Plane, rollout: &RolloutOverview) -> Result<Markup, CloudError> {
    let now = (plane.clock)();
    let mut members = plane.records.rollout_members(rollout.id, None, None, MEMBERS).await?;
    members.sort_by_key(|member| (std::cmp::Reverse(mood(member.standing) == Mood::Bad), member.stage));
    let shown = members.len();
    Ok(html! {
        div.title { h1 { (rollout.function) " " (rollout.what) } (how(rollout.state)) }
        @if let Some(reason) = &rollout.reason { p { (sentence(reason)) } }
        dl.facts {
            div { dt { "For" } dd { (rollout.group.as_deref().unwrap_or("devices by name")) } }
            div { dt { "Devices" } dd { (counted(rollout.devices, "device", "devices")) } }
            div { dt { "Begun" } dd { (ago(rollout.made, now)) " by " (rollout.operator) } }
            @if let Some(why) = &rollout.why { div { dt { "Why" } dd { (why) } } }
            @if let Some(until) = rollout.soaks_until.filter(|until| *until > now) {
                div { dt { "Watched for" } dd { (span(until.0.saturating_sub(now.0))) " more" } }
            }
            (gauge(rollout))
        }
        h2 { "Stages" }
        div.wide { table.stack {
            thead { tr { th { "Stage" } th { "Reaches" } th { "Devices" } th { "How they stand" } } }
            tbody { @for (index, stage) in rollout.stages.iter().enumerate() {
                @let is_now = index + 1 == rollout.stage && matches!(rollout.state, State::Running | State::Paused);
                tr aria-current=[is_now.then_some("step")] {
                    td data-name="Stage" { (index + 1) @if is_now { " (now)" } }
                    td data-name="Reaches" { (stage.select) }
                    td data-name="Devices" { (stage.devices) }
                    td data-name="How they stand" { div { (bar(&stage.counts)) (words(&stage.counts)) } }
                }
            } }
        } }
        h2 { "Devices" }
        div.wide { table.stack {
            thead { tr { th { "Device" } th { "Stands" } th { "Stage" } th { "From" } th { "To" } th { "Phase" } th { "Why" } th { "Changed" } } }
            tbody { @for member in &members { (row(plane, member, now)) } }
        } }
        @if shown >= MEMBERS { p.help { "The first " (shown) " by name: " code { "holm rollout show " (rollout.id) } " lists all." } }
        @if !rollout.events.is_empty() {
            h2 { "What happened" }
            ol.tail.events tabindex="0" { @for event in rollout.events.iter().rev() { li { (clock(event.time)) span { (event.text) } } } }
        }
    })
}

fn row(plane: &Plane, member: &Member, now: Timestamp) -> Markup {
    let reason = member.reason.as_deref().map(holm_protocol::ReasonCode::parse);
    html! { tr {
        td data-name="Device" { a href={ "/devices/" (member.thing) } { (member.thing) } }
        td data-name="Stands" {
            (state(mood(member.standing), member.standing.as_str()))
            @if !plane.bus.is_connected(&member.thing) { " " span.dim { "offline" } }
        }
        td data-name="Stage" { (member.stage) }
        td data-name="From" { (member.before.as_deref().unwrap_or("–")) }
        td data-name="To" { (member.wanted.as_deref().unwrap_or("–")) }
        td data-name="Phase" { (member.phase.as_deref().unwrap_or("–")) }
        td data-name="Why" {
            @match (&reason, &member.message) {
                (Some(reason), Some(message)) => { (reason.explanation()) ": " (message) }
                (Some(reason), None) => { (reason.explanation()) }
                (None, Some(message)) => { (message) }
                (None, None) => { "–" }
            }
        }
        td data-name="Changed" { (ago(member.updated, now)) }
    } }
}

/// What ends it, and how near that is.
fn gauge(rollout: &RolloutOverview) -> Markup {
    let of = |standings: &[Standing]| -> u64 { standings.iter().filter_map(|how| rollout.counts.get(how)).sum() };
    let failed = of(&[Standing::Failed, Standing::TimedOut]);
    let reported = failed + of(&[Standing::Confirmed]);
    let plan = &rollout.plan;
    html! {
        div { dt { "Goes back by itself" } dd {
            "at " (plan.abort_percent) " % of at least " (plan.abort_min) " that reported, or below " (plan.success_percent)
            " % of a stage; now " (failed) " of " (reported) " failed"
        } }
        div { dt { "A device has failed, too" } dd {
            "at " (plan.fault_percent) " % faults of at least " (plan.fault_min) " invocations since it confirmed"
        } }
        @if let Some(window) = plan.window { div { dt { "Updates begin" } dd { (window) " UTC" } } }
    }
}

fn actions(session: &Session, rollout: &RolloutOverview, path: &str) -> Markup {
    let button = |verb: &str, text: &str| {
        html! { form method="post" action={ (path) "/" (verb) } { (proof(session)) button.quiet { (text) } } }
    };
    html! {
        section.actions aria-label="What you can do" {
            @match rollout.state {
                State::Running => (button("pause", "Pause")),
                State::Paused => (button("resume", "Go on")),
                _ => {}
            }
            @if !matches!(rollout.state, State::Aborting | State::Aborted) {
                form.filters method="post" action={ (path) "/abort" } {
                    (proof(session))
                    div { label for="why" { "Why" } input #why name="why" maxlength=(MAX_WHY) autocomplete="off"; }
                    button.danger { "Abort and roll back" }
                }
            }
        }
    }
}

/// `pause`, `resume` or `abort`, with `why`.
pub(super) async fn turn(
    Shared(plane): Shared<Arc<Plane>>,
    Path((id, verb)): Path<(String, String)>,
    Form { session, mut fields }: Form,
) -> Result<Redirect, Failure> {
    let to = match verb.as_str() {
        "pause" => State::Paused,
        "resume" => State::Running,
        "abort" => State::Aborting,
        _ => return Err(Failure::nothing_here("page")),
    };
    let id = number(&id)?;
    let why: Option<String> = fields.parse("why");
    let why = why.map(|why| why.trim().to_owned()).filter(|why| !why.is_empty());
    if why.as_ref().is_some_and(|why| why.chars().count() > MAX_WHY) {
        fields.problem(format!("the reason is longer than {MAX_WHY} characters"));
    }
    fields.finish()?;
    plane.records.turn_rollout(id, to, why, session.operator.name, (plane.clock)()).await??;
    plane.rollouts.wake();
    Ok(Redirect::to(&format!("/rollouts/{id}")))
}

/// From the address of a page.
pub(super) fn number(id: &str) -> Result<RolloutId, Failure> {
    id.parse().map_err(|_| Failure::from(Refused::NoSuchRollout).next("/rollouts", "All rollouts"))
}

fn how(found: State) -> Markup {
    let mood = match found {
        State::Running | State::Aborting => Mood::Busy,
        State::Paused => Mood::Quiet,
        State::Aborted => Mood::Bad,
        State::Completed => Mood::Good,
    };
    state(mood, found.as_str())
}

fn mood(standing: Standing) -> Mood {
    match standing {
        Standing::Confirmed => Mood::Good,
        Standing::Queued | Standing::Working | Standing::Undoing => Mood::Busy,
        Standing::Failed | Standing::TimedOut | Standing::Stuck => Mood::Bad,
        _ => Mood::Quiet,
    }
}

/// The devices as a bar: a picture of what the words beside it say.
fn bar(counts: &BTreeMap<Standing, u64>) -> Markup {
    let all: u64 = counts.values().sum();
    let mut at = 0;
    let mut parts = Vec::new();
    for (standing, count) in counts {
        // Thousandths, so that rounding leaves no gap.
        let (from, to) = (at * 1_000 / all.max(1), (at + count) * 1_000 / all.max(1));
        at += count;
        let class = match (mood(*standing), standing) {
            (Mood::Good, _) => "good",
            (Mood::Busy, _) => "busy",
            (Mood::Bad, _) => "bad",
            (Mood::Quiet, Standing::Waiting) => "waiting",
            (Mood::Quiet, _) => "quiet",
        };
        parts.push((class, from, to - from));
    }
    html! {
        svg.bar-of viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            @for (class, from, length) in parts { rect class=(class) x=(from) y="0" width=(length) height="10" {} }
        }
    }
}

fn words(counts: &BTreeMap<Standing, u64>) -> Markup {
    let parts: Vec<String> = counts.iter().map(|(standing, count)| format!("{count} {}", standing.as_str())).collect();
    html! { span.dim { @if parts.is_empty() { "none" } @else { (parts.join(", ")) } } }
}
