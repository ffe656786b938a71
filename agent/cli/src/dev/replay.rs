//! `--replay` and `--record`: messages with their times, from a file and into one.
//!
//! A recording has a JSON object a line: `{"ms": 1500, "topic": "...", "payload": "..."}`, with the milliseconds since its
//! start. What is replayed may be one of those, or CSV, with seconds, topic and payload in its columns.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use holm_core::TopicName;
use serde_json::{Value, json};

use crate::failure::Failure;

/// How far after the begin a message may be: a century, so that no clock ends before it.
const FARTHEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The most messages of a recording.
const MOST: usize = 10_000_000;

/// How much faster than it was recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Speed(f64);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
        let number = number.filter(|speed| speed.is_finite() && *speed > 0.0);
        number.map(Self).ok_or_else(|| format!("`{text}` is not a speed such as `100x`"))
    }
}

/// A message, and when it comes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recorded {
    /// After the start of the replay.
    pub(crate) at: Duration,
    pub(crate) topic: TopicName,
    pub(crate) payload: String,
}

/// Reads a file whole; everything that is wrong with it is said.
pub(crate) fn read(path: &Path, speed: Speed) -> Result<Vec<Recorded>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| Failure::new(format!("cannot read {shown}: {error}")))?;
    let csv = path.extension().is_some_and(|extension| extension == "csv");
    let (mut messages, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let read = if csv { from_csv(line) } else { from_json(line) };
        match read {
            Ok((seconds, topic, payload)) => {
                match Duration::try_from_secs_f64(seconds / speed.0).ok().filter(|at| *at < FARTHEST) {
                    Some(at) => messages.push(Recorded { at, topic, payload }),
                    None => problems.push(format!("{shown}: line {}: that is too far away", index + 1)),
                }
            }
            // A first line without a time is a heading.
            Err(_) if csv && index == 0 => {}
            Err(why) => problems.push(format!("{shown}: line {}: {why}", index + 1)),
        }
        if messages.len() > MOST || problems.len() > 20 {
            break;
        }
    }
    if messages.len() > MOST {
        problems.push(format!("{shown} has more than {MOST} messages"));
    } else if messages.is_empty() && problems.is_empty() {
        problems.push(format!("{shown} has no message"));
    }
    if !problems.is_empty() {
        let shape =
            if csv { "`seconds,topic,payload`" } else { "`{\"ms\": 0, \"topic\": \"a/b\", \"payload\": \"...\"}`" };
        return Err(Failure::new(problems.join("\n"))
            .next(format!("every line is {shape}"))
            .page(holm_core::ErrorCode::RecordingWrong));
    }
    messages.sort_by_key(|message| message.at);
    Ok(messages)
}

fn from_csv(line: &str) -> Result<(f64, TopicName, String), String> {
    let mut columns = line.splitn(3, ',');
    let mut column = |name: &str| columns.next().map(str::trim).ok_or_else(|| format!("it has no {name}"));
    let (seconds, topic, payload) = (column("seconds")?, column("topic")?, column("payload")?);
    let time = seconds.parse::<f64>().ok().filter(|time| *time >= 0.0);
    let time = time.ok_or_else(|| format!("`{seconds}` is not a number of seconds"))?;
    // RFC 4180: quotes around, and twice where one is meant.
    let quoted = payload.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let payload = quoted.map_or_else(|| payload.to_owned(), |inner| inner.replace("\"\"", "\""));
    Ok((time, TopicName::new(topic).map_err(|error| error.to_string())?, payload))
}

fn from_json(line: &str) -> Result<(f64, TopicName, String), String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let ms = value.get("ms").and_then(Value::as_f64).filter(|ms| *ms >= 0.0).ok_or("it has no `ms`")?;
    let topic = value.get("topic").and_then(Value::as_str).ok_or("it has no `topic`")?;
    let payload =
        value.get("payload").map(|payload| payload.as_str().map_or_else(|| payload.to_string(), str::to_owned));
    Ok((ms / 1e3, TopicName::new(topic).map_err(|error| error.to_string())?, payload.ok_or("it has no `payload`")?))
}

/// What is being recorded.
pub(crate) struct Recording {
    path: PathBuf,
    file: std::io::BufWriter<std::fs::File>,
    begun: Option<i64>,
    last: String,
}

impl Recording {
    /// Begins a file; one that is there is not overwritten.
    pub(crate) fn new(path: &Path) -> Result<Self, Failure> {
        let file = std::fs::File::options().write(true).create_new(true).open(path).map_err(|error| {
            let failure = Failure::new(format!("cannot record into {}: {error}", path.display()));
            match error.kind() {
                std::io::ErrorKind::AlreadyExists => failure.next("name a file that is not there yet"),
                _ => failure,
            }
        })?;
        Ok(Self { path: path.to_owned(), file: std::io::BufWriter::new(file), begun: None, last: String::new() })
    }

    /// Takes the message that started an invocation, once, however many functions it started.
    pub(crate) fn take(&mut self, take: &Value) -> Result<(), Failure> {
        let event = take.get("event").cloned().unwrap_or_default();
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
        let first = event.get("attempt").and_then(Value::as_u64) == Some(1);
        if text("source") != "mqtt" || !first || text("id") == self.last {
            return Ok(());
        }
        self.last = text("id").to_owned();
        let time = event.get("time").and_then(Value::as_i64).unwrap_or_default();
        let ms = time.saturating_sub(*self.begun.get_or_insert(time)).max(0);
        let line = json!({ "ms": ms, "topic": text("subject"), "payload": event.get("data") });
        writeln!(self.file, "{line}")
            .and_then(|()| self.file.flush())
            .map_err(|error| Failure::new(format!("cannot record into {}: {error}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, speed: &str) -> Result<Vec<(u64, String, String)>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let messages = read(&path, speed.parse().unwrap()).map_err(|failure| failure.words())?;
        let row = |one: Recorded| (one.at.as_millis() as u64, one.topic.as_str().to_owned(), one.payload);
        Ok(messages.into_iter().map(row).collect())
    }

    #[test]
    fn csv_and_recordings_are_replayed_at_any_speed() {
        let csv = "seconds,topic,payload\n0,a/b,21.5\n2,a/c,\"{\"\"x\"\":1,\"\"y\"\":2}\"\n1,a/b,x,y\n";
        let expected = [(0, "a/b", "21.5"), (10, "a/b", "x,y"), (20, "a/c", r#"{"x":1,"y":2}"#)];
        let expected: Vec<_> = expected.map(|(at, topic, text)| (at, topic.to_owned(), text.to_owned())).into();
        assert_eq!(check("day.csv", csv, "100x"), Ok(expected));
        let lines = "{\"ms\":5,\"topic\":\"a\",\"payload\":\"x\"}\n";
        assert_eq!(check("day.ndjson", lines, "1"), Ok(vec![(5, "a".to_owned(), "x".to_owned())]));
    }

    #[test]
    fn every_line_that_is_wrong_is_named() {
        let told = check("day.csv", "0,a\nx,a,1\n1,a/+,1\n", "1x").unwrap_err();
        assert!(told.contains("line 2: `x` is not a number of seconds") && told.contains("line 3: "), "{told}");
        assert!(check("day.ndjson", "{}\n", "1x").unwrap_err().contains("line 1: it has no `ms`"));
        assert!("fast".parse::<Speed>().is_err());
        assert!("0x".parse::<Speed>().is_err());
    }

    #[test]
    fn what_was_recorded_can_be_replayed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ndjson");
        let mut recording = Recording::new(&path).unwrap();
        let take = |id: &str, time: i64| json!({"event": {"id": id, "source": "mqtt", "subject": "a/b", "time": time, "attempt": 1, "data": "x"}});
        for take in [take("1", 1000), take("1", 1000), take("2", 1250)] {
            recording.take(&take).unwrap();
        }
        let messages = read(&path, Speed(1.0)).unwrap();
        assert_eq!(messages.iter().map(|one| one.at.as_millis()).collect::<Vec<_>>(), [0, 250]);
        assert!(Recording::new(&path).err().unwrap().words().contains("not there yet"));
    }
}
