//! Following a rollout: what has happened, line by line, and how it ended.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{counts, devices, get, number, text, tone};
use crate::failure::Failure;
use crate::look::Look;
use crate::remote::Remote;
use crate::screen::Screen;

/// Some devices have it, and others do not.
const PARTIAL: u8 = 3;

/// It was aborted, and the devices went back.
const ROLLED_BACK: u8 = 4;

/// It has not ended: devices may be away.
const QUEUED: u8 = 5;

/// Between two questions.
const POLL: Duration = Duration::from_millis(300);

/// A control plane that is restarted is waited for.
const AWAY: Duration = Duration::from_secs(30);

/// Until it ends, or the patience does.
pub(crate) async fn watch(
    remote: &Remote,
    id: &str,
    patience: Duration,
    as_json: bool,
    screen: &mut Screen,
) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + patience;
    let (mut seen, mut told) = (0, String::new());
    let mut heard = Instant::now();
    loop {
        let rollout = match get(remote, id).await {
            Ok(rollout) => rollout,
            // Once it was there, it comes back.
            Err(_) if !told.is_empty() && heard.elapsed() < AWAY => {
                sleep(POLL).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        heard = Instant::now();
        let line = line(&rollout, &screen.look);
        if as_json {
            if line != told {
                screen.json(&rollout)?;
            }
        } else {
            let events = rollout.get("events").and_then(Value::as_array).cloned().unwrap_or_default();
            let time = |event: &Value| event.get("time").and_then(Value::as_i64).unwrap_or_default();
            for event in events.iter().filter(|event| number(event, "/id") > seen) {
                let at = screen.look.clock(time(event));
                screen.line(format_args!("{at}  {}", text(event, "/text")))?;
            }
            seen = events.last().map_or(seen, |event| number(event, "/id"));
            if line != told {
                screen.line(&line)?;
            }
        }
        told = line;
        if let Some(code) = end(&rollout) {
            if code == QUEUED {
                screen.note(format_args!("devices that are away take it when they come: holm rollout show {id}"));
            }
            return Ok(ExitCode::from(code));
        }
        if text(&rollout, "/state") == "aborting" && number(&rollout, "/counts/undoing") > 0 {
            let undoing = devices(remote, id, Some("undoing")).await?;
            let away = |device: &Value| device.get("connected").and_then(Value::as_bool) == Some(false);
            if number(&rollout, "/counts/undoing") == undoing.len() as u64
                && undoing.iter().all(away)
                && only_undoing(&rollout)
            {
                screen.note(format_args!("{} devices that are away go back when they come", undoing.len()));
                return Ok(ExitCode::from(ROLLED_BACK));
            }
        }
        if Instant::now() >= deadline {
            screen.note(format_args!("it has not ended yet, and goes on without us: holm rollout watch {id}"));
            return Ok(ExitCode::from(QUEUED));
        }
        sleep(POLL).await;
    }
}

/// Nobody has to be told to go back any more.
fn only_undoing(rollout: &Value) -> bool {
    ["queued", "unknown", "working", "confirmed", "timed-out"]
        .iter()
        .all(|word| number(rollout, &format!("/counts/{word}")) == 0)
}

/// A rollout as one line.
fn line(rollout: &Value, look: &Look) -> String {
    let state = text(rollout, "/state");
    let stages = rollout.get("stages").and_then(Value::as_array).map_or(0, Vec::len);
    let head = match state.as_str() {
        "running" => format!("stage {} of {stages}", number(rollout, "/stage")),
        other => other.to_owned(),
    };
    let blanks = " ".repeat(14_usize.saturating_sub(head.len()).max(2));
    format!("{}{blanks}{}", look.paint(tone(&state), &head), counts(rollout))
}

/// The exit code, if it has ended.
fn end(rollout: &Value) -> Option<u8> {
    let count = |word: &str| number(rollout, &format!("/counts/{word}"));
    match text(rollout, "/state").as_str() {
        "completed" if count("confirmed") == number(rollout, "/devices") => Some(0),
        "completed"
            if count("queued") + count("unknown") + count("working") + count("confirmed")
                == number(rollout, "/devices") =>
        {
            Some(QUEUED)
        }
        "completed" => Some(PARTIAL),
        "aborted" if count("stuck") > 0 => Some(PARTIAL),
        "aborted" => Some(ROLLED_BACK),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_exit_code_says_how_it_ended() {
        for (state, counts, code) in [
            ("running", json!({ "confirmed": 2 }), None),
            ("paused", json!({ "confirmed": 2 }), None),
            ("aborting", json!({ "undoing": 2 }), None),
            ("completed", json!({ "confirmed": 2 }), Some(0)),
            ("completed", json!({ "confirmed": 1, "unknown": 1 }), Some(5)),
            ("completed", json!({ "confirmed": 1, "failed": 1 }), Some(3)),
            ("completed", json!({ "confirmed": 1, "superseded": 1 }), Some(3)),
            ("aborted", json!({ "undone": 1, "skipped": 1 }), Some(4)),
            ("aborted", json!({ "undone": 1, "stuck": 1 }), Some(3)),
        ] {
            let rollout = json!({ "state": state, "devices": 2, "counts": counts, "stage": 1, "stages": [1, 2] });
            assert_eq!(end(&rollout), code, "{rollout}");
        }
        let rollout = json!({ "state": "running", "counts": { "working": 1 }, "stage": 1, "stages": [1, 2] });
        assert_eq!(line(&rollout, &Look::plain()), "stage 1 of 2  1 working");
    }
}
