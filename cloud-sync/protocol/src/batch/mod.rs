//! Batches of records on their way up.
//!
//! # Format 1
//!
//! A payload is two frames of the Zstandard format (RFC 8878), one after the other:
//!
//! 1. a skippable frame with magic number `0x184D2A58` that holds the header, a JSON object: `v`, `device`, `lane`, `stream`,
//!    `epoch`, `first`, `count`, `sent`;
//! 2. one Zstandard frame with content size and checksum and a window of at most 1 MiB: lines of JSON, each with its line feed
//!    (NDJSON).
//!
//! So `zstd -dc` shows the lines, and whoever routes a batch, or has it already, never decompresses it. The sequence numbers
//! `first` to `first + count - 1` are covered, each by exactly one line, in order. A line is a record:
//!
//! | field | |
//! | --- | --- |
//! | `t` | when it was made, milliseconds since 1970 by the device's clock |
//! | `c` | MIME type, where there is one |
//! | `v`, `x` or `b` | the payload: as JSON, as text, or as base64 |
//!
//! or a gap, `{"gap": n, "reason": "...", "at": t}`: the next `n` sequence numbers were dropped on the device, at `t`, and nobody
//! will ever see them. With gaps in the same order as records, the control plane's watermark can always move.
//!
//! # What it guarantees
//!
//! The payload of a record comes out as the bytes that went in: JSON is carried as it was written, unless it has line feeds or
//! surrounding space, in which case it is carried as text. A batch from [`BatchBuilder`] is at most [`MAX_PAYLOAD_BYTES`] long.
//! Unknown fields in headers and lines are ignored; whatever changes the meaning of what is there has a new `v`.
//!
//! # How it fails
//!
//! [`Batch::read`] takes no more memory than [`BatchLimits`] allow, whatever the header or the frame claims: sizes are counted
//! while decompressing, and the window is bounded. A batch is read whole or refused whole.
//!
//! [`MAX_PAYLOAD_BYTES`]: crate::limits::MAX_PAYLOAD_BYTES

mod build;
mod line;
mod read;

use holm_core::Timestamp;
use serde::{Deserialize, Serialize};

pub use build::{BatchBuilder, Push};
pub use line::{Gap, GapReason, Line, Record};

use crate::error::bounded;
use crate::limits::{MAX_BATCH_HEADER, MAX_BATCH_LINES, MAX_BATCH_TEXT, MAX_PAYLOAD_BYTES, MAX_SEQUENCE};
use crate::{Address, Epoch, Lane, ProtocolError, StreamName, Subject, ThingName};

/// The format that this release writes, and the last one that it reads.
pub const BATCH_FORMAT: u64 = 1;

/// The magic number of the header's frame: one of the sixteen that RFC 8878 (section 3.1.2) gives to skippable frames.
const HEADER_MAGIC: u32 = 0x184D_2A58;

/// The window that a reader allows, as a power of two in bytes: that of [`MAX_BATCH_TEXT`].
const WINDOW_LOG: u32 = 20;

/// What a batch says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchHeader {
    /// [`BATCH_FORMAT`].
    pub v: u64,
    /// Who sends.
    pub device: ThingName,
    /// The lane that it was sent in.
    pub lane: Lane,
    /// The stream that its sequence numbers belong to.
    pub stream: StreamName,
    /// The life of the device's database that they belong to.
    pub epoch: Epoch,
    /// The first sequence number that is covered, from 1.
    pub first: u64,
    /// How many are covered.
    pub count: u64,
    /// When it was made, by the device's clock, in milliseconds since 1970: the difference to the time of arrival tells how wrong
    /// the times of its records are.
    pub sent: Timestamp,
}

/// What must be known of records before a batch of them is begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchStart {
    /// Who sends.
    pub device: ThingName,
    /// The lane.
    pub lane: Lane,
    /// The stream.
    pub stream: StreamName,
    /// The life of the device's database.
    pub epoch: Epoch,
    /// The first sequence number.
    pub first: u64,
}

/// How much a batch may make its reader hold. Separate because they stop different things: `payload` a long message, `text` a
/// bomb, `lines` very many empty records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of the whole payload.
    pub payload: usize,
    /// Bytes of the lines together. More than [`MAX_BATCH_TEXT`] has no effect on frames whose window is larger than that.
    pub text: usize,
    /// Lines.
    pub lines: usize,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self { payload: MAX_PAYLOAD_BYTES, text: MAX_BATCH_TEXT, lines: MAX_BATCH_LINES }
    }
}

/// A batch that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// What it says of itself.
    pub header: BatchHeader,
    /// Each line with the first sequence number that it covers.
    pub lines: Vec<(u64, Line)>,
}

impl BatchHeader {
    /// The last sequence number that is covered.
    pub fn last(&self) -> u64 {
        // Checked when it was read or made: neither is 0, and the sum is at most `MAX_SEQUENCE`.
        self.first.saturating_add(self.count).saturating_sub(1)
    }

    /// The topic that the batch goes to.
    pub fn address(&self) -> Address {
        Address::new(&self.device, Subject::Results { lane: self.lane, stream: self.stream.segment() })
    }

    /// Whether the batch came on its own topic. Brokers check who may publish where; a header is only a claim.
    pub fn check_address(&self, address: &Address) -> Result<(), ProtocolError> {
        let own = self.address();
        if own == *address {
            return Ok(());
        }
        Err(ProtocolError::Mismatch {
            what: "the batch's topic",
            found: own.to_string(),
            expected: address.to_string(),
        })
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let last = self.first.checked_add(self.count).map(|end| end - u64::from(end > 0));
        if self.first == 0 || self.count == 0 || last.is_none_or(|last| last > MAX_SEQUENCE) {
            let problem = format!("{} numbers from {} are no sequence numbers", self.count, self.first);
            return Err(ProtocolError::invalid("the batch's header", problem));
        }
        Ok(())
    }

    fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        let what = "the batch's header";
        let json = serde_json::to_vec(self).map_err(|source| ProtocolError::Write { what, source })?;
        bounded("the batch's header, in bytes,", json.len(), MAX_BATCH_HEADER)?;
        Ok(json)
    }
}
