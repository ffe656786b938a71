//! `holm results`: the rows of a function's series that the node still has, or those that the control plane got.

use std::collections::BTreeMap;

use holm_core::ErrorCode;
use serde_json::Value;

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look::Look;
use crate::plot::{self, Point};
use crate::remote::{Remote, query};
use crate::screen::Screen;

/// Rows of a series that are asked for at once.
const PAGE: usize = 1_000;

/// See `holm results --help`.
#[derive(clap::Args)]
pub(crate) struct Results {
    /// The function, or FUNCTION.SERIES
    name: String,
    /// Only this series
    #[arg(long)]
    series: Option<String>,
    /// At most so many rows, the oldest first [default: all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Only rows after the one with this id
    #[arg(long, default_value_t = 0, value_name = "ID")]
    after: i64,
    /// Ask the control plane
    #[arg(long, conflicts_with = "after")]
    cloud: bool,
    /// Only what is so young, such as 1h
    #[arg(long, value_parser = holm_core::parse_duration, value_name = "TIME")]
    since: Option<std::time::Duration>,
    /// Only of this device
    #[arg(long, requires = "cloud", value_name = "NAME")]
    device: Option<String>,
    /// Only of the devices of this group
    #[arg(long, requires = "cloud", value_name = "NAME")]
    group: Option<String>,
    /// Draw numbers over time
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    plot: bool,
    /// As JSON, one object a line
    #[arg(long)]
    json: bool,
    /// As CSV (RFC 4180) with a head
    #[arg(long, conflicts_with = "json")]
    csv: bool,
}

/// Where a row stands among all rows, and in which series.
struct Row {
    id: i64,
    series: String,
    value: Value,
}

impl Results {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        if self.csv {
            screen.text("id,series,sequence,time,value\r\n")?;
        }
        let (function, series) = self.parts();
        let only = series.map(|series| format!("&series={}", escape(series))).unwrap_or_default();
        let since = self.since();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut after = self.after;
        let mut any = false;
        let mut drawn = Drawn::default();
        while left > 0 {
            let path = format!("/v1/results/{}?after={after}&limit={PAGE}{only}", escape(function));
            let rows = client.get(&path).await.map_err(|failure| self.elsewhere(failure))?;
            let (rows, next) = page(parse(rows, &path, "results")?, PAGE);
            // A node has few rows, and gives them by their number.
            let young = |row: &Row| since.is_none_or(|since| field(&row.value, "time").as_i64() >= Some(since));
            for row in rows.into_iter().filter(young).take(left) {
                any = true;
                left -= 1;
                match self.plot {
                    true => drawn.add(&row.value),
                    false => self.show(&row.value, screen)?,
                }
            }
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        drawn.show(screen)?;
        if !any {
            screen.note(format_args!("{} has no rows here: none were recorded, or all are in the cloud", self.name));
        }
        Ok(())
    }

    /// The function, and the series if it is named: function names have no dots.
    fn parts(&self) -> (&str, Option<&str>) {
        match (&self.series, self.name.split_once('.')) {
            (Some(series), _) => (&self.name, Some(series)),
            (None, Some((function, series))) => (function, Some(series)),
            (None, None) => (&self.name, None),
        }
    }

    /// What is older is not shown, in milliseconds since 1970.
    fn since(&self) -> Option<i64> {
        let now = jiff::Timestamp::now().as_millisecond();
        let since = self.since.map(|since| now.saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)));
        since.map(|since| since.max(0))
    }

    /// Where there is no node, the rows may be in the cloud.
    fn elsewhere(&self, failure: Failure) -> Failure {
        if !failure.is(ErrorCode::NodeUnreachable) {
            return failure;
        }
        let (function, series) = self.parts();
        let series = series.unwrap_or("SERIES");
        failure.next(format!(
            "on a machine without a node, ask the control plane: `holm results {function}.{series} --cloud`"
        ))
    }

    /// From the control plane. In CSV it is the control plane's own.
    pub(crate) async fn run_cloud(&self, screen: &mut Screen) -> Result<(), Failure> {
        let remote = Remote::open()?;
        let series = match self.parts() {
            (function, Some(series)) => format!("{function}.{series}"),
            _ => return Err(Failure::new("which series?").next("name it: `holm results FUNCTION.SERIES --cloud`")),
        };
        let since = self.since();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let (mut after, mut head, mut any, mut drawn) = (None, self.csv, false, Drawn::default());
        while left > 0 {
            let path = query(
                "/v1/results",
                &[
                    ("series", Some(series.clone())),
                    ("device", self.device.clone()),
                    ("group", self.group.clone()),
                    ("since", since.map(|since| since.to_string())),
                    ("limit", Some(PAGE.min(left).to_string())),
                    ("after", after.take()),
                    ("format", self.csv.then(|| "csv".to_owned())),
                ],
            );
            let next = if self.csv {
                let (text, next) = remote.text(&path).await?;
                // Each page has a head; one is enough.
                let rows = text.split_once("\r\n").map_or("", |(_, rows)| rows);
                any |= !rows.is_empty();
                left = left.saturating_sub(csv_rows(rows));
                screen.text(if std::mem::take(&mut head) { &text } else { rows })?;
                next
            } else {
                let mut page = remote.get(&path).await?;
                let rows: Vec<Value> = parse(page.clone(), &path, "rows")?;
                left = left.saturating_sub(rows.len());
                for row in &rows {
                    any = true;
                    match () {
                        () if self.plot => drawn.add(row),
                        () if self.json => screen.json(row)?,
                        () => screen.line(cloud_line(row, &screen.look))?,
                    }
                }
                page.get_mut("next").and_then(|next| next.as_str().map(str::to_owned))
            };
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        drawn.show(screen)?;
        if !any {
            screen.note(format_args!("the control plane has no rows of {series} here"));
        }
        Ok(())
    }

    /// Whether the control plane is meant.
    pub(crate) fn is_cloud(&self) -> bool {
        self.cloud
    }

    fn show(&self, row: &Value, screen: &mut Screen) -> Result<(), Failure> {
        match () {
            () if self.json => screen.json(row),
            () if self.csv => screen.text(&csv(row)),
            () => {
                let text = line(row, &screen.look);
                screen.line(text)
            }
        }
    }
}

/// Rows of CSV (RFC 4180): what ends a line within quotes ends no row.
fn csv_rows(text: &str) -> usize {
    let mut quoted = false;
    let ends = text.bytes().filter(|byte| {
        quoted ^= *byte == b'"';
        *byte == b'\n' && !quoted
    });
    ends.count()
}

/// Series that are to be drawn.
#[derive(Default)]
struct Drawn(BTreeMap<String, Vec<Point>>);

impl Drawn {
    /// Takes a row. One that is no number is nothing to draw.
    fn add(&mut self, row: &Value) {
        let text = |name: &str| row.get(name).and_then(Value::as_str);
        // The control plane has streams of devices, a node its own series.
        let series = text("series").or_else(|| Some(text("stream")?.trim_start_matches("result."))).unwrap_or_default();
        let series = text("device").map_or_else(|| series.to_owned(), |device| format!("{series} of {device}"));
        let time = row.get("time").and_then(Value::as_i64);
        if let (Some(time), Some(value)) = (time, row.get("value").and_then(Value::as_f64)) {
            self.0.entry(series).or_default().push((time, value));
        }
    }

    /// Draws each, one below the other.
    fn show(mut self, screen: &mut Screen) -> Result<(), Failure> {
        let (columns, rows) = size();
        for (name, points) in &mut self.0 {
            points.sort_by_key(|(time, _)| *time);
            let text = plot::draw(name, points, columns, rows, &screen.look);
            screen.text(&text)?;
        }
        Ok(())
    }
}

/// As much of the terminal as a plot takes; where there is none, what fits everywhere.
fn size() -> (usize, usize) {
    let (columns, rows) = ratatui::crossterm::terminal::size().unwrap_or((80, 24));
    (usize::from(columns).saturating_sub(14).clamp(20, 160), usize::from(rows).saturating_sub(8).clamp(4, 16))
}

/// Puts the rows of one answer in order. A node gives up to `limit` rows of every series: where a series is full, rows
/// beyond its last one are left for the next page, so that none is passed over and none comes twice. Answers with what to
/// ask for next, if there may be more.
fn page(rows: Vec<Value>, limit: usize) -> (Vec<Row>, Option<i64>) {
    let mut rows: Vec<Row> = rows
        .into_iter()
        .map(|value| Row {
            id: value.get("id").and_then(Value::as_i64).unwrap_or_default(),
            series: value.get("series").and_then(Value::as_str).unwrap_or_default().to_owned(),
            value,
        })
        .collect();
    rows.sort_by_key(|row| row.id);
    let mut counts = std::collections::BTreeMap::new();
    for row in &rows {
        let (count, last) = counts.entry(row.series.clone()).or_insert((0, 0));
        *count += 1;
        *last = row.id;
    }
    let next = counts.values().filter(|(count, _)| *count >= limit).map(|(_, last)| *last).min();
    if let Some(next) = next {
        rows.retain(|row| row.id <= next);
    }
    (rows, next)
}

fn field<'a>(row: &'a Value, name: &str) -> &'a Value {
    row.get(name).unwrap_or(&Value::Null)
}

fn cloud_line(row: &Value, look: &Look) -> String {
    let device = field(row, "device").as_str().unwrap_or_default();
    let value = ["value", "text", "base64"].into_iter().find_map(|name| row.get(name)).unwrap_or(&Value::Null);
    format!("{}  {device}  {value}", look.moment(field(row, "time").as_i64().unwrap_or_default()))
}

fn line(row: &Value, look: &Look) -> String {
    let series = field(row, "series").as_str().unwrap_or_default();
    format!("{}  {series}  {}", look.moment(field(row, "time").as_i64().unwrap_or_default()), field(row, "value"))
}

fn csv(row: &Value) -> String {
    let cell = |name| {
        let text = match field(row, name) {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match text.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text,
        }
    };
    ["id", "series", "sequence", "time", "value"].map(cell).join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, series: &str) -> Value {
        serde_json::json!({"id": id, "series": series, "sequence": id, "time": 0, "value": {"a": 1.5}})
    }

    #[test]
    fn pages_neither_skip_nor_repeat_rows() {
        // Two series, three rows a page: `a` is full at 5, so 6 of `b` is left for later.
        let (rows, next) = page(vec![row(1, "a"), row(3, "a"), row(5, "a"), row(2, "b"), row(6, "b")], 3);
        assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3, 5]);
        assert_eq!(next, Some(5));
        let (rows, next) = page(vec![row(6, "b"), row(7, "a")], 3);
        assert_eq!((rows.len(), next), (2, None));
    }

    #[test]
    fn every_series_of_every_device_is_drawn_apart() {
        let row = |device: &str, value| serde_json::json!({ "device": device, "stream": "result.flow.rate", "time": 0, "value": value });
        let mut drawn = Drawn::default();
        for row in
            [row("pi1", 1), row("pi2", 2), row("pi1", 3), serde_json::json!({ "series": "n", "time": 0, "value": 1 })]
        {
            drawn.add(&row);
        }
        let sizes: Vec<(&str, usize)> = drawn.0.iter().map(|(name, points)| (name.as_str(), points.len())).collect();
        assert_eq!(sizes, [("flow.rate of pi1", 2), ("flow.rate of pi2", 1), ("n", 1)]);
    }

    #[test]
    fn rows_of_csv_are_counted_as_such() {
        for (text, rows) in [("", 0), ("a,1\r\nb,2\r\n", 2), ("a,\"x\r\ny\"\"\r\n\"\r\nb,2\r\n", 2)] {
            assert_eq!(csv_rows(text), rows, "{text:?}");
        }
    }

    #[test]
    fn writes_rows_for_people_and_for_spreadsheets() {
        assert_eq!(line(&row(4, "flow"), &Look::plain()), "1970-01-01 00:00:00  flow  {\"a\":1.5}");
        assert_eq!(csv(&row(4, "a,b")), "4,\"a,b\",4,0,\"{\"\"a\"\":1.5}\"\r\n");
    }
}
