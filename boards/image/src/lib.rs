//! Cards: images that boards boot from, how they are made, and how they get on a card without hurting anything else.
//!
//! - [`build`]: an image from Debian's packages and our programs, without root and without mounts, the same bytes each time.
//! - [`disk`] and [`flash`]: what a disk is, why it must not be written, and writing one so that a card that was cut off
//!   never boots.
//! - [`seed`]: what a card is told when it is flashed.
//! - [`run`]: the card in QEMU, booted as the board's firmware would.
//! - [`stock`]: Raspberry Pi OS, seeded for its first boot.
//! - [`card`]: a node's database, read from the card that it was on.

pub mod build;
pub mod card;
pub mod disk;
mod error;
mod fat;
pub mod flash;
pub mod image;
mod layout;
mod manifest;
pub mod run;
pub mod seed;
mod signature;
pub mod stock;
mod update;
mod window;

pub use error::ImageError;
pub use holm_init::seed as card_seed;
pub use holm_init::slots::Slot;
pub use image::Image;
pub use manifest::{Manifest, Package, Part};
pub use update::update;

/// How far something is that takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Bytes that are done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The image is unpacked.
    Unpack,
    /// The image is compared with its own digest.
    Check,
    /// The card is written.
    Write,
    /// The card is read back.
    Verify,
}

/// Whether a file has the partition table of a card.
pub fn is_card(path: &std::path::Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| fat::of(&file, path).is_ok())
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
