//! What an ext4 file system has in its journal and not in its place yet: all that was done last, on a card that comes out of
//! a device that lost power.
//!
//! The kernel writes that into place when it mounts the file system; here nothing is written, and who reads a block is led to
//! its newest copy. The format is that of the kernel's `fs/jbd2` (Documentation/filesystems/ext4/journal.rst); all its
//! numbers are big-endian. A transaction counts if its commit is there, and, where the journal has checksums, if all of it is
//! as it was written. The first one that is not is the end, as it is for the kernel.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::partition::Partition;
use super::superblock::{Superblock, crc32c};

/// What every block of the journal begins with that is not a copy.
const MAGIC: u32 = 0xc03b_3998;

const DESCRIPTOR: u64 = 1;
const COMMIT: u64 = 2;
const SUPERBLOCK: u64 = 4;
const REVOKE: u64 = 5;

/// Features: blocks may be revoked, numbers have 64 bits, everything has a checksum.
const REVOKES: u64 = 1;
const WIDE: u64 = 2;
const CHECKSUMS: u64 = 0x10;

/// Of a copy: it began with the magic, which was taken out.
const ESCAPED: u64 = 1;
/// Of a tag: no UUID follows it.
const SAME_UUID: u64 = 2;
/// Of a tag: it is the last of its block.
const LAST: u64 = 8;

/// A block's newest copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Logged {
    /// The block of the journal, as the file system counts.
    pub(super) block: u64,
    /// Whether its first four bytes are the magic, and zeros in the copy.
    pub(super) escaped: bool,
}

/// Blocks whose newest copy is in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Journal {
    pub(super) blocks: BTreeMap<u64, Logged>,
    /// Whether it ends with a transaction that was committed and is not as it was written.
    pub(super) damaged: bool,
}

impl Journal {
    /// What is to be read from the journal. An error says why that cannot be known.
    pub(super) fn read(partition: &Partition, superblock: &Superblock) -> Result<Self, String> {
        if !superblock.needs_recovery() {
            return Ok(Self::default());
        }
        let Some(log) = Log::open(partition, superblock)? else { return Ok(Self::default()) };
        log.replay().map_err(|error| format!("its journal cannot be read: {error}"))
    }
}

/// A journal with something in it.
struct Log<'a> {
    partition: &'a Partition,
    /// Bytes of a block.
    size: usize,
    /// Its blocks: the first as the journal counts, how many, the first as the file system counts.
    extents: Vec<(u64, u64, u64)>,
    /// It goes round between these.
    first: u64,
    end: u64,
    /// Where the oldest transaction begins, and its number.
    start: u64,
    sequence: u32,
    wide: bool,
    /// What its checksums begin with.
    seed: Option<u32>,
}

/// What a descriptor says of one copy.
struct Tag {
    block: u64,
    flags: u64,
    checksum: u32,
}

/// What came of a transaction's block.
enum Step {
    /// There is more of it.
    More,
    /// It is whole.
    Committed,
    /// There is none, or it was cut off.
    End,
    /// It is not what was written.
    Damaged,
}

impl<'a> Log<'a> {
    fn open(partition: &'a Partition, superblock: &Superblock) -> Result<Option<Self>, String> {
        let extents = superblock.journal(partition)?;
        let size = superblock.block_size;
        let mut log =
            Self { partition, size, extents, first: 0, end: 0, start: 0, sequence: 0, wide: false, seed: None };
        let mut block = log.block(0).map_err(|error| format!("its journal cannot be read: {error}"))?;
        block.truncate(1024);
        let field = |at| be(&block, at, 4);
        if field(0) != u64::from(MAGIC) || field(4) != SUPERBLOCK || field(12) != size as u64 {
            return Err("its journal does not begin as one".to_owned());
        }
        let features = field(40);
        let unknown = features & !(REVOKES | WIDE | CHECKSUMS);
        if unknown != 0 {
            return Err(format!("its journal is of a kind (features {unknown:#x}) that only the kernel reads"));
        }
        if features & CHECKSUMS != 0 {
            let said = field(0xfc);
            let mut zeroed = block.clone();
            zeroed.get_mut(0xfc..0x100).unwrap_or_default().fill(0);
            if u64::from(crc32c(u32::MAX, &zeroed)) != said {
                return Err("its journal's superblock is damaged".to_owned());
            }
            log.seed = Some(crc32c(u32::MAX, block.get(48..64).unwrap_or_default()));
        }
        log.wide = features & WIDE != 0;
        let (length, first, start) = (field(16), field(20), field(28));
        let blocks: u64 = log.extents.iter().map(|(_, count, _)| count).sum();
        if length > blocks || first == 0 || first >= length || start >= length {
            return Err("its journal is longer than the file that it is in".to_owned());
        }
        (log.first, log.end, log.start) = (first, length, start);
        log.sequence = u32::try_from(field(24)).unwrap_or_default();
        Ok((start != 0).then_some(log))
    }

    fn replay(&self) -> io::Result<Journal> {
        let mut journal = Journal::default();
        let (mut at, mut sequence) = (self.start, self.sequence);
        let (mut copies, mut revoked) = (Vec::new(), HashSet::new());
        // It cannot be longer than the room that it has.
        let mut left = self.end - self.first;
        loop {
            let before = at;
            match self.step(&mut at, sequence, &mut copies, &mut revoked)? {
                Step::More => {}
                Step::Committed => {
                    // A block that was given up and used for something else must not get its old content back: neither that
                    // of this transaction nor that of any before.
                    for block in &revoked {
                        journal.blocks.remove(block);
                    }
                    journal.blocks.extend(copies.drain(..).filter(|(block, _)| !revoked.contains(block)));
                    revoked.clear();
                    sequence = sequence.wrapping_add(1);
                }
                Step::End => return Ok(journal),
                Step::Damaged => return Ok(Journal { damaged: true, ..journal }),
            }
            let gone = if at > before { at - before } else { at + (self.end - self.first) - before };
            match left.checked_sub(gone) {
                Some(rest) => left = rest,
                None => return Ok(journal),
            }
        }
    }

    /// One block that is no copy, and the copies that follow it.
    fn step(
        &self,
        at: &mut u64,
        sequence: u32,
        copies: &mut Vec<(u64, Logged)>,
        revoked: &mut HashSet<u64>,
    ) -> io::Result<Step> {
        let block = self.block(*at)?;
        if be(&block, 0, 4) != u64::from(MAGIC) || be(&block, 8, 4) != u64::from(sequence) {
            return Ok(Step::End);
        }
        *at = self.after(*at);
        match be(&block, 4, 4) {
            DESCRIPTOR => {
                if !self.is_whole(&block) {
                    return Ok(Step::Damaged);
                }
                for tag in self.tags(&block) {
                    let logged = Logged { block: self.place(*at)?, escaped: tag.flags & ESCAPED != 0 };
                    if let Some(seed) = self.seed {
                        let sum = crc32c(crc32c(seed, &sequence.to_be_bytes()), &self.block(*at)?);
                        if sum != tag.checksum {
                            return Ok(Step::Damaged);
                        }
                    }
                    copies.push((tag.block, logged));
                    *at = self.after(*at);
                }
                Ok(Step::More)
            }
            REVOKE => {
                if !self.is_whole(&block) {
                    return Ok(Step::Damaged);
                }
                let end = usize::try_from(be(&block, 12, 4)).unwrap_or(usize::MAX).min(self.body());
                let width = if self.wide { 8 } else { 4 };
                revoked.extend((16..end).step_by(width).map(|at| be(&block, at, width)));
                Ok(Step::More)
            }
            COMMIT => match self.seed {
                Some(seed) => {
                    let said = be(&block, 16, 4);
                    let mut zeroed = block;
                    zeroed.get_mut(16..20).unwrap_or_default().fill(0);
                    Ok(if u64::from(crc32c(seed, &zeroed)) == said { Step::Committed } else { Step::Damaged })
                }
                None => Ok(Step::Committed),
            },
            _ => Ok(Step::End),
        }
    }

    fn tags(&self, block: &[u8]) -> Vec<Tag> {
        let mut tags = Vec::new();
        let mut at = 12;
        let length = if self.seed.is_some() { 16 } else { 8 + if self.wide { 4 } else { 0 } };
        while at + length <= self.body() {
            let low = be(block, at, 4);
            let (flags, high, checksum) = match self.seed {
                Some(_) => (be(block, at + 4, 4), be(block, at + 8, 4), be(block, at + 12, 4)),
                None => (be(block, at + 6, 2), if self.wide { be(block, at + 8, 4) } else { 0 }, 0),
            };
            // The upper half is there all the same where numbers have 32 bits, and says nothing.
            let high = if self.wide { high } else { 0 };
            let checksum = u32::try_from(checksum).unwrap_or_default();
            tags.push(Tag { block: high << 32 | low, flags, checksum });
            at += length;
            if flags & LAST != 0 {
                break;
            }
            if flags & SAME_UUID == 0 {
                at += 16;
            }
        }
        tags
    }

    /// Where the checksum at the end of a block begins, or the block ends.
    fn body(&self) -> usize {
        if self.seed.is_some() { self.size.saturating_sub(4) } else { self.size }
    }

    fn is_whole(&self, block: &[u8]) -> bool {
        let Some(seed) = self.seed else { return true };
        let (body, said) = block.split_at_checked(self.body()).unwrap_or_default();
        u64::from(crc32c(crc32c(seed, body), &[0; 4])) == be(said, 0, 4)
    }

    fn after(&self, at: u64) -> u64 {
        if at + 1 < self.end { at + 1 } else { self.first }
    }

    /// The file system's number of a block of the journal.
    fn place(&self, at: u64) -> io::Result<u64> {
        let extent = self.extents.iter().find(|(first, count, _)| (*first..first.saturating_add(*count)).contains(&at));
        let (first, _, place) = extent.ok_or_else(|| io::Error::other("it has a hole"))?;
        Ok(place + (at - first))
    }

    fn block(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut block = vec![0; self.size];
        self.partition.read(self.place(at)?.saturating_mul(self.size as u64), &mut block)?;
        Ok(block)
    }
}

/// A big-endian number.
fn be(bytes: &[u8], at: usize, length: usize) -> u64 {
    let digits = bytes.get(at..at + length).unwrap_or_default();
    digits.iter().fold(0, |number, digit| number << 8 | u64::from(*digit))
}

/// A copy as it is in its place.
pub(super) fn restore(copy: &mut [u8]) {
    if let Some(begin) = copy.get_mut(..4) {
        begin.copy_from_slice(&MAGIC.to_be_bytes());
    }
}
