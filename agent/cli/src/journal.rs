//! `holm logs` and `holm events`: what functions wrote, and how invocations ended. Both live in the node's memory, so a
//! restart empties them.

use serde_json::Value;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::reply::{Event, Log};
use crate::screen::Screen;

/// Enough for everything that the node remembers.
const ALL: usize = 1_000_000;

/// See `holm logs --help`.
#[derive(clap::Args)]
pub(crate) struct Follow {
    /// Go on with what is new, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only of this function
    #[arg(long, value_name = "NAME")]
    pub(crate) function: Option<String>,
    /// How many of the last ones to begin with
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
    pub(crate) limit: usize,
    /// As JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

impl Follow {
    pub(crate) async fn logs(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        self.show("/v1/logs", log, client, screen).await
    }

    pub(crate) async fn events(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        self.show("/v1/events", event, client, screen).await
    }

    async fn show<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        render: fn(&T, &Look) -> String,
        client: &Client,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        let show = |value: Value, screen: &mut Screen| match serde_json::from_value::<T>(value.clone()) {
            Ok(entry) if !self.json => {
                let text = render(&entry, &screen.look);
                screen.line(text)
            }
            _ => screen.json(&value),
        };
        let only = self.function.as_ref().map(|name| format!("&function={}", escape(name))).unwrap_or_default();
        // The node counts before it picks the function: what is the last of one function is decided here.
        let limit = if only.is_empty() { self.limit } else { ALL };
        let mut past = client.stream(&format!("{path}?limit={limit}{only}")).await?;
        let mut held = std::collections::VecDeque::new();
        while let Some(value) = past.next().await? {
            held.push_back(value);
            if held.len() > self.limit {
                held.pop_front();
            }
        }
        let mut after = 0;
        for value in held {
            after = number(&value).unwrap_or(after);
            show(value, screen)?;
        }
        if !self.follow {
            return Ok(());
        }
        // After 0 means from the end of the ring, of which at most `limit`: everything, when nothing was there before.
        let mut coming = client.stream(&format!("{path}?follow=true&after={after}&limit={ALL}{only}")).await?;
        while let Some(value) = coming.next().await? {
            show(value, screen)?;
        }
        Err(Failure::new("the node has ended, and the stream with it")
            .next("look whether it is back with `holm status`"))
    }
}

fn number(value: &Value) -> Option<u64> {
    value.get("number").and_then(Value::as_u64)
}

fn gap(count: u64, look: &Look) -> String {
    look.paint(Tone::Warn, &format!("… {} entries went by too fast to be shown", look::count(count)))
}

/// One line for an invocation.
pub(crate) fn event(event: &Event, look: &Look) -> String {
    if event.gap > 0 {
        return gap(event.gap, look);
    }
    let tone = if event.outcome == "ok" { Tone::Good } else { Tone::Bad };
    let again = if event.attempt > 1 { format!(" attempt {}", event.attempt) } else { String::new() };
    let fault = event.fault.as_ref().map(|fault| format!(": {}", look::short(fault, 160))).unwrap_or_default();
    format!(
        "{} {} {} {} {} {} {}{again}{fault}",
        look.paint(Tone::Dim, &look.clock(event.time)),
        look.paint(Tone::Strong, &event.function),
        look.paint(tone, &event.outcome),
        look::micros(event.wall_us as f64),
        event.source,
        event.subject,
        look.paint(Tone::Dim, &format!("{} {}", look::bytes(event.bytes), event.id)),
    )
}

/// One line for a log line.
pub(crate) fn log(log: &Log, look: &Look) -> String {
    if log.gap > 0 {
        return gap(log.gap, look);
    }
    let level = log.level.to_ascii_lowercase();
    let tone = match &*level {
        "error" | "critical" => Tone::Bad,
        "warn" => Tone::Warn,
        "debug" | "trace" => Tone::Dim,
        _ => Tone::Plain,
    };
    format!(
        "{} {} {} {}",
        look.paint(Tone::Dim, &look.clock(log.time)),
        look.paint(Tone::Strong, &log.function),
        look.paint(tone, &level),
        log.message.trim_end(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_an_entry_a_line_and_says_what_is_missing() {
        let look = Look::plain();
        let entry = |value| serde_json::from_value::<Event>(value).unwrap_or_default();
        let ok = serde_json::json!({
            "number": 7, "time": 1_648_108_800_123_i64, "id": "a-1", "source": "mqtt", "subject": "water/flow",
            "function": "water-loss", "attempt": 1, "outcome": "ok", "wall_us": 184, "bytes": 52,
        });
        assert_eq!(event(&entry(ok), &look), "08:00:00.123 water-loss ok 184 µs mqtt water/flow 52 B a-1");
        let bad = serde_json::json!({
            "number": 8, "time": 0, "id": "a-2", "source": "mqtt", "subject": "t", "function": "f", "attempt": 2,
            "outcome": "trap", "fault": "unreachable\nin f", "wall_us": 9, "bytes": 0,
        });
        assert_eq!(event(&entry(bad), &look), "00:00:00.000 f trap 9 µs mqtt t 0 B a-2 attempt 2: unreachable…");
        let gap = entry(serde_json::json!({"gap": 1_200}));
        assert_eq!(event(&gap, &look), "… 1,200 entries went by too fast to be shown");
        let line = Log { function: "f".into(), level: "WARN".into(), message: "hot\n".into(), ..Log::default() };
        assert_eq!(log(&line, &look), "00:00:00.000 f warn hot");
    }
}
