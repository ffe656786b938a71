//! Making batches.

use std::io::Write as _;

use holm_core::Timestamp;

use super::{BATCH_FORMAT, BatchHeader, BatchStart, HEADER_MAGIC, Line};
use crate::ProtocolError;
use crate::error::bounded;
use crate::limits::{BATCH_LINES_TARGET, BATCH_TEXT_TARGET, MAX_BATCH_TEXT, MAX_PAYLOAD_BYTES};

/// How hard zstd tries: its own default. Measured on batches of 100 records, higher levels gain little and cost a small board
/// much.
const LEVEL: i32 = 3;

/// Whether a line went into a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Push {
    /// It did.
    Taken,
    /// There is no room. Send the batch, and begin the next one with this line.
    Full,
}

/// Fills a batch up to its limits.
///
/// Lines are text until [`BatchBuilder::finish`] compresses them once. That the result fits is known beforehand: text of
/// [`BATCH_TEXT_TARGET`] fits even if it does not compress. A single line may be longer than that, up to [`MAX_BATCH_TEXT`];
/// then it has the batch to itself, and whether it fits is seen at the end.
#[derive(Debug)]
pub struct BatchBuilder {
    start: BatchStart,
    text: Vec<u8>,
    lines: usize,
    next: u64,
    max_lines: usize,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(start: BatchStart) -> Self {
        Self { next: start.first, start, text: Vec::new(), lines: 0, max_lines: BATCH_LINES_TARGET }
    }

    /// With fewer lines at most, to send sooner, or with more.
    #[must_use]
    pub fn max_lines(mut self, lines: usize) -> Self {
        self.max_lines = lines;
        self
    }

    /// Adds a line that covers sequence numbers from `sequence` on: the one that [`BatchBuilder::next`] tells, or it is an error,
    /// because a hole would lose records silently. A line that no batch can hold is [`ProtocolError::TooLarge`]: put a
    /// [`Gap`](super::Gap) in its place.
    pub fn push(&mut self, sequence: u64, line: &Line) -> Result<Push, ProtocolError> {
        if sequence != self.next || line.covers() == 0 {
            let problem = format!("sequence number {sequence} does not follow, {} does", self.next);
            return Err(ProtocolError::invalid("a line of a batch", problem));
        }
        if self.lines >= self.max_lines {
            return Ok(Push::Full);
        }
        let text = line.write()?;
        bounded("a line of a batch, in bytes,", text.len(), MAX_BATCH_TEXT)?;
        if self.lines > 0 && self.text.len() + text.len() > BATCH_TEXT_TARGET {
            return Ok(Push::Full);
        }
        self.text.extend_from_slice(&text);
        self.lines += 1;
        self.next = self.next.saturating_add(line.covers());
        Ok(Push::Taken)
    }

    /// The sequence number that has to come next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Lines so far.
    pub fn lines(&self) -> usize {
        self.lines
    }

    /// Bytes of text so far.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    /// The header and the payload. `sent` is the device's time of day. Fails for an empty batch, and with
    /// [`ProtocolError::TooLarge`] for a single line that does not compress enough.
    pub fn finish(self, sent: Timestamp) -> Result<(BatchHeader, Vec<u8>), ProtocolError> {
        let BatchStart { device, lane, stream, epoch, first } = self.start;
        let count = self.next.saturating_sub(first);
        let header = BatchHeader { v: BATCH_FORMAT, device, lane, stream, epoch, first, count, sent };
        header.check()?;
        let json = header.write()?;
        let length = u32::try_from(json.len()).unwrap_or(u32::MAX);
        let mut payload = Vec::with_capacity(8 + json.len() + self.text.len() / 4);
        payload.extend_from_slice(&HEADER_MAGIC.to_le_bytes());
        payload.extend_from_slice(&length.to_le_bytes());
        payload.extend_from_slice(&json);
        let payload = compress(payload, &self.text).map_err(|source| ProtocolError::Compress { source })?;
        bounded("the batch, in bytes,", payload.len(), MAX_PAYLOAD_BYTES)?;
        Ok((header, payload))
    }
}

fn compress(after: Vec<u8>, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = zstd::Encoder::new(after, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.include_contentsize(true)?;
    // Also makes the window no larger than the text.
    encoder.set_pledged_src_size(Some(text.len() as u64))?;
    encoder.write_all(text)?;
    encoder.finish()
}
