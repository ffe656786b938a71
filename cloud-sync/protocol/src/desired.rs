//! The desired state: everything that shall run on one device, signed as a whole.
//!
//! # How it works
//!
//! A job document is an [`Envelope`] whose payload is a [`DesiredState`] as JSON. It is complete: a function that is not in it is
//! to be removed, so one message makes a device right, whatever it missed before. It is for one device, has a generation that
//! only goes up, and expires. The deployment key that signs it is online; so it can only choose among what the repository
//! vouches for, and set configuration within the manifests' bounds.
//!
//! # What is deliberately not in it
//!
//! - Grants and approvals. What a function may do is in its manifest, and that somebody approved of more than before is in the
//!   repository, under the offline targets key. An online key must not be able to widen permissions.
//! - Where to download from. That is the transport's business, and nobody has to be trusted for it.
//!
//! # Strict where signed
//!
//! Unknown fields are errors here, and so are names that come twice. A device that acts on a part of an instruction may do the
//! opposite of it: imagine a later field that says "only at night". The price is that new fields need a new format number.
//! Devices report the formats they read ([`Reported::formats`](crate::Reported::formats)), and the control plane
//! writes what a device reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_bundle::Digest;
use holm_core::{FunctionName, Timestamp};
use serde::{Deserialize, Serialize};

use crate::envelope::{DESIRED_STATE_TYPE, Envelope, ROLLBACK_PERMIT_TYPE};
use crate::error::bounded;
use crate::limits::{
    MAX_CONFIG_NAME, MAX_CONFIG_VALUE, MAX_CONFIG_VALUES, MAX_FUNCTIONS, MAX_SEQUENCE, MAX_SIGNED_PAYLOAD, MAX_VERSION,
};
use crate::wire::{text, unique_map};
use crate::{JobId, ProtocolError, ThingName};

/// The format that this release writes, and the last one that it reads.
pub const DESIRED_STATE_FORMAT: u64 = 1;

/// The format of permits that this release writes, and the last one that it reads.
pub const ROLLBACK_PERMIT_FORMAT: u64 = 1;

/// A file of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Its length in bytes.
    pub length: u64,
}

/// A function that shall run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredFunction {
    /// Its name.
    #[serde(with = "text")]
    pub name: FunctionName,
    /// Its version. The bundle's manifest has to say the same.
    pub version: String,
    /// Its bundle.
    pub bundle: Artifact,
    /// Configuration by name, in the text form that the manifest's types have. What is not here has its default.
    #[serde(default, deserialize_with = "unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Secrets by name, each sealed to the device's key, as base64. The control plane cannot read them.
    #[serde(default, deserialize_with = "unique_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// Permission to be older than what runs, signed by the targets key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Envelope>,
}

/// What the agent is called where functions have their names: no function can have it.
pub const AGENT: &str = "holmd";

/// The agent that shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredAgent {
    /// Its version.
    pub version: String,
    /// The program for this device's processor.
    pub artifact: Artifact,
}

/// How to go about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeploymentPolicy {
    /// How long the new set is watched before it is confirmed, in seconds.
    pub health_window_s: u32,
    /// How long everything before the trial may take, in seconds.
    pub deadline_s: u32,
    /// When an update may begin; at any time if there is no window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<UpdateWindow>,
}

/// A daily time in which an update may begin, by the device's clock in UTC. It may reach past midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateWindow {
    /// Minutes after midnight, 0 to 1,439.
    pub start_minute: u16,
    /// Its length in minutes, 1 to 1,440.
    pub minutes: u16,
}

/// Minutes of a day.
const DAY: u16 = 1_440;

/// `02:00-04:30`: from, and until when. `22:00-03:00` reaches past midnight.
impl FromStr for UpdateWindow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let minute = |time: &str| {
            let (hours, minutes) = time.split_once(':')?;
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let both = digits(hours) && digits(minutes);
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (both && hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        };
        let parsed = text.split_once('-').and_then(|(start, end)| Some((minute(start)?, minute(end)?)));
        let (start, end) =
            parsed.ok_or_else(|| format!("`{text}` is not a window: two times in UTC, such as 02:00-04:30"))?;
        match (end + DAY - start) % DAY {
            0 => Err(format!("`{text}` has no length: leave it out if an update may begin at any time")),
            minutes => Ok(Self { start_minute: start, minutes }),
        }
    }
}

impl fmt::Display for UpdateWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = (u32::from(self.start_minute) + u32::from(self.minutes)) % u32::from(DAY);
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.start_minute / 60, self.start_minute % 60, end / 60, end % 60)
    }
}

/// Everything that shall run on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredState {
    /// [`DESIRED_STATE_FORMAT`].
    pub format: u64,
    /// For which device.
    pub device: ThingName,
    /// Goes up with each desired state for this device, from 1. A device refuses one that is not above the last it accepted.
    pub generation: u64,
    /// The rollout that it belongs to, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<JobId>,
    /// When it was signed, in milliseconds since 1970.
    pub issued: Timestamp,
    /// Not to be accepted after, in milliseconds since 1970. What was accepted before goes on running.
    pub expires: Timestamp,
    /// How to go about it.
    pub policy: DeploymentPolicy,
    /// The agent, if it shall be another one than the installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<DesiredAgent>,
    /// The functions, each name once. All that there shall be: an empty list removes everything.
    pub functions: Vec<DesiredFunction>,
}

/// Permission of the targets key to run a version that is older than the one that runs. The payload of an envelope of type
/// [`ROLLBACK_PERMIT_TYPE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackPermit {
    /// [`ROLLBACK_PERMIT_FORMAT`].
    pub format: u64,
    /// Which function.
    #[serde(with = "text")]
    pub function: FunctionName,
    /// To which bundle.
    pub bundle: Artifact,
    /// Why, in the operator's words.
    pub why: String,
    /// Not to be used after, in milliseconds since 1970.
    pub expires: Timestamp,
}

impl DesiredState {
    /// From an envelope whose signature has been verified. Whether it is for this device, new enough and not expired is the
    /// caller's to check.
    pub fn read(envelope: &Envelope) -> Result<Self, ProtocolError> {
        let what = "the desired state";
        let state: Self = read(what, DESIRED_STATE_TYPE, DESIRED_STATE_FORMAT, envelope)?;
        state.check()?;
        Ok(state)
    }

    /// The payload to sign: JSON, with the functions by name, so that the same state has the same bytes.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        self.check()?;
        let mut sorted = self.clone();
        sorted.functions.sort_by(|a, b| a.name.cmp(&b.name));
        write("the desired state", &sorted)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let invalid = |problem: String| Err(ProtocolError::invalid("the desired state", problem));
        if self.format != DESIRED_STATE_FORMAT {
            return invalid(format!("format {} is none", self.format));
        }
        if !(1..=MAX_SEQUENCE).contains(&self.generation) {
            return invalid(format!("{} is not a generation", self.generation));
        }
        if self.issued.0 < 0 || self.expires <= self.issued {
            return invalid("it expires before it is issued".to_owned());
        }
        if self.policy.deadline_s == 0 {
            return invalid("a deadline of 0 cannot be kept".to_owned());
        }
        if let Some(window) = self.policy.window
            && !(window.start_minute < 1440 && (1..=1440).contains(&window.minutes))
        {
            return invalid("the update window is not within a day".to_owned());
        }
        if let Some(agent) = &self.agent {
            check_version(&agent.version)?;
        }
        bounded("the number of functions", self.functions.len(), MAX_FUNCTIONS)?;
        let mut names = BTreeSet::new();
        for function in &self.functions {
            if !names.insert(&function.name) {
                return invalid(format!("{} comes twice", function.name));
            }
            function.check()?;
        }
        if names.iter().any(|name| name.as_str() == AGENT) {
            return invalid(format!("{AGENT} is the agent, and no function"));
        }
        Ok(())
    }
}

impl DesiredFunction {
    fn check(&self) -> Result<(), ProtocolError> {
        check_version(&self.version)?;
        for values in [&self.config, &self.secrets] {
            bounded("the number of values of a function", values.len(), MAX_CONFIG_VALUES)?;
            for (name, value) in values {
                bounded("the name of a value, in characters,", name.chars().count(), MAX_CONFIG_NAME)?;
                bounded("a value, in bytes,", value.len(), MAX_CONFIG_VALUE)?;
            }
        }
        if self.secrets.values().any(|secret| STANDARD.decode(secret).is_err()) {
            return Err(ProtocolError::Base64 { what: "a secret" });
        }
        if let Some(permit) = &self.permit {
            // Only its shape: whose signature it has is for the one who holds keys.
            let permit = RollbackPermit::read(permit)?;
            if permit.function != self.name || permit.bundle != self.bundle {
                return Err(ProtocolError::Mismatch {
                    what: "the bundle that is permitted",
                    found: format!("{} {}", permit.function, permit.bundle.sha256),
                    expected: format!("{} {}", self.name, self.bundle.sha256),
                });
            }
        }
        Ok(())
    }
}

impl RollbackPermit {
    /// From an envelope. Whose signature it has is the caller's to verify.
    pub fn read(envelope: &Envelope) -> Result<Self, ProtocolError> {
        let what = "the rollback permit";
        let permit: Self = read(what, ROLLBACK_PERMIT_TYPE, ROLLBACK_PERMIT_FORMAT, envelope)?;
        bounded("the reason of a permit, in bytes,", permit.why.len(), MAX_CONFIG_VALUE)?;
        Ok(permit)
    }

    /// The payload to sign.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        write("the rollback permit", self)
    }
}

/// The format is read on its own first: a later one must be told apart from nonsense although its fields are not known.
fn read<T: serde::de::DeserializeOwned>(
    what: &'static str,
    payload_type: &str,
    known: u64,
    envelope: &Envelope,
) -> Result<T, ProtocolError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    if envelope.payload_type != payload_type {
        return Err(ProtocolError::Mismatch {
            what: "the payload type",
            found: envelope.payload_type.clone(),
            expected: payload_type.to_owned(),
        });
    }
    bounded("the signed payload, in bytes,", envelope.payload.len(), MAX_SIGNED_PAYLOAD)?;
    let json = |source| ProtocolError::Json { what, source };
    let Format { format: found } = serde_json::from_slice(&envelope.payload).map_err(json)?;
    if found > known {
        return Err(ProtocolError::FromTheFuture { what, found, known });
    }
    serde_json::from_slice(&envelope.payload).map_err(json)
}

fn write<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, ProtocolError> {
    let bytes = serde_json::to_vec(value).map_err(|source| ProtocolError::Write { what, source })?;
    bounded("the signed payload, in bytes,", bytes.len(), MAX_SIGNED_PAYLOAD)?;
    Ok(bytes)
}

/// What a manifest or Cargo may call a version; which of two is newer is not told by it.
fn check_version(version: &str) -> Result<(), ProtocolError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    if (1..=MAX_VERSION).contains(&version.len()) && version.bytes().all(valid) {
        return Ok(());
    }
    Err(ProtocolError::Name {
        what: "version",
        text: crate::error::excerpt(version),
        rule: "1 to 64 of A-Z, a-z, 0-9, `.`, `-` and `+`",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::UpdateWindow;

    #[test]
    fn a_window_is_written_as_it_is_read() {
        for (text, start_minute, minutes) in [
            ("02:00-04:30", 120, 150),
            ("22:00-03:00", 1_320, 300),
            ("00:00-23:59", 0, 1_439),
            ("23:59-00:00", 1_439, 1),
        ] {
            let window: UpdateWindow = text.parse().unwrap();
            assert_eq!((window.start_minute, window.minutes), (start_minute, minutes), "{text}");
            assert_eq!(window.to_string(), text);
        }
        for text in ["", "02:00", "02:00-", "2:00-4:00", "24:00-01:00", "02:60-03:00", "02:00-02:00", "+2:00-04:00"] {
            assert!(text.parse::<UpdateWindow>().is_err(), "{text}");
        }
    }
}
