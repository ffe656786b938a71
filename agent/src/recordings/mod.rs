//! Whole invocations in memory, for `holm replay`: the newest, as many as the bytes that a node gives for them.
//!
//! They lie packed one after the other in a few blocks. An end that is kept as the values that it is made of is some fifteen
//! allocations, made on the thread of a guest and let go long after, when they are in nobody's cache: that took a seventh
//! of the throughput of small functions. Packed it is one copy, and the oldest block is the next to be written.

mod piece;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holm_core::{Effects, Event, LogLine, Outcome, Recording, Timestamp};

use self::piece::{Piece, put_all, put_option};
use crate::dispatch::Loaded;
use crate::record::{Did, Ended};

/// Bytes of a block, unless a node keeps so little that it would be most of it, or one entry needs more.
const BLOCK: usize = 64 << 10;

/// Parts that a small ring is of.
const PARTS: usize = 8;

/// Bytes before an entry: its length, its version's place in the block, its time.
const HEAD: usize = 16;

/// See the module's text. `V` is what a version is known by.
pub struct Recordings<V> {
    most: usize,
    blocks: Mutex<Blocks<V>>,
}

struct Blocks<V> {
    /// Oldest first; nothing in them changes any more.
    full: VecDeque<Arc<Block<V>>>,
    open: Block<V>,
    /// Of all of them together, used or not.
    bytes: usize,
}

struct Block<V> {
    bytes: Vec<u8>,
    /// What its entries ran: a few.
    versions: Vec<Arc<V>>,
}

/// What was kept at the time of asking, oldest first.
pub struct Kept<V> {
    blocks: Vec<Arc<Block<V>>>,
    block: usize,
    at: usize,
}

/// One of them.
pub struct Entry<V> {
    /// When it ended.
    pub time: Timestamp,
    /// Which version ran.
    pub loaded: Arc<V>,
    block: Arc<Block<V>>,
    range: Range<usize>,
}

impl<V> Recordings<V> {
    /// An empty one, with room for so many bytes. They are taken as they are needed.
    pub fn new(most: usize) -> Self {
        let blocks = Blocks { full: VecDeque::new(), open: Block::default(), bytes: 0 };
        Self { most, blocks: Mutex::new(blocks) }
    }

    /// Keeps what [`pack`] has made. One that is larger than all the room is not kept.
    pub fn push(&self, loaded: &Arc<V>, time: Timestamp, packed: &[u8]) {
        let need = HEAD + packed.len();
        let Ok(length) = u32::try_from(packed.len()) else { return };
        if need > self.most {
            return;
        }
        let mut blocks = self.lock();
        if blocks.open.bytes.capacity() - blocks.open.bytes.len() < need {
            blocks.next(need.max(BLOCK.min(self.most / PARTS)), self.most);
        }
        let Block { bytes, versions } = &mut blocks.open;
        let known = versions.iter().rposition(|one| Arc::ptr_eq(one, loaded));
        let version = known.unwrap_or_else(|| {
            versions.push(loaded.clone());
            versions.len() - 1
        });
        bytes.extend_from_slice(&length.to_le_bytes());
        // A block has fewer entries than that.
        bytes.extend_from_slice(&u32::try_from(version).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&time.0.to_le_bytes());
        bytes.extend_from_slice(packed);
    }

    /// All that is kept.
    pub fn all(&self) -> Kept<V> {
        let blocks = self.lock();
        let open = Arc::new(blocks.open.clone());
        Kept { blocks: blocks.full.iter().cloned().chain([open]).collect(), block: 0, at: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Blocks<V>> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V> Clone for Block<V> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), versions: self.versions.clone() }
    }
}

impl<V> Default for Block<V> {
    fn default() -> Self {
        Self { bytes: Vec::new(), versions: Vec::new() }
    }
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Self {
        Self { blocks: self.blocks.clone(), ..*self }
    }
}

impl<V> Blocks<V> {
    /// Opens a block of at least so many bytes: the oldest, if nobody reads it.
    fn next(&mut self, size: usize, most: usize) {
        let mut used = None;
        let full = std::mem::take(&mut self.open);
        if !full.bytes.is_empty() {
            self.full.push_back(Arc::new(full));
        }
        while self.bytes + size > most {
            let Some(oldest) = self.full.pop_front() else { break };
            self.bytes -= oldest.bytes.capacity();
            used = Arc::try_unwrap(oldest).ok().filter(|block| block.bytes.capacity() == size);
        }
        self.open = used.unwrap_or_else(|| Block { bytes: Vec::with_capacity(size), versions: Vec::new() });
        self.open.bytes.clear();
        self.open.versions.clear();
        self.bytes += self.open.bytes.capacity();
    }
}

impl<V> Iterator for Kept<V> {
    type Item = Entry<V>;

    fn next(&mut self) -> Option<Entry<V>> {
        loop {
            let block = self.blocks.get(self.block)?;
            let mut rest = block.bytes.get(self.at..).unwrap_or_default();
            let from = &mut rest;
            let head = u32::take(from).zip(u32::take(from)).zip(i64::take(from));
            let Some(((length, version), time)) = head else {
                (self.block, self.at) = (self.block + 1, 0);
                continue;
            };
            let start = self.at + HEAD;
            self.at = start + length as usize;
            let loaded = block.versions.get(version as usize)?.clone();
            return Some(Entry { time: Timestamp(time), loaded, block: block.clone(), range: start..self.at });
        }
    }
}

impl Entry<Loaded> {
    /// What it was made of. There is none only if it was not packed by [`pack`].
    pub fn ended(&self) -> Option<Ended> {
        let from = &mut self.block.bytes.get(self.range.clone())?;
        let event = Arc::new(Event::take(from)?);
        let (fault, answer) = (Piece::take(from)?, Piece::take(from)?);
        let (effects, logs) = (Piece::take(from)?, Piece::take(from)?);
        let (usage, recording) = (Piece::take(from)?, Piece::take(from)?);
        let did = Some(Did { answer, effects });
        Some(Ended { loaded: self.loaded.clone(), event, time: self.time, fault, did, logs, usage, recording })
    }
}

/// Writes an invocation's end to `out`: `before` is what it did before it invoked others.
pub fn pack<'a>(
    out: &mut Vec<u8>,
    event: &Event,
    outcome: &'a Outcome,
    before: impl Iterator<Item = &'a Effects>,
    logs: &[LogLine],
    recording: &Recording,
) {
    event.put(out);
    put_option(outcome.result.as_ref().err(), out);
    put_option(outcome.result.as_ref().ok().and_then(Option::as_ref), out);
    put_all(before.chain([&outcome.effects]), out);
    put_all(logs.iter(), out);
    outcome.usage.put(out);
    recording.put(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in an entry that is only a number.
    fn number<V>(entry: &Entry<V>) -> u32 {
        u32::take(&mut &entry.block.bytes[entry.range.clone()]).unwrap()
    }

    fn push(ring: &Recordings<u8>, version: &Arc<u8>, number: u32, size: usize) {
        let mut packed = number.to_le_bytes().to_vec();
        packed.resize(size, 0);
        ring.push(version, Timestamp(i64::from(number)), &packed);
    }

    #[test]
    fn the_newest_are_kept_and_the_room_is_never_exceeded() {
        let (ring, old, new) = (Recordings::new(8_000), Arc::new(1), Arc::new(2));
        for at in 0..1_000 {
            // Some have a block of their own.
            let size = if at % 50 == 7 { 1_500 } else { 100 };
            push(&ring, if at < 990 { &old } else { &new }, at, size);
            let blocks = ring.lock();
            let all =
                blocks.full.iter().map(|block| block.bytes.capacity()).sum::<usize>() + blocks.open.bytes.capacity();
            assert!(all == blocks.bytes && all <= 8_000, "{all} bytes, {} known", blocks.bytes);
        }
        let kept: Vec<_> = ring.all().map(|entry| (number(&entry), entry.time, *entry.loaded)).collect();
        assert!(kept.len() > 40, "{}", kept.len());
        for (entry, at) in kept.iter().zip(1_000 - kept.len() as u32..) {
            assert_eq!(*entry, (at, Timestamp(i64::from(at)), if at < 990 { 1 } else { 2 }));
        }
        assert_eq!(
            Arc::strong_count(&old),
            1 + ring.all().blocks.iter().filter(|one| one.versions.contains(&old)).count()
        );
    }

    #[test]
    fn a_reader_keeps_what_it_found_while_the_ring_goes_on() {
        let (ring, version) = (Recordings::new(4_000), Arc::new(1));
        (0..20).for_each(|at| push(&ring, &version, at, 100));
        let mut reader = ring.all();
        assert_eq!(reader.next().map(|entry| number(&entry)), Some(0));
        (20..500).for_each(|at| push(&ring, &version, at, 100));
        assert_eq!(reader.map(|entry| number(&entry)).collect::<Vec<_>>(), (1..20).collect::<Vec<_>>());
    }

    #[test]
    fn one_that_is_larger_than_all_the_room_is_left_out() {
        let (ring, version) = (Recordings::new(1_000), Arc::new(1));
        push(&ring, &version, 1, 100);
        push(&ring, &version, 2, 1_000);
        assert_eq!(ring.all().map(|entry| number(&entry)).collect::<Vec<_>>(), [1]);
        push(&ring, &version, 3, 900);
        assert_eq!(ring.all().map(|entry| number(&entry)).collect::<Vec<_>>(), [3]);
    }
}
