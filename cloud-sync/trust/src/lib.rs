//! Whom a device believes.
//!
//! - [`Role`]: which keys may sign, and how many of them must; [`sign`] is the other side.
//! - [`Judge`]: whether a signed desired state is accepted, or why not.
//! - [`SealingKey`]: secrets that only one device can open.
//! - [`TrustedTime`]: what expires when the clock cannot be trusted.
//! - [`tuf`]: the repository that code comes from, its client and its editor.
//! - [`TrustError::reason`]: the word that an operator sees for each refusal.
//!
//! No I/O and no clock: what is stored, and when, is the caller's.

mod accept;
mod error;
mod key;
mod role;
mod seal;
mod time;
pub mod tuf;

pub use accept::{Acceptance, Judge, LastAccepted};
pub use error::TrustError;
pub use key::{PublicKey, SigningKey};
pub use role::{Role, sign};
pub use seal::{OpeningKey, Purpose, SealingKey};
pub use time::{Freshness, MAX_PAST_BUILD, MAX_SERVER_SKEW, Moment, TrustedTime};

/// So that the example of the README is compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
