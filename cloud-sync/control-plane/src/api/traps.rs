//! Records of traps that devices sent.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use holm_core::FunctionName;
use holm_protocol::{ApiErrorCode, ThingName};
use serde_json::{Value, json};

use super::Operator;
use super::fields::Fields;
use super::problem::Problem;
use crate::plane::Plane;
use crate::records::TrapSelection;

/// Records in one answer.
const MOST: i64 = 1_000;

/// Characters of a record's name.
const NAME: usize = 64;

/// `device`, `function`, `limit`; newest first.
pub(super) async fn list(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let selection = TrapSelection {
        device: fields.parse::<ThingName>("device").map(|name| name.to_string()),
        function: fields.parse::<FunctionName>("function").map(|name| name.to_string()),
        limit: fields.number("limit", 1, MOST).unwrap_or(100),
    };
    fields.finish()?;
    let traps = plane.records.traps(selection).await?;
    Ok(Json(json!({ "traps": traps })).into_response())
}

/// One, by its name or how that begins.
pub(super) async fn one(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let missing = |words: String| Problem::new(ApiErrorCode::NotFound, words);
    if id.is_empty() || id.len() > NAME || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(missing("a record's name is of hexadecimal digits".to_owned()));
    }
    let found = plane.records.trap(id.to_ascii_lowercase()).await?;
    match <[_; 1]>::try_from(found) {
        Ok([(device, document)]) => {
            let mut record: Value = serde_json::from_slice(&document)
                .map_err(|error| missing(format!("what {device} sent is no record: {error}")))?;
            // Who sent it is known, whatever is in it; what the device calls itself is part of what it may publish.
            if let Some(record) = record.as_object_mut() {
                record.insert("thing".to_owned(), Value::String(device));
            }
            Ok(Json(record).into_response())
        }
        Err(found) if found.is_empty() => Err(missing(format!("there is no record of a trap {id}"))),
        Err(_) => Err(missing(format!("more than one record begins with {id}: say more of it"))),
    }
}
