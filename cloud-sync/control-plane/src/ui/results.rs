//! Series: which there are, and one of them, plotted and in figures.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use holm_core::Timestamp;
use holm_protocol::{GroupName, Lane, ThingName};
use maud::{Markup, html};

use super::failure::Failure;
use super::frame::{Place, frame};
use super::session::Session;
use super::shown::{ago, count, counted, moment, number, payload, span};
use crate::api::fields::{Fields, encode};
use crate::plane::Plane;
use crate::records::{Buckets, Selection, Series};

/// How far back: the word of the address, what it is called, and milliseconds.
const RANGES: [(&str, &str, Option<i64>); 6] = [
    ("1h", "1 hour", Some(3_600_000)),
    ("6h", "6 hours", Some(6 * 3_600_000)),
    ("24h", "24 hours", Some(86_400_000)),
    ("7d", "7 days", Some(7 * 86_400_000)),
    ("30d", "30 days", Some(30 * 86_400_000)),
    ("all", "everything", None),
];

/// The one that is shown unless something else is asked for.
const USUAL: &str = "24h";

/// Rows of the table of figures, at most.
const FIGURES: u32 = 24;

/// What is asked for, as it stands in the address.
struct Asked {
    series: Option<String>,
    device: Option<String>,
    group: Option<String>,
    range: &'static str,
    length: Option<i64>,
}

/// `?series=&device=&group=&range=`.
pub(super) async fn page(
    session: Session,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let asked = read(query.as_deref())?;
    let all = plane.records.series(None).await?;
    let groups = plane.records.groups().await?;
    let shown = match &asked.series {
        Some(series) => Some(plot(&plane, &asked, series, now).await?),
        None => None,
    };
    let body = html! {
        h1 { "Results" }
        @if all.is_empty() {
            p.empty { "Nothing has come yet. What functions record appears here when their devices are connected." }
        } @else {
            form.filters method="get" action="/results" role="search" {
                div {
                    label for="series" { "Series" }
                    select #series name="series" {
                        option value="" { "all" }
                        @for series in &all {
                            option value=(series.name) selected[asked.series.as_ref() == Some(&series.name)] { (series.name) }
                        }
                    }
                }
                div {
                    label for="device" { "Device" }
                    input #device name="device" value=[&asked.device] placeholder="all" autocomplete="off" spellcheck="false";
                }
                div {
                    label for="group" { "Group" }
                    select #group name="group" {
                        option value="" { "any" }
                        @for (name, _) in &groups { option value=(name) selected[asked.group.as_ref() == Some(name)] { (name) } }
                    }
                }
                div {
                    label for="range" { "Time" }
                    select #range name="range" {
                        @for (word, name, _) in RANGES { option value=(word) selected[asked.range == word] { (name) } }
                    }
                }
                button { "Show" }
            }
            @match shown {
                Some(shown) => (shown),
                None => (list(&all, now)),
            }
        }
    };
    let title = asked.series.as_deref().unwrap_or("Results");
    Ok(frame(&session, Place::Results, title, body))
}

fn read(query: Option<&str>) -> Result<Asked, Failure> {
    let mut fields = Fields::of_query(query);
    let mut given = |name: &str| {
        let text: Option<String> = fields.parse(name);
        text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let (series, device, group, range) = (given("series"), given("device"), given("group"), given("range"));
    let word = range.as_deref().unwrap_or(USUAL);
    let found = RANGES.into_iter().find(|(known, ..)| *known == word);
    if found.is_none() {
        fields.problem(format!("range: {word} is none of {}", RANGES.map(|(word, ..)| word).join(", ")));
    }
    let bad_device = device.as_ref().and_then(|name| ThingName::new(name).err());
    let bad_group = group.as_ref().and_then(|name| GroupName::new(name).err());
    for error in [bad_device, bad_group].into_iter().flatten() {
        fields.problem(error.to_string());
    }
    fields.finish()?;
    let (range, _, length) = found.unwrap_or(("all", "", None));
    Ok(Asked { series, device, group, range, length })
}

fn list(all: &[Series], now: Timestamp) -> Markup {
    html! {
        div.wide { table.stack {
            thead { tr { th { "Series" } th.number { "Devices" } th { "Last value" } th { "When" } } }
            tbody { @for series in all { tr {
                td data-name="Series" { a href={ "/results?series=" (encode(&series.name)) } { (series.name) } }
                td.number data-name="Devices" { (series.devices) }
                td.value data-name="Last value" { (payload(&series.value, 60)) }
                td data-name="When" { (ago(series.last, now)) }
            } } }
        } }
    }
}

async fn plot(plane: &Plane, asked: &Asked, series: &str, now: Timestamp) -> Result<Markup, Failure> {
    let since = asked.length.map(|length| Timestamp(now.0.saturating_sub(length)));
    let selection = Selection {
        lane: Lane::Results,
        stream: Some(format!("result.{series}")),
        device: asked.device.clone(),
        group: asked.group.clone(),
        since: since.unwrap_or(Timestamp(i64::MIN)),
        until: Timestamp(i64::MAX),
        after: None,
        limit: 1,
        latest: false,
    };
    let buckets = plane.records.buckets(selection, FIGURES).await?;
    let mut query = format!("series={}", encode(series));
    for (name, value) in [("device", &asked.device), ("group", &asked.group)] {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", encode(value)));
        }
    }
    if let Some(since) = since {
        query.push_str(&format!("&since={}", since.0));
    }
    Ok(html! {
        @if buckets.devices.is_empty() {
            p.empty {
                "No numbers of " strong { (series) } " in this time. "
                @if asked.range != "all" { a href={ "/results?series=" (encode(series)) "&range=all" } { "Show everything" } }
            }
        } @else {
            figure.plot data-plot={ "/v1/results?" (query) } aria-label={ "Plot of " (series) } {
                noscript { p.empty { "The plot needs a script. The figures below do not." } }
            }
            p.help {
                "The line is the mean of what one column of the plot covers, the band its least and greatest. "
                "Drag to look closer, double-click to go back."
            }
        }
        p.downloads {
            "Download the rows: "
            a href={ "/v1/export?" (query) "&format=csv" } download={ (series) ".csv" } { "CSV" } ", "
            a href={ "/v1/export?" (query) "&format=ndjson" } download={ (series) ".ndjson" } { "NDJSON" }
        }
        @if !buckets.devices.is_empty() { (figures(&buckets)) }
    })
}

/// The same in few rows, for those who do not look at plots.
fn figures(buckets: &Buckets) -> Markup {
    html! {
        section aria-labelledby="figures" {
            h2 #figures { "Figures" }
            p.help {
                "From " (moment(buckets.since)) " to " (moment(buckets.until)) ", " (span(buckets.width)) " a row."
                @if buckets.omitted > 0 { " " (counted(u64::try_from(buckets.omitted).unwrap_or(0), "device", "devices")) " more had no room here: choose one." }
                @if buckets.cut { " There is more than one question may read: choose a shorter time." }
            }
            @for line in &buckets.devices {
                div.wide { table.stack.figures {
                    caption { a href={ "/devices/" (line.device) } { (line.device) } }
                    thead { tr { th { "From" } th.number { "Values" } th.number { "Least" } th.number { "Mean" } th.number { "Greatest" } } }
                    tbody { @for point in &line.points { tr {
                        td data-name="From" { (moment(point.time)) }
                        td.number data-name="Values" { (count(point.count)) }
                        td.number data-name="Least" { (number(point.min)) }
                        td.number data-name="Mean" { (number(point.avg)) }
                        td.number data-name="Greatest" { (number(point.max)) }
                    } } }
                } }
            }
        }
    }
}
