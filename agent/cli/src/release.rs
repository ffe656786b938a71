//! `holm deploy FUNCTION@VERSION --device NAME`: a release for a device, by way of the control plane.

use std::process::ExitCode;
use std::time::Duration;

use holm_protocol::{JobStatus, Phase, ReasonCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::escape;
use crate::deploy::ROLLED_BACK;
use crate::failure::Failure;
use crate::look::{Look, Tone};
use crate::remote::Remote;
use crate::screen::Screen;

/// The exit code of a deployment that has not ended: the device may be away.
pub(crate) const QUEUED: u8 = 5;

/// Between two questions how far it is.
pub(crate) const POLL: Duration = Duration::from_millis(300);

/// What is wanted.
pub(crate) struct Release<'a> {
    pub(crate) function: &'a str,
    pub(crate) version: &'a str,
    pub(crate) device: &'a str,
    pub(crate) health_window: Option<Duration>,
    /// How long it is watched, if it is.
    pub(crate) watch: Option<Duration>,
    pub(crate) json: bool,
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Confirmed,
    RolledBack,
    Failed,
}

impl Release<'_> {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let remote = Remote::open()?;
        let body = json!({
            "function": self.function,
            "version": self.version,
            "health_window_s": self.health_window.map(|window| window.as_secs()),
        });
        let device = escape(self.device);
        let answer = remote.post(&format!("/v1/devices/{device}/deploy"), &body).await?;
        let generation = answer.get("generation").and_then(Value::as_u64).unwrap_or_default();
        let connected = answer.get("connected").and_then(Value::as_bool).unwrap_or_default();
        if !self.json {
            screen.line(format_args!(
                "queued     {} {} for {}, generation {generation}",
                self.function, self.version, self.device
            ))?;
        }
        if !connected {
            screen.note(format_args!("{} is not connected: it begins when it comes", self.device));
        }
        let Some(patience) = self.watch else {
            if self.json {
                screen.json(&answer)?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let path = format!("/v1/devices/{device}/jobs/{generation}");
        let deadline = Instant::now() + patience;
        let mut told = String::new();
        loop {
            let job = remote.get(&path).await?.get("job").cloned().unwrap_or_default();
            let (line, end) = look_at(&job, &screen.look);
            if line != told {
                match self.json {
                    true => screen.json(&job)?,
                    false => screen.line(&line)?,
                }
                told = line;
            }
            match end {
                Some(End::Confirmed) => return Ok(ExitCode::SUCCESS),
                Some(End::RolledBack) => return Ok(ExitCode::from(ROLLED_BACK)),
                Some(End::Failed) => return Ok(ExitCode::FAILURE),
                None if Instant::now() >= deadline => {
                    screen.note(format_args!(
                        "it has not ended yet, and goes on without us: holm device show {}",
                        self.device
                    ));
                    return Ok(ExitCode::from(QUEUED));
                }
                None => sleep(POLL).await,
            }
        }
    }
}

/// A job as one line, and how it ended if it did.
pub(crate) fn look_at(job: &Value, look: &Look) -> (String, Option<End>) {
    let text = |path: &str| job.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let status = JobStatus::parse(text("/status"));
    let phase = match text("/details/phase") {
        "" => None,
        phase => Some(Phase::parse(phase)),
    };
    let end = match (&status, &phase) {
        (JobStatus::Succeeded, _) => Some(End::Confirmed),
        (JobStatus::Failed, Some(Phase::RolledBack)) => Some(End::RolledBack),
        (status, _) if status.is_terminal() => Some(End::Failed),
        _ => None,
    };
    let word = match (&status, &phase) {
        (JobStatus::Canceled, _) => "canceled".to_owned(),
        (JobStatus::TimedOut, _) => "timed out".to_owned(),
        (JobStatus::Removed, _) => "removed".to_owned(),
        (_, Some(phase)) => phase.as_str().to_owned(),
        (status, None) => status.as_str().to_lowercase(),
    };
    let reason = match text("/details/reason") {
        "" => None,
        reason => Some(ReasonCode::parse(reason).explanation().to_owned()),
    };
    let message = Some(text("/details/message").to_owned()).filter(|message| !message.is_empty());
    // Devices put the sentence before what more they have to say.
    let said = |reason: &String| message.as_ref().is_some_and(|message| message.starts_with(reason.as_str()));
    let why: Vec<String> = reason.filter(|reason| !said(reason)).into_iter().chain(message.clone()).collect();
    let tone = match end {
        Some(End::Confirmed) => Tone::Good,
        Some(_) => Tone::Bad,
        None => Tone::Plain,
    };
    let blanks = " ".repeat(11_usize.saturating_sub(word.len()).max(2));
    let line = match why.is_empty() {
        true => look.paint(tone, &word),
        false => format!("{}{blanks}{}", look.paint(tone, &word), why.join(": ")),
    };
    (line, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_end_as_the_device_says() {
        for (status, details, line, end) in [
            ("QUEUED", json!({}), "queued", None),
            ("IN_PROGRESS", json!({ "phase": "downloading" }), "downloading", None),
            (
                "IN_PROGRESS",
                json!({ "phase": "deferred", "reason": "outside-window" }),
                "deferred   the update window is not open",
                None,
            ),
            (
                "IN_PROGRESS",
                json!({ "phase": "deferred", "reason": "deferred-by-function",
                    "message": "a function has asked to wait: brewer: a batch is running" }),
                "deferred   a function has asked to wait: brewer: a batch is running",
                None,
            ),
            ("SUCCEEDED", json!({ "phase": "confirmed" }), "confirmed", Some(End::Confirmed)),
            (
                "FAILED",
                json!({ "phase": "rolled-back", "reason": "trapped", "message": "3 of 3" }),
                "rolled-back  a function failed too often in its health window: 3 of 3",
                Some(End::RolledBack),
            ),
            (
                "REJECTED",
                json!({ "phase": "refused", "reason": "expired", "message": "the desired state has expired: in May" }),
                "refused    the desired state has expired: in May",
                Some(End::Failed),
            ),
            ("CANCELED", json!({ "phase": "staged" }), "canceled", Some(End::Failed)),
        ] {
            let job = json!({ "status": status, "details": details });
            assert_eq!(look_at(&job, &Look::plain()), (line.to_owned(), end));
        }
    }
}
