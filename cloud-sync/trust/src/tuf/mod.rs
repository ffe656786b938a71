//! The repository that code comes from: a flat subset of The Update Framework (TUF), client and editor.
//!
//! The specification is <https://theupdateframework.github.io/specification/v1.0.34/>; numbers such as 5.3.4 are its. What is here of it:
//! the four top-level roles, root rotation, consistent snapshots. What is not: delegations, mirrors.
//!
//! - [`Update`] is one run of the client's workflow (5.1 to 5.6), without I/O: it says which file it wants, takes the bytes, and says
//!   what to keep. [`Kept`] is all that is stored between two runs, one value for one transaction.
//! - [`Repository`] is what a finished run, or what was kept, is good for: targets, and the keys that judge desired states.
//! - [`Check`] holds a target's bytes against what was signed (5.7), piece by piece.
//! - [`Draft`] and the functions of [`edit`] are the other side: files, and signatures that are added one after another.
//! - [`Listing`] and [`DeploymentKeys`] are what Holm puts into a repository.
//!
//! # Invariants
//!
//! - Every file has a limit of bytes ([`Limits`]), and nothing of it but its signatures is looked at before they were checked.
//! - The bytes that are kept are those that came, never our own rendering.
//! - A signature counts once for each key, and keys are the same when their contents are, under whatever names.
//! - What is kept is the longest part of the chain that was verified, also when a run fails: a root that was believed stays believed.
//! - No version goes down, unless the online keys were replaced (5.3.11).

mod date;
pub mod edit;
mod json;
mod key;
mod kind;
mod limits;
mod metadata;
mod repository;
mod target;
mod update;

pub use edit::Draft;
pub use kind::{DEPLOYMENT_KEYS, DeploymentKeys, Listing, MAX_DEPLOYMENT_KEYS};
pub use limits::Limits;
pub use metadata::RoleName;
pub use repository::Repository;
pub use target::{Check, Target};
pub use update::{Answer, Kept, Update, Wanted};
