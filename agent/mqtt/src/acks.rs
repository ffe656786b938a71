//! Acknowledgements from clients, for both directions of QoS 2 and for what we sent.

use holm_core::SessionWrite;

use crate::connection::{Connection, End};
use crate::encode::{self, Ack};
use crate::outbound::{Gone, OnPubrec, Outbound};
use crate::packet::reason;
use crate::settlements::Then;

impl Connection {
    /// The client has a QoS 1 message. An id that is not on its way is ignored, as a late answer to an old connection.
    pub(crate) fn on_puback(&mut self, id: u16) {
        if let Some(Some(gone)) = self.with_outbound(|outbound| outbound.acknowledged(id)) {
            self.note_end(gone);
        }
    }

    /// The client has a QoS 2 message. PUBREL goes out only after that is written down: the client forgets the id on
    /// PUBREL, and a PUBLISH after a restart would be new to it.
    pub(crate) fn on_pubrec(&mut self, id: u16, refused: bool) {
        if refused {
            if let Some(Some(gone)) = self.with_outbound(|outbound| outbound.refused(id)) {
                self.note_end(gone);
            }
            return;
        }
        let code = match self.with_outbound(|outbound| outbound.recorded(id)).unwrap_or(OnPubrec::Unknown) {
            OnPubrec::Commit(sequence) => {
                let write = SessionWrite::Release { client: self.client.clone(), sequence };
                let settled = self.backend.persist(vec![write]);
                self.settlements.push(settled, Then::Release { id });
                return;
            }
            OnPubrec::Wait => return,
            OnPubrec::Release => reason::SUCCESS,
            OnPubrec::Unknown => reason::ID_NOT_FOUND,
        };
        encode::ack(&mut self.out, self.wire.version, Ack::Pubrel, id, code);
    }

    /// The client has sent all of a QoS 2 message. PUBCOMP goes out only after the id is forgotten in the store, else
    /// a new message under it would pass for a resend after a restart.
    pub(crate) fn on_pubrel(&mut self, id: u16) -> Result<(), End> {
        if self.settling.contains_key(&id) {
            return Err(End::Fault(reason::PROTOCOL_ERROR));
        }
        if !self.attachment.received.is_unreleased(id) {
            encode::ack(&mut self.out, self.wire.version, Ack::Pubcomp, id, reason::ID_NOT_FOUND);
            return Ok(());
        }
        let settled = if self.attachment.durable {
            let write = SessionWrite::Forget { client: self.client.clone(), packet_id: id };
            self.backend.persist(vec![write])
        } else {
            crate::Settled::Done
        };
        self.when(settled, Then::Complete { id })
    }

    /// The client has ended a QoS 2 exchange.
    pub(crate) fn on_pubcomp(&mut self, id: u16) {
        if let Some(Some(gone)) = self.with_outbound(|outbound| outbound.completed(id)) {
            self.note_end(gone);
        }
    }

    /// Remembers to write the end of a durable message.
    pub(crate) fn note_end(&mut self, gone: Gone) {
        if gone.durable {
            self.ended.push(SessionWrite::Dequeue { client: self.client.clone(), sequence: gone.sequence });
        }
    }

    /// Runs `change` on what the session has for the client; `None` if there is no session any more.
    pub(crate) fn with_outbound<T>(&self, change: impl FnOnce(&mut Outbound) -> T) -> Option<T> {
        let mut state = self.shared.lock();
        state.sessions.get_mut(&self.attachment.session).map(|session| change(&mut session.outbound))
    }
}
