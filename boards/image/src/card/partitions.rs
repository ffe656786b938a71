//! Where the partitions of a card are: an MBR with its chain of extended ones, a GPT, or none where it is one file system.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use holm_init::table::{Entry, SECTOR, SIGNATURE, Table};

/// The type of the one entry that a disk with a GPT has in its MBR (UEFI 2.10, 5.2.3).
const PROTECTIVE: u8 = 0xee;

/// Types of an entry that leads to more.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// More partitions than anybody has on a card: a chain that runs in a circle must end.
const MOST: u32 = 128;

/// Where a partition is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// As the kernel counts; 0 is the whole of it.
    pub(crate) number: u32,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// All of them, and whether `holm flash` made the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partitions {
    pub(crate) places: Vec<Place>,
    pub(crate) ours: bool,
}

impl Partitions {
    /// Reads the table of a disk with so many bytes. An error says why there is none.
    pub(crate) fn read(disk: &File, bytes: u64) -> Result<Self, String> {
        let sector = sector(disk, 0)?;
        let table = Table::parse(&sector)?;
        let mut places = match table.entries.iter().any(|entry| entry.kind == PROTECTIVE) {
            true => gpt(disk)?,
            false => mbr(disk, &table)?,
        };
        // What is said to begin beyond the end, nobody can read: of a card that was copied in part, the rest may be of use.
        places.retain(|place| place.bytes > 0 && place.start < bytes);
        for place in &mut places {
            place.bytes = place.bytes.min(bytes - place.start);
        }
        Ok(Self { places, ours: table.signature == SIGNATURE && table.check().is_ok() })
    }
}

fn mbr(disk: &File, table: &Table) -> Result<Vec<Place>, String> {
    let mut places = Vec::new();
    let place = |number: u32, base: u64, entry: &Entry| Place {
        number,
        start: base.saturating_add(entry.start()),
        bytes: entry.bytes(),
    };
    for (number, entry) in (1..).zip(&table.entries) {
        if entry.kind != 0 && !EXTENDED.contains(&entry.kind) {
            places.push(place(number, 0, entry));
        }
    }
    let Some(extended) = table.entries.iter().find(|entry| EXTENDED.contains(&entry.kind)) else { return Ok(places) };
    // Each has a table of its own: where it is, counted from there, and where the next one is, counted from the first.
    let mut at = extended.start();
    for number in 5..5 + MOST {
        let next = Table::parse(&sector(disk, at)?)?;
        let [logical, link, ..] = next.entries;
        if logical.kind != 0 {
            places.push(place(number, at, &logical));
        }
        if !EXTENDED.contains(&link.kind) {
            break;
        }
        at = extended.start().saturating_add(link.start());
    }
    Ok(places)
}

/// UEFI 2.10, 5.3. What its checksums say does not matter to who only reads.
fn gpt(disk: &File) -> Result<Vec<Place>, String> {
    let header = sector(disk, SECTOR)?;
    if !header.starts_with(b"EFI PART") {
        return Err("its table is a GPT, which is not where it should be".to_owned());
    }
    let number = |bytes: &[u8], at: usize, length: usize| {
        let digits = bytes.get(at..at + length).unwrap_or_default();
        digits.iter().rev().fold(0_u64, |number, digit| number << 8 | u64::from(*digit))
    };
    let (first, count, size) = (number(&header, 72, 8), number(&header, 80, 4), number(&header, 84, 4));
    if !(128..=4096).contains(&size) {
        return Err(format!("its table is a GPT with entries of {size} bytes"));
    }
    let mut places = Vec::new();
    let mut entry = vec![0; 128];
    for index in 0..count.min(u64::from(MOST)) {
        let at = first.saturating_mul(SECTOR).saturating_add(index * size);
        disk.read_exact_at(&mut entry, at).map_err(|error| format!("its table cannot be read: {error}"))?;
        let (begin, end) = (number(&entry, 32, 8), number(&entry, 40, 8));
        let used = entry.get(..16).is_some_and(|kind| kind.iter().any(|byte| *byte != 0));
        if used && end >= begin {
            places.push(Place {
                number: u32::try_from(index + 1).unwrap_or_default(),
                start: begin.saturating_mul(SECTOR),
                bytes: (end - begin).saturating_add(1).saturating_mul(SECTOR),
            });
        }
    }
    Ok(places)
}

fn sector(disk: &File, at: u64) -> Result<[u8; SECTOR as usize], String> {
    let mut sector = [0; SECTOR as usize];
    disk.read_exact_at(&mut sector, at).map_err(|error| format!("its table cannot be read: {error}"))?;
    Ok(sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn disk(sectors: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(16 * MIB).unwrap();
        for (at, bytes) in sectors {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    fn table(entries: &[(u8, u32, u32)]) -> [u8; 512] {
        let mut table = Table { signature: 7, entries: [Entry::default(); 4] };
        for (place, (kind, first, sectors)) in table.entries.iter_mut().zip(entries) {
            *place = Entry { kind: *kind, first: *first, sectors: *sectors };
        }
        table.sector()
    }

    fn places(disk: &File) -> Vec<(u32, u64, u64)> {
        let found = Partitions::read(disk, 16 * MIB).unwrap();
        found.places.iter().map(|place| (place.number, place.start / 512, place.bytes / 512)).collect()
    }

    #[test]
    fn partitions_are_found_by_either_table_and_in_a_chain() {
        let first = table(&[(0x0c, 2048, 2048), (0, 0, 0), (0x83, 4096, 2048)]);
        assert_eq!(places(&disk(&[(0, &first)])), [(1, 2048, 2048), (3, 4096, 2048)]);
        // An extended one at 8192, with two in it.
        let first = table(&[(0x0c, 2048, 2048), (0x0f, 8192, 8192)]);
        let second = table(&[(0x83, 64, 1000), (0x05, 2048, 2048)]);
        let third = table(&[(0x83, 64, 2000)]);
        let chain = disk(&[(0, &first), (8192 * 512, &second), ((8192 + 2048) * 512, &third)]);
        assert_eq!(places(&chain), [(1, 2048, 2048), (5, 8192 + 64, 1000), (6, 8192 + 2048 + 64, 2000)]);
        let mut header = [0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        header[80..84].copy_from_slice(&4_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        let mut entry = [0; 128];
        entry[0] = 1;
        entry[32..40].copy_from_slice(&2048_u64.to_le_bytes());
        entry[40..48].copy_from_slice(&4095_u64.to_le_bytes());
        let gpt = disk(&[(0, &table(&[(PROTECTIVE, 1, 32767)])), (512, &header), (1024 + 128, &entry)]);
        assert_eq!(places(&gpt), [(2, 2048, 2048)]);
    }

    #[test]
    fn a_table_that_is_not_one_is_refused_and_one_that_lies_is_cut() {
        assert!(Partitions::read(&disk(&[]), 16 * MIB).is_err());
        let beyond = disk(&[(0, &table(&[(0x83, 2048, u32::MAX), (0x83, 1 << 30, 5)]))]);
        assert_eq!(places(&beyond), [(1, 2048, (16 * MIB) / 512 - 2048)]);
        let circle = disk(&[(0, &table(&[(0x0f, 8192, 8192)])), (8192 * 512, &table(&[(0x83, 64, 9), (0x05, 0, 9)]))]);
        assert_eq!(places(&circle).len(), MOST as usize);
        let of_nothing = disk(&[(0, &table(&[(0x0f, 8192, 8192)])), (8192 * 512, &table(&[(0, 0, 0), (0x05, 0, 9)]))]);
        assert_eq!(places(&of_nothing), []);
        assert!(Partitions::read(&disk(&[(0, &table(&[(PROTECTIVE, 1, 9)]))]), 16 * MIB).is_err());
    }
}
