//! What is to be done: asking for the next job, until it is known whether there is one.
//!
//! Level-triggered. `notify-next` is a doorbell, and what it says is not used: the job is asked for. It is also asked for after each
//! connect and on a timer, so a doorbell that was lost is made good. A service that has just rung may still answer that there is
//! nothing; then it is asked again after a short while. Answers that nobody asked for are ignored.
//!
//! What the job says is the reconciler's business: see [`Jobs::wanted`].

use std::time::Duration;

use holm_core::Timestamp;
use holm_protocol::{
    Address, ClientToken, Exchange, GetJob, GotJob, JobErrorCode, JobExecution, JobRejected, JobTarget, Subject,
    ThingName,
};
use tokio::time::Instant;

use crate::SyncError;
use crate::deploy::{Next, Order, key_of};

/// Between two questions that nothing prompted. The doorbell is what counts; this makes up for one that was lost.
const ASK_EVERY: Duration = Duration::from_secs(2 * 3_600);

/// After a doorbell, and an answer that there is nothing.
const ASK_AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(20)];

/// A question that was not answered is asked again after this, then after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Jobs {
    thing: ThingName,
    /// The question that is open, and when it counts as lost.
    asked: Option<ClientToken>,
    /// When to ask.
    due: Instant,
    /// The doorbell rang since the last question was asked.
    rung: bool,
    /// Answers of "nothing" since the doorbell.
    empty: usize,
    wait: Duration,
    number: u64,
    /// The job that is next, as far as is known.
    next: Option<JobExecution>,
    pub(crate) answered: u64,
}

/// What an answer tells beside the job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// It was the answer to a question of ours: the other side lives.
    pub(crate) answer: bool,
    /// The time of the server, over an authenticated connection.
    pub(crate) time: Option<Timestamp>,
    /// The job that is next is another one than before, or there is none any more.
    pub(crate) changed: bool,
}

impl Jobs {
    pub(crate) fn new(thing: ThingName, now: Instant) -> Self {
        Self {
            thing,
            asked: None,
            due: now,
            rung: false,
            empty: 0,
            wait: FIRST_WAIT,
            number: 0,
            next: None,
            answered: 0,
        }
    }

    /// There is a connection: whatever was asked on the last one is forgotten.
    pub(crate) fn connected(&mut self, now: Instant) {
        (self.asked, self.due, self.rung, self.empty, self.wait) = (None, now, false, 0, FIRST_WAIT);
    }

    /// The job to be done next.
    pub(crate) fn next(&self) -> Option<&JobExecution> {
        self.next.as_ref()
    }

    /// What that means for who does it. Nothing is known before it was asked often enough: a service that has just rung may say that
    /// there is nothing.
    pub(crate) fn wanted(&self) -> Next {
        let order = |job: &JobExecution| Order { key: key_of(job), document: document(job), folder: None };
        match &self.next {
            Some(job) if job.status.is_terminal() => Next::Unknown,
            Some(job) => Next::Job(order(job)),
            None if self.empty > ASK_AGAIN.len() => Next::Nothing,
            None => Next::Unknown,
        }
    }

    /// The job is over, or not what it was.
    pub(crate) fn ask(&mut self, now: Instant) {
        if self.asked.is_none() {
            self.due = now;
        }
    }

    /// When [`Jobs::question`] has something to ask.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// The question to ask now, with its topic.
    pub(crate) fn question(&mut self, now: Instant) -> Result<Option<(String, Vec<u8>)>, SyncError> {
        if now < self.due {
            return Ok(None);
        }
        if self.asked.is_some() {
            self.wait = (self.wait * 2).min(LAST_WAIT);
        }
        self.number += 1;
        let token = ClientToken::new(&format!("get-{}-{:08x}", self.number, rand::random::<u32>()))?;
        (self.due, self.rung) = (now + self.wait, false);
        let request =
            GetJob { include_job_document: Some(true), client_token: Some(token.clone()), ..GetJob::default() };
        self.asked = Some(token);
        let topic = Address::new(&self.thing, Subject::GetJob(JobTarget::Next, Exchange::Request));
        Ok(Some((topic.to_string(), request.write()?)))
    }

    /// The doorbell.
    pub(crate) fn ring(&mut self, now: Instant) {
        self.empty = 0;
        if self.asked.is_some() {
            // The answer that is on its way may be from before it rang.
            self.rung = true;
        } else {
            self.due = now;
        }
    }

    /// `get/accepted`.
    pub(crate) fn accepted(&mut self, payload: &[u8], now: Instant) -> Result<Heard, SyncError> {
        let got = GotJob::read(payload)?;
        if got.client_token.as_deref() != self.asked.as_ref().map(ClientToken::as_str) || self.asked.is_none() {
            return Ok(Heard::default());
        }
        self.asked = None;
        self.answered += 1;
        self.wait = FIRST_WAIT;
        let key = |job: &Option<JobExecution>| {
            job.as_ref().map(|job| (job.job_id.clone(), job.execution_number, job.status.clone()))
        };
        let changed = key(&got.execution) != key(&self.next);
        self.next = got.execution;
        let nothing_yet = if self.next.is_none() { ASK_AGAIN.get(self.empty) } else { None };
        self.due = match nothing_yet {
            _ if self.rung => now,
            // Also right after a connect, where the doorbell may have rung before we heard.
            Some(wait) => now + *wait,
            None => now + ASK_EVERY,
        };
        self.empty += 1;
        Ok(Heard { answer: true, time: got.timestamp.map(|time| time.timestamp()), changed })
    }

    /// `get/rejected`.
    pub(crate) fn rejected(&mut self, payload: &[u8], now: Instant) -> Result<Heard, SyncError> {
        let rejected = JobRejected::read(payload)?;
        if rejected.client_token.as_deref() != self.asked.as_ref().map(ClientToken::as_str) || self.asked.is_none() {
            return Ok(Heard::default());
        }
        self.asked = None;
        // No job at all is one of its answers.
        if rejected.code != JobErrorCode::ResourceNotFound {
            tracing::warn!(code = %rejected.code, message = rejected.message.as_deref(), "the question for the next job was rejected; asking again");
        }
        self.due = now + self.wait;
        self.wait = (self.wait * 2).min(LAST_WAIT);
        Ok(Heard { answer: true, time: rejected.timestamp.map(|time| time.timestamp()), changed: false })
    }
}

/// The text of a job's document. One that cannot be read is refused as what it is: no document.
pub(crate) fn document(job: &JobExecution) -> String {
    let document = job.job_document.as_ref().map(|document| document.text().map(std::borrow::Cow::into_owned));
    document.and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Asked(Jobs, Instant);

    impl Asked {
        fn new() -> Self {
            let now = Instant::now();
            Self(Jobs::new(ThingName::new("pi3").unwrap(), now), now)
        }

        /// The token of the question that is asked after `wait`, if one is.
        fn asks_after(&mut self, wait: Duration) -> Option<String> {
            self.1 += wait;
            let (topic, payload) = self.0.question(self.1).unwrap()?;
            assert_eq!(topic, "$aws/things/pi3/jobs/$next/get");
            let request: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            Some(request.get("clientToken").unwrap().as_str().unwrap().to_owned())
        }

        fn hears(&mut self, answer: &str, token: &str) -> Heard {
            self.0.accepted(answer.replace("TOKEN", token).as_bytes(), self.1).unwrap()
        }
    }

    const NOTHING: &str = r#"{"timestamp": 1489096425069, "clientToken": "TOKEN"}"#;
    const JOB: &str = r#"{"execution": {"jobId": "j1", "status": "QUEUED", "versionNumber": "1", "jobDocument": "{}"}, "timestamp": 1489096425, "clientToken": "TOKEN"}"#;
    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn an_empty_answer_is_asked_again_and_a_job_is_not() {
        let mut asked = Asked::new();
        let token = asked.asks_after(ZERO).unwrap();
        assert_eq!(asked.hears(NOTHING, &token).time, Some(Timestamp(1_489_096_425_069)));
        assert_eq!(asked.asks_after(ZERO), None);
        let token = asked.asks_after(Duration::from_secs(1)).unwrap();
        let heard = asked.hears(JOB, &token);
        assert_eq!(heard, Heard { answer: true, time: Some(Timestamp(1_489_096_425_000)), changed: true });
        assert_eq!(asked.asks_after(Duration::from_secs(3_600)), None);
        assert!(asked.asks_after(Duration::from_secs(3_600)).is_some());
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut asked = Asked::new();
        assert_eq!(asked.hears(JOB, "somebody"), Heard::default());
        let first = asked.asks_after(ZERO).unwrap();
        let second = asked.asks_after(FIRST_WAIT).unwrap();
        assert_eq!(asked.hears(JOB, &first), Heard::default());
        assert!(asked.0.next().is_none());
        assert!(asked.hears(JOB, &second).changed);
        assert_eq!(asked.hears(NOTHING, &second), Heard::default());
        assert!(asked.0.next().is_some());
    }

    #[test]
    fn a_doorbell_while_a_question_is_open_leads_to_another_one() {
        let mut asked = Asked::new();
        let token = asked.asks_after(ZERO).unwrap();
        asked.0.ring(asked.1);
        assert_eq!(asked.asks_after(ZERO), None);
        asked.hears(NOTHING, &token);
        let token = asked.asks_after(ZERO).unwrap();
        assert!(asked.hears(JOB, &token).changed);
        asked.0.ring(asked.1);
        assert!(asked.asks_after(ZERO).is_some());
    }

    #[test]
    fn silence_and_rejection_are_waited_out_longer_and_longer() {
        let mut asked = Asked::new();
        let token = asked.asks_after(ZERO).unwrap();
        let rejected = format!(r#"{{"code": "RequestThrottled", "clientToken": "{token}"}}"#);
        assert!(asked.0.rejected(rejected.as_bytes(), asked.1).unwrap().answer);
        assert_eq!(asked.asks_after(ZERO), None);
        assert!(asked.asks_after(FIRST_WAIT).is_some());
        assert_eq!(asked.asks_after(FIRST_WAIT), None);
        assert!(asked.asks_after(FIRST_WAIT).is_some());
    }
}
