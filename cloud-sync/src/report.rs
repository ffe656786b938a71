//! What the device says about itself: the shadow, on connect, when what runs has changed, and seldom otherwise.

use std::time::Duration;

use holm_protocol::{
    Address, ClientToken, Exchange, Reported, SHADOW_NAME, ShadowAccepted, ShadowName, ShadowRejected, ShadowUpdate,
    Subject, ThingName,
};
use tokio::time::Instant;

use crate::SyncError;
use crate::jobs::Heard;

/// Between two reports of which only figures differ: they are not worth more of a metered link.
const REPORT_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// Between two reports, at least.
const SPACING: Duration = Duration::from_secs(2);

/// After a report, failures of functions are told of when so much time has passed, and then after twice as long, as long as there are more:
/// a function that always fails must not cost what a metered link has. What runs anew begins from the first again, because a
/// rollout may wait to hear of it.
const FIRST_QUIET: Duration = Duration::from_secs(15);
/// See [`FIRST_QUIET`].
const LAST_QUIET: Duration = Duration::from_secs(3_600);

/// A report that was not answered is sent again after this, then after twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// See [`FIRST_WAIT`].
const LAST_WAIT: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(crate) struct Reporter {
    thing: ThingName,
    shadow: ShadowName,
    /// What was last said, without figures.
    said: Option<Reported>,
    asked: Option<ClientToken>,
    due: Instant,
    wait: Duration,
    number: u64,
    /// Failures of functions, as they were last told of, and when.
    faults: u64,
    told: Instant,
    quiet: Duration,
}

impl Reporter {
    pub(crate) fn new(thing: ThingName, now: Instant) -> Result<Self, SyncError> {
        let shadow = ShadowName::new(SHADOW_NAME)?;
        let (said, asked, due, wait, number) = (None, None, now, FIRST_WAIT, 0);
        Ok(Self { thing, shadow, said, asked, due, wait, number, faults: 0, told: now, quiet: FIRST_QUIET })
    }

    /// There is a connection.
    pub(crate) fn connected(&mut self, now: Instant) {
        (self.said, self.asked, self.due, self.wait) = (None, None, now, FIRST_WAIT);
    }

    /// When a report is due though nothing has changed.
    pub(crate) fn deadline(&self) -> Instant {
        self.due
    }

    /// What runs may have changed: `reported` is what would be said, without figures. `faults` are the failures of functions since start.
    pub(crate) fn look(&mut self, reported: &Reported, faults: u64, now: Instant) {
        if faults > self.faults && self.asked.is_none() && now >= self.told + self.quiet {
            self.due = self.due.min(now);
        }
        if self.said.as_ref().is_some_and(|said| *said != essence(reported)) {
            self.due = self.due.min(now + SPACING);
        }
    }

    /// The report to send now, with its topic.
    pub(crate) fn report(&mut self, reported: Reported, now: Instant) -> Result<Option<(String, Vec<u8>)>, SyncError> {
        if now < self.due {
            return Ok(None);
        }
        if self.asked.is_some() {
            self.wait = (self.wait * 2).min(LAST_WAIT);
        }
        self.number += 1;
        let token = ClientToken::new(&format!("report-{}-{:08x}", self.number, rand::random::<u32>()))?;
        self.due = now + self.wait;
        let more = self.said.is_some() && reported.health.faults > self.faults;
        let said = Some(essence(&reported));
        self.quiet = if more && said == self.said { (self.quiet * 2).min(LAST_QUIET) } else { FIRST_QUIET };
        (self.faults, self.told, self.said) = (reported.health.faults, now, said);
        let update = ShadowUpdate::report(reported, Some(token.clone()));
        self.asked = Some(token);
        let topic = Address::new(&self.thing, Subject::UpdateShadow(self.shadow.clone(), Exchange::Request));
        Ok(Some((topic.to_string(), update.write()?)))
    }

    /// `update/accepted`.
    pub(crate) fn accepted(&mut self, payload: &[u8], now: Instant) -> Result<Heard, SyncError> {
        let accepted = ShadowAccepted::read(payload)?;
        if !self.is_mine(accepted.client_token.as_deref()) {
            return Ok(Heard::default());
        }
        (self.asked, self.due, self.wait) = (None, now + REPORT_EVERY, FIRST_WAIT);
        Ok(Heard { answer: true, time: accepted.timestamp.map(|time| time.timestamp()), changed: false })
    }

    /// `update/rejected`.
    pub(crate) fn rejected(&mut self, payload: &[u8], now: Instant) -> Result<Heard, SyncError> {
        let rejected = ShadowRejected::read(payload)?;
        if !self.is_mine(rejected.client_token.as_deref()) {
            return Ok(Heard::default());
        }
        self.asked = None;
        tracing::warn!(
            code = rejected.code,
            message = rejected.message.as_deref(),
            "the report of what runs was rejected"
        );
        if rejected.is_retryable() {
            self.due = now + self.wait;
            self.wait = (self.wait * 2).min(LAST_WAIT);
        } else {
            // The same would be rejected again; what changes may not be.
            self.due = now + REPORT_EVERY;
        }
        Ok(Heard { answer: true, time: rejected.timestamp.map(|time| time.timestamp()), changed: false })
    }

    fn is_mine(&self, token: Option<&str>) -> bool {
        self.asked.as_ref().is_some_and(|asked| Some(asked.as_str()) == token)
    }
}

/// Without the figures, which always differ.
fn essence(reported: &Reported) -> Reported {
    let mut essence = Reported { health: holm_protocol::Health::default(), ..reported.clone() };
    for function in &mut essence.functions {
        (function.invocations, function.faults) = (0, 0);
    }
    essence
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holm_protocol::{Formats, Health, Phase};

    use super::*;

    fn reported(faults: u64) -> Reported {
        Reported {
            agent: "1".to_owned(),
            build: None,
            formats: Formats { desired_state: 1, batch: 1 },
            generation: 0,
            phase: Phase::Confirmed,
            reason: None,
            sealing_key: None,
            functions: Vec::new(),
            functions_omitted: 0,
            health: Health { faults, ..Health::default() },
        }
    }

    /// Reports, and is answered.
    fn report(reporter: &mut Reporter, faults: u64, now: Instant) -> bool {
        tell(reporter, reported(faults), now)
    }

    fn tell(reporter: &mut Reporter, reported: Reported, now: Instant) -> bool {
        let Some((_, payload)) = reporter.report(reported, now).unwrap() else { return false };
        let update: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let token = update.get("clientToken").unwrap();
        reporter.accepted(format!(r#"{{"clientToken":{token}}}"#).as_bytes(), now).unwrap();
        true
    }

    #[test]
    fn failures_are_told_of_soon_and_then_ever_more_seldom() {
        let begin = Instant::now();
        let mut reporter = Reporter::new(ThingName::new("pi3").unwrap(), begin).unwrap();
        assert!(report(&mut reporter, 0, begin));
        // Figures alone are not worth a report.
        reporter.look(&reported(0), 0, begin + REPORT_EVERY / 2);
        assert!(!report(&mut reporter, 0, begin + REPORT_EVERY / 2));
        let (mut now, mut faults, mut waits) = (begin, 0, Vec::new());
        while waits.len() < 8 {
            let last = now;
            loop {
                now += Duration::from_secs(1);
                faults += 1;
                reporter.look(&reported(faults), faults, now);
                if report(&mut reporter, faults, now) {
                    break;
                }
            }
            waits.push((now - last).as_secs());
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 960, 1_920]);
        // Something new runs: whoever rolls it out hears soon how it does.
        let anew = |faults| Reported { generation: 1, ..reported(faults) };
        faults += 1;
        reporter.look(&anew(faults), faults, now);
        now += SPACING;
        assert!(tell(&mut reporter, anew(faults), now), "that it runs, and with it a failure");
        now += FIRST_QUIET;
        faults += 1;
        reporter.look(&anew(faults), faults, now);
        assert!(tell(&mut reporter, anew(faults), now), "the next failure after the first wait");
    }
}
