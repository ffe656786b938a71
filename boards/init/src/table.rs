//! The partition table of a card: an MBR with four entries, because the boot ROM of a Raspberry Pi 3 reads nothing else.
//!
//! | entry | type | what |
//! | --- | --- | --- |
//! | 1 | FAT32 | kernels and initramfs of both slots, firmware, the seed |
//! | 2 | Linux | system A, squashfs |
//! | 3 | Linux | system B, squashfs |
//! | 4 | Linux | data, ext4; made small, grown at the first boot to what the card has |
//!
//! One sector, so that changing it is atomic on a disk: a power cut leaves the old table or the new one.

/// Bytes of a sector, as tables count.
pub const SECTOR: u64 = 512;

/// The disk signature of every card, by which init finds it: `HOLM` in ASCII.
pub const SIGNATURE: u32 = u32::from_le_bytes(*b"HOLM");

/// The type of the FAT partition (FAT32, LBA).
pub const FAT: u8 = 0x0c;

/// The type of the others.
pub const LINUX: u8 = 0x83;

/// Where the table keeps its signature.
const SIGNATURE_AT: usize = 0x1b8;

/// Where its entries begin.
const ENTRIES_AT: usize = 0x1be;

/// No card gets more: an MBR cannot say it.
const MOST_SECTORS: u64 = u32::MAX as u64;

/// One partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its type; 0 is unused.
    pub kind: u8,
    /// The first sector.
    pub first: u32,
    /// How many sectors.
    pub sectors: u32,
}

impl Entry {
    /// Where it begins, in bytes.
    pub fn start(&self) -> u64 {
        u64::from(self.first) * SECTOR
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.sectors) * SECTOR
    }
}

/// The table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// The disk's signature.
    pub signature: u32,
    /// The entries, in their order.
    pub entries: [Entry; 4],
}

impl Table {
    /// Reads a first sector. An error says why it has no table.
    pub fn parse(sector: &[u8]) -> Result<Self, &'static str> {
        let word = |at: usize| -> Option<u32> {
            let bytes = sector.get(at..at + 4)?;
            bytes.try_into().ok().map(u32::from_le_bytes)
        };
        if sector.get(510..512) != Some(&[0x55, 0xaa]) {
            return Err("its first sector does not end as one of an MBR");
        }
        let signature = word(SIGNATURE_AT).ok_or("its first sector is too short")?;
        let mut entries = [Entry::default(); 4];
        for (index, entry) in entries.iter_mut().enumerate() {
            let at = ENTRIES_AT + 16 * index;
            let kind = sector.get(at + 4).copied();
            if let (Some(kind), Some(first), Some(sectors)) = (kind, word(at + 8), word(at + 12)) {
                *entry = Entry { kind, first, sectors };
            }
        }
        Ok(Self { signature, entries })
    }

    /// Whether it is a card's: the signature, and four partitions of the right types that do not overlap.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.signature != SIGNATURE {
            return Err("it has another signature");
        }
        if self.entries.map(|entry| entry.kind) != [FAT, LINUX, LINUX, LINUX] {
            return Err("its partitions are of other kinds");
        }
        let mut end = 0;
        for entry in self.entries {
            if u64::from(entry.first) < end || entry.sectors == 0 {
                return Err("its partitions overlap or are empty");
            }
            end = u64::from(entry.first) + u64::from(entry.sectors);
        }
        Ok(())
    }

    /// The sector that says it. There is no boot code: no board of ours runs any.
    pub fn sector(&self) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = sector.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(SIGNATURE_AT, &self.signature.to_le_bytes());
        for (index, entry) in self.entries.iter().enumerate() {
            let at = ENTRIES_AT + 16 * index;
            // Cylinders, heads and sectors that say "see the 32-bit numbers".
            put(at, &[0, 0xfe, 0xff, 0xff, entry.kind, 0xfe, 0xff, 0xff]);
            put(at + 8, &entry.first.to_le_bytes());
            put(at + 12, &entry.sectors.to_le_bytes());
        }
        put(510, &[0x55, 0xaa]);
        sector
    }

    /// The partition with the data.
    pub fn data(&self) -> Entry {
        let [.., data] = self.entries;
        data
    }

    /// With the data reaching to the end of a disk of so many sectors. `None` if it does already, but for less than a
    /// mebibyte.
    pub fn grown(&self, disk: u64) -> Option<Self> {
        let mut grown = *self;
        let [.., data] = &mut grown.entries;
        let end = disk.min(MOST_SECTORS);
        let sectors = u32::try_from(end.checked_sub(u64::from(data.first))?).ok()?;
        // Whole mebibytes, as flash is erased.
        let sectors = sectors - sectors % 2048;
        if sectors <= data.sectors {
            return None;
        }
        data.sectors = sectors;
        Some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Table {
        let entry = |kind, first, sectors| Entry { kind, first, sectors };
        let entries =
            [entry(FAT, 2048, 4096), entry(LINUX, 6144, 2048), entry(LINUX, 8192, 2048), entry(LINUX, 10240, 2048)];
        Table { signature: SIGNATURE, entries }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        assert_eq!(Table::parse(&card().sector()), Ok(card()));
        assert_eq!(card().check(), Ok(()));
        assert!(Table::parse(&[0; 512]).is_err());
        assert!(Table::parse(&[]).is_err());
    }

    #[test]
    fn a_table_that_is_not_a_cards_is_refused() {
        let other = |change: fn(&mut Table)| {
            let mut table = card();
            change(&mut table);
            table.check().is_err()
        };
        assert!(other(|table| table.signature = 1));
        assert!(other(|table| table.entries[3].kind = FAT));
        assert!(other(|table| table.entries[2].first = 7000));
        assert!(other(|table| table.entries[3].sectors = 0));
    }

    #[test]
    fn the_data_grows_to_the_end_of_the_disk_and_never_shrinks() {
        let grown = card().grown(1 << 20).unwrap();
        assert_eq!(grown.data(), Entry { kind: LINUX, first: 10240, sectors: (1 << 20) - 10240 });
        assert_eq!(grown.grown(1 << 20), None);
        assert_eq!(grown.grown((1 << 20) + 2047), None, "less than a mebibyte is not worth a write");
        assert_eq!(card().grown(10240), None);
        assert_eq!(card().grown(5), None);
        assert_eq!(card().grown(1 << 40).map(|table| table.data().sectors % 2048), Some(0));
    }
}
