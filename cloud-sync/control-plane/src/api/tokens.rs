//! Enrolment tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holm_core::Timestamp;
use holm_protocol::GroupName;
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::secret::Secret;

/// Seconds that a token is good for unless something else is said, and bounds for that.
const TTL: (i64, i64, i64) = (60, 86_400, 7 * 86_400);

/// Tokens that are listed.
const LISTED: usize = 1_000;

/// `{"group": "...", "ttl": seconds}`, both optional. The token is in the answer and nowhere else.
pub(super) async fn make(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let group: Option<GroupName> = fields.parse("group");
    let (least, usual, most) = TTL;
    let ttl = fields.number("ttl", least, most).unwrap_or(usual);
    fields.finish()?;
    let token = Secret::make()?;
    let now = (plane.clock)();
    let expires = Timestamp(now.0 + ttl * 1_000);
    plane.records.add_token(token.hash(), group.clone(), now, expires, operator.name).await?;
    let answer = json!({
        "token": token.text(),
        "id": token.hash().id(),
        "group": group,
        "expires": expires,
        "ca_hash": plane.authority.root_hash().hex(),
    });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Without the tokens themselves, which nobody knows any more.
pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    let tokens = plane.records.tokens(LISTED).await?;
    Ok(Json(json!({ "tokens": tokens })).into_response())
}
