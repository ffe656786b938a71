//! How values are packed: numbers in little endian, and whatever has a length after its length. It never leaves the process
//! that wrote it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holm_core::{
    Effects, Enqueue, Event, EventId, Fault, FunctionName, LogLevel, LogLine, Payload, Publish, Qos, Recording,
    ResultRow, Route, Source, StateWrite, Timestamp, TopicName, Usage,
};

/// What can be packed.
pub(super) trait Piece: Sized {
    /// Adds it.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads what [`Piece::put`] has written, and moves on behind it.
    fn take(from: &mut &[u8]) -> Option<Self>;
}

/// Adds what may not be there.
pub(super) fn put_option<T: Piece>(value: Option<&T>, out: &mut Vec<u8>) {
    value.is_some().put(out);
    if let Some(value) = value {
        value.put(out);
    }
}

/// Adds as many as there are, after their number.
pub(super) fn put_all<'a, T: Piece + 'a>(all: impl Iterator<Item = &'a T>, out: &mut Vec<u8>) {
    let place = out.len();
    let mut count = 0_u32;
    count.put(out);
    for one in all {
        one.put(out);
        count += 1;
    }
    if let Some(place) = out.get_mut(place..place + 4) {
        place.copy_from_slice(&count.to_le_bytes());
    }
}

macro_rules! numbers {
    ($($type:ty),*) => {$(
        impl Piece for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u8, u32, u64, i64);

macro_rules! fields {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Piece for $type {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                $(let $field = Piece::take(from)?;)*
                Some(Self { $($field),* })
            }
        }
    )*};
}

fields! {
    Event { id, source, subject, content_type, data, time, time_synced, attempt, hops, attributes }
    Payload { content_type, data }
    Publish { topic, payload, qos, retain, route, expiry_seconds, user_properties }
    StateWrite { namespace, key, value }
    ResultRow { series, json }
    Enqueue { id, function, input, delay }
    Effects { publishes, writes, results, enqueues }
    LogLine { level, context, message }
    Usage { wall, peak_memory, bytes_out }
}

/// Bytes after their length.
fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // What a message, a payload or a recording may have is far below.
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).put(out);
    out.extend_from_slice(bytes);
}

fn take_bytes<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::take(from)?;
    let (bytes, rest) = from.split_at_checked(length as usize)?;
    *from = rest;
    Some(bytes)
}

fn take_text<'a>(from: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(from)?).ok()
}

macro_rules! texts {
    ($($type:ty: $text:expr, $made:expr;)*) => {$(
        impl Piece for $type {
            fn put(&self, out: &mut Vec<u8>) {
                let text: fn(&Self) -> &str = $text;
                put_bytes(text(self).as_bytes(), out);
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let made: fn(&str) -> Option<Self> = $made;
                made(take_text(from)?)
            }
        }
    )*};
}

texts! {
    String: |this| this, |text| Some(text.to_owned());
    Arc<str>: |this| this, |text| Some(text.into());
    EventId: |this| &this.0, |text| Some(Self(text.into()));
    TopicName: |this| this.as_str(), |text| Self::new(text).ok();
    FunctionName: |this| this.as_str(), |text| Self::new(text).ok();
}

impl Piece for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(self, out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        take_bytes(from).map(Self::copy_from_slice)
    }
}

impl Piece for Recording {
    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(&self.bytes, out);
        self.calls.put(out);
        self.missing.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let bytes = take_bytes(from)?.to_vec();
        Some(Self { bytes, calls: u32::take(from)?, missing: u32::take(from)? })
    }
}

/// Values of an enum without fields, by their places in a list of all of them.
macro_rules! choices {
    ($($type:ident [$($value:ident),*])*) => {$(
        impl Piece for $type {
            fn put(&self, out: &mut Vec<u8>) {
                (*self as u8).put(out);
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let number = u8::take(from)?;
                [$(Self::$value),*].into_iter().find(|value| *value as u8 == number)
            }
        }
    )*};
}

choices! {
    Source [Mqtt, Schedule, Sensor, Gpio, File, Http, Function, Lifecycle, Invoke, Admin]
    Qos [AtMostOnce, AtLeastOnce, ExactlyOnce]
    Route [Local, Cloud, Both]
    LogLevel [Trace, Debug, Info, Warn, Error, Critical]
}

impl Piece for Fault {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Retry { reason, after } => {
                0_u8.put(out);
                reason.put(out);
                after.put(out);
            }
            Self::Reject { reason } => {
                1_u8.put(out);
                reason.put(out);
            }
            Self::Trap { message } => {
                2_u8.put(out);
                message.put(out);
            }
            Self::Timeout { limit } => {
                3_u8.put(out);
                limit.put(out);
            }
            Self::Exhausted { resource } => {
                4_u8.put(out);
                resource.put(out);
            }
            Self::Unavailable { reason } => {
                5_u8.put(out);
                reason.put(out);
            }
        }
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(match u8::take(from)? {
            0 => Self::Retry { reason: Piece::take(from)?, after: Piece::take(from)? },
            1 => Self::Reject { reason: Piece::take(from)? },
            2 => Self::Trap { message: Piece::take(from)? },
            3 => Self::Timeout { limit: Piece::take(from)? },
            4 => Self::Exhausted { resource: Piece::take(from)? },
            5 => Self::Unavailable { reason: Piece::take(from)? },
            _ => return None,
        })
    }
}

impl Piece for bool {
    fn put(&self, out: &mut Vec<u8>) {
        u8::from(*self).put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        u8::take(from).map(|value| value != 0)
    }
}

impl Piece for Timestamp {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        i64::take(from).map(Self)
    }
}

impl Piece for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_secs().put(out);
        self.subsec_nanos().put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some(Self::new(u64::take(from)?, u32::take(from)?))
    }
}

impl<T: Piece> Piece for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_option(self.as_ref(), out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        if bool::take(from)? { T::take(from).map(Some) } else { Some(None) }
    }
}

impl<T: Piece> Piece for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_all(self.iter(), out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        (0..u32::take(from)?).map(|_| T::take(from)).collect()
    }
}

impl<A: Piece, B: Piece> Piece for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        Some((A::take(from)?, B::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back<T: Piece + PartialEq + std::fmt::Debug>(value: &T) {
        let mut packed = Vec::new();
        value.put(&mut packed);
        let mut from = packed.as_slice();
        assert_eq!(T::take(&mut from).as_ref(), Some(value));
        assert!(from.is_empty(), "{} bytes are left", from.len());
        for end in 0..packed.len() {
            assert_ne!(T::take(&mut &packed[..end]).as_ref(), Some(value), "cut at {end}");
        }
    }

    #[test]
    fn what_is_packed_comes_back_whole_and_what_is_cut_does_not() {
        let payload = Payload { content_type: Some("text/plain".into()), data: Bytes::from_static(b"\0\xff21.5") };
        comes_back(&Event {
            id: EventId("e-1".into()),
            source: Source::Admin,
            subject: "a/b".into(),
            content_type: None,
            data: Bytes::from_static(b"21"),
            time: Timestamp(-5),
            time_synced: true,
            attempt: 3,
            hops: 2,
            attributes: vec![("qos".into(), "1".into()), ("".into(), "ü".into())],
        });
        let publish = Publish {
            topic: TopicName::new("up/ü").unwrap(),
            payload: payload.clone(),
            qos: Qos::ExactlyOnce,
            retain: true,
            route: Route::Both,
            expiry_seconds: Some(60),
            user_properties: vec![("trace".into(), "1".into())],
        };
        let write = |value| StateWrite { namespace: "n".into(), key: "k".into(), value };
        comes_back(&Effects {
            publishes: vec![publish.clone(), Publish { route: Route::Cloud, expiry_seconds: None, ..publish }],
            writes: vec![write(None), write(Some(Bytes::new())), write(Some(Bytes::from_static(b"v")))],
            results: vec![ResultRow { series: "s".into(), json: Bytes::from_static(b"{}") }],
            enqueues: vec![Enqueue {
                id: "i".into(),
                function: FunctionName::new("next").unwrap(),
                input: payload,
                delay: Some(Duration::from_millis(1_500)),
            }],
        });
        let usage = Usage { wall: Duration::from_nanos(12_345), peak_memory: 1 << 40, bytes_out: 7 };
        comes_back(&(usage.wall, usage.peak_memory));
        comes_back(&usage);
        comes_back(&Recording { bytes: vec![1, 2, 3], calls: 2, missing: 1 });
        comes_back(&vec![LogLine { level: LogLevel::Critical, context: "stderr".into(), message: "no".into() }]);
        let words = || "why".to_owned();
        for fault in [
            Fault::Retry { reason: words(), after: Some(Duration::from_secs(2)) },
            Fault::Retry { reason: words(), after: None },
            Fault::Reject { reason: words() },
            Fault::Trap { message: words() },
            Fault::Timeout { limit: Duration::from_secs(5) },
            Fault::Exhausted { resource: words() },
            Fault::Unavailable { reason: words() },
        ] {
            comes_back(&Some(fault));
        }
        comes_back(&None::<Fault>);
    }
}
