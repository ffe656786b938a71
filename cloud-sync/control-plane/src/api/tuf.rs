//! The code repository as devices see it: files, for everybody. What protects them is who signed them.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_bundle::Digest;
use holm_protocol::ApiErrorCode;

use super::blobs::send;
use super::problem::Problem;
use crate::plane::Plane;

/// A file of metadata. Small, so always whole.
pub(super) async fn metadata(
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let bytes = plane.records.metadata(name).await?.ok_or_else(missing)?;
    let tag = format!("\"{}\"", Digest::of(&bytes));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // The timestamp has one name for all its versions: nobody in between may keep it.
    let head = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::ETAG, tag),
    ];
    Ok((head, bytes).into_response())
}

/// A target, under its name with its digest. What was listed once stays: some device may be about to fetch it.
pub(super) async fn target(
    State(plane): State<Arc<Plane>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let digest = plane.records.target(path).await?.ok_or_else(missing)?;
    send(&plane, digest, &headers).await
}

fn missing() -> Problem {
    Problem::new(ApiErrorCode::NotFound, "there is no such file")
}
