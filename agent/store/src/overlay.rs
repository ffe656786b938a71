//! State between commits: what has been queued but not committed, and a small cache of what has.
//!
//! Every entry carries the version (the sequence of the settlement) that wrote it. A reader notes the version it saw;
//! when its effects are queued, [`Overlay::check`] compares. A key that is not here is as the database says, and has
//! not been written since `floor`, the highest version that was ever evicted: that makes the check sound without
//! remembering every key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use holm_core::{ReadSet, StateWrite};

/// The most bytes of committed entries that are kept to save reads of the database.
const CACHE_BYTES: usize = 256 * 1024;

/// What an entry costs beside its key and value, roughly.
const ENTRY_BYTES: usize = 96;

type Key = (Arc<str>, Arc<str>);

/// A value and the version that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// `None`: there is no such key.
    pub value: Option<Bytes>,
    /// To be handed back in the read set.
    pub version: u64,
}

#[derive(Debug)]
struct Entry {
    value: Option<Bytes>,
    version: u64,
    /// Whether the version is in the database.
    committed: bool,
}

impl Entry {
    fn cost(&self, key: &Key) -> usize {
        key.0.len() + key.1.len() + self.value.as_ref().map_or(0, Bytes::len) + ENTRY_BYTES
    }
}

/// See the module's text. Every method takes time that does not grow with the overlay, but for `commit` and `check`,
/// which take time in the keys they are given.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    entries: HashMap<Key, Entry>,
    /// Keys of committed entries, oldest first; may name an entry that has been written again since.
    committed: VecDeque<(Key, u64)>,
    committed_bytes: usize,
    /// The version of the last settlement that was queued.
    version: u64,
    /// The highest version that was evicted.
    floor: u64,
    /// Rises when queued writes are thrown away.
    generation: u64,
}

impl Overlay {
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// What is known of a key without asking the database.
    pub(crate) fn get(&self, namespace: &Arc<str>, key: &Arc<str>) -> Option<Versioned> {
        let entry = self.entries.get(&(namespace.clone(), key.clone()))?;
        Some(Versioned { value: entry.value.clone(), version: entry.version })
    }

    /// Keeps what the database answered to a reader that began when `version` was the last one queued. Ignored when
    /// the key may have been written and evicted in between.
    pub(crate) fn fill(&mut self, namespace: Arc<str>, key: Arc<str>, value: Option<Bytes>, version: u64) {
        let key = (namespace, key);
        if self.floor > version || self.entries.contains_key(&key) {
            return;
        }
        // The key is not in the map, so it was last written at the floor or before. The lowest version that is true
        // lets readers of before pass the check, and leaves the floor where it is when this entry is evicted.
        self.insert_committed(key, Entry { value, version: self.floor, committed: true });
    }

    /// Whether everything that was read still stands.
    pub(crate) fn check(&self, reads: &ReadSet) -> bool {
        reads.iter().all(|(namespace, key, seen)| match self.entries.get(&(namespace.clone(), key.clone())) {
            Some(entry) => entry.version <= *seen,
            None => self.floor <= *seen,
        })
    }

    /// Makes the writes visible, and returns their version.
    pub(crate) fn queue<'a>(&mut self, writes: impl Iterator<Item = &'a StateWrite>) -> u64 {
        self.version += 1;
        for write in writes {
            let key = (write.namespace.clone(), write.key.clone());
            let entry = Entry { value: write.value.clone(), version: self.version, committed: false };
            if let Some(old) = self.entries.insert(key.clone(), entry)
                && old.committed
            {
                self.committed_bytes = self.committed_bytes.saturating_sub(old.cost(&key));
            }
        }
        self.version
    }

    /// The writes of `version` are in the database.
    pub(crate) fn commit<'a>(&mut self, version: u64, writes: impl Iterator<Item = &'a StateWrite>) {
        for write in writes {
            let key = (write.namespace.clone(), write.key.clone());
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if entry.version == version && !entry.committed {
                entry.committed = true;
                self.committed_bytes += entry.cost(&key);
                self.committed.push_back((key, version));
            }
        }
        self.evict();
    }

    /// Whoever runs now is stale.
    pub(crate) fn turn_away(&mut self) {
        self.generation += 1;
    }

    /// Forgets everything that is not in the database. Running invocations of the old generation are stale.
    pub(crate) fn discard(&mut self) {
        // The committed entries go too: a discarded write may have replaced one, and the database knows better.
        self.entries.clear();
        self.committed.clear();
        self.committed_bytes = 0;
        self.turn_away();
        // Readers of before, even of the very last write, must not pass the check against an empty map.
        self.version += 1;
        self.floor = self.version;
    }

    /// The keys of a namespace whose existence differs from, or is newer than, the database: (key, exists).
    pub(crate) fn keys(&self, namespace: &str) -> Vec<(Arc<str>, bool)> {
        let of_namespace = self.entries.iter().filter(|((name, _), _)| &**name == namespace);
        of_namespace.map(|((_, key), entry)| (key.clone(), entry.value.is_some())).collect()
    }

    fn insert_committed(&mut self, key: Key, entry: Entry) {
        self.committed_bytes += entry.cost(&key);
        self.committed.push_back((key.clone(), entry.version));
        self.entries.insert(key, entry);
        self.evict();
    }

    fn evict(&mut self) {
        while self.committed_bytes > CACHE_BYTES || self.committed.len() > 2 * self.entries.len() + 64 {
            let Some((key, version)) = self.committed.pop_front() else { return };
            let current = self.entries.get(&key).is_some_and(|entry| entry.committed && entry.version == version);
            if current && let Some(entry) = self.entries.remove(&key) {
                self.committed_bytes = self.committed_bytes.saturating_sub(entry.cost(&key));
                self.floor = self.floor.max(entry.version);
            }
        }
    }
}
