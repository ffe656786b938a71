//! Bodies of requests, with a cap and a deadline.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use holm_protocol::ApiErrorCode;
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use super::problem::Problem;

/// For a whole body.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of a body that is too long, so much more is read and thrown away: who is still writing does not listen, and a connection
/// that is closed at him loses the answer.
const DRAINED: usize = 1 << 20;

/// A body of at most `LIMIT` bytes.
pub(crate) struct Body<const LIMIT: usize>(pub(crate) Bytes);

impl<S: Send + Sync, const LIMIT: usize> FromRequest<S> for Body<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let late = |_| Problem::bad_request(vec!["the body did not come in time".to_owned()]);
        timeout(PATIENCE, read(request.into_body(), LIMIT)).await.map_err(late)?.map(Self)
    }
}

async fn read(mut body: axum::body::Body, limit: usize) -> Result<Bytes, Problem> {
    let mut kept = Vec::new();
    let mut length = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Problem::bad_request(vec![format!("the body broke off: {error}")]))?;
        let Some(data) = frame.data_ref() else { continue };
        length = length.saturating_add(data.len());
        if length <= limit {
            kept.extend_from_slice(data);
        } else {
            kept = Vec::new();
        }
        if length > limit.saturating_add(DRAINED) {
            break;
        }
    }
    if length > limit {
        return Err(Problem::new(ApiErrorCode::TooLarge, format!("the body is longer than {limit} bytes")));
    }
    Ok(kept.into())
}
