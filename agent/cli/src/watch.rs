//! Noticing that somebody has changed a function's files: by looking at them, which works on every file system, also on
//! those that are shared with a virtual machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::project;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What was seen at the last look.
pub(crate) struct Watch {
    folder: PathBuf,
    seen: Vec<(PathBuf, SystemTime, u64)>,
    /// Whether something had changed then.
    news: bool,
    next: Instant,
}

impl Watch {
    /// From now on.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: project::sources(folder), news: false, next: Instant::now() + LOOK }
    }

    /// Waits until something has changed, and then until nothing does any more: editors write in several steps. Cancel
    /// safe: what was noticed is told by the next call.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::time::sleep_until(self.next).await;
            self.next = Instant::now() + LOOK;
            let now = project::sources(&self.folder);
            let same = now == self.seen;
            self.seen = now;
            if same && std::mem::take(&mut self.news) {
                return;
            }
            self.news |= !same;
        }
    }
}
