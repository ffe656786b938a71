//! JSON's own words: the values that a document has, one after the other.

use std::borrow::Cow;

use serde::de::{self, Expected, Unexpected};

use super::{Fault, number};

/// How deep arrays and objects may nest: a function's stack is small.
const DEEPEST: u32 = 64;

pub(super) fn fault(text: &str) -> Fault {
    Fault(text.to_owned())
}

/// A value, or where one begins.
pub(super) enum Token<'de> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'de, str>),
    Array,
    Object,
}

impl Token<'_> {
    /// What is said of a value that should be another one. Not generic: each visitor would bring its own.
    pub(super) fn instead_of(&self, expected: &dyn Expected) -> Fault {
        let found = match self {
            Token::Null => Unexpected::Unit,
            Token::Bool(value) => Unexpected::Bool(*value),
            Token::Unsigned(value) => Unexpected::Unsigned(*value),
            Token::Signed(value) => Unexpected::Signed(*value),
            Token::Float(value) => Unexpected::Float(*value),
            Token::Text(text) => Unexpected::Str(text),
            Token::Array => Unexpected::Seq,
            Token::Object => Unexpected::Map,
        };
        de::Error::invalid_type(found, expected)
    }
}

pub(super) struct Reader<'de> {
    json: &'de [u8],
    at: usize,
    depth: u32,
}

impl<'de> Reader<'de> {
    /// At the begin of a document.
    pub(super) fn new(json: &'de [u8]) -> Self {
        Self { json, at: 0, depth: 0 }
    }

    /// Where in the document, as people count.
    pub(super) fn place(&self) -> String {
        let before = self.json.get(..self.at).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        let mut place = b" at line ".to_vec();
        number::write_integer(&mut place, line as u64);
        place.extend(b" column ");
        number::write_integer(&mut place, column as u64);
        String::from_utf8(place).unwrap_or_default()
    }

    /// The next byte that is not blank.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    /// The next byte.
    fn byte(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    /// Past a byte, if it is the next that is not blank.
    pub(super) fn skip(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    pub(super) fn expect(&mut self, wanted: u8, otherwise: &str) -> Result<(), Fault> {
        if self.skip(wanted) { Ok(()) } else { Err(fault(otherwise)) }
    }

    pub(super) fn token(&mut self) -> Result<Token<'de>, Fault> {
        match self.peek() {
            None => Err(fault("the document ends where a value should be")),
            Some(b'n') => self.word(b"null", Token::Null),
            Some(b't') => self.word(b"true", Token::Bool(true)),
            Some(b'f') => self.word(b"false", Token::Bool(false)),
            Some(b'"') => {
                self.at += 1;
                self.text().map(Token::Text)
            }
            Some(b'[') => self.enter(Token::Array),
            Some(b'{') => self.enter(Token::Object),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(fault("expected a value")),
        }
    }

    pub(super) fn word(&mut self, word: &[u8], token: Token<'de>) -> Result<Token<'de>, Fault> {
        if !self.json.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            return Err(fault("expected a value"));
        }
        self.at += word.len();
        Ok(token)
    }

    fn enter(&mut self, token: Token<'de>) -> Result<Token<'de>, Fault> {
        self.at += 1;
        self.depth += 1;
        if self.depth > DEEPEST { Err(fault("nested too deep")) } else { Ok(token) }
    }

    fn digit(&mut self) -> Option<u64> {
        let digit = self.byte().filter(u8::is_ascii_digit)?;
        self.at += 1;
        Some(u64::from(digit - b'0'))
    }

    fn number(&mut self) -> Result<Token<'de>, Fault> {
        let negative = self.byte() == Some(b'-');
        self.at += usize::from(negative);
        let invalid = || fault("invalid number");
        let mut number = Digits { value: self.digit().ok_or_else(invalid)?, ..Digits::default() };
        // JSON has no zeros in front.
        while number.value != 0
            && let Some(digit) = self.digit()
        {
            number.push(digit, 0);
        }
        let mut whole = !number.full;
        if self.byte() == Some(b'.') {
            self.at += 1;
            whole = false;
            number.push(self.digit().ok_or_else(invalid)?, 1);
            while let Some(digit) = self.digit() {
                number.push(digit, 1);
            }
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            whole = false;
            let less = self.byte() == Some(b'-');
            self.at += usize::from(less || self.byte() == Some(b'+'));
            let mut exponent = self.digit().ok_or_else(invalid)?;
            while let Some(digit) = self.digit() {
                exponent = (exponent * 10 + digit).min(9999);
            }
            let exponent = exponent as i32;
            number.power += if less { -exponent } else { exponent };
        }
        let Digits { value: digits, power, .. } = number;
        if whole && !negative {
            return Ok(Token::Unsigned(digits));
        }
        if whole && digits != 0 && digits <= i64::MIN.unsigned_abs() {
            return Ok(Token::Signed((digits as i64).wrapping_neg()));
        }
        let value = number::join(digits, power);
        if value.is_infinite() {
            return Err(fault("number out of range"));
        }
        Ok(Token::Float(if negative { -value } else { value }))
    }

    /// A string, whose opening quote has been read; borrowed where it has no escapes.
    pub(super) fn text(&mut self) -> Result<Cow<'de, str>, Fault> {
        let mut owned: Option<Vec<u8>> = None;
        let utf8 = || fault("a string that is not UTF-8");
        loop {
            let rest = self.json.get(self.at..).unwrap_or_default();
            let length = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)).count();
            let piece = rest.get(..length).unwrap_or_default();
            self.at += length;
            let end = self.byte();
            self.at += usize::from(end.is_some());
            match (end, &mut owned) {
                (Some(b'"'), None) => return std::str::from_utf8(piece).map(Cow::Borrowed).map_err(|_| utf8()),
                (Some(b'"'), Some(owned)) => {
                    owned.extend(piece);
                    return String::from_utf8(std::mem::take(owned)).map(Cow::Owned).map_err(|_| utf8());
                }
                (Some(b'\\'), _) => {
                    let owned = owned.get_or_insert_with(Vec::new);
                    owned.extend(piece);
                    self.escape(owned)?;
                }
                (Some(_), _) => return Err(fault("a control character in a string")),
                (None, _) => return Err(fault("the document ends within a string")),
            }
        }
    }

    fn escape(&mut self, to: &mut Vec<u8>) -> Result<(), Fault> {
        let letter = self.byte();
        self.at += 1;
        let plain = match letter {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let mut code = self.hex()?;
                if (0xd800..0xdc00).contains(&code)
                    && self.json.get(self.at..).is_some_and(|rest| rest.starts_with(b"\\u"))
                {
                    self.at += 2;
                    // Two halves of one character; what is no second half makes none.
                    let low = self.hex()?.wrapping_sub(0xdc00);
                    code = if low < 0x400 { 0x10000 + ((code - 0xd800) << 10) + low } else { u32::MAX };
                }
                let letter = char::from_u32(code).ok_or_else(|| fault("an escape that is no character"))?;
                to.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(fault("invalid escape")),
        };
        to.push(plain);
        Ok(())
    }

    fn hex(&mut self) -> Result<u32, Fault> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| fault("invalid escape"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// Past the end of an array or an object.
    pub(super) fn leave(&mut self, end: u8) -> Result<(), Fault> {
        self.depth -= 1;
        self.expect(end, "expected a comma or the end")
    }
}

/// The digits of a number, and a power of ten.
#[derive(Default)]
struct Digits {
    value: u64,
    power: i32,
    /// Whether there were more digits than a `u64` holds. They only count.
    full: bool,
}

impl Digits {
    /// Another digit: before the point, or after it.
    fn push(&mut self, digit: u64, after_the_point: i32) {
        let more = self.value.checked_mul(10).and_then(|value| value.checked_add(digit));
        match more.filter(|_| !self.full) {
            Some(value) => {
                self.value = value;
                self.power -= after_the_point;
            }
            None => {
                self.full = true;
                self.power = self.power.saturating_add(1 - after_the_point);
            }
        }
    }
}
