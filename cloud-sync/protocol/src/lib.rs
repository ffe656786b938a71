//! What devices and the control plane say to each other.
//!
//! | what | where | from |
//! | --- | --- | --- |
//! | topics | [`Address`], [`Subject`], [`subscriptions`] | ours, and reserved ones of AWS IoT |
//! | deployments | [`GetJob`], [`UpdateJob`], [`NextJob`], ... | AWS IoT Jobs, the documented subset |
//! | what a device shall run | [`Envelope`], [`DesiredState`] | ours, in a DSSE envelope |
//! | what a device says it runs | [`ShadowUpdate`], [`Reported`] | a named shadow of AWS IoT |
//! | records | [`Batch`], [`BatchBuilder`] | ours |
//! | what of them is stored | [`Ack`] | ours |
//! | how far, and why | [`Phase`], [`ReasonCode`] | ours |
//! | how a device gets its certificate | [`EnrolRequest`], [`RenewRequest`], [`Enrolled`], [`ApiError`] | ours, over HTTPS |
//!
//! No I/O, no clock, no MQTT: bytes in, values out, and back. The README beside this crate says what is spoken, the limits, and what
//! was rejected.
//!
//! # Who may add what
//!
//! - **AWS**: unknown fields are ignored, unknown words are kept ([`JobStatus::Unknown`] and the like).
//! - **Signed** ([`DesiredState`], [`RollbackPermit`]): unknown fields are errors. A new field is a new `format`. The module
//!   of [`DesiredState`] says why, and how devices tell what they read.
//! - **Ours, unsigned** ([`Batch`], [`Ack`], [`Reported`]): unknown fields are ignored. What changes the meaning of what is there
//!   has a new `v`, and a later `v` is refused with a word about updating.
//! - **Codes**: closed when writing; what is unknown when reading is kept, shown, and taken for the harmless case, which each
//!   `is_...` method names. Only [`Lane`] is closed both ways, because permissions and budgets hang on it.
//!
//! # How it fails
//!
//! With [`ProtocolError`], which tells what was wrong in words for a log, and never by panic. Every size that a peer chooses is
//! compared with a constant of [`limits`] before anything is allocated for it.

mod ack;
mod ask;
mod batch;
mod code;
mod desired;
mod enrol;
mod envelope;
mod error;
mod job;
mod lane;
pub mod limits;
mod name;
mod phase;
mod shadow;
mod time;
mod topic;
mod wire;

pub use ack::{ACK_FORMAT, Ack, Refusal, RefusalReason, Watermark};
pub use ask::{
    Ask, DEAD_LETTER_STREAM, LETTER_STREAM, LOG_STREAM, LetterWay, LogRecord, MAX_LOGS_S, MOVED_STREAM, MovedLetters,
    REPORT_STREAM,
};
pub use batch::{
    BATCH_FORMAT, Batch, BatchBuilder, BatchHeader, BatchLimits, BatchStart, Gap, GapReason, Line, Push, Record,
};
pub use desired::{
    AGENT, Artifact, DESIRED_STATE_FORMAT, DeploymentPolicy, DesiredAgent, DesiredFunction, DesiredState,
    ROLLBACK_PERMIT_FORMAT, RollbackPermit, UpdateWindow,
};
pub use enrol::{
    AgentBuild, ApiError, ApiErrorCode, BUILD_MARK, EnrolRequest, Enrolled, MqttAddress, RenewRequest, TrustAnchor,
    TufAddress,
};
pub use envelope::{DESIRED_STATE_TYPE, Envelope, ROLLBACK_PERMIT_TYPE, Signature, SignatureAlgorithm, pae};
pub use error::ProtocolError;
pub use job::{
    GetJob, GotJob, JobDocument, JobErrorCode, JobExecution, JobExecutionState, JobRejected, JobStatus, NextJob, Party,
    StatusDetails, UpdateJob, UpdatedJob,
};
pub use lane::Lane;
pub use name::{ClientToken, Epoch, GroupName, JobId, ShadowName, StreamName, StreamSegment, ThingName};
pub use phase::{Phase, ReasonCode};
pub use shadow::{
    Formats, FunctionState, Health, Reported, ReportedFunction, SHADOW_NAME, ShadowAccepted, ShadowRejected,
    ShadowSections, ShadowUpdate,
};
pub use time::WireTime;
pub use topic::{Address, Exchange, JobTarget, NEXT_JOB, Subject, subscriptions};
