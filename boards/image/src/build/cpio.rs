//! The archive that the kernel unpacks as its first root: cpio in the format `newc`
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`). Nothing in it tells when or by whom it was made.

/// An archive that is being written.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;

impl Archive {
    pub(crate) fn folder(&mut self, path: &str) {
        self.entry(path, FOLDER, 2, &[]);
    }

    pub(crate) fn program(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, PROGRAM, 1, bytes);
    }

    pub(crate) fn file(&mut self, path: &str, bytes: &[u8]) {
        self.entry(path, PLAIN, 1, bytes);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.count = u32::MAX;
        self.entry("TRAILER!!!", 0, 1, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, bytes: &[u8]) {
        self.count = self.count.wrapping_add(1);
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // Magic, inode, mode, owner, group, links, time, length, four device numbers, length of the name, checksum.
        let fields = [self.count, mode, 0, 0, links, 0, length, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        fields.iter().for_each(|field| self.bytes.extend(format!("{field:08x}").as_bytes()));
        self.bytes.extend(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_begins_and_ends_as_the_kernel_wants() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.program("init", b"abc");
        let bytes = archive.finish();
        assert!(bytes.starts_with(b"0707010000000100041ed"[..14].as_ref()));
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("init\0") && text.contains("abc\0") && text.contains("TRAILER!!!\0"), "{text}");
    }
}
