//! Where everything is on a card.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | the partition table, one sector |
//! | 4 KiB | the image's manifest, which no board reads |
//! | 1 MiB | FAT32 |
//! | 129 MiB | system A |
//! | 193 MiB | system B |
//! | 257 MiB | data, 64 MiB until the first boot grows it |

use holm_init::table::{Entry, FAT, LINUX, SECTOR, SIGNATURE, Table};

/// A mebibyte.
pub(crate) const MIB: u64 = 1 << 20;

/// Where the manifest begins, and where what it may take ends.
pub(crate) const MANIFEST: std::ops::Range<u64> = 4096..MIB;

/// Bytes of the FAT partition: two kernels with their initramfs, and the firmware of a Raspberry Pi.
pub(crate) const BOOT: u64 = 128 * MIB;

/// Bytes of a system.
pub(crate) const SYSTEM: u64 = 64 * MIB;

/// Bytes of the data partition in the image.
pub(crate) const DATA: u64 = 64 * MIB;

/// Bytes of an image.
pub(crate) const TOTAL: u64 = MIB + BOOT + 2 * SYSTEM + DATA;

/// The table of an image.
pub(crate) fn table() -> Table {
    let mut at = MIB;
    let mut entry = |kind, bytes| {
        let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or_default();
        let entry = Entry { kind, first: sectors(at), sectors: sectors(bytes) };
        at += bytes;
        entry
    };
    let entries = [entry(FAT, BOOT), entry(LINUX, SYSTEM), entry(LINUX, SYSTEM), entry(LINUX, DATA)];
    Table { signature: SIGNATURE, entries }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_a_cards_and_ends_where_the_image_does() {
        assert_eq!(table().check(), Ok(()));
        assert_eq!(table().data().start() + table().data().bytes(), TOTAL);
    }
}
