//! What an image for a kind of board is made with.

use crate::ImageError;

/// A kind of board that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// Its name, as in `boards/profiles`.
    pub name: &'static str,
    /// Debian's name for its architecture.
    pub debian: &'static str,
    /// The processor's architecture, as Rust calls it.
    pub architecture: &'static str,
    /// The serial line.
    pub console: &'static str,
    /// Modules that it needs; what those need comes along.
    pub modules: &'static [&'static str],
}

/// What every board needs: the filesystems of the card, with what ext4 and vfat ask for by themselves.
const FILESYSTEMS: [&str; 6] = ["crc32c_generic", "squashfs", "ext4", "vfat", "nls_cp437", "nls_ascii"];

const BOARDS: [Board; 1] = [Board {
    name: "qemu-virt",
    debian: "arm64",
    architecture: "aarch64",
    console: "ttyAMA0",
    modules: &["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "i6300esb"],
}];

impl Board {
    /// By its name.
    pub fn named(name: &str) -> Result<Self, ImageError> {
        BOARDS.into_iter().find(|board| board.name == name).ok_or_else(|| ImageError::NoSuchBoard {
            board: name.to_owned(),
            known: BOARDS.map(|board| board.name).join(", "),
        })
    }

    /// All modules, without what those need.
    pub(crate) fn all_modules(&self) -> impl Iterator<Item = &'static str> {
        self.modules.iter().copied().chain(FILESYSTEMS)
    }
}
