//! Files by their hash, whole or in parts.

use std::io::SeekFrom;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_bundle::Digest;
use holm_protocol::ApiErrorCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::Operator;
use super::body::Body;
use super::problem::Problem;
use crate::CloudError;
use crate::blobs::Put;
use crate::plane::Plane;

/// Bytes of one blob: it is held in memory while it is checked.
pub(super) const MAX_BLOB: usize = 64 << 20;

/// Bytes that are read from a file at once.
const CHUNK: usize = 64 << 10;

pub(super) async fn put(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(digest): Path<String>,
    Body(body): Body<MAX_BLOB>,
) -> Result<Response, Problem> {
    let (digest, body) = (parse(&digest)?, body);
    let blobs = plane.blobs.clone();
    let put = blocking(move || blobs.put(&digest, &body)).await?;
    match put {
        Put::Stored => Ok((StatusCode::CREATED, Json(json!({ "sha256": digest }))).into_response()),
        Put::Known => Ok(Json(json!({ "sha256": digest })).into_response()),
        Put::Mismatch(found) => Err(Problem::bad_request(vec![format!("the body has the digest {found}")])),
    }
}

pub(super) async fn get(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    send(&plane, parse(&digest)?, &headers).await
}

/// A blob as the answer to a request, which may ask for a part of it (RFC 9110, section 14).
pub(super) async fn send(plane: &Plane, digest: Digest, headers: &HeaderMap) -> Result<Response, Problem> {
    let blobs = plane.blobs.clone();
    let found = blocking(move || blobs.get(&digest)).await?;
    let (blob, length) = found.ok_or_else(|| Problem::new(ApiErrorCode::NotFound, "there is no such blob"))?;
    let tag = format!("\"{digest}\"");
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH) == Some(tag.as_str()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    // A part of another version is no use; what is named by its hash has no other version, but the tag may be anything.
    let wanted = text(header::RANGE).filter(|_| text(header::IF_RANGE).is_none_or(|known| known == tag));
    let range = match wanted.map(|wanted| part(wanted, length)) {
        Some(Part::Of(first, last)) => Some((first, last)),
        Some(Part::Outside) => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
        Some(Part::Unknown) | None => None,
    };
    let (first, count) = range.map_or((0, length), |(first, last)| (first, last - first + 1));
    let mut blob = tokio::fs::File::from_std(blob);
    blob.seek(SeekFrom::Start(first))
        .await
        .map_err(|error| CloudError::Broken { what: format!("cannot read a blob: {error}") })?;
    let body = axum::body::Body::from_stream(ReaderStream::with_capacity(blob.take(count), CHUNK));
    let common = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, count.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
        (header::ETAG, tag),
    ];
    Ok(match range {
        None => (common, body).into_response(),
        Some((first, last)) => {
            let range = [(header::CONTENT_RANGE, format!("bytes {first}-{last}/{length}"))];
            (StatusCode::PARTIAL_CONTENT, common, range, body).into_response()
        }
    })
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// From this byte to that one.
    Of(u64, u64),
    /// Nothing that is there.
    Outside,
    /// Something that is not served in parts: several at once, or another unit. Then all is sent.
    Unknown,
}

fn part(header: &str, length: u64) -> Part {
    let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Unknown;
    };
    let end = length.saturating_sub(1);
    let (first, last) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.min(end)),
        (Ok(first), Err(_)) if last.is_empty() => (first, end),
        // The last so many.
        (Err(_), Ok(count)) if first.is_empty() => {
            if count == 0 {
                return Part::Outside;
            }
            (length.saturating_sub(count), end)
        }
        _ => return Part::Unknown,
    };
    if first >= length { Part::Outside } else { Part::Of(first, last) }
}

fn parse(digest: &str) -> Result<Digest, Problem> {
    digest.parse().map_err(|error: holm_bundle::DigestError| Problem::bad_request(vec![error.to_string()]))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CloudError> + Send + 'static,
) -> Result<T, CloudError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| CloudError::Broken { what: format!("a look failed: {error}") })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_standard() {
        for (header, expected) in [
            ("bytes=0-3", Part::Of(0, 3)),
            ("bytes=4-", Part::Of(4, 9)),
            ("bytes=-4", Part::Of(6, 9)),
            ("bytes=-40", Part::Of(0, 9)),
            ("bytes=5-500", Part::Of(5, 9)),
            ("bytes=9-9", Part::Of(9, 9)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=3-1", Part::Unknown),
            ("bytes=0-1,4-5", Part::Unknown),
            ("lines=0-1", Part::Unknown),
            ("bytes=", Part::Unknown),
            ("bytes=-", Part::Unknown),
        ] {
            assert_eq!(part(header, 10), expected, "{header}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }
}
