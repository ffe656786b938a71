//! What the control plane has, told to the device that may then forget it.
//!
//! A watermark says: every sequence number of this stream and epoch up to here is stored or known to be gone, for good. It is
//! sent after the commit that it speaks of: whenever it has moved, and again when a batch comes that lies below it, so that a lost
//! one is made good by the next resend. Nothing but a watermark lets a device delete; the PUBACK of a broker does not.
//!
//! A refusal says that a batch will never be taken, however often it comes: the device puts a gap in its place, or every later
//! record of the stream would wait behind it for ever.
//!
//! Unknown fields are ignored. A device ignores epochs that are not its own; a watermark above its own last number means that
//! its database is a restored one, and so does a refusal for a conflict: it begins a new epoch.

use serde::{Deserialize, Serialize};

use crate::code::codes;
use crate::error::bounded;
use crate::limits::{MAX_ACK_ENTRIES, MAX_ASKS, MAX_SEQUENCE};
use crate::wire::{from_json, to_json};
use crate::{Ask, Epoch, ProtocolError, StreamName};

/// The format that this release writes, and the last one that it reads.
pub const ACK_FORMAT: u64 = 1;

codes! {
    /// Why a batch will never be taken.
    RefusalReason {
        /// It cannot be read.
        Malformed = "malformed",
        /// It is larger than allowed, packed or unpacked.
        TooLarge = "too-large",
        /// Its format is later than what this control plane reads. The device keeps it, and says so: the control plane is to be
        /// updated.
        UnsupportedFormat = "unsupported-format",
        /// It says something else than the topic it came on.
        Mismatch = "mismatch",
        /// Other records are stored under its numbers: the device's database is a restored one.
        Conflict = "conflict",
        /// There is no room for another stream of this device. Its others are taken.
        TooManyStreams = "too-many-streams",
    }
}

impl RefusalReason {
    /// Whether the device shall drop the batch and leave a gap. An unknown reason is one to wait for.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Malformed | Self::TooLarge | Self::Mismatch)
    }
}

/// How far a stream is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Which stream.
    pub stream: StreamName,
    /// Of which life of the device's database.
    pub epoch: Epoch,
    /// Everything up to and including this one. 0: nothing yet.
    pub upto: u64,
}

/// A batch that will never be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which stream.
    pub stream: StreamName,
    /// Of which life of the device's database.
    pub epoch: Epoch,
    /// The batch's first sequence number.
    pub first: u64,
    /// How many it covers.
    pub count: u64,
    /// Why.
    pub reason: RefusalReason,
}

/// Down: `holm/{thing}/ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// [`ACK_FORMAT`].
    pub v: u64,
    /// At most [`MAX_ACK_ENTRIES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watermarks: Vec<Watermark>,
    /// At most [`MAX_ACK_ENTRIES`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refusal>,
    /// What somebody wants to see. At most [`MAX_ASKS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<Ask>,
}

impl Ack {
    /// An acknowledgement of this release's format.
    pub fn new(watermarks: Vec<Watermark>, refused: Vec<Refusal>) -> Self {
        Self { v: ACK_FORMAT, watermarks, refused, asks: Vec::new() }
    }

    /// One that acknowledges nothing, and asks.
    pub fn asking(ask: Ask) -> Self {
        Self { v: ACK_FORMAT, watermarks: Vec::new(), refused: Vec::new(), asks: vec![ask] }
    }

    /// From the payload of an MQTT message.
    pub fn read(payload: &[u8]) -> Result<Self, ProtocolError> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        let what = "the acknowledgement";
        let Version { v: found } = from_json(what, payload)?;
        if found > ACK_FORMAT {
            return Err(ProtocolError::FromTheFuture { what, found, known: ACK_FORMAT });
        }
        let ack: Self = from_json(what, payload)?;
        ack.check()?;
        Ok(ack)
    }

    /// The payload of an MQTT message.
    pub fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        self.check()?;
        to_json("the acknowledgement", self)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let invalid = |problem: String| Err(ProtocolError::invalid("the acknowledgement", problem));
        if self.v != ACK_FORMAT {
            return invalid(format!("format {} is none", self.v));
        }
        bounded("the number of watermarks", self.watermarks.len(), MAX_ACK_ENTRIES)?;
        bounded("the number of asks", self.asks.len(), MAX_ASKS)?;
        self.asks.iter().try_for_each(Ask::check)?;
        bounded("the number of refusals", self.refused.len(), MAX_ACK_ENTRIES)?;
        if let Some(watermark) = self.watermarks.iter().find(|watermark| watermark.upto > MAX_SEQUENCE) {
            return invalid(format!("{} is no sequence number", watermark.upto));
        }
        let last =
            |refusal: &&Refusal| refusal.first.checked_add(refusal.count).is_none_or(|end| end > MAX_SEQUENCE + 1);
        if let Some(refusal) = self.refused.iter().find(last) {
            return invalid(format!("{} numbers from {} are no sequence numbers", refusal.count, refusal.first));
        }
        Ok(())
    }
}
