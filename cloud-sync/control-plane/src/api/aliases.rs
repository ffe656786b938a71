//! Names of versions.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use holm_core::{FunctionName, Label};
use serde_json::json;

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;

pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    Ok(Json(json!({ "aliases": plane.records.aliases().await? })).into_response())
}

/// `{"version": "..."}`.
pub(super) async fn set(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path((function, name)): Path<(String, String)>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let version: Option<String> = fields.parse("version");
    if version.is_none() {
        fields.problem("`version` says which one".to_owned());
    }
    change(operator, &plane, (&function, &name), version, fields).await
}

pub(super) async fn remove(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path((function, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    change(operator, &plane, (&function, &name), None, Fields::of_query(None)).await
}

async fn change(
    operator: Operator,
    plane: &Plane,
    (function, name): (&str, &str),
    version: Option<String>,
    mut fields: Fields,
) -> Result<Response, Problem> {
    let function = FunctionName::new(function).map_err(|error| fields.problem(format!("the function: {error}"))).ok();
    let name = Label::new(name).map_err(|error| fields.problem(format!("the alias: {error}"))).ok();
    fields.finish()?;
    let (Some(function), Some(name)) = (function, name) else { return Err(Problem::bad_request(Vec::new())) };
    let answer = json!({ "function": function.as_str(), "name": name.as_str(), "version": version });
    plane.records.set_alias(function, name, version, operator.name, (plane.clock)()).await??;
    Ok(Json(answer).into_response())
}
