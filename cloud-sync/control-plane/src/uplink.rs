//! What devices send, and what they are answered.
//!
//! Every message becomes one change of the records; the answer goes down when that is committed, and the message is
//! acknowledged right after. What cannot be read is answered where the protocol has a word for it, logged, and acknowledged:
//! sent again it would be no better, and it must not keep what is behind it.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::Timestamp;
use holm_protocol::{
    Ack, Address, Ask, Exchange, GetJob, JobErrorCode, JobId, JobRejected, JobTarget, NextJob, ProtocolError,
    SHADOW_NAME, ShadowAccepted, ShadowName, ShadowRejected, ShadowSections, ShadowUpdate, Subject, ThingName,
    UpdateJob, WireTime,
};

use crate::CloudError;
use crate::arrivals::Arrivals;
use crate::bus::Bus;
use crate::error::chain;
use crate::records::{Ingested, JobAnswer, Records, ShadowAnswer};
use crate::rollouts::Rollouts;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Uplink {
    records: Records,
    bus: Bus,
    arrivals: Arc<Arrivals>,
    rollouts: Rollouts,
}

/// Called when a message is settled: an error means that it was not, and may be sent again.
type Done = Box<dyn FnOnce(Result<(), CloudError>) + Send>;

impl Uplink {
    pub(crate) fn new(records: Records, bus: Bus, arrivals: Arc<Arrivals>, rollouts: Rollouts) -> Self {
        Self { records, bus, arrivals, rollouts }
    }

    /// Takes a message. `done` is called once, here or on the writer's thread; where it is dropped instead, nothing was stored.
    /// Does not block.
    pub(crate) fn take(
        &self,
        address: Address,
        payload: Bytes,
        now: Timestamp,
        done: impl FnOnce(Result<(), CloudError>) + Send + 'static,
    ) {
        let thing = address.thing.clone();
        let (arrivals, from) = (self.arrivals.clone(), thing.clone());
        let done: Done = Box::new(move |settled| {
            done(settled);
            arrivals.came(from.as_str());
        });
        let taken = match &address.subject {
            Subject::Results { .. } => self.records_of(address, payload, now, done),
            Subject::GetJob(target, Exchange::Request) => self.job_get(&thing, target.clone(), &payload, now, done),
            Subject::UpdateJob(id, Exchange::Request) => self.job_update(&thing, id.clone(), &payload, now, done),
            Subject::UpdateShadow(name, Exchange::Request) => {
                self.shadow_update(&thing, name.clone(), &payload, now, done)
            }
            // A device needs not ask what it said; the others are down, and nobody's business up.
            _ => {
                tracing::debug!(topic = %address, "a message that is not for us");
                done(Ok(()));
                Ok(())
            }
        };
        if let Err(error) = taken {
            // `done` was dropped: the device sends again.
            tracing::debug!(%thing, error = chain(&error), "a message was not taken");
        }
    }

    /// Tells of a device whether it is connected.
    pub(crate) fn live(&self) -> impl Fn(&str) -> bool + Send + use<> {
        let bus = self.bus.clone();
        move |thing| bus.is_connected(thing)
    }

    /// A device came or went.
    pub(crate) fn presence(&self, thing: &str, now: Timestamp) {
        self.records.note_seen(thing, now);
        self.arrivals.came(thing);
    }

    /// Rings the bell.
    pub(crate) fn notify_next(&self, thing: &ThingName, next: &NextJob) {
        self.down(thing, Subject::NextJobChanged, next.write());
    }

    /// Asks a device for something, if it is there.
    pub(crate) fn ask(&self, thing: &ThingName, ask: Ask) {
        self.down(thing, Subject::Ack, Ack::asking(ask).write());
    }

    fn records_of(&self, address: Address, payload: Bytes, now: Timestamp, done: Done) -> Result<(), CloudError> {
        let (this, thing) = (self.clone(), address.thing.clone());
        self.records.ingest(address, payload, now, move |result| {
            done(result.map(|ingested| match ingested {
                Ingested::Answer(ack) => {
                    for refusal in &ack.refused {
                        tracing::warn!(%thing, stream = %refusal.stream, first = refusal.first, reason = %refusal.reason, "a batch was refused");
                    }
                    this.down(&thing, Subject::Ack, ack.write());
                }
                Ingested::Ignored(why) => tracing::warn!(%thing, why, "a batch was ignored"),
            }));
        })
    }

    fn job_get(
        &self,
        thing: &ThingName,
        target: JobTarget,
        payload: &[u8],
        now: Timestamp,
        done: Done,
    ) -> Result<(), CloudError> {
        // AWS takes an empty request, too.
        let request = if payload.is_empty() { Ok(GetJob::default()) } else { GetJob::read(payload) };
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                self.down(thing, Subject::GetJob(target, Exchange::Rejected), unread(&error, payload, now).write());
                done(Ok(()));
                return Ok(());
            }
        };
        let (this, to) = (self.clone(), thing.clone());
        self.records.get_job(thing.clone(), target.clone(), request, now, move |result| {
            done(result.map(|answer| match answer {
                JobAnswer::Got(got) => this.down(&to, Subject::GetJob(target, Exchange::Accepted), got.write()),
                JobAnswer::Rejected(rejected) => {
                    this.down(&to, Subject::GetJob(target, Exchange::Rejected), rejected.write());
                }
                JobAnswer::Updated { .. } => {}
            }));
        })
    }

    fn job_update(
        &self,
        thing: &ThingName,
        id: JobId,
        payload: &[u8],
        now: Timestamp,
        done: Done,
    ) -> Result<(), CloudError> {
        let request = match UpdateJob::read(payload) {
            Ok(request) => request,
            Err(error) => {
                self.down(thing, Subject::UpdateJob(id, Exchange::Rejected), unread(&error, payload, now).write());
                done(Ok(()));
                return Ok(());
            }
        };
        let (this, to) = (self.clone(), thing.clone());
        self.records.update_job(thing.clone(), id.clone(), request, now, move |result| {
            done(result.map(|answer| match answer {
                JobAnswer::Updated { answer, next } => {
                    this.down(&to, Subject::UpdateJob(id, Exchange::Accepted), answer.write());
                    this.rollouts.wake();
                    if let Some(next) = next {
                        this.notify_next(&to, &next);
                    }
                }
                JobAnswer::Rejected(rejected) => {
                    this.down(&to, Subject::UpdateJob(id, Exchange::Rejected), rejected.write());
                }
                JobAnswer::Got(_) => {}
            }));
        })
    }

    fn shadow_update(
        &self,
        thing: &ThingName,
        name: ShadowName,
        payload: &[u8],
        now: Timestamp,
        done: Done,
    ) -> Result<(), CloudError> {
        let reject = |code: u16, message: String, client_token: Option<String>| {
            let timestamp = Some(WireTime::new(now));
            let rejected = ShadowRejected { code, message: Some(message), timestamp, client_token };
            self.down(thing, Subject::UpdateShadow(name.clone(), Exchange::Rejected), rejected.write());
        };
        if name.as_str() != SHADOW_NAME {
            reject(404, format!("only the shadow `{SHADOW_NAME}` is kept here"), token(payload));
            done(Ok(()));
            return Ok(());
        }
        let update = match ShadowUpdate::read(payload) {
            Ok(update) => update,
            Err(error) => {
                let code = if matches!(error, ProtocolError::TooLarge { .. }) { 413 } else { 400 };
                reject(code, chain(&error), token(payload));
                done(Ok(()));
                return Ok(());
            }
        };
        let client_token = update.client_token.as_ref().map(|token| token.as_str().to_owned());
        let (this, to) = (self.clone(), thing.clone());
        self.records.report(thing.clone(), &update, now, move |result| {
            done(result.map(|answer| {
                let Some(ShadowAnswer { reported, version }) = answer else { return };
                let accepted = ShadowAccepted {
                    state: Some(ShadowSections { desired: None, reported: Some(reported) }),
                    version: Some(version),
                    timestamp: Some(WireTime::new(now)),
                    client_token,
                };
                this.down(&to, Subject::UpdateShadow(name, Exchange::Accepted), accepted.write());
            }));
        })
    }

    fn down(&self, thing: &ThingName, subject: Subject, payload: Result<Vec<u8>, ProtocolError>) {
        match payload {
            Ok(payload) => self.bus.send(&Address::new(thing, subject), payload),
            Err(error) => tracing::error!(%thing, error = chain(&error), "cannot write an answer"),
        }
    }
}

/// The answer to a request that cannot be read.
fn unread(error: &ProtocolError, payload: &[u8], now: Timestamp) -> JobRejected {
    let json = serde_json::from_slice::<serde::de::IgnoredAny>(payload).is_ok();
    JobRejected {
        code: if json { JobErrorCode::InvalidRequest } else { JobErrorCode::InvalidJson },
        message: Some(chain(error)),
        client_token: token(payload),
        timestamp: Some(WireTime::new(now)),
        execution_state: None,
    }
}

/// The client token of a request that is otherwise none, so that its sender knows what is meant.
fn token(payload: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Token {
        client_token: holm_protocol::ClientToken,
    }
    let token: Token = serde_json::from_slice(payload).ok()?;
    Some(token.client_token.as_str().to_owned())
}

/// The broker's callbacks need it to be so.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Arc<Uplink>>();
};
