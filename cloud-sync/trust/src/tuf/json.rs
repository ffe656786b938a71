//! Canonical JSON (<http://wiki.laptop.org/go/Canonical_JSON>): the bytes that are signed.
//!
//! As python-tuf's securesystemslib writes it: keys in the order of their code points, `"` and `\` escaped and nothing else, no
//! normalisation of Unicode, integers only. The result is no JSON when a string has control characters in it, so it is signed and
//! hashed and never read.
//!
//! The crate `olpc-cjson` differs from that in two things: it composes Unicode (NFC), and it orders keys by their text with the
//! closing quote, so that `a b` comes before `a`. Signatures over such files would not fit.

use serde_json::Value;

use crate::TrustError;

/// The canonical form. Fails for fractions, and for integers beyond 64 bits, which canonical JSON has and we do not.
///
/// As deep as the value is, which serde_json bounds when it reads.
pub(crate) fn canonical(value: &Value) -> Result<Vec<u8>, TrustError> {
    let mut out = Vec::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut Vec<u8>) -> Result<(), TrustError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            let text = match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => number.to_string(),
                (None, Some(number)) => number.to_string(),
                (None, None) => return Err(TrustError::Nonsense { what: format!("the number {number}") }),
            };
            out.extend_from_slice(text.as_bytes());
        }
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            // Sorted here, for a feature of serde_json that any crate may switch on would keep them as they came.
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push(b'{');
            for (at, (key, value)) in fields.into_iter().enumerate() {
                separate(at, out);
                string(key, out);
                out.push(b':');
                write(value, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn separate(at: usize, out: &mut Vec<u8>) {
    if at > 0 {
        out.push(b',');
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by securesystemslib: see `tests/tuf/make.py`.
    const GOLDEN: &str = include_str!("../../tests/tuf/canonical.json");

    #[test]
    fn writes_what_securesystemslib_writes() {
        let golden: Vec<(String, String)> = serde_json::from_str(GOLDEN).unwrap();
        assert!(golden.len() > 20);
        for (text, expected) in golden {
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(crate::tuf::key::to_hex(&canonical(&value).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn has_no_fractions_and_nothing_beyond_64_bits() {
        for text in ["1.5", "1.0", "1e3", "18446744073709551616", "-9223372036854775809", "[{\"a\":0.1}]"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(canonical(&value).is_err(), "{text}");
        }
    }
}
