//! All rows of a question as one file, however many they are.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use holm_protocol::Lane;

use super::Operator;
use super::fields::Fields;
use super::problem::Problem;
use super::results::{CSV_HEAD, Format, MAX_PAGE, common, csv_rows, ndjson};
use crate::CloudError;
use crate::error::chain;
use crate::plane::Plane;
use crate::records::Selection;

/// What is left to be sent.
struct Left {
    plane: Arc<Plane>,
    selection: Selection,
    format: Format,
    is_first: bool,
    is_over: bool,
}

/// As `results`, without `buckets`, and with no end but that of the rows: `format` is `csv` (unless said otherwise) or `ndjson`.
pub(super) async fn export(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let format = fields.word("format", &[("csv", Format::Csv), ("ndjson", Format::Ndjson)]).unwrap_or(Format::Csv);
    let series = fields.parse::<String>("series").map(|series| format!("result.{series}"));
    let selection = Selection { limit: MAX_PAGE, latest: false, ..common(&mut fields, Lane::Results, series) };
    fields.finish()?;
    let (kind, name) = match format {
        Format::Ndjson => ("application/x-ndjson", "results.ndjson"),
        Format::Csv | Format::Json => ("text/csv; charset=utf-8", "results.csv"),
    };
    let left = Left { plane, selection, format, is_first: true, is_over: false };
    // A page at a time: what is held does not grow with what is asked for.
    let pages = unfold(left, |mut left| async {
        let page = left.next().await.transpose()?;
        Some((page, left))
    });
    let head = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    Ok((head, Body::from_stream(pages)).into_response())
}

impl Left {
    /// An error breaks the download off, which is how whoever waits for it learns that it is not whole.
    async fn next(&mut self) -> Result<Option<Bytes>, CloudError> {
        if self.is_over {
            return Ok(None);
        }
        let page = self.plane.records.select(self.selection.clone()).await.inspect_err(|error| {
            tracing::warn!(error = chain(error), "an export broke off");
        })?;
        let mut text = String::new();
        match self.format {
            Format::Ndjson => ndjson(&page, &mut text),
            Format::Csv | Format::Json => {
                if self.is_first {
                    text.push_str(CSV_HEAD);
                }
                csv_rows(&page, &mut text);
            }
        }
        self.is_first = false;
        self.selection.after = page.next;
        self.is_over = page.next.is_none();
        Ok(Some(text.into()))
    }
}
