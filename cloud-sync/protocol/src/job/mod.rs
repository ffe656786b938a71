//! Deployments as AWS IoT Jobs: requests, answers and the one notification that we use.
//!
//! # How it works
//!
//! A device asks for its next job (`$next/get`) after each connect, when `notify-next` rings, and on a timer. It reports with
//! `update`, each time naming the version that it last saw. Every request carries a client token.
//!
//! # Quirks of the service, and what is done about them
//!
//! - `jobDocument` may be an object, or a text that holds JSON: [`JobDocument::text`] is the same for both.
//! - Times are seconds in some places and milliseconds in others: [`WireTime`].
//! - Numbers may come in quotes (`"versionNumber": "number"` in the documentation): both are read.
//! - No next job is told by no `execution`, by `null`, or by an empty object. It also happens just after a `notify-next`, so
//!   "none" is not final: ask again.
//! - `accepted` and `rejected` come to whoever published, subscribed or not, and late: compare the client token, see
//!   [`GotJob::answers`].
//! - `rejected` with `VersionMismatch` or `InvalidStateTransition` brings the state as it is, which saves a request.
//!
//! Fields that are not known here are ignored: AWS adds some now and then.
//!
//! Sources: <https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-https-api.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/jobs-comm-notifications.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/jobs-api.html>.

mod detail;
mod status;

use std::borrow::Cow;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub use detail::StatusDetails;
pub use status::{JobErrorCode, JobStatus, Party};

use crate::error::bounded;
use crate::limits::MAX_JOB_DOCUMENT;
use crate::wire::{from_json, lenient_number, to_json};
use crate::{ClientToken, JobId, ProtocolError, WireTime};

/// What a job is to do: JSON whose meaning is the reader's business. For us it is an [`Envelope`](crate::Envelope).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobDocument(Box<RawValue>);

impl JobDocument {
    /// From JSON text. Fails on what is not JSON, and on more than [`MAX_JOB_DOCUMENT`] characters.
    pub fn new(json: String) -> Result<Self, ProtocolError> {
        bounded("the job document, in characters,", json.chars().count(), MAX_JOB_DOCUMENT)?;
        let raw =
            RawValue::from_string(json).map_err(|source| ProtocolError::Json { what: "the job document", source })?;
        Ok(Self(raw))
    }

    /// The document's JSON text, whether it came as JSON or as a text that holds JSON.
    pub fn text(&self) -> Result<Cow<'_, str>, ProtocolError> {
        let json = self.0.get();
        let text: Cow<'_, str> = if json.starts_with('"') {
            serde_json::from_str::<String>(json)
                .map_err(|source| ProtocolError::Json { what: "the job document", source })?
                .into()
        } else {
            json.into()
        };
        bounded("the job document, in characters,", text.chars().count(), MAX_JOB_DOCUMENT)?;
        Ok(text)
    }
}

impl PartialEq for JobDocument {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

/// A job, for one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecution {
    /// Which job.
    pub job_id: JobId,
    /// Which device, where the service says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thing_name: Option<String>,
    /// Where it is.
    pub status: JobStatus,
    /// What the device said about it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// When it was queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<WireTime>,
    /// When the device began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<WireTime>,
    /// When it last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated_at: Option<WireTime>,
    /// Goes up with each update: what `expectedVersion` is compared with.
    #[serde(default, deserialize_with = "lenient_number", skip_serializing_if = "Option::is_none")]
    pub version_number: Option<u64>,
    /// Tells apart the executions of one job on one device.
    #[serde(default, deserialize_with = "lenient_number", skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    /// What to do, unless the request asked to leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_document: Option<JobDocument>,
}

/// The changing part of a job execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobExecutionState {
    /// Where it is.
    pub status: JobStatus,
    /// What the device said about it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// Its version.
    #[serde(default, deserialize_with = "lenient_number", skip_serializing_if = "Option::is_none")]
    pub version_number: Option<u64>,
}

/// Up: `{job or $next}/get`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetJob {
    /// Which execution; the latest by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    /// `false` leaves the document out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_job_document: Option<bool>,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
}

/// Down: the answer to [`GetJob`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GotJob {
    /// The job; none if there is none to do, or none yet.
    #[serde(default, deserialize_with = "some_execution", skip_serializing_if = "Option::is_none")]
    pub execution: Option<JobExecution>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Down: `notify-next`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextJob {
    /// The job that is next now; none if there is none left.
    #[serde(default, deserialize_with = "some_execution", skip_serializing_if = "Option::is_none")]
    pub execution: Option<JobExecution>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
}

/// Up: `{job}/update`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateJob {
    /// The new status. Only what [`JobStatus::may_become`] allows a device.
    pub status: JobStatus,
    /// Replaces the details; none leaves them as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_details: Option<StatusDetails>,
    /// The version that the device last saw. Without it the update is unconditional.
    #[serde(default, deserialize_with = "lenient_number", skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// Which execution; the latest by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_number: Option<u64>,
    /// Whether the answer shall hold the new state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_job_execution_state: Option<bool>,
    /// Whether the answer shall hold the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_job_document: Option<bool>,
    /// Minutes from now within which the next update has to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_timeout_in_minutes: Option<i64>,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
}

/// Down: the answer to [`UpdateJob`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdatedJob {
    /// The new state, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_state: Option<JobExecutionState>,
    /// The document, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_document: Option<JobDocument>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// Down: why a request was not accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobRejected {
    /// For the program.
    pub code: JobErrorCode,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
    /// The execution as it is, where the code is about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution_state: Option<JobExecutionState>,
}

/// None for `null` and `{}` too.
fn some_execution<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobExecution>, D::Error> {
    let Some(raw) = Option::<Box<RawValue>>::deserialize(deserializer)? else { return Ok(None) };
    let inside = raw.get().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    if inside.is_some_and(|inside| inside.trim().is_empty()) {
        return Ok(None);
    }
    serde_json::from_str(raw.get()).map(Some).map_err(D::Error::custom)
}

macro_rules! message {
    ($type:ident, $what:literal) => {
        impl $type {
            /// From the payload of an MQTT message.
            pub fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
                from_json($what, payload)
            }

            /// The payload of an MQTT message.
            pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
                to_json($what, self)
            }
        }
    };
}
message!(GetJob, "the request for a job");
message!(GotJob, "the answer with a job");
message!(NextJob, "the notification of the next job");
message!(UpdateJob, "the update of a job");
message!(UpdatedJob, "the answer to an update of a job");
message!(JobRejected, "the rejection of a job request");

macro_rules! answer {
    ($type:ident) => {
        impl $type {
            /// Whether this is the answer to the request with `token`. If not, it came unasked, or too late.
            pub fn answers(&self, token: &ClientToken) -> bool {
                self.client_token.as_deref() == Some(token.as_str())
            }
        }
    };
}
answer!(GotJob);
answer!(UpdatedJob);
answer!(JobRejected);
