//! Whether a device accepts a desired state.
//!
//! # The order of checks
//!
//! Shape of the envelope, signature, contents, device, generation, expiry. Nothing in a payload is parsed before its signature was
//! verified, so what an attacker can reach without a key is the envelope's reader.
//!
//! # The same generation twice
//!
//! The same bytes again are [`Acceptance::Known`]: a job may be sent twice, and a device may have gone down before it answered.
//! Other bytes under an accepted generation are refused like an older one: somebody has signed two truths.

use std::time::Duration;

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_protocol::{DesiredFunction, DesiredState, Envelope, RollbackPermit, ThingName};

use crate::{Freshness, Role, TrustError, TrustedTime};

/// The last desired state that a device accepted. Kept by the device, and written in the same transaction that makes the state the
/// one to work towards: or a power cut would let an older one in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastAccepted {
    /// Its generation.
    pub generation: u64,
    /// Of its payload.
    pub payload: Digest,
}

/// What a device has to say about a desired state that it does not refuse.
#[derive(Debug, Clone, PartialEq)]
pub enum Acceptance {
    /// Newer than what it had.
    New {
        /// What shall run.
        state: DesiredState,
        /// What to keep.
        last: LastAccepted,
        /// Fresh or unknown: if unknown, say so in the report.
        freshness: Freshness,
    },
    /// What it had. It does not expire: it was accepted in time.
    Known(DesiredState),
}

/// What a device knows when it decides.
#[derive(Debug, Clone, Copy)]
pub struct Judge<'a> {
    /// Its own name.
    pub device: &'a ThingName,
    /// The deployment keys, outside TUF.
    pub deployment: &'a Role,
    /// The targets keys of the repository: they alone permit to go back.
    pub targets: &'a Role,
    /// What it accepted last.
    pub last: Option<LastAccepted>,
    /// What it knows about the time.
    pub time: &'a TrustedTime,
    /// Time since the boot.
    pub monotonic: Duration,
}

impl Judge<'_> {
    /// Decides about the text of a job document. On `Ok` nothing is stored yet: that is the caller's, at once.
    pub fn accept(&self, document: &str) -> Result<Acceptance, TrustError> {
        let envelope = Envelope::read(document)?;
        self.deployment.verify(&envelope)?;
        let state = DesiredState::read(&envelope)?;
        if state.device != *self.device {
            let (found, own) = (state.device.to_string(), self.device.to_string());
            return Err(TrustError::WrongDevice { found, own });
        }
        let payload = Digest::of(&envelope.payload);
        if let Some(last) = self.last {
            if state.generation == last.generation && payload == last.payload {
                return Ok(Acceptance::Known(state));
            }
            if state.generation <= last.generation {
                return Err(TrustError::OlderGeneration { found: state.generation, accepted: last.generation });
            }
        }
        let freshness = self.check_time(state.expires)?;
        let last = LastAccepted { generation: state.generation, payload };
        Ok(Acceptance::New { state, last, freshness })
    }

    /// Whether `function` carries a permit to be older than what runs, by the targets keys and in time. `None`: it has none.
    pub fn permit(&self, function: &DesiredFunction) -> Result<Option<RollbackPermit>, TrustError> {
        let Some(envelope) = &function.permit else { return Ok(None) };
        self.targets.verify(envelope)?;
        // That it is for this function and bundle was checked when the desired state was read.
        let permit = RollbackPermit::read(envelope)?;
        self.check_time(permit.expires)?;
        Ok(Some(permit))
    }

    fn check_time(&self, expires: Timestamp) -> Result<Freshness, TrustError> {
        match self.time.freshness(expires, self.monotonic) {
            Freshness::Expired(now) => Err(TrustError::Expired { expires, now }),
            freshness => Ok(freshness),
        }
    }
}
