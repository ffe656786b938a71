//! One client's connection, from CONNACK to its end: one task, which reads, parses, asks the backend, and writes once
//! for each time it wakes.
//!
//! Every round it parses what was read, sends the acknowledgements that are due, and fills the output from the
//! session. It stops reading while too many commits are pending or the peer does not take its output, and so pushes
//! back with nothing but TCP.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use holm_core::{ClientId, Qos, SessionWrite, TopicName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::access::Permissions;
use crate::attach::Attachment;
use crate::broker::Shared;
use crate::decode::{self, Fault};
use crate::encode::{self, Ack};
use crate::outbound::Wire;
use crate::packet::{Packet, Version, Will, reason};
use crate::publish::publish_will;
use crate::server::stopping;
use crate::session::Leave;
use crate::settlements::{Settlements, Then};
use crate::stream::{FILL_TO, Progress, Stream};
use crate::{Backend, Refusal, Settled};

/// Beyond this much output we stop reading: what we read makes us answer.
const STOP_READING_AT: usize = 4 * FILL_TO;

/// A peer that takes nothing of a waiting output for so long is gone, whatever else it sends.
const STALLED_AFTER: Duration = Duration::from_secs(60);

/// How long clients wait for their last acknowledgements and our farewell when the node stops.
const FAREWELL_DEADLINE: Duration = Duration::from_secs(10);

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client said goodbye.
    Disconnected { publish_will: bool },
    /// The socket closed or failed, or went silent.
    Lost,
    /// The client broke the protocol, or must be told something; the reason code.
    Fault(u8),
    /// Another connection wants the session.
    TakenOver,
    /// The broker's owner does not want the client.
    Kicked,
    /// The node stops.
    ShuttingDown,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault.reason)
    }
}

/// See the module.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) client: ClientId,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) permissions: Permissions,
    pub(crate) wire: Wire,
    pub(crate) attachment: Attachment,
    pub(crate) settlements: Settlements,
    /// Inbound ids whose messages are not settled.
    pub(crate) settling: HashMap<u16, Qos>,
    pub(crate) aliases: HashMap<u16, TopicName>,
    pub(crate) out: BytesMut,
    /// Ends of durable messages, written once a round.
    pub(crate) ended: Vec<SessionWrite>,
    pub(crate) will: Option<Will>,
    /// Nothing is sent any more: what is acknowledged now, the client does not hear of.
    pub(crate) closed: bool,
    /// 1.5 times the keep alive; `None` waits for ever.
    pub(crate) silence: Option<Duration>,
}

impl Connection {
    /// Runs to the end and lets the session go.
    pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        mut stream: Stream<S>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let end = match self.serve(&mut stream, &mut shutdown).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        debug!(client = %self.client, ?end, "connection ends");
        self.finish(stream, end).await;
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<std::convert::Infallible, End> {
        let link = self.attachment.link.clone();
        let max_packet = self.shared.config.limits.max_packet_bytes;
        let mut last_heard = Instant::now();
        let mut check = pin!(sleep_until(self.next_check(last_heard)));
        loop {
            loop {
                while self.may_read() {
                    let Some(packet) = decode::next(&mut stream.input, Some(self.wire.version), max_packet)? else {
                        break;
                    };
                    self.take(packet)?;
                }
                let was_full = !self.may_read();
                while let Some(Some((result, then))) = self.settlements.next().now_or_never() {
                    self.settled(result, then)?;
                }
                // What has come already must not wait until more comes.
                if !was_full || !self.may_read() {
                    break;
                }
            }
            self.write_ended();
            self.fill();
            match link.asked() {
                Leave::No => {}
                Leave::TakenOver => return Err(End::TakenOver),
                Leave::Kicked => return Err(End::Kicked),
            }
            let reading = self.may_read();
            if !reading {
                // The silence is ours.
                last_heard = Instant::now();
            }
            tokio::select! {
                biased;
                () = stopping(shutdown) => return Err(End::ShuttingDown),
                Some((result, then)) = self.settlements.next(), if !self.settlements.is_empty() => {
                    self.settled(result, then)?;
                }
                progress = stream.progress(&mut self.out, reading) => match progress {
                    Ok(Progress::Read) => last_heard = Instant::now(),
                    Ok(Progress::Wrote) => {}
                    Ok(Progress::Closed) | Err(_) => return Err(End::Lost),
                },
                () = link.wake.notified() => {}
                () = check.as_mut() => {
                    let now = Instant::now();
                    if self.silence.is_some_and(|silence| now >= last_heard + silence) {
                        return Err(End::Fault(reason::KEEP_ALIVE_TIMEOUT));
                    }
                    if !self.out.is_empty() && now >= stream.last_write + STALLED_AFTER {
                        return Err(End::Lost);
                    }
                    check.as_mut().reset(self.next_check(last_heard));
                }
            }
        }
    }

    /// The timer is moved only when it fires, not for every packet.
    fn next_check(&self, last_heard: Instant) -> Instant {
        let stalled = Instant::now() + STALLED_AFTER;
        self.silence.map_or(stalled, |silence| stalled.min(last_heard + silence))
    }

    fn may_read(&self) -> bool {
        let limits = &self.shared.config.limits;
        self.settlements.len() < limits.max_pending_commits
            && self.settlements.bytes() < limits.max_pending_bytes
            && self.out.len() < STOP_READING_AT
    }

    fn take(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.on_publish(*publish),
            Packet::Puback { id } => {
                self.on_puback(id);
                Ok(())
            }
            Packet::Pubrec { id, refused } => {
                self.on_pubrec(id, refused);
                Ok(())
            }
            Packet::Pubrel { id } => self.on_pubrel(id),
            Packet::Pubcomp { id } => {
                self.on_pubcomp(id);
                Ok(())
            }
            Packet::Subscribe(subscribe) => self.on_subscribe(subscribe),
            Packet::Unsubscribe { id, filters } => self.on_unsubscribe(id, &filters),
            Packet::Pingreq => {
                encode::pingresp(&mut self.out);
                Ok(())
            }
            Packet::Disconnect { publish_will, expiry } => Err(self.on_disconnect(publish_will, expiry)),
            Packet::Connect(_) => Err(Fault::PROTOCOL.into()),
        }
    }

    fn on_disconnect(&mut self, publish_will: bool, expiry: Option<u32>) -> End {
        if let Some(expiry) = expiry {
            let limit = self.shared.config.limits.max_session_expiry.unwrap_or(u32::MAX);
            if let Some(session) = self.shared.lock().sessions.get_mut(&self.attachment.session) {
                // A session that began as volatile cannot be made durable at its end (MQTT 5.0, 3.14.2.2.2).
                if session.expiry == 0 && expiry != 0 {
                    return End::Fault(reason::PROTOCOL_ERROR);
                }
                session.expiry = expiry.min(limit);
                if session.expiry != 0 {
                    self.ended.push(SessionWrite::Open {
                        client: self.client.clone(),
                        expiry_seconds: crate::session::stored_expiry(session.expiry),
                    });
                }
            }
        }
        End::Disconnected { publish_will }
    }

    /// Does what had to wait for a commit.
    pub(crate) fn settled(&mut self, result: Result<(), Refusal>, then: Then) -> Result<(), End> {
        match (then, result) {
            (Then::Acknowledge { qos, id, digest, .. }, result) => self.acknowledge(qos, id, digest, result),
            // A session change that cannot be kept must not be promised either.
            (_, Err(refusal)) => {
                warn!(client = %self.client, ?refusal, "session change was not committed");
                Err(End::Fault(refusal.reason_code()))
            }
            (Then::Nothing, Ok(())) => Ok(()),
            (Then::Complete { id }, Ok(())) => {
                self.attachment.received.remove(id);
                encode::ack(&mut self.out, self.wire.version, Ack::Pubcomp, id, reason::SUCCESS);
                Ok(())
            }
            (Then::Release { id }, Ok(())) => {
                self.with_outbound(|outbound| outbound.released(id));
                encode::ack(&mut self.out, self.wire.version, Ack::Pubrel, id, reason::SUCCESS);
                Ok(())
            }
            (Then::Respond { packet, plan }, Ok(())) => {
                self.out.extend_from_slice(&packet);
                self.shared.deliver(plan);
                Ok(())
            }
        }
    }

    /// Does `then` at once if nothing is to be waited for.
    pub(crate) fn when(&mut self, settled: Settled, then: Then) -> Result<(), End> {
        match settled {
            Settled::Done if self.settlements.is_empty() => self.settled(Ok(()), then),
            settled => {
                self.settlements.push(settled, then);
                Ok(())
            }
        }
    }

    /// Writes the ends of durable messages. Nobody waits for it, but it counts as pending, so that a client cannot
    /// acknowledge faster than the store writes.
    fn write_ended(&mut self) {
        if !self.ended.is_empty() {
            let settled = self.backend.persist(std::mem::take(&mut self.ended));
            if !matches!(settled, Settled::Done) {
                self.settlements.push(settled, Then::Nothing);
            }
        }
    }

    /// Moves what the session has for the client into the output.
    fn fill(&mut self) {
        let now = self.shared.now();
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(session) = state.sessions.get_mut(&self.attachment.session) else { return };
        session.woken = false;
        let filled = session.outbound.fill(&mut self.out, &self.wire, FILL_TO, now);
        state.messages_out += filled.sent;
        state.dropped += filled.dropped;
        drop(guard);
        for gone in filled.gone {
            self.note_end(gone);
        }
    }

    async fn finish<S: AsyncRead + AsyncWrite + Unpin>(mut self, stream: Stream<S>, end: End) {
        let code = match end {
            End::Disconnected { .. } | End::Lost => None,
            End::Fault(code) => Some(code),
            End::TakenOver => Some(reason::TAKEN_OVER),
            End::Kicked => Some(reason::ADMINISTRATIVE),
            End::ShuttingDown => Some(reason::SHUTTING_DOWN),
        };
        if end == End::ShuttingDown {
            // These clients did nothing wrong: what they sent is acknowledged before the farewell. One that is taken
            // over has a new connection to hear of it, and mostly nobody is left on the old one.
            if timeout(FAREWELL_DEADLINE, self.settle_all()).await.is_err() {
                let pending = self.settlements.len();
                warn!(client = %self.client, pending, "commits outlast their connection");
            }
        }
        if let Some(code) = code {
            encode::disconnect(&mut self.out, self.wire.version, code);
        }
        if end != End::Lost {
            stream.close(&mut self.out).await;
        }
        self.closed = true;
        // However long it takes: the outcome decides whether a resend is recognised, so the session stays taken until
        // the store has answered. Who wants to take it over is told to come back meanwhile.
        self.settle_all().await;
        self.write_ended();
        let will = match end {
            // At the node's end nobody is there to hear it.
            End::Disconnected { publish_will: false } | End::ShuttingDown => None,
            _ => self.will.take(),
        };
        if let Some(farewell) = self.attachment.farewell() {
            // Nobody waits for it; that it is in order before the next connection's writes is all that matters.
            let _ = self.backend.persist(vec![farewell]);
        }
        let will = self.attachment.release(will.map(|will| (will, self.user.clone())));
        self.backend.presence(&self.client);
        if let Some(will) = will {
            publish_will(&self.shared, &self.backend, &self.client, self.user, will);
        }
    }

    /// Cancel safe: what is settled is taken note of before the next wait.
    async fn settle_all(&mut self) {
        while let Some((result, then)) = self.settlements.next().await {
            // The connection ends anyway; only the session's memory of what is settled counts.
            let _ = self.settled(result, then);
        }
    }

    /// Whether this is MQTT 5, which has reason codes.
    pub(crate) fn has_reasons(&self) -> bool {
        self.wire.version == Version::V5
    }
}
