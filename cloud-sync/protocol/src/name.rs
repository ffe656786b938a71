//! Names, ids and tokens, checked when made.

use std::fmt;
use std::str::FromStr;

use crate::ProtocolError;
use crate::error::excerpt;
use crate::limits::{
    MAX_CLIENT_TOKEN, MAX_GROUP_NAME, MAX_JOB_ID, MAX_SHADOW_NAME, MAX_STREAM_BYTES, MAX_STREAM_SEGMENT, MAX_THING_NAME,
};

fn is_segment_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Text types share their traits; each brings its own rule.
macro_rules! text_type {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// Checks `text`.
            pub fn new(text: &str) -> Result<Self, ProtocolError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(ProtocolError::Name { what: $what, text: excerpt(text), rule: $rule })
                }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $type {
            type Err = ProtocolError;
            fn from_str(text: &str) -> Result<Self, ProtocolError> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::new(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

fn is_segment(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(is_segment_byte)
}

text_type! {
    /// The name of a device: its client id, the common name of its certificate, and a level of its topics. AWS also allows
    /// `:`, which NATS and file names do not like. Cheap to clone.
    ThingName, "thing name", "1 to 64 of A-Z, a-z, 0-9, `_` and `-`", |text| is_segment(text, MAX_THING_NAME)
}

text_type! {
    /// The name of a group of devices. Cheap to clone.
    GroupName, "group name", "1 to 64 of A-Z, a-z, 0-9, `_` and `-`", |text| is_segment(text, MAX_GROUP_NAME)
}

text_type! {
    /// The id of a job, given by the control plane
    /// (<https://docs.aws.amazon.com/iot/latest/apireference/API_iot-jobs-data_JobExecution.html>). Cheap to clone.
    JobId, "job id", "1 to 64 of A-Z, a-z, 0-9, `_` and `-`", |text| is_segment(text, MAX_JOB_ID)
}

text_type! {
    /// The name of a named shadow. Cheap to clone.
    ShadowName, "shadow name", "1 to 64 of A-Z, a-z, 0-9, `_` and `-`", |text| is_segment(text, MAX_SHADOW_NAME)
}

text_type! {
    /// What a client sends to recognise the answer. Cheap to clone.
    ClientToken, "client token", "1 to 64 bytes without control characters",
    |text| (1..=MAX_CLIENT_TOKEN).contains(&text.len()) && !text.chars().any(char::is_control)
}

text_type! {
    /// The name of a stream of records as the device keeps it, such as `result.water-loss.flow`. Cheap to clone.
    StreamName, "stream name", "1 to 512 bytes without control characters",
    |text| (1..=MAX_STREAM_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

text_type! {
    /// The level of a topic that stands for a stream. Cheap to clone.
    StreamSegment, "stream segment", "1 to 64 of A-Z, a-z, 0-9, `_` and `-`",
    |text| is_segment(text, MAX_STREAM_SEGMENT)
}

impl StreamName {
    /// The stream's level in a topic: every byte that has no place there becomes `_`, and the end is cut off. Two streams may
    /// share one: it is for permissions and routing, and who reads a batch takes the stream from its header.
    pub fn segment(&self) -> StreamSegment {
        let byte = |byte: u8| if is_segment_byte(byte) { char::from(byte) } else { '_' };
        let text: String = self.0.bytes().take(MAX_STREAM_SEGMENT).map(byte).collect();
        StreamSegment(text.into())
    }
}

/// Tells the lives of a device's database apart: a random number, made with the file. Sequence numbers mean something only
/// within an epoch. Its text is 16 lower-case hexadecimal digits, as the device keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

impl FromStr for Epoch {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = if digits { u64::from_str_radix(text, 16).ok() } else { None };
        number.map(Self).ok_or_else(|| ProtocolError::Name {
            what: "epoch",
            text: excerpt(text),
            rule: "16 of 0-9 and a-f",
        })
    }
}

impl serde::Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Epoch {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
