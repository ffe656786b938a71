//! The files that pages need. They are in the binary.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_bundle::Digest;

use super::failure::Failure;

/// Name, kind, contents.
const FILES: [(&str, &str, &[u8]); 5] = [
    ("holm.css", "text/css; charset=utf-8", include_bytes!("assets/holm.css")),
    ("holm.js", "text/javascript; charset=utf-8", include_bytes!("assets/holm.js")),
    ("holm.svg", "image/svg+xml", include_bytes!("assets/holm.svg")),
    ("uplot/uPlot.iife.min.js", "text/javascript; charset=utf-8", include_bytes!("assets/uplot/uPlot.iife.min.js")),
    ("uplot/uPlot.min.css", "text/css; charset=utf-8", include_bytes!("assets/uplot/uPlot.min.css")),
];

/// A browser keeps them and asks whether they are still the same: after an update of the control plane they may not be.
pub(super) async fn get(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, kind, contents)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Failure::nothing_here("file").into_response();
    };
    let tag = format!("\"{}\"", Digest::of(contents));
    let cache = (header::CACHE_CONTROL, "no-cache".to_owned());
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag), cache]).into_response();
    }
    let head = [(header::CONTENT_TYPE, (*kind).to_owned()), (header::ETAG, tag), cache];
    (head, *contents).into_response()
}
