//! `holm logs --device D`: what functions of a device write to their logs, by way of the control plane.
//!
//! A device sends lines while somebody looks, so whoever follows says so again before that time is over. Lines come in the order of the
//! device's clock within a function, and each once.

use std::collections::BTreeMap;
use std::time::Duration;

use holm_core::LogLevel;
use holm_protocol::LogRecord;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::journal::{Follow, log};
use crate::look::{self, Look, Tone};
use crate::remote::{Remote, query};
use crate::reply::Log;
use crate::screen::Screen;

/// For so long, in seconds, each question makes the device send lines, and after so much of it it is asked again.
const LEASE_S: u64 = 60;
const ASK_EVERY: Duration = Duration::from_secs(20);

/// Between two looks at what has come.
const POLL: Duration = Duration::from_millis(500);

/// Lines may come this much later than others that were written at the same time, in milliseconds.
const LATE: i64 = 60_000;

/// Lines of one answer.
const PAGE: usize = 1_000;

/// See `holm logs --help`.
#[derive(clap::Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    follow: Follow,
    /// Of a device of the control plane, and not of the node on this machine
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// With --device: lines that are at least so loud
    #[arg(long, value_name = "LEVEL", default_value = "info", requires = "device", value_parser = ["trace", "debug", "info", "warn", "error"])]
    level: String,
}

/// The last number that was shown, by stream and life of the device's database.
type Seen = BTreeMap<(String, String), u64>;

impl Logs {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match &self.device {
            None => self.follow.logs(client, screen).await,
            Some(device) => self.of_device(device, screen).await,
        }
    }

    async fn of_device(&self, device: &str, screen: &mut Screen) -> Result<(), Failure> {
        let remote = Remote::open()?;
        let (mut seen, mut since, mut asked) = (Seen::new(), None, None::<Instant>);
        let mut told = false;
        loop {
            if self.follow.follow && asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
                let body = json!({ "level": self.level, "for_s": LEASE_S });
                let answer = remote.post(&format!("/v1/devices/{}/logs", escape(device)), &body).await?;
                let connected = answer.get("connected").and_then(Value::as_bool).unwrap_or_default();
                if !connected && !told {
                    screen.note(format_args!("{device} is not connected: its lines come when it does"));
                }
                told = !connected;
                asked = Some(Instant::now());
            }
            let lines = self.lines(&remote, device, since, &mut seen).await?;
            for (time, row) in lines {
                since = since.max(Some(time));
                if let Some(row) = row {
                    self.show(&row, screen)?;
                }
            }
            if !self.follow.follow {
                return Ok(());
            }
            // So that what was there before is not asked for again when nothing was.
            since = since.or(Some(0));
            sleep(POLL).await;
        }
    }

    /// What has come since: the times of all lines, and those that are shown.
    async fn lines(
        &self,
        remote: &Remote,
        device: &str,
        since: Option<i64>,
        seen: &mut Seen,
    ) -> Result<Vec<(i64, Option<Value>)>, Failure> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let limit = if since.is_none() { self.follow.limit.clamp(1, PAGE) } else { PAGE };
            let values = [
                ("device", Some(device.to_owned())),
                ("function", self.follow.function.clone()),
                ("order", since.is_none().then(|| "latest".to_owned())),
                ("since", since.map(|since| since.saturating_sub(LATE).max(0).to_string())),
                ("limit", Some(limit.to_string())),
                ("after", after.clone()),
            ];
            let path = query("/v1/logs", &values);
            let answer = remote.get(&path).await?;
            let rows: Vec<Value> = parse(answer.clone(), &path, "rows")?;
            let gaps: Vec<Value> = parse(answer.clone(), &path, "gaps")?;
            for row in gaps.into_iter().chain(rows) {
                found.extend(self.line(row, seen));
            }
            after = parse(answer, &path, "next")?;
            if after.is_none() || since.is_none() {
                break;
            }
        }
        found.sort_by_key(|(time, _)| *time);
        Ok(found)
    }

    fn line(&self, row: Value, seen: &mut Seen) -> Option<(i64, Option<Value>)> {
        let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let stream = text("stream");
        // Reports and lists that somebody asked for are in the same lane.
        if stream != "log" && !stream.starts_with("log.") {
            return None;
        }
        let number = |name: &str| row.get(name).and_then(Value::as_u64);
        let last = number("sequence").or_else(|| Some(number("first")? + number("count")? - 1))?;
        let kind = if row.get("sequence").is_some() { text("epoch") } else { "gap".to_owned() };
        let before = seen.entry((stream, kind)).or_default();
        if last <= *before {
            return None;
        }
        *before = last;
        let time = row.get("time").and_then(Value::as_i64).unwrap_or_default();
        let line = row.get("value").and_then(|value| serde_json::from_value::<LogRecord>(value.clone()).ok());
        let quiet = matches!(line, Some(LogRecord::Line { level, .. }) if level < self.least());
        Some((time, (!quiet).then_some(row)))
    }

    fn least(&self) -> LogLevel {
        serde_json::from_value(Value::String(self.level.clone())).unwrap_or(LogLevel::Info)
    }

    fn show(&self, row: &Value, screen: &mut Screen) -> Result<(), Failure> {
        if self.follow.json {
            return screen.json(row);
        }
        let text = render(row, &screen.look);
        screen.line(text)
    }
}

fn render(row: &Value, look: &Look) -> String {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
    let stream = text("stream");
    let function = stream.strip_prefix("log.").unwrap_or("functions").to_owned();
    let time = row.get("time").and_then(Value::as_i64).unwrap_or_default();
    let gap = |count: u64, reason: &str| {
        let words = match reason {
            "rate" => "more than may be sent",
            "ring" => "overwritten before they were sent",
            other => other,
        };
        look.paint(Tone::Warn, &format!("… {} lines of {function} are not here: {words}", look::count(count)))
    };
    if let Some(count) = row.get("count").and_then(Value::as_u64) {
        return gap(count, text("reason"));
    }
    let record = row.get("value").and_then(|value| serde_json::from_value::<LogRecord>(value.clone()).ok());
    match record {
        Some(LogRecord::Gap { gap: count, reason }) => gap(count, &reason),
        Some(LogRecord::Line { level, message, .. }) => {
            let level = serde_json::to_value(level).ok().and_then(|level| level.as_str().map(str::to_owned));
            log(&Log { gap: 0, time, function, level: level.unwrap_or_default(), message }, look)
        }
        None => row.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_holes_are_shown() {
        let row = |value: Value| json!({ "stream": "log.f", "time": 0, "sequence": 1, "value": value });
        let look = Look::plain();
        let line = row(json!({ "level": "warn", "context": "stderr", "message": "hot" }));
        assert_eq!(render(&line, &look), "00:00:00.000 f warn hot");
        let rate = row(json!({ "gap": 1_200, "reason": "rate" }));
        assert_eq!(render(&rate, &look), "… 1,200 lines of f are not here: more than may be sent");
        let dropped = json!({ "stream": "log.f", "time": 0, "first": 1, "count": 3, "reason": "expired" });
        assert_eq!(render(&dropped, &look), "… 3 lines of f are not here: expired");
    }
}
