//! What devices sent: results and logs, as JSON, NDJSON or CSV.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Timestamp;
use holm_protocol::{GroupName, Lane, StreamName, ThingName};
use serde_json::{Value, json};

use super::Operator;
use super::fields::Fields;
use super::problem::Problem;
use crate::plane::Plane;
use crate::records::{GapRow, Page, Place, Row, Selection};

/// Rows in one answer.
pub(super) const MAX_PAGE: usize = 10_000;

/// Buckets in one answer: more than a screen has columns.
const MAX_BUCKETS: i64 = 5_000;

/// Rows in one answer unless something else is said.
const PAGE: i64 = 1_000;

/// Where the next page begins, for formats that have no other place to say it.
const NEXT: HeaderName = HeaderName::from_static("holm-next");

/// The first line of CSV.
pub(super) const CSV_HEAD: &str = "device,stream,epoch,sequence,time,value\r\n";

#[derive(Clone, Copy)]
pub(super) enum Format {
    Json,
    Ndjson,
    Csv,
}

/// `?series=FUNCTION.SERIES` or `?stream=NAME`, and what [`common`] says. With `buckets=N`, least, greatest and mean of at most
/// so many stretches of time, instead of rows.
pub(super) async fn results(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    // As the devices name the streams of their functions' series.
    let series = fields.parse::<String>("series").map(|series| format!("result.{series}"));
    let Some(buckets) = fields.number("buckets", 1, MAX_BUCKETS) else {
        return answer(&plane, fields, Lane::Results, series).await;
    };
    let selection = common(&mut fields, Lane::Results, series);
    if selection.stream.is_none() {
        fields.problem("`buckets` is for one series: say which with `series` or `stream`".to_owned());
    }
    fields.finish()?;
    let buckets = plane.records.buckets(selection, u32::try_from(buckets).unwrap_or(1)).await?;
    Ok(Json(buckets).into_response())
}

/// `?function=NAME` or `?stream=NAME`, and what [`common`] says.
pub(super) async fn logs(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let stream = fields.parse::<String>("function").map(|function| format!("log.{function}"));
    answer(&plane, fields, Lane::Logs, stream).await
}

async fn answer(plane: &Plane, mut fields: Fields, lane: Lane, stream: Option<String>) -> Result<Response, Problem> {
    let format = fields.word("format", &[("json", Format::Json), ("ndjson", Format::Ndjson), ("csv", Format::Csv)]);
    let selection = common(&mut fields, lane, stream);
    fields.finish()?;
    let page = plane.records.select(selection).await?;
    let next = page.next.map(|place| place.to_string());
    let next_header = [(NEXT, next.clone().unwrap_or_default())];
    Ok(match format.unwrap_or(Format::Json) {
        Format::Json => {
            let rows: Vec<Value> = page.rows.iter().map(row).collect();
            let gaps: Vec<Value> = page.gaps.iter().map(gap).collect();
            Json(json!({ "rows": rows, "gaps": gaps, "next": next })).into_response()
        }
        Format::Ndjson => {
            let mut text = String::new();
            ndjson(&page, &mut text);
            (next_header, [(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response()
        }
        Format::Csv => {
            let mut text = CSV_HEAD.to_owned();
            csv_rows(&page, &mut text);
            (next_header, [(header::CONTENT_TYPE, "text/csv; charset=utf-8")], text).into_response()
        }
    })
}

/// `device`, `group`, `since` and `until` in milliseconds since 1970, `limit`, `order` (`first` or `latest`), `after`: where a
/// page ended.
pub(super) fn common(fields: &mut Fields, lane: Lane, named: Option<String>) -> Selection {
    let stream = fields.parse::<StreamName>("stream").map(|name| name.to_string());
    if named.is_some() && stream.is_some() {
        fields.problem("`stream` says the same as `series` or `function`: give one of them".to_owned());
    }
    let device = fields.parse::<ThingName>("device").map(|name| name.to_string());
    let group = fields.parse::<GroupName>("group").map(|name| name.to_string());
    let since = fields.number("since", 0, i64::MAX).unwrap_or(i64::MIN);
    let until = fields.number("until", 0, i64::MAX).unwrap_or(i64::MAX);
    let limit = usize::try_from(fields.number("limit", 1, MAX_PAGE as i64).unwrap_or(PAGE)).unwrap_or(1);
    let latest = fields.word("order", &[("first", false), ("latest", true)]).unwrap_or(false);
    let after = fields.parse::<String>("after").filter(|text| !text.is_empty());
    let place = after.as_deref().and_then(Place::parse);
    if after.is_some() && place.is_none() {
        fields.problem("`after`: this is not where a page ended".to_owned());
    }
    let (since, until) = (Timestamp(since), Timestamp(until));
    Selection { lane, stream: named.or(stream), device, group, since, until, after: place, limit, latest }
}

/// A payload as it is best shown: as JSON, as text, or as base64.
fn payload(row: &Row) -> (&'static str, Value) {
    match (serde_json::from_slice::<Value>(&row.data), std::str::from_utf8(&row.data)) {
        (Ok(value), _) => ("value", value),
        (_, Ok(text)) => ("text", Value::String(text.to_owned())),
        _ => ("base64", Value::String(STANDARD.encode(&row.data))),
    }
}

fn row(row: &Row) -> Value {
    let (name, payload) = payload(row);
    let mut shown = json!({
        "device": row.device,
        "stream": row.stream,
        "epoch": row.epoch,
        "sequence": row.sequence,
        "time": row.time,
    });
    if let Some(object) = shown.as_object_mut() {
        if let Some(content_type) = &row.content_type {
            object.insert("content_type".to_owned(), Value::String(content_type.clone()));
        }
        object.insert(name.to_owned(), payload);
    }
    shown
}

fn gap(gap: &GapRow) -> Value {
    json!({
        "device": gap.device,
        "stream": gap.stream,
        "first": gap.first,
        "count": gap.count,
        "reason": gap.reason,
        "time": gap.time,
    })
}

/// A row a line.
pub(super) fn ndjson(page: &Page, text: &mut String) {
    for found in &page.rows {
        let _ = writeln!(text, "{}", row(found));
    }
}

/// RFC 4180, without the head.
pub(super) fn csv_rows(page: &Page, text: &mut String) {
    for row in &page.rows {
        let value = match payload(row).1 {
            Value::String(text) => text,
            _ => String::from_utf8_lossy(&row.data).into_owned(),
        };
        let (epoch, sequence, time) = (row.epoch.to_string(), row.sequence.to_string(), row.time.0.to_string());
        let cells = [row.device.as_str(), &row.stream, &epoch, &sequence, &time, &value].map(cell);
        let _ = write!(text, "{}\r\n", cells.join(","));
    }
}

fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
