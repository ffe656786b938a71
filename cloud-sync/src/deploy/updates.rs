//! Telling the control plane how a job is: `update`, until it was taken.
//!
//! Level-triggered. As long as the control plane has a job for this device, it hears what there is to tell about it, whenever that has
//! changed since it was last taken, and after each connect. An end is told by way of `IN_PROGRESS`, as AWS has it, unless it is
//! `REJECTED`. No version is expected: a job execution has one device, and what the service does meanwhile comes as a rejection.

use std::time::Duration;

use holm_protocol::{
    Address, ClientToken, Exchange, JobErrorCode, JobExecution, JobRejected, JobStatus, Phase, StatusDetails, Subject,
    ThingName, UpdateJob, UpdatedJob,
};
use tokio::time::Instant;

use super::task::key_of;
use super::{About, OrderKey, Told};
use crate::SyncError;
use crate::jobs::Heard;

/// An update that was not answered is sent again after this, then after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(600);

/// What was said, or is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    key: OrderKey,
    status: JobStatus,
    details: StatusDetails,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Updates {
    thing: ThingName,
    /// What was taken on this connection.
    taken: Option<Said>,
    asked: Option<(ClientToken, Said)>,
    /// Not before.
    due: Instant,
    wait: Duration,
    number: u64,
}

/// What an answer means beside the time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) heard: Heard,
    /// The job is over, or is not what it was thought to be: ask for the next one.
    pub(crate) ask: bool,
}

impl Updates {
    pub(crate) fn new(thing: ThingName, now: Instant) -> Self {
        Self { thing, taken: None, asked: None, due: now, wait: FIRST_WAIT, number: 0 }
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self, now: Instant) {
        (self.taken, self.asked, self.due, self.wait) = (None, None, now, FIRST_WAIT);
    }

    /// The update to send now, with its topic. `next` is the job that the control plane has for us.
    pub(crate) fn update(
        &mut self,
        next: Option<&JobExecution>,
        told: &Told,
        now: Instant,
    ) -> Result<Option<(String, Vec<u8>)>, SyncError> {
        if now < self.due {
            return Ok(None);
        }
        if self.asked.take().is_some() {
            self.wait = (self.wait * 2).min(LAST_WAIT);
        }
        let Some(said) = self.to_say(next, told) else { return Ok(None) };
        self.number += 1;
        let token = ClientToken::new(&format!("update-{}-{:08x}", self.number, rand::random::<u32>()))?;
        let update = UpdateJob {
            status: said.status.clone(),
            status_details: Some(said.details.clone()),
            expected_version: None,
            execution_number: said.key.execution,
            include_job_execution_state: None,
            include_job_document: None,
            step_timeout_in_minutes: None,
            client_token: Some(token.clone()),
        };
        let topic = Address::new(&self.thing, Subject::UpdateJob(said.key.job.clone(), Exchange::Request));
        self.asked = Some((token, said));
        self.due = now + self.wait;
        Ok(Some((topic.to_string(), update.write()?)))
    }

    /// When [`Updates::update`] may have something to say though nothing happens: an answer that does not come.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.as_ref().map(|_| self.due)
    }

    fn to_say(&self, next: Option<&JobExecution>, told: &Told) -> Option<Said> {
        let next = next.filter(|job| !job.status.is_terminal())?;
        let about = told.about(&key_of(next))?;
        let status = status(about);
        if status == JobStatus::Queued {
            return None;
        }
        let taken = self.taken.as_ref().filter(|taken| taken.key == about.key);
        let begun = next.status == JobStatus::InProgress || taken.is_some();
        let details = details(about);
        let first = !begun && matches!(status, JobStatus::Succeeded | JobStatus::Failed);
        let said = Said { key: about.key.clone(), status: if first { JobStatus::InProgress } else { status }, details };
        (taken != Some(&said)).then_some(said)
    }

    /// `update/accepted`.
    pub(crate) fn accepted(&mut self, payload: &[u8], now: Instant) -> Result<Answered, SyncError> {
        let updated = UpdatedJob::read(payload)?;
        let Some((token, said)) = self.asked.take() else { return Ok(Answered::default()) };
        if !updated.answers(&token) {
            self.asked = Some((token, said));
            return Ok(Answered::default());
        }
        (self.due, self.wait) = (now, FIRST_WAIT);
        let ask = said.status.is_terminal();
        self.taken = Some(said);
        let time = updated.timestamp.map(|time| time.timestamp());
        Ok(Answered { heard: Heard { answer: true, time, changed: false }, ask })
    }

    /// `update/rejected`.
    pub(crate) fn rejected(&mut self, payload: &[u8], now: Instant) -> Result<Answered, SyncError> {
        let rejected = JobRejected::read(payload)?;
        let Some((token, said)) = self.asked.take() else { return Ok(Answered::default()) };
        if !rejected.answers(&token) {
            self.asked = Some((token, said));
            return Ok(Answered::default());
        }
        let retry = rejected.code.is_retryable();
        tracing::warn!(job = %said.key.job, status = %said.status, code = %rejected.code, message = rejected.message.as_deref(), "the update of a job was rejected");
        if retry {
            self.due = now + self.wait;
            self.wait = (self.wait * 2).min(LAST_WAIT);
        } else {
            // The same would be rejected again.
            (self.taken, self.due) = (Some(said), now);
        }
        let time = rejected.timestamp.map(|time| time.timestamp());
        let over = matches!(
            rejected.code,
            JobErrorCode::InvalidStateTransition
                | JobErrorCode::TerminalStateReached
                | JobErrorCode::ResourceNotFound
                | JobErrorCode::VersionMismatch
        );
        Ok(Answered { heard: Heard { answer: true, time, changed: false }, ask: over })
    }
}

fn status(about: &About) -> JobStatus {
    match (&about.phase, &about.reason) {
        (Phase::Refused, Some(reason)) if reason.is_retryable() => JobStatus::Failed,
        (phase, _) => phase.job_status(),
    }
}

/// A reason comes with its sentence, also where there is more to say.
fn details(about: &About) -> StatusDetails {
    let sentence = about.reason.as_ref().map(|reason| match &about.message {
        Some(message) if message != reason.explanation() => format!("{}: {message}", reason.explanation()),
        _ => reason.explanation().to_owned(),
    });
    let message = sentence.or_else(|| about.message.clone());
    let reason = about.reason.as_ref();
    let mut details = StatusDetails::of_deployment(about.generation, &about.phase, reason, message.as_deref());
    if let Some(until) = about.until
        && let Err(error) = details.insert(StatusDetails::UNTIL, &until.0.to_string())
    {
        tracing::debug!(%error, "the end of a wait cannot be told");
    }
    details
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holm_protocol::{JobId, ReasonCode};
    use serde_json::Value;

    use super::*;

    struct Told1(Updates, Instant);

    fn job(status: &str) -> JobExecution {
        serde_json::from_str(&format!(r#"{{"jobId": "j", "status": "{status}", "executionNumber": 1}}"#)).unwrap()
    }

    fn about(phase: Phase, reason: Option<ReasonCode>) -> Told {
        let key = OrderKey { job: JobId::new("j").unwrap(), execution: Some(1) };
        Told { work: Some(About { key, generation: 7, phase, reason, message: None, until: None }), refused: None }
    }

    impl Told1 {
        fn says(&mut self, job: &JobExecution, told: &Told) -> Option<Value> {
            let (topic, payload) = self.0.update(Some(job), told, self.1).unwrap()?;
            assert_eq!(topic, "$aws/things/pi3/jobs/j/update");
            Some(serde_json::from_slice(&payload).unwrap())
        }

        fn take(&mut self, said: &Value) -> Answered {
            let token = said.get("clientToken").unwrap();
            self.0.accepted(format!(r#"{{"clientToken": {token}}}"#).as_bytes(), self.1).unwrap()
        }
    }

    fn updates() -> Told1 {
        let now = Instant::now();
        Told1(Updates::new(ThingName::new("pi3").unwrap(), now), now)
    }

    #[test]
    fn each_phase_is_told_until_it_is_taken_and_ends_come_by_way_of_in_progress() {
        let cases: [(Phase, Option<ReasonCode>, &[&str]); 7] = [
            (Phase::Queued, None, &[]),
            (Phase::Downloading, None, &["IN_PROGRESS"]),
            (Phase::Deferred, Some(ReasonCode::OutsideWindow), &["IN_PROGRESS"]),
            (Phase::Confirmed, None, &["IN_PROGRESS", "SUCCEEDED"]),
            (Phase::RolledBack, Some(ReasonCode::Trapped), &["IN_PROGRESS", "FAILED"]),
            (Phase::Refused, Some(ReasonCode::WrongDigest), &["REJECTED"]),
            (Phase::Refused, Some(ReasonCode::MetadataExpired), &["IN_PROGRESS", "FAILED"]),
        ];
        for (phase, reason, expected) in cases {
            let (mut updates, told) = (updates(), about(phase.clone(), reason.clone()));
            let mut said = Vec::new();
            while let Some(update) = updates.says(&job("QUEUED"), &told) {
                let details = update.get("statusDetails").unwrap();
                assert_eq!(details.get("phase").unwrap(), phase.as_str());
                assert_eq!(details.get("reason").is_some(), reason.is_some());
                assert_eq!(details.get("message").is_some(), reason.is_some());
                said.push(update.get("status").unwrap().as_str().unwrap().to_owned());
                // Not answered yet: nothing more is said.
                assert_eq!(updates.says(&job("QUEUED"), &told), None);
                let terminal = matches!(said.last().map(String::as_str), Some("SUCCEEDED" | "FAILED" | "REJECTED"));
                assert_eq!(updates.take(&update).ask, terminal);
            }
            assert_eq!(said, expected, "{phase} {reason:?}");
            // After a connect it is said again, as long as the control plane has the job.
            updates.0.connected(updates.1);
            assert_eq!(updates.says(&job("IN_PROGRESS"), &told).is_some(), !expected.is_empty());
            updates.0.connected(updates.1);
            assert_eq!(updates.says(&job("SUCCEEDED"), &told), None);
        }
    }

    #[test]
    fn what_was_rejected_for_good_is_not_said_again_and_what_was_lost_is() {
        let (mut updates, told) = (updates(), about(Phase::Downloading, None));
        let first = updates.says(&job("QUEUED"), &told).unwrap();
        updates.1 += FIRST_WAIT;
        let again = updates.says(&job("QUEUED"), &told).unwrap();
        assert_ne!(first.get("clientToken"), again.get("clientToken"));
        // Late, and nobody waits for it.
        assert!(!updates.take(&first).heard.answer);
        let token = again.get("clientToken").unwrap();
        let rejected = format!(r#"{{"code": "TerminalStateReached", "clientToken": {token}}}"#);
        assert!(updates.0.rejected(rejected.as_bytes(), updates.1).unwrap().ask);
        assert_eq!(updates.says(&job("QUEUED"), &told), None);
    }
}
