//! The cloud's end: who the devices are, what they shall run, what they sent.
//!
//! One process, one folder. Devices come by MQTT over mutual TLS, people and enrolling devices by HTTPS; both listeners show a
//! certificate of the control plane's own authority.
//!
//! ```text
//!  devices                                   people, holm, enrolling devices
//!    | MQTT, mutual TLS                        | HTTPS
//!  +-v----+ messages  +--------+ changes +-----v---+
//!  | bus  |---------->| uplink |-------->| records |   api --> authority, live, blobs
//!  +-^----+           +---+----+         +---------+
//!    | answers, bells     | after the commit
//!    +--------------------+
//! ```
//!
//! # Doors
//!
//! Three modules stand for something that may be another thing later, and nothing reaches around them: [`bus`](crate::bus) (a
//! broker in this process), [`records`](crate::records) (SQLite) and [`blobs`](crate::blobs) (a folder).
//!
//! [`ui`](crate::ui) shows people the same as pages.
//!
//! # Invariants
//!
//! 1. Whoever is told that something is stored is told after its commit (`records`).
//! 2. A device is who its certificate says; who was revoked has no connection from the commit on (`bus`, `authority`).
//! 3. Nothing secret is stored: of tokens the hashes, of devices' keys nothing, and secrets of devices only as they alone open them.
//! 4. The metadata of the code repository is committed before any of it is shown, all of it at once (`records`).
//! 5. No byte sequence from the network ends more than its connection.
//!
//! # How it fails
//!
//! With a disk that does not take a commit, it acknowledges nothing and says so; devices keep what they have. It may be killed
//! at any moment: what was acknowledged is there.

mod api;
mod arrivals;
mod asks;
mod authority;
mod backup;
mod blobs;
mod bus;
mod error;
mod folder;
mod pace;
mod plane;
mod records;
mod retention;
mod rollouts;
mod secret;
mod signing;
mod ui;
mod uplink;

pub use backup::{Copied, backup, restore};
pub use error::{CloudError, chain};
pub use plane::{Options, Started, run};
pub use records::Leapt;
