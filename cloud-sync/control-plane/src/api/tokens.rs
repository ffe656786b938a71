//! Enrolment tokens.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holm_core::Timestamp;
use holm_protocol::{GroupName, ThingName};
use serde_json::{Value, json};

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::Meant;
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
    let ttl = ttl(&mut fields);
    fields.finish()?;
    issue(&plane, operator, Meant::Anybody(group.clone()), ttl, json!({ "group": group })).await
}

/// `{"ttl": seconds}`, optional. The device that comes with the token has the name, groups and functions of this one, whose
/// certificates end then.
pub(super) async fn replace(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let mut fields = Fields::of_json(&body)?;
    let ttl = ttl(&mut fields);
    fields.finish()?;
    issue(&plane, operator, Meant::InsteadOf(thing.clone()), ttl, json!({ "thing": thing })).await
}

fn ttl(fields: &mut Fields) -> i64 {
    let (least, usual, most) = TTL;
    fields.number("ttl", least, most).unwrap_or(usual)
}

async fn issue(plane: &Plane, operator: Operator, meant: Meant, ttl: i64, of: Value) -> Result<Response, Problem> {
    let token = Secret::make()?;
    let now = (plane.clock)();
    let expires = Timestamp(now.0 + ttl * 1_000);
    plane.records.add_token(token.hash(), meant, now, expires, operator.name).await??;
    let mut answer = json!({
        "token": token.text(),
        "id": token.hash().id(),
        "expires": expires,
        "ca_hash": plane.authority.root_hash().hex(),
    });
    if let (Some(answer), Value::Object(of)) = (answer.as_object_mut(), of) {
        answer.extend(of);
    }
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Without the tokens themselves, which nobody knows any more.
pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    let tokens = plane.records.tokens(LISTED).await?;
    Ok(Json(json!({ "tokens": tokens })).into_response())
}
