//! A connection's hold on its session, which lets go however the connection ends.

use std::sync::Arc;

use holm_core::SessionWrite;
use tokio::sync::watch;

use crate::broker::Shared;
use crate::packet::Will;
use crate::received::ReceivedIds;
use crate::session::{Link, SessionId};
use crate::state::Attached;

/// See the module. Dropped without [`Attachment::release`], after a panic or a time-out, it detaches the session and
/// leaves the writes to the broker's keeper.
pub(crate) struct Attachment {
    shared: Arc<Shared>,
    pub(crate) session: SessionId,
    pub(crate) durable: bool,
    pub(crate) link: Arc<Link>,
    pub(crate) received: ReceivedIds,
    attached: bool,
    /// Dropped last: it tells a connection that takes over that the session is free.
    _gone: watch::Sender<()>,
}

impl Attachment {
    pub(crate) fn new(shared: Arc<Shared>, found: &mut Attached, link: Arc<Link>, gone: watch::Sender<()>) -> Self {
        let (session, durable, received) = (found.session, found.durable, std::mem::take(&mut found.received));
        Self { shared, session, durable, link, received, attached: true, _gone: gone }
    }

    /// What must be handed to the store before [`Attachment::release`]: from then on another connection may write for
    /// this session.
    pub(crate) fn farewell(&self) -> Option<SessionWrite> {
        let now = self.shared.now();
        self.shared.lock().farewell(self.session, now)
    }

    /// Lets go. Answers the will if it is due now.
    pub(crate) fn release(mut self, will: Option<(Will, Option<Arc<str>>)>) -> Option<Will> {
        self.attached = false;
        let now = self.shared.now();
        self.shared.lock().detach(self.session, std::mem::take(&mut self.received), will, now)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if self.attached {
            let now = self.shared.now();
            let mut state = self.shared.lock();
            let farewell = state.farewell(self.session, now);
            state.loose.extend(farewell);
            let _ = state.detach(self.session, std::mem::take(&mut self.received), None, now);
            drop(state);
            self.shared.keeper.notify_one();
        }
    }
}
