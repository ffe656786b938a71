//! Whom a device believes.
//!
//! - [`Role`]: which keys may sign, and how many of them must; [`sign`] is the other side.
//! - [`Judge`]: whether a signed desired state is accepted, or why not.
//! - [`TrustedTime`]: what expires when the clock cannot be trusted.
//! - [`TrustError::reason`]: the word that an operator sees for each refusal.
//!
//! No I/O and no clock: what is stored, and when, is the caller's. The client and the editor of the TUF repository belong here and
//! are not there yet; the README beside this crate says what is decided and what is not.

mod accept;
mod error;
mod key;
mod role;
mod time;

pub use accept::{Acceptance, Judge, LastAccepted};
pub use error::TrustError;
pub use key::{PublicKey, SigningKey};
pub use role::{Role, sign};
pub use time::{Freshness, MAX_PAST_BUILD, MAX_SERVER_SKEW, TrustedTime};
