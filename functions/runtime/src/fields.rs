//! HTTP header fields as guests hold them: what is a field, and how many there may be.

use std::sync::Arc;

use bytes::Bytes;

use crate::fault::Stop;

/// Names and values, in their order.
pub(crate) type Fields = Vec<(String, Bytes)>;

/// Bytes of header fields that a guest may make in one invocation, all copies counted and none given back: they are the
/// node's memory and not the guest's. Four times what most servers take in a head.
pub(crate) const MAX_HEADERS: usize = 32 << 10;

/// What a field costs beside its text.
const OVERHEAD: usize = 64;

/// Fields that are of a connection, which is not the guest's (RFC 9110, section 7.6.1), with those that say whose the
/// request is: the same list as wasmtime's.
const FORBIDDEN: [&str; 9] = [
    "connection",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

/// Fields that a guest holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Shared until they are changed.
    pub(crate) fields: Arc<Fields>,
    pub(crate) immutable: bool,
}

/// Why fields cannot be changed.
#[derive(Debug)]
pub(crate) enum Refused {
    InvalidSyntax,
    Forbidden,
    Immutable,
    /// No more room, which is the guest's end.
    Full,
}

impl Refused {
    /// The case of wasi:http's `header-error`.
    pub(crate) fn name(&self) -> Result<&'static str, Stop> {
        match self {
            Self::InvalidSyntax => Ok("invalid-syntax"),
            Self::Forbidden => Ok("forbidden"),
            Self::Immutable => Ok("immutable"),
            Self::Full => Err(Stop::Exhausted("header")),
        }
    }
}

impl Held {
    /// Puts fields of a name in the place of those that are there, or behind them if `keep`.
    pub(crate) fn put(&mut self, name: &str, values: Vec<Bytes>, keep: bool, room: &mut usize) -> Result<(), Refused> {
        if self.immutable {
            return Err(Refused::Immutable);
        }
        if !is_name(name) || !values.iter().all(|value| is_value(value)) {
            return Err(Refused::InvalidSyntax);
        }
        if is_forbidden(name) {
            return Err(Refused::Forbidden);
        }
        let copied = match Arc::strong_count(&self.fields) {
            1 => 0,
            _ => self.fields.iter().map(|(name, value)| cost(name, value)).sum::<usize>(),
        };
        let added: usize = values.iter().map(|value| cost(name, value)).sum();
        *room = room.checked_sub(copied + added).ok_or(Refused::Full)?;
        let fields = Arc::make_mut(&mut self.fields);
        if !keep {
            fields.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        }
        fields.extend(values.into_iter().map(|value| (name.to_owned(), value)));
        Ok(())
    }

    /// The values of a name.
    pub(crate) fn get(&self, name: &str) -> impl Iterator<Item = &Bytes> {
        self.fields.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn cost(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + OVERHEAD
}

/// `token` (RFC 9110, section 5.6.2).
pub(crate) fn is_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// `field-value` (RFC 9110, section 5.5): above all no end of line, which would begin another field.
pub(crate) fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

pub(crate) fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(held: &mut Held, name: &str, value: &'static [u8], room: &mut usize) -> Result<(), Refused> {
        held.put(name, vec![Bytes::from_static(value)], true, room)
    }

    #[test]
    fn what_is_no_field_or_not_the_guests_is_refused() {
        let mut room = MAX_HEADERS;
        let mut held = Held::default();
        for (name, value) in [("", &b"v"[..]), ("a b", b"v"), ("a:", b"v"), ("a", b"v\r\nb: c"), ("a", b"\0")] {
            assert!(matches!(put(&mut held, name, value, &mut room), Err(Refused::InvalidSyntax)), "{name}");
        }
        assert!(matches!(put(&mut held, "Transfer-Encoding", b"chunked", &mut room), Err(Refused::Forbidden)));
        held.immutable = true;
        assert!(matches!(put(&mut held, "a", b"v", &mut room), Err(Refused::Immutable)));
        assert!(held.fields.is_empty() && room == MAX_HEADERS);
    }

    #[test]
    fn names_have_no_case_and_keep_the_one_that_they_have() {
        let (mut room, mut held) = (MAX_HEADERS, Held::default());
        put(&mut held, "X-One", b"1", &mut room).unwrap();
        put(&mut held, "x-one", b"2", &mut room).unwrap();
        assert_eq!(held.get("X-ONE").map(|value| &value[..]).collect::<Vec<_>>(), [b"1", b"2"]);
        held.put("x-one", vec![Bytes::from_static(b"3")], false, &mut room).unwrap();
        assert_eq!(*held.fields, [("x-one".to_owned(), Bytes::from_static(b"3"))]);
    }

    #[test]
    fn copies_count_when_they_are_made() {
        let (mut room, mut held) = (1000, Held::default());
        put(&mut held, "a", b"1", &mut room).unwrap();
        assert_eq!(room, 1000 - 66);
        let mut copy = Held { fields: held.fields.clone(), immutable: false };
        put(&mut copy, "b", b"2", &mut room).unwrap();
        assert_eq!((room, held.fields.len(), copy.fields.len()), (1000 - 3 * 66, 1, 2));
        let mut room = 100;
        assert!(matches!(
            put(&mut copy, "c", b"3", &mut room).and(put(&mut copy, "d", b"", &mut room)),
            Err(Refused::Full)
        ));
    }
}
