//! The named shadow `holm`: what a device says about itself.
//!
//! # How it works
//!
//! The shadow only reports. A device writes `state.reported`, whole, whenever something in it changed and once after each
//! connect; nobody writes `state.desired`, and a delta is ignored: what a device shall do comes signed, as a job.
//!
//! AWS merges an update into what it has, field by field. Two things follow. Fields that have no value now are written as `null`,
//! which deletes them, and are never left out. Functions are an array, which is replaced as a whole
//! (<https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-document.html#device-shadow-arrays>), so that a function
//! that is gone does not linger.
//!
//! A request stays below [`MAX_SHADOW_BYTES`]: if there are more functions than fit, [`ShadowUpdate::report`] leaves the last ones
//! out and says how many. No version is sent with it, because a device's word about itself has no rival.
//!
//! Sources: <https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-mqtt.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-document-syntax.html>.

use holm_bundle::Digest;
use holm_core::FunctionName;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::codes;
use crate::limits::{MAX_SEQUENCE, MAX_SHADOW_BYTES};
use crate::wire::{from_json, text, to_json};
use crate::{AgentBuild, ClientToken, Phase, ProtocolError, ReasonCode, WireTime};

/// The shadow's name.
pub const SHADOW_NAME: &str = "holm";

codes! {
    /// How a function that runs is.
    FunctionState {
        /// It is being watched after a deployment.
        Trial = "trial",
        /// It stays.
        Confirmed = "confirmed",
        /// It stays, but no event has come to it in its health window.
        Unexercised = "confirmed-unexercised",
        /// It took the agent down, and is held until an operator releases it.
        Quarantined = "quarantined",
    }
}

/// A function that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportedFunction {
    /// Its name.
    #[serde(with = "text")]
    pub name: FunctionName,
    /// Its version.
    pub version: String,
    /// Its bundle.
    pub sha256: Digest,
    /// How it is.
    pub state: FunctionState,
    /// Invocations of it since it was activated, or since the agent's start. Agents of before do not say.
    #[serde(default)]
    pub invocations: u64,
    /// Those of them that were its own fault: it trapped, took too long, or too much.
    #[serde(default)]
    pub faults: u64,
}

/// Figures of a device's health. All of them are of now, or since the agent's start.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Since the agent's start, in seconds.
    pub uptime_s: u64,
    /// Resident memory of the agent, in bytes.
    pub memory_bytes: u64,
    /// Free space where the data is, in bytes.
    pub disk_free_bytes: u64,
    /// Invocations.
    pub invocations: u64,
    /// Invocations that did not succeed.
    pub faults: u64,
    /// Events that wait in the inbox.
    pub inbox: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records that wait for the control plane.
    pub backlog: u64,
    /// Records that were dropped and are told by gap records.
    pub dropped: u64,
    /// Whether the clock has been set by something trusted.
    pub clock_synced: bool,
    /// When the device's certificate expires, in seconds since 1970.
    pub certificate_expires: Option<i64>,
}

/// The formats that a device reads: the control plane writes no later ones for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// See [`DESIRED_STATE_FORMAT`](crate::DESIRED_STATE_FORMAT).
    pub desired_state: u64,
    /// See [`BATCH_FORMAT`](crate::BATCH_FORMAT): what it writes.
    pub batch: u64,
}

/// What a device says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reported {
    /// The agent's version.
    pub agent: String,
    /// What it runs on. Agents of before do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<AgentBuild>,
    /// What it reads and writes.
    pub formats: Formats,
    /// The last desired state that was for it and in time, whatever became of it; 0 before the first.
    pub generation: u64,
    /// How far it is with it.
    pub phase: Phase,
    /// Why it is there, where there is a reason.
    #[serde(default)]
    pub reason: Option<ReasonCode>,
    /// The key that secrets for it are sealed to, as 64 hexadecimal digits. Agents of before have none.
    #[serde(default)]
    pub sealing_key: Option<String>,
    /// What runs, by name.
    pub functions: Vec<ReportedFunction>,
    /// How many functions more run that had no room here.
    #[serde(default)]
    pub functions_omitted: usize,
    /// How it is.
    pub health: Health,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct UpdateState {
    reported: Reported,
}

/// Up: `update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowUpdate {
    state: UpdateState,
    /// Comes back in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<ClientToken>,
}

impl ShadowUpdate {
    /// A report that fits: functions are sorted by name, and the last ones are left out where they do not fit.
    pub fn report(mut reported: Reported, client_token: Option<ClientToken>) -> Self {
        reported.functions.sort_by(|a, b| a.name.cmp(&b.name));
        let mut update = Self { state: UpdateState { reported }, client_token };
        while update.size() > MAX_SHADOW_BYTES && update.state.reported.functions.pop().is_some() {
            update.state.reported.functions_omitted += 1;
        }
        update
    }

    /// What the device says.
    pub fn reported(&self) -> &Reported {
        &self.state.reported
    }

    /// From the payload of an MQTT message.
    pub fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        crate::error::bounded("the shadow's update, in bytes,", payload.len(), MAX_SHADOW_BYTES)?;
        let update: Self = from_json("the shadow's update", payload)?;
        let generation = update.reported().generation;
        if generation > MAX_SEQUENCE {
            let problem = format!("generation {generation} is above {MAX_SEQUENCE}");
            return Err(ProtocolError::invalid("the shadow's update", problem));
        }
        update.reported().build.as_ref().map_or(Ok(()), AgentBuild::check)?;
        Ok(update)
    }

    /// The payload of an MQTT message. Fails only if texts other than the functions are absurdly long.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        let what = "the shadow's update";
        let bytes = serde_json::to_vec(self).map_err(|source| ProtocolError::Write { what, source })?;
        crate::error::bounded("the shadow's update, in bytes,", bytes.len(), MAX_SHADOW_BYTES)?;
        Ok(bytes)
    }

    fn size(&self) -> usize {
        // A value of ours always prints; if not, `write` tells why.
        serde_json::to_vec(self).map_or(0, |bytes| bytes.len())
    }
}

/// Down: `update/accepted` and `get/accepted`. The sections are handed on as JSON text; what nobody here reads is not kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowAccepted {
    /// The state. In answer to an update only what was in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ShadowSections>,
    /// The document's version, from now on. Ignore what is older than the highest seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
    /// That of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

/// The sections of a shadow.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShadowSections {
    /// What somebody wants; with ours nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Box<RawValue>>,
    /// What the device said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Box<RawValue>>,
}

/// Down: `update/rejected` and `get/rejected`
/// (<https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-error-messages.html>).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShadowRejected {
    /// As in HTTP: 400, 401, 403, 404, 409 for a version conflict, 413, 415, 429, 500.
    pub code: u16,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<WireTime>,
    /// That of the request. Missing if the request was not JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

impl ShadowAccepted {
    /// From the payload of an MQTT message.
    pub fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        from_json("the shadow's answer", payload)
    }

    /// The payload of an MQTT message.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        to_json("the shadow's answer", self)
    }
}

impl ShadowRejected {
    /// From the payload of an MQTT message.
    pub fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        from_json("the shadow's rejection", payload)
    }

    /// The payload of an MQTT message.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        to_json("the shadow's rejection", self)
    }

    /// Whether the same request may be accepted later.
    pub fn is_retryable(&self) -> bool {
        self.code == 429 || self.code >= 500
    }
}
