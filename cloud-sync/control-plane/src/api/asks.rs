//! What a device is asked for: log lines while somebody looks, a report, its dead letters.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use holm_core::LogLevel;
use holm_protocol::{ApiErrorCode, Ask, ClientToken, DEAD_LETTER_STREAM, MAX_LOGS_S, REPORT_STREAM, ThingName};
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::asks;
use crate::plane::Plane;
use crate::records::{DeviceStatus, Refused};

/// How long a device may take to answer. It needs a second; a slow line, some more.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// For so long, in seconds, lines go up unless something else is said.
const USUAL: i64 = 60;

const LEVELS: [(&str, LogLevel); 6] = [
    ("trace", LogLevel::Trace),
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("critical", LogLevel::Critical),
];

/// `{"level": "info", "for_s": 60}`, both optional. What comes is read with `GET /v1/logs`.
pub(super) async fn logs(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let level = fields.word("level", &LEVELS).unwrap_or(LogLevel::Info);
    let for_s = fields.number("for_s", 1, MAX_LOGS_S.into()).unwrap_or(USUAL);
    fields.finish()?;
    let thing = active(&plane, &thing).await?;
    let connected = plane.bus.is_connected(thing.as_str());
    plane.uplink.ask(&thing, Ask::Logs { level, for_s: u32::try_from(for_s).unwrap_or(MAX_LOGS_S) });
    Ok(Json(json!({ "thing": thing, "connected": connected, "for_s": for_s })).into_response())
}

pub(super) async fn report(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Problem> {
    ask(operator, &plane, &thing, REPORT_STREAM, |id| Ask::Report { id }).await
}

pub(super) async fn dead_letters(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Problem> {
    ask(operator, &plane, &thing, DEAD_LETTER_STREAM, |id| Ask::DeadLetters { id }).await
}

async fn ask(
    _: Operator,
    plane: &Plane,
    thing: &str,
    stream: &str,
    make: impl FnOnce(ClientToken) -> Ask,
) -> Result<Response, Problem> {
    let thing = there(plane, thing).await?;
    match asks::answer(plane, &thing, stream, make, PATIENCE).await? {
        Some(answer) => Ok(Json(json!({ "thing": thing, "answer": answer })).into_response()),
        None => {
            let seconds = PATIENCE.as_secs();
            let sentence = format!(
                "{thing} has not answered within {seconds} s: its agent may be too old to be asked, or its configuration says no (`cloud.logs`)"
            );
            Err(Problem::new(ApiErrorCode::Conflict, sentence))
        }
    }
}

/// One that can be asked.
pub(super) async fn there(plane: &Plane, thing: &str) -> Result<ThingName, Problem> {
    let thing = active(plane, thing).await?;
    match plane.bus.is_connected(thing.as_str()) {
        true => Ok(thing),
        false => {
            let sentence = format!("{thing} is not connected, so it cannot be asked");
            Err(Problem::new(ApiErrorCode::Conflict, sentence))
        }
    }
}

async fn active(plane: &Plane, thing: &str) -> Result<ThingName, Problem> {
    let thing = ThingName::new(thing)?;
    let device = plane.records.device(thing.clone()).await?.ok_or(Refused::NoSuchDevice)?;
    match device.status {
        DeviceStatus::Active => Ok(thing),
        _ => Err(Refused::Conflict(format!("{thing} is not active")).into()),
    }
}
