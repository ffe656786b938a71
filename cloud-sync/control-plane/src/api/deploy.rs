//! A release for a device, and how far it is with it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use holm_core::FunctionName;
use holm_protocol::{ApiErrorCode, DeploymentPolicy, ThingName};
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::{Deploy, JobState};

/// How long the new set is watched, in seconds, unless something else is said, and bounds for that.
const HEALTH_WINDOW: (i64, i64, i64) = (0, 60, 86_400);

/// How long everything before that may take, in seconds: an hour, for slow lines.
const DEADLINE: (i64, i64, i64) = (1, 3_600, 7 * 86_400);

/// `{"function": "...", "version": "...", "health_window_s": seconds, "deadline_s": seconds}`, the last two optional.
pub(super) async fn deploy(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let mut fields = Fields::of_json(&body)?;
    let function: Option<FunctionName> = fields.parse("function");
    let version: Option<String> = fields.parse("version");
    let mut seconds = |name, (least, usual, most)| {
        u32::try_from(fields.number(name, least, most).unwrap_or(usual)).unwrap_or(u32::MAX)
    };
    let (health_window_s, deadline_s) = (seconds("health_window_s", HEALTH_WINDOW), seconds("deadline_s", DEADLINE));
    if function.is_none() || version.is_none() {
        fields.problem("`function` and `version` say what to deploy".to_owned());
    }
    fields.finish()?;
    let (Some(function), Some(version)) = (function, version) else {
        return Err(Problem::bad_request(Vec::new()));
    };
    let policy = DeploymentPolicy { health_window_s, deadline_s, window: None };
    let now = (plane.clock)();
    let deploy = Deploy { thing: thing.clone(), function, version, policy, operator: operator.name, now };
    let queued = plane.records.deploy(deploy, plane.signing.clone()).await??;
    if let Some(next) = queued.next {
        plane.uplink.notify_next(&thing, &next);
    }
    let connected = plane.bus.is_connected(thing.as_str());
    let (id, generation) = (queued.id, queued.generation);
    Ok(Json(json!({ "thing": thing, "job": id, "generation": generation, "connected": connected })).into_response())
}

pub(super) async fn job(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path((thing, generation)): Path<(String, u64)>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let job: Option<JobState> = plane.records.job(thing.clone(), generation).await?;
    let job = job.ok_or_else(|| Problem::new(ApiErrorCode::NotFound, "there is no such job"))?;
    let connected = plane.bus.is_connected(thing.as_str());
    Ok(Json(json!({ "thing": thing, "connected": connected, "job": job })).into_response())
}

/// The next job as the device would get it, to be carried to it. What is secret in it is sealed to the device.
pub(super) async fn next(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Problem> {
    let next = plane.records.next_job(ThingName::new(&thing)?, (plane.clock)()).await?;
    let next = next.ok_or_else(|| Problem::new(ApiErrorCode::NotFound, "there is no such device, or it is revoked"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], next.write()?).into_response())
}
