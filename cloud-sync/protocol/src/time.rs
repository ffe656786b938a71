//! Times of AWS messages: seconds in one place, milliseconds in the next.

use holm_core::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// From here on a number is taken for milliseconds. As seconds it would be the year 5138, as milliseconds it is March 1973: AWS
/// means neither.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

/// A time as AWS IoT sends it. Its documentation says "seconds since the epoch" and shows `1489096425069`
/// (<https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html>), so the unit is told by the size of the number.
/// Fractions and numbers in quotes are read too. Written as whole seconds, which is what the text of the documentation says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireTime(Timestamp);

impl WireTime {
    /// From milliseconds since 1970. Times before 1970 become 1970.
    pub fn new(time: Timestamp) -> Self {
        Self(Timestamp(time.0.max(0)))
    }

    /// In milliseconds since 1970.
    pub fn timestamp(self) -> Timestamp {
        self.0
    }

    fn from_number(number: f64) -> Option<Self> {
        // Also refuses NaN. Beyond it `as` would saturate, and no time is that late.
        if !(0.0..9.0e15).contains(&number) {
            return None;
        }
        let milliseconds = if number >= MILLISECONDS_FROM as f64 { number } else { number * 1000.0 };
        Some(Self(Timestamp(milliseconds.round() as i64)))
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.0 / 1000)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Time {
            Number(f64),
            Text(String),
        }
        let number = match Time::deserialize(deserializer)? {
            Time::Number(number) => Some(number),
            Time::Text(text) => text.parse().ok(),
        };
        number.and_then(Self::from_number).ok_or_else(|| D::Error::custom("not a time since 1970"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_seconds_from_milliseconds_by_size() {
        for (json, expected) in [
            ("1517016948", Some(1_517_016_948_000)),
            ("1489096425069", Some(1_489_096_425_069)),
            ("10011", Some(10_011_000)),
            ("1517016948.25", Some(1_517_016_948_250)),
            ("\"1489096425069\"", Some(1_489_096_425_069)),
            ("0", Some(0)),
            ("-1", None),
            ("1e300", None),
            ("\"soon\"", None),
            ("\"NaN\"", None),
            ("null", None),
        ] {
            let read = serde_json::from_str::<WireTime>(json).ok().map(|time| time.timestamp().0);
            assert_eq!(read, expected, "{json}");
        }
    }
}
