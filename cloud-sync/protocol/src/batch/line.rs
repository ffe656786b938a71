//! One line of a batch: a record, or a gap.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::ProtocolError;
use crate::code::codes;

/// A record: a row of the device's outbox, without its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was made, by the device's clock, in milliseconds since 1970.
    pub time: Timestamp,
    /// MIME type, where there is one.
    pub content_type: Option<String>,
    /// The payload: any bytes.
    pub data: Vec<u8>,
}

codes! {
    /// Why records were dropped. The first three are the words of the device's store.
    GapReason {
        /// A cap on the outbox or on a stream was reached.
        Cap = "cap",
        /// They were older than may be.
        Age = "age",
        /// They could not be saved from a damaged database.
        Damage = "damage",
        /// One record was larger than a message may be.
        TooLarge = "too-large",
        /// The control plane refused them, for good.
        Refused = "refused",
        /// Their numbers belong to an earlier epoch of the device's database, which went on counting: nothing is missing.
        EarlierEpoch = "earlier-epoch",
    }
}

/// Records that were dropped on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How many sequence numbers.
    pub count: u64,
    /// Why.
    pub reason: GapReason,
    /// When, by the device's clock, in milliseconds since 1970.
    pub at: Timestamp,
}

/// What covers one or more sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// One record.
    Record(Record),
    /// Some that are gone.
    Gap(Gap),
}

#[derive(Serialize)]
struct WireRecord<'a> {
    t: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    c: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b: Option<String>,
}

#[derive(Serialize)]
struct WireGap<'a> {
    gap: u64,
    reason: &'a GapReason,
    at: Timestamp,
}

/// Both kinds at once: which one it is shows in the fields.
#[derive(Deserialize)]
struct WireLine<'a> {
    t: Option<Timestamp>,
    #[serde(borrow)]
    c: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "present")]
    v: Option<&'a RawValue>,
    #[serde(borrow)]
    x: Option<Cow<'a, str>>,
    #[serde(borrow)]
    b: Option<Cow<'a, str>>,
    gap: Option<u64>,
    reason: Option<GapReason>,
    at: Option<Timestamp>,
}

/// `"v": null` is a payload, not the lack of one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Line {
    /// How many sequence numbers it covers.
    pub fn covers(&self) -> u64 {
        match self {
            Self::Record(_) => 1,
            Self::Gap(gap) => gap.count,
        }
    }

    /// Its text, with the line feed.
    pub(crate) fn write(&self) -> Result<Vec<u8>, ProtocolError> {
        let json = match self {
            Self::Record(record) => {
                let (v, x, b) = match (as_json(&record.data), std::str::from_utf8(&record.data)) {
                    (Some(json), _) => (Some(json), None, None),
                    (None, Ok(text)) => (None, Some(text), None),
                    (None, Err(_)) => (None, None, Some(STANDARD.encode(&record.data))),
                };
                serde_json::to_vec(&WireRecord { t: record.time, c: record.content_type.as_deref(), v, x, b })
            }
            Self::Gap(gap) => serde_json::to_vec(&WireGap { gap: gap.count, reason: &gap.reason, at: gap.at }),
        };
        let mut text = json.map_err(|source| ProtocolError::Write { what: "a line of a batch", source })?;
        text.push(b'\n');
        Ok(text)
    }

    /// From its text, without the line feed.
    pub(crate) fn read(text: &[u8]) -> Result<Self, ProtocolError> {
        let what = "a line of a batch";
        let wire: WireLine<'_> = serde_json::from_slice(text).map_err(|source| ProtocolError::Json { what, source })?;
        let invalid = |problem: &str| Err(ProtocolError::invalid(what, problem));
        if let Some(count) = wire.gap {
            let (Some(reason), Some(at)) = (wire.reason, wire.at) else {
                return invalid("a gap needs `reason` and `at`");
            };
            if count == 0 || wire.t.is_some() || wire.v.is_some() || wire.x.is_some() || wire.b.is_some() {
                return invalid("a gap of nothing, or a gap that is a record too");
            }
            return Ok(Self::Gap(Gap { count, reason, at }));
        }
        let Some(time) = wire.t else { return invalid("a record needs `t`") };
        let data = match (wire.v, wire.x, wire.b) {
            (Some(json), None, None) => json.get().as_bytes().to_vec(),
            (None, Some(text), None) => text.into_owned().into_bytes(),
            (None, None, Some(base64)) => {
                STANDARD.decode(base64.as_bytes()).map_err(|_| ProtocolError::Base64 { what: "a record" })?
            }
            _ => return invalid("a record needs one of `v`, `x` and `b`"),
        };
        Ok(Self::Record(Record { time, content_type: wire.c.map(Cow::into_owned), data }))
    }
}

/// The data as JSON that stays the same, to the byte, on one line.
fn as_json(data: &[u8]) -> Option<&RawValue> {
    if data.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return None;
    }
    let json: &RawValue = serde_json::from_slice(data).ok()?;
    (json.get().len() == data.len()).then_some(json)
}
