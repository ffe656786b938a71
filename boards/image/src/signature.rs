//! What a partition holds, by its first bytes: enough to tell a person what would be lost, and to see what parts of it are
//! in use by something that the kernel does not mount.

/// Bytes that are looked at.
pub(crate) const LOOKED_AT: usize = 256 * 1024;

/// What is on a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// Such as `ext4`; empty if nothing is known.
    pub kind: &'static str,
    /// The label that somebody gave it.
    pub label: Option<String>,
    /// Bytes in use, where the filesystem says so near its beginning.
    pub used: Option<u64>,
}

/// Kinds that are parts of something larger, or hold keys: whoever has them, mounted or not, will miss them.
pub(crate) const MEMBERS: [&str; 4] = ["LVM", "RAID", "ZFS", "LUKS"];

/// By the first bytes of a partition.
pub(crate) fn content(bytes: &[u8]) -> Content {
    let is = |at: usize, magic: &[u8]| bytes.get(at..at + magic.len()) == Some(magic);
    let plain = |kind| Content { kind, ..Content::default() };
    if is(0x218, b"LVM2 001") || (0..4).any(|sector| is(sector * 512, b"LABELONE")) {
        return plain("LVM");
    }
    // Linux RAID, version 1.1 at the beginning and 1.2 four kibibytes on; others are at the end, where O_EXCL sees them.
    if is(0, &0xa92b_4efc_u32.to_le_bytes()) || is(4096, &0xa92b_4efc_u32.to_le_bytes()) {
        return plain("RAID");
    }
    if is(0, b"LUKS\xba\xbe") {
        return plain("LUKS");
    }
    // Uberblocks of ZFS, one KiB each.
    if (128..256).any(|kib| is(kib * 1024, &0x00ba_b10c_u64.to_le_bytes())) {
        return plain("ZFS");
    }
    if is(0x438, &[0x53, 0xef]) {
        return ext(bytes);
    }
    if is(0x52, b"FAT32   ") {
        return fat32(bytes);
    }
    if is(0x36, b"FAT") {
        return Content { kind: "FAT", label: text(bytes, 0x2b, 11), used: None };
    }
    if is(3, b"EXFAT   ") {
        return plain("exFAT");
    }
    if is(3, b"NTFS    ") {
        return plain("NTFS");
    }
    if is(0, b"XFSB") {
        return Content { kind: "XFS", label: text(bytes, 0x6c, 12), used: None };
    }
    if is(0x10040, b"_BHRfS_M") {
        return Content { kind: "btrfs", label: text(bytes, 0x1012b, 256), used: number(bytes, 0x10078, 8) };
    }
    if is(0, b"hsqs") {
        return Content { kind: "squashfs", label: None, used: number(bytes, 40, 8) };
    }
    if is(4086, b"SWAPSPACE2") {
        return plain("swap");
    }
    Content::default()
}

fn ext(bytes: &[u8]) -> Content {
    let used = || {
        let (blocks, free) = (number(bytes, 0x404, 4)?, number(bytes, 0x40c, 4)?);
        let size = 1024_u64.checked_shl(u32::try_from(number(bytes, 0x418, 4)?).ok()?)?;
        blocks.checked_sub(free)?.checked_mul(size)
    };
    Content { kind: "ext4", label: text(bytes, 0x478, 16), used: used() }
}

fn fat32(bytes: &[u8]) -> Content {
    let used = || {
        let (sector, cluster) = (number(bytes, 11, 2)?, number(bytes, 13, 1)?);
        let (sectors, reserved) = (number(bytes, 32, 4)?, number(bytes, 14, 2)?);
        let tables = number(bytes, 16, 1)? * number(bytes, 36, 4)?;
        let clusters = sectors.checked_sub(reserved)?.checked_sub(tables)?.checked_div(cluster)?;
        // The free count of FSInfo is a hint, and is all ones where nobody knows.
        let info = usize::try_from(number(bytes, 48, 2)? * sector).ok()?;
        let free = number(bytes, info + 488, 4).filter(|free| *free <= clusters)?;
        Some((clusters - free) * cluster * sector)
    };
    Content { kind: "FAT32", label: text(bytes, 0x47, 11), used: used() }
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let digits = bytes.get(at..at.checked_add(length)?)?;
    Some(digits.iter().rev().fold(0, |number, digit| number << 8 | u64::from(*digit)))
}

fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at + length)?;
    let text: Vec<u8> = field.iter().copied().take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    // What a FAT without a label calls itself. Escape sequences have no place on a terminal.
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    (!text.is_empty() && text != "NO NAME").then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_recognised() {
        let with = |at: usize, magic: &[u8]| {
            let mut bytes = vec![0; LOOKED_AT];
            bytes[at..at + magic.len()].copy_from_slice(magic);
            content(&bytes).kind
        };
        assert_eq!(with(512, b"LABELONE"), "LVM");
        assert_eq!(with(4096, &[0xfc, 0x4e, 0x2b, 0xa9]), "RAID");
        assert_eq!(with(0, b"LUKS\xba\xbe"), "LUKS");
        assert_eq!(with(200 * 1024, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0]), "ZFS");
        assert_eq!(with(4086, b"SWAPSPACE2"), "swap");
        assert_eq!(with(0, b"nothing"), "");
        assert_eq!(content(&[]), Content::default());
    }

    #[test]
    fn a_fat_says_its_label_and_what_it_holds() {
        let mut disk = std::io::Cursor::new(vec![0; 80 << 20]);
        crate::fat::format(&mut disk).unwrap();
        crate::fat::put(&mut disk, [("a", &[1; 100_000][..])]).unwrap();
        let found = content(&disk.into_inner()[..LOOKED_AT]);
        assert_eq!((found.kind, found.label.as_deref()), ("FAT32", Some("HOLM-BOOT")));
        assert!((100_000..200_000).contains(&found.used.unwrap()), "{found:?}");
    }
}
