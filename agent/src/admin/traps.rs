//! Records of traps, and recordings of all invocations where those are kept.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_core::{ErrorCode, Timestamp};
use serde_json::{Value, json};

use super::State;
use super::handlers::{Answer, Failure};
use crate::record::Record;

/// Records in one answer.
const MOST: usize = 1_000;

#[derive(serde::Deserialize)]
pub(super) struct Which {
    function: Option<String>,
    limit: Option<usize>,
    since: Option<i64>,
}

pub(super) async fn list(Extract(state): Extract<State>, Query(which): Query<Which>) -> Answer {
    let traps = &state.dispatcher.traps;
    let shelf = traps.shelf();
    let (bytes, most, gone) = shelf.room();
    Ok(Json(json!({
        "traps": shelf.list(which.function.as_deref(), which.limit.unwrap_or(100).min(MOST)),
        "bytes": bytes, "limit": most, "gone": gone, "lost": traps.lost(),
    })))
}

pub(super) async fn one(Extract(state): Extract<State>, Path(id): Path<String>) -> Answer {
    let missing =
        || Failure::new(StatusCode::NOT_FOUND, format!("there is no record of a trap `{id}`, or more than one"));
    let path = state.dispatcher.traps.shelf().find(&id).ok_or_else(missing)?;
    // It may go while we look: then it is not there either.
    let bytes = tokio::fs::read(&path).await.map_err(|_| missing())?;
    let record: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{}: {error}", path.display())))?;
    Ok(Json(record))
}

/// Whole invocations of a function as NDJSON, oldest first.
pub(super) async fn recordings(
    Extract(state): Extract<State>,
    Query(which): Query<Which>,
) -> Result<Response, Failure> {
    let off =
        "this node keeps no recordings of invocations: say how many bytes with `record` in [functions] of agent.toml";
    let ring = state.dispatcher.journal.recordings.clone();
    let ring =
        ring.ok_or_else(|| Failure::new(StatusCode::CONFLICT, off.to_owned()).coded(ErrorCode::RecordingsMissing))?;
    let since = Timestamp(which.since.unwrap_or(i64::MIN));
    let limit = which.limit.unwrap_or(usize::MAX);
    let device = state.device.clone();
    // A record is made when its turn comes: all of them at once would be many times what the ring holds.
    let ended = ring.all().filter(move |one| {
        one.time >= since && which.function.as_deref().is_none_or(|name| name == one.loaded.manifest.name.as_str())
    });
    let skip = ended.clone().count().saturating_sub(limit);
    let lines = ended.skip(skip).filter_map(|one| one.ended()).map(move |one| {
        let mut line = Record::of(&one, &device).document();
        line.push(b'\n');
        Ok::<_, std::convert::Infallible>(axum::body::Bytes::from(line))
    });
    let body = Body::from_stream(futures_util::stream::iter(lines));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}
