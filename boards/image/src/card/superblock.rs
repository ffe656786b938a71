//! What must be known of an ext4 file system to find its journal (Documentation/filesystems/ext4).

use super::partition::Partition;

/// Where the superblock begins, and how long it is.
pub(super) const AT: u64 = 1024;
pub(super) const LENGTH: usize = 1024;

/// Where it says what who reads it must understand, and what who only reads it need not.
const INCOMPATIBLE: usize = 0x60;
const READ_ONLY: usize = 0x64;
const CHECKSUM: usize = 0x3fc;

/// The journal has something that is not in its place yet.
const RECOVER: u64 = 0x4;
/// Group descriptors have 64 bytes.
const WIDE: u64 = 0x80;
/// The superblock has a checksum.
const CHECKSUMS: u64 = 0x400;

/// Of an inode: it has a tree of extents.
const EXTENTS: u64 = 0x8_0000;

/// The tree of a file is no deeper.
const DEEPEST: u64 = 5;

/// More nodes than the tree of any journal has, and more extents.
const MOST_NODES: usize = 256;
const MOST_EXTENTS: usize = 4096;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Superblock {
    bytes: Vec<u8>,
    pub(super) block_size: usize,
}

impl Superblock {
    /// The superblock as it is in its place. `None` if it is none.
    pub(super) fn parse(bytes: Vec<u8>) -> Option<Self> {
        let shift = u32::try_from(le(&bytes, 0x18, 4)).ok().filter(|shift| *shift <= 6)?;
        let valid = bytes.len() == LENGTH && le(&bytes, 0x38, 2) == 0xef53;
        valid.then_some(Self { bytes, block_size: 1024 << shift })
    }

    pub(super) fn needs_recovery(&self) -> bool {
        le(&self.bytes, INCOMPATIBLE, 4) & RECOVER != 0
    }

    /// As the kernel leaves it when it has written everything into place.
    pub(super) fn recovered(mut self) -> Vec<u8> {
        let features = u32::try_from(le(&self.bytes, INCOMPATIBLE, 4) & !RECOVER).unwrap_or_default();
        let mut put = |at: usize, number: u32| {
            if let Some(place) = self.bytes.get_mut(at..at + 4) {
                place.copy_from_slice(&number.to_le_bytes());
            }
        };
        put(INCOMPATIBLE, features);
        if le(&self.bytes, READ_ONLY, 4) & CHECKSUMS != 0 {
            let sum = crc32c(u32::MAX, self.bytes.get(..CHECKSUM).unwrap_or_default());
            if let Some(place) = self.bytes.get_mut(CHECKSUM..) {
                place.copy_from_slice(&sum.to_le_bytes());
            }
        }
        self.bytes
    }

    /// The journal's blocks: the first of each run as the journal counts, how many, and where they are.
    pub(super) fn journal(&self, partition: &Partition) -> Result<Vec<(u64, u64, u64)>, String> {
        let field = |at, length| le(&self.bytes, at, length);
        let (number, per_group, size) = (field(0xe0, 4), field(0x28, 4), field(0x58, 2));
        let index = number.checked_sub(1).ok_or("its journal is on another disk")?;
        let group = index.checked_div(per_group).ok_or("its superblock is damaged")?;
        let wide = field(INCOMPATIBLE, 4) & WIDE != 0;
        let descriptor = if wide { field(0xfe, 2).max(64) } else { 32 };
        let unread = |error: std::io::Error| format!("where its journal is cannot be read: {error}");
        // Descriptors begin in the block after the superblock's.
        let at = (field(0x14, 4) + 1) * self.block_size as u64 + group * descriptor;
        let mut bytes = [0; 64];
        let known = bytes.get_mut(..if wide { 64 } else { 32 }).unwrap_or_default();
        partition.read(at, known).map_err(unread)?;
        let table = le(&bytes, 0x28, 4) << 32 | le(&bytes, 8, 4);
        let at = table.saturating_mul(self.block_size as u64).saturating_add(index % per_group * size);
        let mut inode = [0; 128];
        partition.read(at, &mut inode).map_err(unread)?;
        if le(&inode, 0x20, 4) & EXTENTS == 0 {
            return Err("its journal is one of ext3, which only the kernel reads".to_owned());
        }
        let mut found = Extents { nodes: 0, runs: Vec::new() };
        self.extents(partition, inode.get(0x28..0x28 + 60).unwrap_or_default(), DEEPEST, &mut found)?;
        Ok(found.runs)
    }

    fn extents(&self, partition: &Partition, node: &[u8], depth: u64, found: &mut Extents) -> Result<(), String> {
        let field = |at, length| le(node, at, length);
        found.nodes += 1;
        let too_much = found.nodes > MOST_NODES || found.runs.len() > MOST_EXTENTS;
        if field(0, 2) != 0xf30a || field(6, 2) > depth || too_much {
            return Err("where its journal is, is damaged".to_owned());
        }
        let leaf = field(6, 2) == 0;
        for entry in node.chunks_exact(12).skip(1).take(usize::try_from(field(2, 2)).unwrap_or_default()) {
            let number = |at, length| le(entry, at, length);
            if leaf {
                // Longer ones have no content yet.
                let count = Some(number(4, 2)).filter(|count| *count <= 0x8000).ok_or("its journal has a hole")?;
                found.runs.push((number(0, 4), count, number(6, 2) << 32 | number(8, 4)));
            } else {
                let at = (number(8, 2) << 32 | number(4, 4)).saturating_mul(self.block_size as u64);
                let mut below = vec![0; self.block_size];
                partition
                    .read(at, &mut below)
                    .map_err(|error| format!("where its journal is cannot be read: {error}"))?;
                self.extents(partition, &below, depth.saturating_sub(1), found)?;
            }
        }
        Ok(())
    }
}

/// What was found of a tree.
struct Extents {
    nodes: usize,
    runs: Vec<(u64, u64, u64)>,
}

/// A little-endian number.
pub(super) fn le(bytes: &[u8], at: usize, length: usize) -> u64 {
    let digits = bytes.get(at..at + length).unwrap_or_default();
    digits.iter().rev().fold(0, |number, digit| number << 8 | u64::from(*digit))
}

/// CRC-32C (RFC 3720, B.4), continued from another one, without the inversion at the end: as ext4 has it.
pub(super) fn crc32c(mut sum: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_the_one_of_the_standard() {
        // RFC 3720, B.4: 32 bytes of zeros, and of ones.
        assert_eq!(!crc32c(u32::MAX, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(u32::MAX, &[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn what_is_no_superblock_is_none() {
        assert!(Superblock::parse(vec![0; LENGTH]).is_none());
        assert!(Superblock::parse(Vec::new()).is_none());
    }
}
