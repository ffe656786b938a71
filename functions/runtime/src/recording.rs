//! How a recording is written and read: an entry for each call, with its name, what was asked, and the answer.
//!
//! An entry is three pieces, each after its length: one byte of it for the name, four (little endian) for the others. Questions
//! and answers are in postcard. There is no version in it: whoever keeps recordings says by which release they were made.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Level, Reading, Recording, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{HardwareError, HostError, InvokeError};

/// Characters of a question or an answer, as people are shown it.
const SHOWN: usize = 120;

/// A buffer that calls are kept in.
#[derive(Debug, Default)]
pub struct Writer {
    recording: Recording,
    limit: usize,
}

impl Writer {
    pub(crate) fn new(mut buffer: Vec<u8>, limit: usize) -> Self {
        buffer.clear();
        Self { recording: Recording { bytes: buffer, ..Recording::default() }, limit }
    }

    /// Adds a call, if there is room for all of it and none was left out before: a replay needs them without holes.
    pub(crate) fn add(&mut self, call: &'static str, asked: &impl Serialize, answer: &impl Serialize) {
        let Recording { bytes, calls, missing } = &mut self.recording;
        let start = bytes.len();
        if *missing == 0 {
            bytes.push(u8::try_from(call.len()).unwrap_or(u8::MAX));
            bytes.extend_from_slice(call.as_bytes());
            let written = piece(bytes, asked) && piece(bytes, answer);
            if written && bytes.len() <= self.limit {
                *calls += 1;
                return;
            }
            bytes.truncate(start);
        }
        *missing = missing.saturating_add(1);
    }

    pub(crate) fn finish(self) -> Recording {
        self.recording
    }
}

/// Writes a piece after its length. Postcard writes any of our values to memory; should it ever not, the call is missing.
fn piece(bytes: &mut Vec<u8>, value: &impl Serialize) -> bool {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    if postcard::serialize_with_flavor(value, Buffer(bytes)).is_err() {
        return false;
    }
    let length = u32::try_from(bytes.len() - start - 4).unwrap_or(u32::MAX).to_le_bytes();
    if let Some(place) = bytes.get_mut(start..start + 4) {
        place.copy_from_slice(&length);
    }
    true
}

/// Appends to a buffer that is somebody else's.
struct Buffer<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Buffer<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// One call of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `interface.function`.
    pub call: Box<str>,
    pub(crate) asked: Vec<u8>,
    pub(crate) answer: Vec<u8>,
}

/// All calls of a recording, up to where it cannot be read.
pub fn read(recording: &Recording) -> Vec<Call> {
    let mut rest = recording.bytes.as_slice();
    let mut calls = Vec::new();
    while let Some(call) = next(&mut rest) {
        calls.push(call);
    }
    calls
}

fn next(rest: &mut &[u8]) -> Option<Call> {
    let (length, after) = rest.split_first()?;
    let (call, after) = after.split_at_checked((*length).into())?;
    let (asked, after) = sized(after)?;
    let (answer, after) = sized(after)?;
    *rest = after;
    let call = std::str::from_utf8(call).ok()?.into();
    Some(Call { call, asked: asked.to_vec(), answer: answer.to_vec() })
}

fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, after) = bytes.split_first_chunk::<4>()?;
    after.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

impl Call {
    /// The call and what it was about, for people.
    pub fn question(&self) -> String {
        let asked = &self.asked;
        let about = match &*self.call {
            "keyvalue.get" => text::<(String, String)>(asked, |(namespace, key)| format!("{key} of {namespace}")),
            "keyvalue.list-keys" => text::<(String, Option<String>)>(asked, |(namespace, after)| match after {
                Some(after) => format!("of {namespace} after {after}"),
                None => format!("of {namespace}"),
            }),
            "invoke.invoke" => {
                type Input = (String, Option<String>, Bytes);
                text::<Input>(asked, |(function, _, data)| format!("{function} with {}", words(&data)))
            }
            "random.bytes" | "insecure.bytes" => text::<u64>(asked, |length| length.to_string()),
            _ if asked.is_empty() => Some(String::new()),
            // The others ask with a text.
            _ => text::<String>(asked, |text| text),
        };
        let about = cut(about.unwrap_or_else(|| hex(asked)));
        if about.is_empty() { self.call.to_string() } else { format!("{} {about}", self.call) }
    }

    /// What it was told, for people.
    pub fn told(&self) -> String {
        let answer = &self.answer;
        let told = match &*self.call {
            "keyvalue.get" => {
                type Told = Result<(Option<Bytes>, u64), HostError>;
                text::<Told>(answer, |told| match told {
                    Ok((Some(value), _)) => words(&value),
                    Ok((None, _)) => "nothing".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
            "keyvalue.list-keys" => text::<Result<Vec<Arc<str>>, HostError>>(answer, |told| match told {
                Ok(keys) => format!("{} keys: {}", keys.len(), keys.join(", ")),
                Err(error) => error.to_string(),
            }),
            "config.get" => text::<Option<String>>(answer, |told| told.unwrap_or_else(|| "nothing".to_owned())),
            "config.get-all" => text::<Vec<(String, String)>>(answer, |all| format!("{all:?}")),
            "wall-clock.now" => text::<Timestamp>(answer, |time| format!("{} ms since 1970", time.0)),
            "monotonic-clock.now" => text::<u64>(answer, |time| format!("{time} ns")),
            "random.u64" | "insecure.u64" | "insecure-seed.first" | "insecure-seed.second" => {
                text::<u64>(answer, |number| number.to_string())
            }
            "random.bytes" | "insecure.bytes" => text::<Vec<u8>>(answer, |bytes| hex(&bytes)),
            "invoke.invoke" => {
                type Told = Result<Option<(Option<Arc<str>>, Bytes)>, InvokeError>;
                text::<Told>(answer, |told| match told {
                    Ok(Some((_, data))) => words(&data),
                    Ok(None) => "nothing".to_owned(),
                    Err(error) => error.to_string(),
                })
            }
            "invoke.new-id" => text::<String>(answer, |id| id),
            "secrets.get" => text::<bool>(answer, |there| if there { "it" } else { "there is none" }.to_owned()),
            "sensors.read" | "sensors.latest" => board::<Vec<Reading>>(answer, |readings| {
                let shown = |one: &Reading| format!("{} {} {}", one.channel, one.value, one.unit);
                readings.iter().map(shown).collect::<Vec<_>>().join(", ")
            }),
            "gpio.get" => board::<Level>(answer, |level| format!("{level:?}").to_lowercase()),
            "gpio.set" => board::<()>(answer, |()| "done".to_owned()),
            "i2c.transaction" | "spi.transaction" => {
                board::<Vec<Vec<u8>>>(answer, |read| read.iter().map(|bytes| hex(bytes)).collect::<Vec<_>>().join(", "))
            }
            "poll.sleep" => text::<bool>(answer, |over| if over { "until time was over" } else { "slept" }.to_owned()),
            _ => None,
        };
        cut(told.unwrap_or_else(|| hex(answer)))
    }
}

fn text<T: DeserializeOwned>(bytes: &[u8], show: impl FnOnce(T) -> String) -> Option<String> {
    postcard::from_bytes(bytes).ok().map(show)
}

fn board<T: DeserializeOwned>(bytes: &[u8], show: impl FnOnce(T) -> String) -> Option<String> {
    text::<Result<T, HardwareError>>(bytes, |told| told.map_or_else(|error| error.to_string(), show))
}

/// Bytes as people read them: as text where they are text.
fn words(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) => text.to_owned(),
        Err(_) => hex(data),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in bytes.iter().take(SHOWN) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn cut(mut text: String) -> String {
    if text.len() > SHOWN {
        text.truncate(text.floor_char_boundary(SHOWN));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_they_were_written_and_shown_in_words() {
        let mut writer = Writer::new(Vec::new(), 1 << 10);
        let value: Result<(Option<Bytes>, u64), HostError> = Ok((Some(Bytes::from_static(b"7")), 3));
        writer.add("keyvalue.get", &("count", "total"), &value);
        writer.add("random.bytes", &2_u64, &vec![1_u8, 255]);
        writer.add("wall-clock.now", &(), &Timestamp(5));
        let calls = read(&writer.finish());
        let shown: Vec<_> = calls.iter().map(|call| (call.question(), call.told())).collect();
        let shown: Vec<_> = shown.iter().map(|(asked, told)| (asked.as_str(), told.as_str())).collect();
        let expected =
            [("keyvalue.get total of count", "7"), ("random.bytes 2", "0x01ff"), ("wall-clock.now", "5 ms since 1970")];
        assert_eq!(shown, expected);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for length in 0..64_usize {
            for seed in 0..64_usize {
                let bytes: Vec<u8> = (0..length).map(|at| (at * 37 + seed * 11) as u8).collect();
                for call in read(&Recording { bytes, ..Recording::default() }) {
                    let _ = (call.question(), call.told());
                }
            }
        }
    }
}
