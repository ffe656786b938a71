//! What an invocation did, for people who watch.

use serde_json::Value;

use crate::look::{self, Look, Tone};

/// The most characters of a payload that are shown.
const MOST: usize = 120;

/// A line for the invocation, and one for each thing that it did.
pub(crate) fn render(take: &Value, look: &Look) -> String {
    let event = take.get("event").cloned().unwrap_or_default();
    let outcome = text(take, "outcome");
    let tone = if outcome == "ok" { Tone::Good } else { Tone::Bad };
    let time = take.get("time").and_then(Value::as_i64).unwrap_or_default();
    let wall = take.get("wall_us").and_then(Value::as_f64).unwrap_or_default();
    let attempt = event.get("attempt").and_then(Value::as_u64).unwrap_or(1);
    let again = if attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
    let mut lines = format!(
        "{} {} {} {} {} {}{again}  {}\n",
        look.paint(Tone::Dim, &look.clock(time)),
        look.paint(tone, &format!("{outcome:<7}")),
        look.paint(Tone::Strong, &text(take, "function")),
        text(&event, "source"),
        text(&event, "subject"),
        payload(event.get("data")),
        look.paint(Tone::Dim, &look::micros(wall)),
    );
    let mut line = |word: &str, what: String| {
        lines.push_str(&format!("    {} {what}\n", look.paint(Tone::Dim, &format!("{word:<8}"))));
    };
    if let Some(fault) = take.get("fault").and_then(Value::as_str) {
        fault.lines().for_each(|words| line("fault", words.to_owned()));
    }
    for row in rows(take, "logs") {
        line("log", format!("{} {}", text(row, "level"), text(row, "message").trim_end()));
    }
    for row in rows(take, "publishes") {
        let retained = if row.get("retain") == Some(&Value::Bool(true)) { " (retained)" } else { "" };
        line("publish", format!("{} {}{retained}", text(row, "topic"), payload(row.get("payload"))));
    }
    for row in rows(take, "results") {
        line("result", format!("{} {}", text(row, "series"), row.get("value").cloned().unwrap_or_default()));
    }
    for row in rows(take, "state") {
        let value = row.get("value").filter(|value| !value.is_null());
        line("state", format!("{} = {}", text(row, "key"), value.map_or("deleted".to_owned(), |it| payload(Some(it)))));
    }
    for row in rows(take, "enqueued") {
        line("enqueue", format!("{} {}", text(row, "function"), payload(row.get("payload"))));
    }
    if let Some(answer) = take.get("answer").filter(|answer| !answer.is_null()) {
        line("answer", payload(Some(answer)));
    }
    lines
}

fn rows<'a>(take: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    take.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, name: &str) -> String {
    value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A payload on one line: what is no text is a number of bytes.
pub(super) fn payload(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => {
            let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            look::short(&line, MOST)
        }
        Some(Value::Array(bytes)) => look::bytes(bytes.len() as u64),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_an_invocation_did() {
        let take = serde_json::json!({
            "function": "heat", "time": 1_780_300_800_123_i64, "outcome": "ok", "wall_us": 312,
            "event": {"source": "mqtt", "subject": "a/b", "attempt": 1, "data": "31.5"},
            "logs": [{"level": "info", "message": "warm"}],
            "publishes": [{"topic": "alerts/b", "payload": "{\"n\":1}", "retain": true}],
            "results": [{"series": "t", "value": 31.5}],
            "state": [{"key": "n", "value": "1"}, {"key": "m", "value": null}],
        });
        let expected = "\
08:00:00.123 ok      heat mqtt a/b 31.5  312 µs
    log      info warm
    publish  alerts/b {\"n\":1} (retained)
    result   t 31.5
    state    n = 1
    state    m = deleted
";
        assert_eq!(render(&take, &Look::plain()), expected);
        let take = serde_json::json!({
            "function": "heat", "outcome": "trap", "fault": "unreachable\nat main", "wall_us": 9,
            "event": {"source": "mqtt", "subject": "a", "attempt": 2, "data": [1, 2]},
        });
        let expected =
            "00:00:00.000 trap    heat mqtt a 2 B (attempt 2)  9 µs\n    fault    unreachable\n    fault    at main\n";
        assert_eq!(render(&take, &Look::plain()), expected);
    }
}
