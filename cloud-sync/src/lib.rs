//! The device's end of the link to the control plane.
//!
//! | what | where |
//! | --- | --- |
//! | who the device is, and how it came to be | [`IdentityFolder`], [`Invitation`], [`Requester`] |
//! | the task that keeps it connected | [`CloudLink`], and [`Cloud`], the handle on it |
//! | records up | `upload` |
//! | what is to be done, and what is reported | `jobs`, `report` |
//! | doing it: from a job to functions that run | `deploy`, and [`Installer`], the agent's part of it |
//! | secrets that only this device opens | [`Secrets`] |
//! | what it costs | `usage` |
//!
//! # Invariants
//!
//! 1. A record is deleted only when a watermark of the control plane has passed it.
//! 2. Nothing grows with the backlog, the outage or the number of messages from outside.
//! 3. The wall clock decides nothing about trust.
//! 4. The device's key is made here and leaves never; what of the identity is on the disk is whole.
//!
//! The README beside this crate says what is spoken when, what an idle link costs, and what is missing.

mod deploy;
mod der;
mod enrol;
mod error;
mod http;
mod identity;
mod jobs;
mod link;
mod report;
mod sealing;
mod session;
mod status;
mod time;
mod tls;
mod upload;
mod usage;

pub use deploy::{AgentStanding, Examined, Installer, Objection, Question, Refusal, Verdict};
pub use enrol::{Invitation, Requester, SEED};
pub use error::SyncError;
pub use http::CloudUrl;
pub use identity::{Identity, IdentityFolder};
pub use link::{CloudLink, LinkConfig, Node};
pub use sealing::Secrets;
pub use status::{Cloud, CloudStatus, LinkState};
pub use time::{Clocks, Time};
pub use upload::{Settings, UploadStats};
