//! What is on a card, and the first process of a node that boots from it.
//!
//! The first half is shared with who makes and writes cards (`holm-image`): the partition table ([`table`]), the seed that
//! a card gets when it is flashed ([`seed`]), and which system is on trial ([`slots`]). The second half is `/init` of the
//! initramfs; see `boards/image/README.md` for how a card boots.

pub mod boot;
pub mod console;
pub mod dhcp;
mod error;
pub mod kernel;
pub mod led;
pub mod link;
pub mod mounts;
pub mod network;
pub mod radio;
pub mod seed;
pub mod slots;
pub mod sntp;
pub mod supervise;
pub mod table;
pub mod watchdog;

pub use error::InitError;
