//! Making and changing a repository: pure functions from files to files.
//!
//! Offline, on the laptop, [`root`], [`next_root`] and [`targets`] make a [`Draft`]; each of those who sign adds a signature
//! with [`Draft::sign`] and passes the file on. Online, in the control plane, [`publish`] takes what came from there, checks it as a
//! client would, and makes snapshot and timestamp.
//!
//! Nothing here decides who may do what: a draft with too few signatures is a file that nobody believes.

mod draft;
mod offline;
mod online;

pub use draft::Draft;
pub use offline::{NewTarget, RoleSet, Terms, accept_root, accept_targets, next_root, root, targets};
pub use online::{OnlineKeys, Published, advance, publish};
