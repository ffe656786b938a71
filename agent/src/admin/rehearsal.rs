//! What a node that rehearses is told: how time passes, and what its board feels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use holm_core::{Level, Timestamp};
use serde_json::json;

use super::State;
use super::handlers::{Answer, Failure, name, text_or_bytes};
use crate::deploy::chain;
use crate::rehearsal::{Rehearsal, RehearsalError};
use crate::triggers::http::Asked;

impl From<RehearsalError> for Failure {
    fn from(error: RehearsalError) -> Self {
        let status = match &error {
            RehearsalError::NotFound(_) => StatusCode::NOT_FOUND,
            RehearsalError::Restless | RehearsalError::TooLong => StatusCode::CONFLICT,
            RehearsalError::Store(_) | RehearsalError::Commit(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, chain(&error))
    }
}

fn runs() -> Failure {
    Failure::new(StatusCode::CONFLICT, "this node does not rehearse: its clock goes by itself".into())
}

/// Time passes on a thread that may block; the answer says what time it is then.
async fn pass(
    state: State,
    work: impl FnOnce(&Rehearsal) -> Result<Timestamp, RehearsalError> + Send + 'static,
) -> Answer {
    let rehearsal: Arc<Rehearsal> = state.rehearsal.ok_or_else(runs)?;
    match tokio::task::spawn_blocking(move || work(&rehearsal)).await {
        Ok(now) => Ok(Json(json!({ "now": now? }))),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
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

pub(super) async fn measure(Extract(state): Extract<State>, Path(sensor): Path<String>, body: Bytes) -> Answer {
    let wrong =
        |error: serde_json::Error| Failure::new(StatusCode::BAD_REQUEST, format!("not channels and numbers: {error}"));
    let values: BTreeMap<String, f64> = serde_json::from_slice(&body).map_err(wrong)?;
    pass(state, move |rehearsal| rehearsal.measure(&sensor, &values)).await
}

#[derive(serde::Deserialize)]
pub(super) struct To {
    level: Level,
}

pub(super) async fn drive(Extract(state): Extract<State>, Path(line): Path<String>, Query(to): Query<To>) -> Answer {
    pass(state, move |rehearsal| rehearsal.drive(&line, to.level)).await
}

pub(super) async fn put(
    Extract(state): Extract<State>,
    Path((folder, name)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    pass(state, move |rehearsal| rehearsal.put(&folder, &name, &body)).await
}

#[derive(serde::Deserialize)]
pub(super) struct Request {
    method: String,
    path: String,
    query: Option<String>,
    content_type: Option<String>,
    /// An object of texts.
    headers: Option<String>,
}

pub(super) async fn ask(Extract(state): Extract<State>, Query(request): Query<Request>, body: Bytes) -> Answer {
    let rehearsal: Arc<Rehearsal> = state.rehearsal.ok_or_else(runs)?;
    let Request { method, path, query, content_type, headers } = request;
    let wrong =
        |error: serde_json::Error| Failure::new(StatusCode::BAD_REQUEST, format!("not names and texts: {error}"));
    let headers: BTreeMap<String, String> =
        headers.map(|text| serde_json::from_str(&text)).transpose().map_err(wrong)?.unwrap_or_default();
    // As a listener has them.
    let headers = headers.into_iter().map(|(name, value)| (format!("header.{}", name.to_ascii_lowercase()), value));
    let reply = rehearsal.ask(Asked { method, path, query, content_type, headers: headers.collect(), body }).await?;
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &reply.headers {
        let line = headers.entry(name.as_str()).or_default();
        let joint = if line.is_empty() { "" } else { ", " };
        line.push_str(joint);
        line.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    if let Some(content_type) = &reply.content_type {
        headers.insert("content-type", content_type.to_string());
    }
    Ok(Json(json!({
        "status": reply.status, "content_type": reply.content_type, "headers": headers, "body": text_or_bytes(&reply.body),
    })))
}
