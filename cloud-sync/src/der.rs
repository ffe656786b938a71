//! The little of X.509 that a device has to write and read itself: a certificate request (RFC 2986), and how long a certificate
//! is valid (RFC 5280, section 4.1.2.5).
//!
//! Written by hand because it is little: a library for it costs the agent more than all of this file. What is read decides nothing
//! but when a new certificate is asked for; trust is decided by rustls.

use holm_core::Timestamp;

use crate::SyncError;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0C;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]`, constructed.
const CONTEXT_0: u8 = 0xA0;

/// 2.5.4.3, the common name.
const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
/// 1.2.840.10045.2.1 with 1.2.840.10045.3.1.7: a public key on P-256 (RFC 5480).
const P256_KEY: &[u8] = &[0x06, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1, 0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 3, 1, 7];
/// 1.2.840.10045.4.3.2: ECDSA with SHA-256 (RFC 5758).
const ECDSA_SHA256: &[u8] = &[0x06, 8, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 4, 3, 2];

/// A certificate request for `name`, in DER. `point` is the public key, uncompressed; `sign` makes an ASN.1 signature.
pub(crate) fn request(
    name: &str,
    point: &[u8],
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, SyncError>,
) -> Result<Vec<u8>, SyncError> {
    let common_name = element(SEQUENCE, &[COMMON_NAME, &element(UTF8_STRING, &[name.as_bytes()])]);
    let subject = element(SEQUENCE, &[&element(SET, &[&common_name])]);
    let key = element(SEQUENCE, &[&element(SEQUENCE, &[P256_KEY]), &element(BIT_STRING, &[&[0], point])]);
    let info = element(SEQUENCE, &[&element(INTEGER, &[&[0]]), &subject, &key, &element(CONTEXT_0, &[])]);
    let signature = sign(&info)?;
    let algorithm = element(SEQUENCE, &[ECDSA_SHA256]);
    Ok(element(SEQUENCE, &[&info, &algorithm, &element(BIT_STRING, &[&[0], &signature])]))
}

/// Tag, length, contents.
fn element(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    let length: usize = contents.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    if length < 0x80 {
        bytes.push(length as u8);
    } else {
        let digits: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        bytes.push(0x80 | digits.len() as u8);
        bytes.extend(digits);
    }
    bytes.extend(contents.iter().flat_map(|part| part.iter()));
    bytes
}

/// From when to when a certificate is valid. `None`: this is not a certificate.
pub(crate) fn validity(certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, certificate, _) = read(certificate)?;
    let (_, mut rest, _) = read(certificate)?;
    // The version is not there for version 1.
    if rest.first() == Some(&CONTEXT_0) {
        rest = read(rest)?.2;
    }
    // Serial number, signature, issuer.
    for _ in 0..3 {
        rest = read(rest)?.2;
    }
    let (SEQUENCE, validity, _) = read(rest)? else { return None };
    let (tag, begin, rest) = read(validity)?;
    let begin = time(tag, begin)?;
    let (tag, end, _) = read(rest)?;
    Some((begin, time(tag, end)?))
}

/// The tag and the contents of the first element, and what follows it.
fn read(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten();
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (number(year)?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let field = |at: usize| number(rest.get(at..at + 2)?);
    let (month, day) = (field(0)?, field(2)?);
    let (hour, minute, second) = (field(4)?, field(6)?, field(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Timestamp(seconds * 1_000))
}

/// Days from 1970 to a day of the Gregorian calendar: years begin in March, so that the leap day is their last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + of_year - 719_468
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn reads_both_kinds_of_time() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "20240229120000", None),
            (GENERALIZED_TIME, "20241329120000Z", None),
            (UTC_TIME, "7001010000Z", None),
            (UTC_TIME, "+00101000000Z", None),
            (UTF8_STRING, "700101000000Z", None),
        ] {
            assert_eq!(time(tag, text.as_bytes()).map(|time| time.0 / 1_000), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        let nested = element(SEQUENCE, &[&element(SEQUENCE, &[&element(SEQUENCE, &[])])]);
        for bytes in [&b""[..], b"\x30", b"\x30\x85\x01\x01\x01\x01\x01", b"\x30\x84\xff\xff\xff\xff", &nested] {
            assert_eq!(validity(bytes), None);
        }
    }

    #[test]
    fn lengths_have_as_many_bytes_as_they_need() {
        for (length, head) in
            [(0x7F, &[0x30, 0x7F][..]), (0x80, &[0x30, 0x81, 0x80]), (0x1234, &[0x30, 0x82, 0x12, 0x34])]
        {
            let bytes = element(SEQUENCE, &[&vec![7; length]]);
            assert_eq!(bytes.get(..head.len()), Some(head));
            let (tag, contents, rest) = read(&bytes).unwrap();
            assert_eq!((tag, contents.len(), rest.len()), (SEQUENCE, length, 0));
        }
    }
}
