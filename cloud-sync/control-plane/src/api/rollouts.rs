//! Rollouts as operators see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holm_core::FunctionName;
use holm_protocol::{ApiErrorCode, Envelope, GroupName, ThingName, UpdateWindow, limits};
use serde_json::{Value, json};

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::{Begin, Begun, Refused, RolloutId, Target, Wish};
use crate::rollouts::{Plan, Standing, State, usual_fault_min, usual_fault_percent};

/// Rollouts in one answer.
const MAX_PAGE: i64 = 1_000;

/// Bytes of the reason that an operator gives.
const MAX_WHY: usize = limits::MAX_CONFIG_VALUE;

/// A number that may be left out: the least, the usual, the most.
type Bounds = (i64, i64, i64);

const SOAK: Bounds = (0, 1_800, 30 * 86_400);
const SUCCESS_PERCENT: Bounds = (0, 95, 100);
const MIN_REPORTED: Bounds = (0, 1, 1_000_000);
const ABORT_PERCENT: Bounds = (1, 5, 100);
const ABORT_MIN: Bounds = (1, 20, 1_000_000);
const QUEUED_TIMEOUT: Bounds = (1, 3_600, 30 * 86_400);
/// Where an update waits for its window, so much longer.
const DAY: i64 = 86_400;

const HEALTH_WINDOW: Bounds = (0, 60, 86_400);
const DEADLINE: Bounds = (1, 3_600, 7 * 86_400);
const FAULT_PERCENT: Bounds = (1, usual_fault_percent() as i64, 100);
const FAULT_MIN: Bounds = (1, usual_fault_min() as i64, 1_000_000);
const RATE: (i64, i64) = (1, 1_000_000);
const PROGRESS_TIMEOUT: (i64, i64) = (1, 30 * 86_400);

/// For what a device does beside its deadline and its window, in seconds: it may be restarted on the way.
const PROGRESS_SLACK: u32 = 600;

/// `{"function", one of "version" with "permit" if need be, "back": true, "config": {name: value or null} and "remove": true,
/// one of "group" and "devices", "stages": ["5%", "100%"], ...}`: see [`Plan`] for the rest, each with its unit in its name. With
/// `"preview": true` it only tells what would be.
pub(super) async fn begin(
    operator: Operator,
    Shared(plane): Shared<Arc<Plane>>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let function: Option<FunctionName> = fields.parse("function");
    if function.is_none() {
        fields.problem("`function` says which one".to_owned());
    }
    let wish = wish(&mut fields);
    let target = target(&mut fields);
    let plan = plan(&mut fields);
    let why = why(&mut fields);
    let preview = fields.flag("preview");
    fields.finish()?;
    let (Some(function), Some(wish), Some(target)) = (function, wish, target) else {
        return Err(Problem::bad_request(Vec::new()));
    };
    let now = (plane.clock)();
    let begin = Begin { function, wish, plan, target, why, operator: operator.name, preview, now };
    let Begun { id, preview } = plane.records.begin_rollout(begin, plane.blobs.clone()).await??;
    plane.rollouts.wake();
    let Some(id) = id else { return Ok(Json(json!({ "preview": preview })).into_response()) };
    tracing::info!(%id, "a rollout begins");
    let rollout = plane.records.rollout(id).await?;
    Ok((StatusCode::CREATED, Json(json!({ "rollout": rollout, "preview": preview }))).into_response())
}

pub(super) fn wish(fields: &mut Fields) -> Option<Wish> {
    let version: Option<String> = fields.parse("version");
    let permit = fields.value("permit").and_then(|value| match serde_json::from_value::<Envelope>(value) {
        Ok(permit) => Some(permit),
        Err(error) => {
            fields.problem(format!("`permit`: {error}"));
            None
        }
    });
    let config = fields.value("config").and_then(|value| match serde_json::from_value(value) {
        Ok(values) => Some::<BTreeMap<String, Option<String>>>(values),
        Err(error) => {
            fields.problem(format!("`config`: {error}: names with texts, or null for the default"));
            None
        }
    });
    if config.as_ref().is_some_and(BTreeMap::is_empty) {
        fields.problem("`config`: there is nothing in it".to_owned());
    }
    let permitted = permit.is_some();
    let given = [
        version.map(|version| Wish::Release { version, permit }),
        fields.flag("back").then_some(Wish::Back),
        config.map(Wish::Config),
        fields.flag("remove").then_some(Wish::Remove),
    ];
    let mut given: Vec<Wish> = given.into_iter().flatten().collect();
    if permitted && !matches!(given.as_slice(), [Wish::Release { .. }]) {
        fields.problem("`permit` goes with `version`".to_owned());
    }
    if given.len() != 1 {
        fields.problem("one of `version`, `back`, `config` and `remove` says what becomes different".to_owned());
    }
    given.pop()
}

fn target(fields: &mut Fields) -> Option<Target> {
    let group: Option<GroupName> = fields.parse("group");
    let devices = fields.texts("devices").map(|names| {
        let mut things: Vec<ThingName> = Vec::new();
        for name in names {
            match ThingName::new(&name) {
                Ok(thing) if things.contains(&thing) => fields.problem(format!("`devices`: {thing} comes twice")),
                Ok(thing) => things.push(thing),
                Err(error) => fields.problem(format!("`devices`: {error}")),
            }
        }
        things
    });
    match (group, devices) {
        (Some(group), None) => Some(Target::Group(group)),
        (None, Some(devices)) if !devices.is_empty() => Some(Target::Devices(devices)),
        _ => {
            fields.problem("one of `group` and `devices` says for whom".to_owned());
            None
        }
    }
}

pub(super) fn plan(fields: &mut Fields) -> Plan {
    let mut stages = Vec::new();
    for text in fields.texts("stages").unwrap_or_default() {
        match text.parse() {
            Ok(stage) => stages.push(stage),
            Err(problem) => fields.problem(format!("`stages`: {problem}")),
        }
    }
    // Within bounds that are far below the type's.
    let narrow = |number: i64| u32::try_from(number).unwrap_or(u32::MAX);
    let window: Option<UpdateWindow> = fields.parse("window");
    let (least, usual, most) = DEADLINE;
    // A day has one window.
    let deadline = (least, if window.is_some() { usual + DAY } else { usual }, most);
    let mut number = |name, (least, usual, most): Bounds| narrow(fields.number(name, least, most).unwrap_or(usual));
    let (soak_s, success_percent) = (number("soak_s", SOAK), number("success_percent", SUCCESS_PERCENT));
    let (min_reported, abort_percent) = (number("min_reported", MIN_REPORTED), number("abort_percent", ABORT_PERCENT));
    let (abort_min, queued_timeout_s) = (number("abort_min", ABORT_MIN), number("queued_timeout_s", QUEUED_TIMEOUT));
    let (health_window_s, deadline_s) = (number("health_window_s", HEALTH_WINDOW), number("deadline_s", deadline));
    let (fault_percent, fault_min) = (number("fault_percent", FAULT_PERCENT), number("fault_min", FAULT_MIN));
    let (least, most) = RATE;
    let rate_per_minute = fields.number("rate_per_minute", least, most).map(narrow);
    let (least, most) = PROGRESS_TIMEOUT;
    let usual = deadline_s.saturating_add(health_window_s).saturating_add(PROGRESS_SLACK);
    let progress_timeout_s = fields.number("progress_timeout_s", least, most).map_or(usual, narrow);
    Plan {
        stages,
        soak_s,
        rate_per_minute,
        success_percent,
        min_reported,
        abort_percent,
        abort_min,
        queued_timeout_s,
        progress_timeout_s,
        health_window_s,
        deadline_s,
        window,
        fault_percent,
        fault_min,
    }
}

pub(super) fn why(fields: &mut Fields) -> Option<String> {
    let why: Option<String> = fields.parse("why");
    if why.as_ref().is_some_and(|why| why.len() > MAX_WHY) {
        fields.problem(format!("`why`: longer than {MAX_WHY} bytes"));
    }
    why.filter(|why| !why.trim().is_empty())
}

/// `?state=&function=&before=&limit=`, the latest first.
pub(super) async fn list(
    _: Operator,
    Shared(plane): Shared<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let state = fields.word("state", &State::words());
    let function: Option<FunctionName> = fields.parse("function");
    let before: Option<RolloutId> = fields.parse("before");
    let limit = usize::try_from(fields.number("limit", 1, MAX_PAGE).unwrap_or(100)).unwrap_or(1);
    fields.finish()?;
    let function = function.map(|name| name.to_string());
    let rollouts = plane.records.rollouts(state, function, before, limit).await?;
    let next = rollouts.last().filter(|_| rollouts.len() >= limit).map(|rollout| rollout.id);
    Ok(Json(json!({ "rollouts": rollouts, "next": next })).into_response())
}

pub(super) async fn show(
    _: Operator,
    Shared(plane): Shared<Arc<Plane>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    shown(&plane, number(&id)?).await
}

/// `?standing=&after=&limit=`, by name.
pub(super) async fn devices(
    _: Operator,
    Shared(plane): Shared<Arc<Plane>>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = number(&id)?;
    let mut fields = Fields::of_query(query.as_deref());
    let standing = fields.word("standing", &Standing::words());
    let after: Option<ThingName> = fields.parse("after");
    let limit = usize::try_from(fields.number("limit", 1, MAX_PAGE).unwrap_or(MAX_PAGE)).unwrap_or(1);
    fields.finish()?;
    if plane.records.rollout(id).await?.is_none() {
        return Err(Refused::NoSuchRollout.into());
    }
    let after = after.map(|name| name.to_string());
    let members = plane.records.rollout_members(id, standing, after, limit).await?;
    let next = members.last().filter(|_| members.len() >= limit).map(|member| member.thing.clone());
    let devices: Vec<Value> = members
        .into_iter()
        .map(|member| {
            let connected = plane.bus.is_connected(&member.thing);
            let mut shown = json!(member);
            if let Some(fields) = shown.as_object_mut() {
                fields.insert("connected".to_owned(), connected.into());
            }
            shown
        })
        .collect();
    Ok(Json(json!({ "devices": devices, "next": next })).into_response())
}

/// `{"why": "..."}`, optional. `pause`, `resume` or `abort`; what is so already is answered like what becomes so.
pub(super) async fn turn(
    operator: Operator,
    Shared(plane): Shared<Arc<Plane>>,
    Path((id, verb)): Path<(String, String)>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let to = match verb.as_str() {
        "pause" => State::Paused,
        "resume" => State::Running,
        "abort" => State::Aborting,
        _ => return Err(Problem::new(ApiErrorCode::NotFound, "a rollout takes `pause`, `resume` and `abort`")),
    };
    let id = number(&id)?;
    let mut fields = Fields::of_json(&body)?;
    let why = why(&mut fields);
    fields.finish()?;
    plane.records.turn_rollout(id, to, why, operator.name, (plane.clock)()).await??;
    plane.rollouts.wake();
    shown(&plane, id).await
}

async fn shown(plane: &Plane, id: RolloutId) -> Result<Response, Problem> {
    let rollout = plane.records.rollout(id).await?.ok_or(Refused::NoSuchRollout)?;
    Ok(Json(json!({ "rollout": rollout })).into_response())
}

fn number(id: &str) -> Result<RolloutId, Problem> {
    id.parse().map_err(|_| Refused::NoSuchRollout.into())
}
