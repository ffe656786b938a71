//! An ext4 file system as it would be if the kernel had mounted it: with all that is in its journal.

use std::error::Error;

use ext4_view::{Ext4, Ext4Error, Ext4Read};

use super::journal::{Journal, Logged, restore};
use super::partition::Partition;
use super::superblock::{AT, LENGTH, Superblock};

/// A file system that was opened.
pub(crate) struct FileSystem {
    pub(crate) ext4: Ext4,
    /// Blocks that only its journal has.
    pub(crate) journaled: u64,
    /// Whether the end of its journal is damaged, and not read.
    pub(crate) damaged: bool,
}

/// Leads who reads a block to its newest copy.
struct Newest {
    partition: Partition,
    journal: Journal,
    block_size: u64,
    superblock: Vec<u8>,
}

impl FileSystem {
    /// Opens it. An error says why that is not possible.
    pub(crate) fn open(partition: Partition) -> Result<Self, String> {
        let unread = |error: std::io::Error| format!("it cannot be read: {error}");
        let mut bytes = vec![0; LENGTH];
        partition.read(AT, &mut bytes).map_err(unread)?;
        let superblock = Superblock::parse(bytes).ok_or("it is not ext4")?;
        let journal = Journal::read(&partition, &superblock)?;
        let (journaled, damaged) = (journal.blocks.len() as u64, journal.damaged);
        let block_size = superblock.block_size as u64;
        let mut newest = Newest { partition, journal, block_size, superblock: Vec::new() };
        // The superblock is a block like others, and may be in the journal itself.
        let mut bytes = vec![0; LENGTH];
        newest.fill(AT, &mut bytes).map_err(unread)?;
        let superblock = Superblock::parse(bytes).ok_or("its journal is damaged")?;
        newest.superblock = superblock.recovered();
        let ext4 = Ext4::load(Box::new(newest)).map_err(|error: Ext4Error| error.to_string())?;
        Ok(Self { ext4, journaled, damaged })
    }
}

impl Newest {
    fn fill(&self, mut at: u64, mut buffer: &mut [u8]) -> std::io::Result<()> {
        while !buffer.is_empty() {
            let (block, within) = (at / self.block_size, at % self.block_size);
            let length = usize::try_from(self.block_size - within).unwrap_or(usize::MAX).min(buffer.len());
            let (now, rest) = buffer.split_at_mut(length);
            match self.journal.blocks.get(&block) {
                None => self.partition.read(at, now)?,
                Some(Logged { block, escaped }) => {
                    let mut copy = vec![0; usize::try_from(self.block_size).unwrap_or_default()];
                    self.partition.read(block.saturating_mul(self.block_size), &mut copy)?;
                    if *escaped {
                        restore(&mut copy);
                    }
                    let within = usize::try_from(within).unwrap_or_default();
                    now.copy_from_slice(copy.get(within..within + length).unwrap_or_default());
                }
            }
            (at, buffer) = (at + length as u64, rest);
        }
        Ok(())
    }
}

impl Ext4Read for Newest {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        self.fill(at, buffer)?;
        // It must not be taken for one that is to be recovered: it has been.
        let (end, length) = (at.saturating_add(buffer.len() as u64), self.superblock.len() as u64);
        let (from, to) = (at.max(AT), end.min(AT + length));
        if from < to {
            let range = |base: u64| {
                let place = |at: u64| usize::try_from(at - base).unwrap_or_default();
                place(from)..place(to)
            };
            if let (Some(place), Some(known)) = (buffer.get_mut(range(at)), self.superblock.get(range(AT))) {
                place.copy_from_slice(known);
            }
        }
        Ok(())
    }
}
