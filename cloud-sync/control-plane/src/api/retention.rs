//! How long records are kept.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::Streams;

/// Seconds: a hundred years are for ever.
const KEEP: (i64, i64) = (1, 100 * 366 * 86_400);

pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    Ok(Json(json!({ "retention": plane.records.retention().await? })).into_response())
}

/// `{"keep_s": seconds}`.
pub(super) async fn set(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(streams): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let (least, most) = KEEP;
    let keep = fields.number("keep_s", least, most).and_then(|seconds| u32::try_from(seconds).ok());
    if keep.is_none() {
        fields.problem("`keep_s` says for how long".to_owned());
    }
    change(operator, &plane, &streams, keep, fields).await
}

pub(super) async fn remove(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(streams): Path<String>,
) -> Result<Response, Problem> {
    change(operator, &plane, &streams, None, Fields::of_query(None)).await
}

async fn change(
    operator: Operator,
    plane: &Plane,
    streams: &str,
    keep_s: Option<u32>,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let parsed = streams.parse::<Streams>().map_err(|error| fields.problem(error)).ok();
    fields.finish()?;
    let Some(parsed) = parsed else { return Err(Problem::bad_request(Vec::new())) };
    plane.records.set_retention(parsed, keep_s, operator.name, (plane.clock)()).await??;
    plane.retention.changed();
    Ok(Json(json!({ "streams": streams, "keep_s": keep_s })).into_response())
}
