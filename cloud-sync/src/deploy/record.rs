//! What is written down about deployments, and what follows from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_protocol::{AGENT, DesiredState, Envelope, Phase, ProtocolError, ReasonCode, UpdateWindow};
use holm_trust::LastAccepted;
use serde::{Deserialize, Serialize};

use super::defer::Asked;
use super::{About, Order, OrderKey, Refusal, Told};

/// A set gets so many trials if the node goes down during them: a power cut is not its fault, and twice is.
const TRIALS: u32 = 2;

/// Functions whose release sequences are remembered. Beyond it those go that run no more, by name.
const SEQUENCES: usize = 1_024;

/// One document, so that an acceptance and what follows from it are one transaction.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    accepted: Option<Accepted>,
    pub(super) work: Option<Work>,
    pub(super) refused: Option<Refused>,
    /// The highest release sequence of each function that ever ran, or the one that a permit went back to: what is older needs a
    /// permit, also after the function was removed.
    pub(super) sequences: BTreeMap<String, u64>,
    /// What was confirmed of each function: going back to that needs no permit.
    pub(super) ran: BTreeMap<String, Ran>,
}

/// The bundles of a function that were confirmed here last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ran {
    /// The last one.
    now: Digest,
    /// The one that it took the place of.
    before: Option<Digest>,
}

/// What ran on this device, as far as it decides what may run next.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    sequences: BTreeMap<String, u64>,
    ran: BTreeMap<String, Ran>,
}

impl History {
    /// The sequence below which a permit is needed for this bundle; `None` if there is none, or the device had confirmed the bundle
    /// itself before what runs now. Without that, a rollout that goes wrong could be taken back only by whoever has the targets key;
    /// with it, whoever has the deployment key can go one step back and forth, and no further.
    pub(super) fn floor(&self, function: &str, bundle: &Digest) -> Option<u64> {
        let own = self.ran.get(function).is_some_and(|ran| ran.now == *bundle || ran.before == Some(*bundle));
        self.sequences.get(function).copied().filter(|_| !own)
    }

    /// The bundle of a function that was confirmed last.
    pub(super) fn runs(&self, function: &str) -> Option<Digest> {
        self.ran.get(function).map(|ran| ran.now)
    }

    /// The highest release sequence of a function, or the one that a permit went back to.
    pub(super) fn known(&self, function: &str) -> Option<u64> {
        self.sequences.get(function).copied()
    }

    /// What is remembered of a function that runs without a permit to be older: never less than before.
    pub(super) fn raised(&self, function: &str, sequence: u64) -> u64 {
        self.sequences.get(function).map_or(sequence, |known| sequence.max(*known))
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Accepted {
    generation: u64,
    payload: Digest,
}

/// A desired state that was accepted, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Work {
    pub(super) key: OrderKey,
    /// Where its files are, if somebody has carried them here.
    #[serde(default)]
    pub(super) folder: Option<PathBuf>,
    pub(super) generation: u64,
    /// The envelope, whose signature was verified.
    document: String,
    pub(super) phase: Phase,
    pub(super) reason: Option<ReasonCode>,
    pub(super) message: Option<String>,
    /// Until the trial must have begun, of the time that this agent ran.
    pub(super) left_ms: u64,
    /// Trials that were begun.
    pub(super) trials: u32,
    /// Release sequences of its functions, once they are known.
    pub(super) sequences: BTreeMap<String, u64>,
    /// How long functions may still have it wait, once one has: see [`super::defer`].
    #[serde(default)]
    pub(super) patience_ms: Option<u64>,
    /// Waits that were given.
    #[serde(default)]
    pub(super) asked: u32,
    /// When the last of them ends.
    #[serde(default)]
    pub(super) until: Option<Timestamp>,
}

/// A job whose document is not believed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Refused {
    key: OrderKey,
    reason: ReasonCode,
    message: String,
}

impl Record {
    pub(super) fn last(&self) -> Option<LastAccepted> {
        self.accepted.map(|last| LastAccepted { generation: last.generation, payload: last.payload })
    }

    /// Whether the work is of this job.
    pub(super) fn is_about(&self, key: &OrderKey) -> bool {
        self.work.as_ref().is_some_and(|work| work.key == *key)
    }

    /// Whether something was made of this job already.
    pub(super) fn knows(&self, key: &OrderKey) -> bool {
        self.is_about(key) || self.refused.as_ref().is_some_and(|refused| refused.key == *key)
    }

    /// Why the last job that was not believed was not, if it is this one.
    pub(super) fn refusal(&self, key: &OrderKey) -> Option<Refusal> {
        let refused = self.refused.as_ref().filter(|refused| refused.key == *key && !self.is_about(key))?;
        Some(Refusal::new(refused.reason.clone(), refused.message.clone()))
    }

    /// A desired state was accepted. `last` is what to compare the next one with, if it is a new one.
    pub(super) fn accept(
        &mut self,
        order: Order,
        state: &DesiredState,
        last: Option<LastAccepted>,
        message: Option<String>,
    ) {
        if let Some(last) = last {
            self.accepted = Some(Accepted { generation: last.generation, payload: last.payload });
        }
        let left_ms = u64::from(state.policy.deadline_s) * 1_000;
        let replaced = self.work.as_ref().filter(|work| !work.phase.is_final());
        let patience_ms = replaced.and_then(|work| work.patience_ms).map(|patience| patience.min(left_ms / 2));
        let asked = replaced.map_or(0, |work| work.asked);
        let Order { key, document, folder } = order;
        self.work = Some(Work {
            key,
            folder,
            generation: state.generation,
            document,
            phase: Phase::Queued,
            reason: None,
            message,
            left_ms,
            trials: 0,
            sequences: BTreeMap::new(),
            patience_ms,
            asked,
            until: None,
        });
    }

    pub(super) fn refuse(&mut self, key: OrderKey, refusal: Refusal) {
        self.refused = Some(Refused { key, reason: refusal.reason, message: refusal.message });
    }

    /// The set of the work runs, and stays.
    pub(super) fn confirmed(&mut self) {
        let Some(work) = &mut self.work else { return };
        work.to(Phase::Confirmed, None);
        self.sequences.extend(std::mem::take(&mut work.sequences));
        // It was read when it was accepted.
        let (agent, functions) = work.state().map(|state| (state.agent, state.functions)).unwrap_or_default();
        let functions = functions.into_iter().map(|function| (function.name.to_string(), function.bundle.sha256));
        let agent = agent.map(|agent| (AGENT.to_owned(), agent.artifact.sha256));
        for (name, now) in functions.chain(agent) {
            let before = match self.ran.remove(&name) {
                Some(ran) if ran.now == now => ran.before,
                Some(ran) => Some(ran.now),
                None => None,
            };
            self.ran.insert(name, Ran { now, before });
        }
        while self.sequences.len() > SEQUENCES {
            self.sequences.pop_first();
        }
        while self.ran.len() > SEQUENCES {
            self.ran.pop_first();
        }
    }

    pub(super) fn history(&self) -> History {
        History { sequences: self.sequences.clone(), ran: self.ran.clone() }
    }

    pub(super) fn told(&self) -> Told {
        let work = self.work.as_ref().map(|work| About {
            key: work.key.clone(),
            generation: work.generation,
            phase: work.phase.clone(),
            reason: work.reason.clone(),
            message: work.message.clone(),
            until: work.until,
        });
        let refused = self.refused.as_ref().map(|refused| About {
            key: refused.key.clone(),
            generation: 0,
            phase: Phase::Refused,
            reason: Some(refused.reason.clone()),
            message: Some(refused.message.clone()),
            until: None,
        });
        Told { work, refused }
    }
}

impl Work {
    pub(super) fn state(&self) -> Result<DesiredState, ProtocolError> {
        DesiredState::read(&Envelope::read(&self.document)?)
    }

    /// The next phase, and why if there is something to say.
    pub(super) fn to(&mut self, phase: Phase, refusal: Option<Refusal>) {
        (self.phase, self.until) = (phase, None);
        if let Some(Refusal { reason, message }) = refusal {
            (self.reason, self.message) = (Some(reason), Some(message));
        } else if self.reason.is_some() {
            (self.reason, self.message) = (None, None);
        }
    }

    pub(super) fn spend(&mut self, time: Duration) {
        self.left_ms = self.left_ms.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
}

/// What there is to know beside what was written down.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// Since this process began the work: everything is here and vouched for.
    pub(super) fetched: bool,
    /// An update may begin now.
    pub(super) open: bool,
    /// Since this process began the work: it was made ready.
    pub(super) staged: bool,
    /// What functions say to it.
    pub(super) asked: Asked,
    /// The control plane has nothing for this device any more.
    pub(super) canceled: bool,
    /// What the installer says.
    pub(super) confirmed: u64,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Get everything here.
    Fetch,
    /// Wait for the update window.
    Wait,
    /// Make it ready.
    Stage,
    /// Ask functions whether it may begin.
    Ask,
    /// Wait because one of them wants that.
    Heed,
    /// Run it and watch.
    Try,
    /// It was confirmed, and the node went down before that was written here.
    Confirm,
    /// It ends here.
    End(Phase, ReasonCode),
}

/// The decision.
pub(super) fn step(work: &Work, view: View) -> Step {
    match &work.phase {
        phase if phase.is_final() => Step::Rest,
        Phase::Trial if view.confirmed == work.generation => Step::Confirm,
        Phase::Trial if work.trials >= TRIALS => Step::End(Phase::RolledBack, ReasonCode::CrashLoop),
        Phase::Trial => Step::Try,
        _ if view.canceled => Step::End(Phase::Refused, ReasonCode::Canceled),
        _ if work.left_ms == 0 => Step::End(Phase::Refused, ReasonCode::Deadline),
        _ if !view.fetched => Step::Fetch,
        Phase::Staged => ask(view.asked),
        _ if !view.open => Step::Wait,
        Phase::Deferred if view.staged => ask(view.asked),
        _ => Step::Stage,
    }
}

fn ask(asked: Asked) -> Step {
    match asked {
        Asked::Due => Step::Ask,
        Asked::Waits(_) => Step::Heed,
        Asked::Agreed => Step::Try,
    }
}

/// How many minutes an update may begin in still, this one of the day (UTC) included; 0 if it may not now.
pub(super) fn minutes_open(window: UpdateWindow, minute: u16) -> u32 {
    let since = (u32::from(minute) + 1440 - u32::from(window.start_minute)) % 1440;
    u32::from(window.minutes).saturating_sub(since)
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use holm_protocol::JobId;

    use super::*;

    const NOW: View =
        View { fetched: true, open: true, staged: false, asked: Asked::Agreed, canceled: false, confirmed: 4 };

    pub(in super::super) fn work(phase: Phase, trials: u32, left_ms: u64) -> Work {
        Work {
            key: OrderKey { job: JobId::new("j").unwrap(), execution: None },
            folder: None,
            generation: 5,
            document: String::new(),
            phase,
            reason: None,
            message: None,
            left_ms,
            trials,
            sequences: BTreeMap::new(),
            patience_ms: None,
            asked: 0,
            until: None,
        }
    }

    #[test]
    fn each_phase_has_one_next_step() {
        let afresh = View { fetched: false, ..NOW };
        let closed = View { open: false, ..NOW };
        let canceled = View { canceled: true, ..NOW };
        let done = View { confirmed: 5, fetched: false, ..NOW };
        let due = View { asked: Asked::Due, ..NOW };
        let waits = View { asked: Asked::Waits(Instant::now()), staged: true, ..NOW };
        let deadline = Step::End(Phase::Refused, ReasonCode::Deadline);
        let taken_back = Step::End(Phase::Refused, ReasonCode::Canceled);
        let crashed = Step::End(Phase::RolledBack, ReasonCode::CrashLoop);
        let cases = [
            (Phase::Queued, 0, 1, afresh, Step::Fetch),
            (Phase::Downloading, 0, 1, afresh, Step::Fetch),
            // After a restart it is looked again whether all is here.
            (Phase::Verified, 0, 1, afresh, Step::Fetch),
            (Phase::Staged, 0, 1, afresh, Step::Fetch),
            (Phase::Verified, 0, 1, NOW, Step::Stage),
            (Phase::Verified, 0, 1, closed, Step::Wait),
            (Phase::Deferred, 0, 1, closed, Step::Wait),
            (Phase::Deferred, 0, 1, NOW, Step::Stage),
            // It has begun, and the window may close.
            (Phase::Staged, 0, 1, closed, Step::Try),
            (Phase::Staged, 0, 1, due, Step::Ask),
            (Phase::Deferred, 0, 1, waits, Step::Heed),
            (Phase::Deferred, 0, 1, View { asked: Asked::Due, ..waits }, Step::Ask),
            (Phase::Deferred, 0, 1, View { asked: Asked::Agreed, ..waits }, Step::Try),
            // After a restart it is made ready and they are asked again.
            (Phase::Deferred, 0, 1, due, Step::Stage),
            // The clock was set: the window counts for what waits.
            (Phase::Deferred, 0, 1, View { open: false, ..waits }, Step::Wait),
            (Phase::Deferred, 0, 0, waits, deadline.clone()),
            (Phase::Deferred, 0, 1, View { canceled: true, ..waits }, taken_back.clone()),
            (Phase::Queued, 0, 0, afresh, deadline.clone()),
            (Phase::Deferred, 0, 0, closed, deadline.clone()),
            (Phase::Staged, 0, 0, NOW, deadline),
            (Phase::Queued, 0, 1, View { fetched: false, ..canceled }, taken_back.clone()),
            (Phase::Staged, 0, 1, canceled, taken_back),
            // A trial is never left in the middle, and has no deadline but its window.
            (Phase::Trial, 1, 0, View { fetched: false, ..canceled }, Step::Try),
            (Phase::Trial, 2, 0, afresh, crashed),
            (Phase::Trial, 2, 0, done, Step::Confirm),
            (Phase::Confirmed, 1, 0, canceled, Step::Rest),
            (Phase::RolledBack, 1, 0, NOW, Step::Rest),
            (Phase::Refused, 0, 0, afresh, Step::Rest),
        ];
        for (phase, trials, left, view, expected) in cases {
            assert_eq!(step(&work(phase.clone(), trials, left), view), expected, "{phase} {trials} {left} {view:?}");
        }
    }

    #[test]
    fn only_what_was_confirmed_here_last_is_gone_back_to_without_a_permit() {
        let digest = |version: u64| Digest::of(version.to_string().as_bytes());
        let ran = |now: u64, before| Ran { now: digest(now), before: Option::map(before, digest) };
        let history = |floor, ran| History {
            sequences: [("f".to_owned(), floor)].into(),
            ran: Option::into_iter(ran).map(|ran| ("f".to_owned(), ran)).collect(),
        };
        for (history, bundle, floor) in [
            (history(4, Some(ran(4, Some(3)))), 3, None),
            (history(4, Some(ran(4, Some(3)))), 2, Some(4)),
            // It went from 1 to 4 and back: what it never ran in between stays forbidden.
            (history(4, Some(ran(1, Some(4)))), 1, None),
            (history(4, Some(ran(1, Some(4)))), 3, Some(4)),
            // A record of a release that did not write down what ran.
            (history(4, None), 3, Some(4)),
            (History::default(), 1, None),
        ] {
            assert_eq!(history.floor("f", &digest(bundle)), floor, "{history:?} {bundle}");
        }
        assert_eq!((history(4, None).raised("f", 3), history(4, None).raised("f", 5)), (4, 5));
    }

    #[test]
    fn a_window_may_reach_past_midnight() {
        let window = |start_minute, minutes| UpdateWindow { start_minute, minutes };
        for (window, minute, expected) in [
            (window(120, 60), 119, 0),
            (window(120, 60), 120, 60),
            (window(120, 60), 179, 1),
            (window(120, 60), 180, 0),
            (window(1_430, 20), 1_439, 11),
            (window(1_430, 20), 9, 1),
            (window(1_430, 20), 10, 0),
            (window(5, 1_440), 4, 1),
        ] {
            assert_eq!(minutes_open(window, minute), expected, "{window:?} {minute}");
        }
    }

    #[test]
    fn what_takes_the_place_of_an_update_that_waits_has_no_more_patience_than_is_left() {
        let state = |generation| DesiredState {
            format: holm_protocol::DESIRED_STATE_FORMAT,
            device: holm_protocol::ThingName::new("pi3").unwrap(),
            generation,
            rollout: None,
            issued: Timestamp(1),
            expires: Timestamp(2),
            policy: holm_protocol::DeploymentPolicy { health_window_s: 0, deadline_s: 100, window: None },
            agent: None,
            functions: Vec::new(),
        };
        for (phase, left, expected) in [
            (Phase::Deferred, Some(7_000), (Some(7_000), 3)),
            (Phase::Staged, Some(90_000), (Some(50_000), 3)),
            (Phase::Deferred, None, (None, 3)),
            // It ended, and this is another update.
            (Phase::Confirmed, Some(0), (None, 0)),
            (Phase::Refused, Some(0), (None, 0)),
        ] {
            let waiting = Work { patience_ms: left, asked: 3, ..work(phase.clone(), 0, 1) };
            let mut record = Record { work: Some(waiting), ..Record::default() };
            let key = OrderKey { job: JobId::new("k").unwrap(), execution: None };
            record.accept(Order { key, document: String::new(), folder: None }, &state(6), None, None);
            let work = record.work.unwrap();
            assert_eq!((work.patience_ms, work.asked), expected, "{phase}");
        }
    }

    #[test]
    fn what_was_written_down_is_read_again() {
        let mut record = Record { work: Some(work(Phase::Trial, 1, 7)), ..Record::default() };
        record.work.as_mut().unwrap().sequences.insert("f".to_owned(), 3);
        record.refuse(
            OrderKey { job: JobId::new("k").unwrap(), execution: Some(2) },
            Refusal::new(ReasonCode::Expired, "late"),
        );
        let mut read: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(read.told(), record.told());
        assert!(read.knows(&OrderKey { job: JobId::new("k").unwrap(), execution: Some(2) }));
        assert!(!read.knows(&OrderKey { job: JobId::new("k").unwrap(), execution: Some(3) }));
        read.confirmed();
        assert_eq!((read.sequences.get("f"), read.work.unwrap().phase), (Some(&3), Phase::Confirmed));
    }
}
