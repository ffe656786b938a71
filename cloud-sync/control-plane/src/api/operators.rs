//! Operators' tokens, and what operators did.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::Role;
use crate::secret::Secret;

/// Characters of a name.
const MAX_NAME: usize = 64;

/// Deeds in one answer.
const MAX_PAGE: i64 = 1_000;

/// The name of an operator: for people to read.
struct Name(String);

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fits = (1..=MAX_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if fits { Ok(Self(text.to_owned())) } else { Err(format!("a name has 1 to {MAX_NAME} characters")) }
    }
}

/// `{"name": "...", "role": "viewer" | "admin"}`. The token is in the answer and nowhere else.
pub(super) async fn make(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let name: Option<Name> = fields.parse("name");
    let role = fields.word("role", &Role::ALL.map(|role| (role.as_str(), role)));
    if name.is_none() || role.is_none() {
        fields.problem("`name` and `role` say for whom the token is".to_owned());
    }
    fields.finish()?;
    let (Some(Name(name)), Some(role)) = (name, role) else { return Err(Problem::bad_request(Vec::new())) };
    let token = Secret::make()?;
    let made = Operator { name: name.clone(), role };
    plane.records.add_operator(token.hash(), made, operator.name, (plane.clock)()).await??;
    let answer = json!({ "token": token.text(), "id": token.hash().id(), "name": name, "role": role });
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Without the tokens themselves, which nobody knows any more.
pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    Ok(Json(json!({ "operators": plane.records.operators().await? })).into_response())
}

/// Ends a token, named by its id, and the sessions that were opened with it.
pub(super) async fn end(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let name = plane.records.end_operator(id.clone(), operator.name, (plane.clock)()).await??;
    Ok(Json(json!({ "id": id, "name": name, "status": "ended" })).into_response())
}

/// `?before=&limit=`: the latest first.
pub(super) async fn audit(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let before = fields.number("before", 0, i64::MAX);
    let limit = usize::try_from(fields.number("limit", 1, MAX_PAGE).unwrap_or(100)).unwrap_or(1);
    fields.finish()?;
    let deeds = plane.records.deeds(before, limit).await?;
    let next = deeds.last().filter(|_| deeds.len() >= limit).map(|deed| deed.id);
    Ok(Json(json!({ "audit": deeds, "next": next })).into_response())
}
