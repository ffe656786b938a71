//! What a node that rehearses is told: how time passes, and what its board feels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use holm_core::{Level, Timestamp};
use serde_json::json;

use super::State;
use super::handlers::{Answer, Failure, name};
use crate::deploy::chain;
use crate::rehearsal::{Rehearsal, RehearsalError};

impl From<RehearsalError> for Failure {
    fn from(error: RehearsalError) -> Self {
        let status = match &error {
            RehearsalError::NotFound(_) => StatusCode::NOT_FOUND,
            RehearsalError::Restless | RehearsalError::TooLong => StatusCode::CONFLICT,
            RehearsalError::Store(_) | RehearsalError::Commit(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, chain(&error))
    }
}

/// Time passes on a thread that may block; the answer says what time it is then.
async fn pass(
    state: State,
    work: impl FnOnce(&Rehearsal) -> Result<Timestamp, RehearsalError> + Send + 'static,
) -> Answer {
    let running = || Failure(StatusCode::CONFLICT, "this node does not rehearse: its clock goes by itself".into());
    let rehearsal: Arc<Rehearsal> = state.rehearsal.ok_or_else(running)?;
    match tokio::task::spawn_blocking(move || work(&rehearsal)).await {
        Ok(now) => Ok(Json(json!({ "now": now? }))),
        Err(error) => Err(Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) async fn settle(Extract(state): Extract<State>) -> Answer {
    pass(state, Rehearsal::settle).await
}

#[derive(serde::Deserialize)]
pub(super) struct By {
    ms: u64,
}

pub(super) async fn advance(Extract(state): Extract<State>, Query(by): Query<By>) -> Answer {
    pass(state, move |rehearsal| rehearsal.advance(Duration::from_millis(by.ms))).await
}

pub(super) async fn fire(Extract(state): Extract<State>, Path((function, schedule)): Path<(String, String)>) -> Answer {
    let function = name(&function)?;
    pass(state, move |rehearsal| rehearsal.fire(&function, &schedule)).await
}

pub(super) async fn measure(
    Extract(state): Extract<State>,
    Path(sensor): Path<String>,
    Json(values): Json<BTreeMap<String, f64>>,
) -> Answer {
    pass(state, move |rehearsal| rehearsal.measure(&sensor, &values)).await
}

#[derive(serde::Deserialize)]
pub(super) struct To {
    level: Level,
}

pub(super) async fn drive(Extract(state): Extract<State>, Path(line): Path<String>, Query(to): Query<To>) -> Answer {
    pass(state, move |rehearsal| rehearsal.drive(&line, to.level)).await
}
