//! Word of new rows in the lanes to the cloud, for the one who sends them: told when there are as many as it wants to know of,
//! so that a busy node does not wake it for every commit, nor an idle one by the clock.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Lane;

/// Rows since the store was opened, by lane, and who wants to know.
#[derive(Default)]
pub(crate) struct News {
    rows: [AtomicU64; Lane::ALL.len()],
    /// The count at which to tell; 0 is never.
    tell_at: [AtomicU64; Lane::ALL.len()],
    tell: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl News {
    /// So many rows were committed. Called by the writer, after the commit.
    pub(crate) fn grew(&self, grown: [u64; Lane::ALL.len()]) {
        let mut wanted = false;
        for ((rows, tell_at), grown) in self.rows.iter().zip(&self.tell_at).zip(grown) {
            if grown == 0 {
                continue;
            }
            let now = rows.fetch_add(grown, Ordering::SeqCst) + grown;
            let at = tell_at.load(Ordering::SeqCst);
            // Once: whoever is told says when to be told again.
            wanted |=
                at != 0 && now >= at && tell_at.compare_exchange(at, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        }
        if wanted && let Some(tell) = self.tell.get() {
            tell();
        }
    }

    pub(crate) fn rows(&self, lane: Lane) -> u64 {
        self.rows.get(lane.number() as usize).map_or(0, |rows| rows.load(Ordering::SeqCst))
    }

    pub(crate) fn tell_at(&self, lane: Lane, count: u64) -> bool {
        if let Some(tell_at) = self.tell_at.get(lane.number() as usize) {
            tell_at.store(count, Ordering::SeqCst);
        }
        // After the store: what was committed in between is seen here, or is told.
        self.rows(lane) < count
    }

    pub(crate) fn listen(&self, tell: Box<dyn Fn() + Send + Sync>) {
        // The first one stays: there is one uploader.
        drop(self.tell.set(tell));
    }
}
