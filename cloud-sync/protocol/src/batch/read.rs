//! Reading batches, whoever made them.

use std::io::Read as _;

use serde::Deserialize;

use super::{BATCH_FORMAT, Batch, BatchHeader, BatchLimits, HEADER_MAGIC, Line, WINDOW_LOG};
use crate::error::bounded;
use crate::limits::{MAX_BATCH_HEADER, MAX_SEQUENCE};
use crate::{Epoch, ProtocolError, Refusal, RefusalReason, StreamName};

impl BatchHeader {
    /// The header alone, without decompressing anything, and the compressed rest.
    pub fn read<'a>(payload: &'a [u8], limits: &BatchLimits) -> Result<(Self, &'a [u8]), ProtocolError> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        let what = "the batch's header";
        bounded("the batch, in bytes,", payload.len(), limits.payload)?;
        let truncated = ProtocolError::Truncated { what };
        let Some((magic, rest)) = payload.split_first_chunk::<4>() else { return Err(truncated) };
        if u32::from_le_bytes(*magic) != HEADER_MAGIC {
            return Err(ProtocolError::invalid(what, "this is not a batch"));
        }
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(truncated) };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        bounded("the batch's header, in bytes,", length, MAX_BATCH_HEADER)?;
        let Some((json, frame)) = rest.split_at_checked(length) else { return Err(truncated) };
        let failed = |source| ProtocolError::Json { what, source };
        // On its own first: a later format must be told apart from nonsense although its fields are not known.
        let Version { v: found } = serde_json::from_slice(json).map_err(failed)?;
        if found > BATCH_FORMAT {
            return Err(ProtocolError::FromTheFuture { what: "the batch", found, known: BATCH_FORMAT });
        }
        if found == 0 {
            return Err(ProtocolError::invalid(what, "format 0 is none"));
        }
        let header: Self = serde_json::from_slice(json).map_err(failed)?;
        header.check()?;
        Ok((header, frame))
    }

    /// What a batch is about whose header [`BatchHeader::read`] does not take, as far as that can be known: a refusal without a
    /// word about the reason. Of later formats at least these fields will be what they are.
    pub fn claim(payload: &[u8]) -> Option<Refusal> {
        #[derive(Deserialize)]
        struct Claim {
            stream: StreamName,
            epoch: Epoch,
            first: u64,
            count: u64,
        }
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        if u32::from_le_bytes(*magic) != HEADER_MAGIC || length > MAX_BATCH_HEADER {
            return None;
        }
        let Claim { stream, epoch, first, count } = serde_json::from_slice(rest.get(..length)?).ok()?;
        let end = first.checked_add(count)?;
        let possible = first > 0 && count > 0 && end <= MAX_SEQUENCE + 1;
        possible.then_some(Refusal { stream, epoch, first, count, reason: RefusalReason::Malformed })
    }
}

impl Batch {
    /// Reads and checks a batch, whole.
    pub fn read(payload: &[u8], limits: &BatchLimits) -> Result<Self, ProtocolError> {
        let (header, frame) = BatchHeader::read(payload, limits)?;
        let text = decompress(frame, limits.text)?;
        let mut lines = Vec::new();
        let mut next = header.first;
        let end = header.last().saturating_add(1);
        let mut rest = text.as_slice();
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = after.get(1..).unwrap_or_default();
            bounded("the number of lines", lines.len() + 1, limits.lines)?;
            let line = Line::read(line)?;
            let after = next.checked_add(line.covers()).filter(|after| *after <= end);
            let Some(after) = after else {
                return Err(uncovered(&header, "its lines cover more"));
            };
            lines.push((next, line));
            next = after;
        }
        if !rest.is_empty() {
            return Err(ProtocolError::Truncated { what: "the last line of the batch" });
        }
        if next != end {
            return Err(uncovered(&header, "its lines cover less"));
        }
        Ok(Self { header, lines })
    }
}

fn uncovered(header: &BatchHeader, found: &str) -> ProtocolError {
    ProtocolError::Mismatch {
        what: "the batch's count",
        found: found.to_owned(),
        expected: format!("{} sequence numbers from {}", header.count, header.first),
    }
}

/// Never holds more than `limit` bytes and a window, whatever the frame's header says.
fn decompress(frame: &[u8], limit: usize) -> Result<Vec<u8>, ProtocolError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::UnexpectedEof => ProtocolError::Truncated { what: "the batch" },
        _ => ProtocolError::Decompress { source },
    };
    let mut rest = frame;
    let mut decoder = zstd::Decoder::with_buffer(&mut rest).map_err(failed)?.single_frame();
    decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
    let mut text = Vec::new();
    // One byte more than allowed, to tell the end of the text from the end of our patience.
    let read = (&mut decoder).take(limit as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    drop(decoder);
    bounded("the batch's text, in bytes,", read, limit)?;
    if text.is_empty() {
        return Err(ProtocolError::Truncated { what: "the batch" });
    }
    if rest.is_empty() { Ok(text) } else { Err(ProtocolError::Trailing { what: "the batch" }) }
}
