//! The code repository as operators see it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use holm_trust::SigningKey;
use holm_trust::tuf::Draft;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Operator;
use super::body::Body;
use super::problem::Problem;
use crate::CloudError;
use crate::plane::Plane;
use crate::records::{Held, Publication};

/// Bytes of a publication: clients read no larger targets file than 2 MiB.
const MAX_PUBLICATION: usize = 4 << 20;

/// What is published, as JSON and not as text in JSON: it is kept to the byte.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    roots: Vec<Box<RawValue>>,
    #[serde(default)]
    targets: Option<Box<RawValue>>,
}

/// The public keys that are made here, and what there is.
pub(super) async fn show(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    let held = plane.records.repository().await?;
    let signing = &plane.signing;
    let key = |key: &SigningKey| key.public().to_string();
    let keys = json!({
        "snapshot": key(&signing.snapshot),
        "timestamp": key(&signing.timestamp),
        "deployment": key(&signing.deployment),
    });
    Ok(Json(json!({ "keys": keys, "repository": held.as_ref().map(versions) })).into_response())
}

/// `{"roots": [root, ...], "targets": targets}`, both optional: the first root or the next ones, in order, and a new targets file.
/// All of it is taken, or nothing. What the targets list has to be here already, as blobs.
pub(super) async fn publish(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Body(body): Body<MAX_PUBLICATION>,
) -> Result<Response, Problem> {
    let Given { roots, targets } = serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(vec![format!("the body is not a publication: {error}")]))?;
    if roots.is_empty() && targets.is_none() {
        return Err(Problem::bad_request(vec!["neither a root nor targets: there is nothing to publish".to_owned()]));
    }
    let bytes = |json: Box<RawValue>| json.get().as_bytes().to_vec();
    let publication = Publication {
        roots: roots.into_iter().map(bytes).collect(),
        targets: targets.map(bytes),
        operator: operator.name,
        now: (plane.clock)(),
    };
    let held = plane.records.publish(publication, plane.signing.clone(), plane.blobs.clone()).await??;
    let versions = versions(&held);
    tracing::info!(%versions, "published");
    Ok(Json(json!({ "repository": versions })).into_response())
}

fn versions(held: &Held) -> serde_json::Value {
    let version = |bytes: Option<&[u8]>| bytes.and_then(|bytes| Draft::read(bytes).ok()?.version().ok());
    let kept = &held.kept;
    json!({
        "root": version(Some(&kept.root)),
        "targets": version(kept.targets.as_deref()),
        "snapshot": version(kept.snapshot.as_deref()),
        "timestamp": version(kept.timestamp.as_deref()),
        "signed": held.signed,
    })
}

/// Metadata as a part of JSON.
pub(super) fn raw(metadata: Vec<u8>) -> Result<Box<RawValue>, CloudError> {
    let bad = |problem: String| CloudError::Row { what: "root", problem };
    let text = String::from_utf8(metadata).map_err(|error| bad(error.to_string()))?;
    RawValue::from_string(text).map_err(|error| bad(error.to_string()))
}
