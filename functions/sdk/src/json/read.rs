//! Values from JSON.

use std::borrow::Cow;

use serde::de::{self, Deserialize, DeserializeSeed, Expected, Unexpected, Visitor};

use super::{Fault, number};
use crate::Error;

/// How deep arrays and objects may nest: a function's stack is small.
const DEEPEST: u32 = 64;

pub(super) fn from_slice<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Error> {
    let mut reader = Reader { json, at: 0, depth: 0 };
    let value = T::deserialize(&mut reader).and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(fault("there is more after the value")),
    });
    value.map_err(|fault| Error::Invalid([&*fault.0, &*reader.place()].concat()))
}

fn fault(text: &str) -> Fault {
    Fault(text.to_owned())
}

/// What was found instead, in one word. Its value is not shown: that would take the code that formats numbers.
fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number",
        Unexpected::Str(_) | Unexpected::Char(_) => "a string",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "an array",
        Unexpected::Map => "an object",
        _ => "something else",
    }
}

impl de::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(["invalid type: ", kind(found), ", expected ", &expected.to_string()].concat())
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self(["invalid value: ", kind(found), ", expected ", &expected.to_string()].concat())
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self(["invalid length, expected ", &expected.to_string()].concat())
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self(["unknown variant `", variant, "`, expected one of `", &expected.join("`, `"), "`"].concat())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self(["unknown field `", field, "`, expected one of `", &expected.join("`, `"), "`"].concat())
    }

    fn missing_field(field: &'static str) -> Self {
        Self(["missing field `", field, "`"].concat())
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self(["duplicate field `", field, "`"].concat())
    }
}

/// A value, or where one begins.
enum Token<'de> {
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
    fn instead_of(&self, expected: &dyn Expected) -> Fault {
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

struct Reader<'de> {
    json: &'de [u8],
    at: usize,
    depth: u32,
}

impl<'de> Reader<'de> {
    /// Where in the document, as people count.
    fn place(&self) -> String {
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
    fn peek(&mut self) -> Option<u8> {
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
    fn skip(&mut self, wanted: u8) -> bool {
        let is_next = self.peek() == Some(wanted);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, wanted: u8, otherwise: &str) -> Result<(), Fault> {
        if self.skip(wanted) { Ok(()) } else { Err(fault(otherwise)) }
    }

    fn token(&mut self) -> Result<Token<'de>, Fault> {
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

    fn word(&mut self, word: &[u8], token: Token<'de>) -> Result<Token<'de>, Fault> {
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
    fn text(&mut self) -> Result<Cow<'de, str>, Fault> {
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

    /// An array, past its bracket.
    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fault> {
        let value = visitor.visit_seq(Parts { reader: self, first: true, end: b']' })?;
        self.leave(b']')?;
        Ok(value)
    }

    /// An object, past its brace.
    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Fault> {
        let value = visitor.visit_map(Parts { reader: self, first: true, end: b'}' })?;
        self.leave(b'}')?;
        Ok(value)
    }

    /// Past the end of an array or an object.
    fn leave(&mut self, end: u8) -> Result<(), Fault> {
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

/// What wants a number gets one. Every method has but the cases that can be right, because each is compiled for every
/// type that is read.
macro_rules! numbers {
    ($($method:ident)+) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.token()? {
                Token::Unsigned(value) => visitor.visit_u64(value),
                Token::Signed(value) => visitor.visit_i64(value),
                Token::Float(value) => visitor.visit_f64(value),
                other => Err(other.instead_of(&visitor)),
            }
        }
    )+ };
}

/// And what wants text, text.
macro_rules! texts {
    ($($method:ident)+) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.token()? {
                Token::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
                Token::Text(Cow::Owned(text)) => visitor.visit_string(text),
                other => Err(other.instead_of(&visitor)),
            }
        }
    )+ };
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = Fault;

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_f32 deserialize_f64
    }
    texts! { deserialize_char deserialize_str deserialize_string deserialize_identifier }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.token()? {
            Token::Bool(value) => visitor.visit_bool(value),
            other => Err(other.instead_of(&visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.token()? {
            Token::Array => self.array(visitor),
            other => Err(other.instead_of(&visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.token()? {
            Token::Object => self.object(visitor),
            other => Err(other.instead_of(&visitor)),
        }
    }

    /// By the names of its fields alone: an array for them would be read in the order of the source.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.token()? {
            Token::Null => visitor.visit_unit(),
            Token::Bool(value) => visitor.visit_bool(value),
            Token::Unsigned(value) => visitor.visit_u64(value),
            Token::Signed(value) => visitor.visit_i64(value),
            Token::Float(value) => visitor.visit_f64(value),
            Token::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Token::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Token::Array => self.array(visitor),
            Token::Object => self.object(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.peek() == Some(b'n') {
            self.word(b"null", Token::Null)?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.token()? {
            Token::Text(name) => visitor.visit_enum(de::value::CowStrDeserializer::new(name)),
            Token::Object => {
                let value = visitor.visit_enum(Variant(self))?;
                self.leave(b'}')?;
                Ok(value)
            }
            _ => Err(fault("expected a variant: a string, or an object with one value")),
        }
    }

    serde::forward_to_deserialize_any! { bytes byte_buf unit unit_struct ignored_any }
}

/// The values of an array or an object.
struct Parts<'a, 'de> {
    reader: &'a mut Reader<'de>,
    first: bool,
    end: u8,
}

impl Parts<'_, '_> {
    /// Whether there is another one; past the comma before it.
    fn next(&mut self) -> Result<bool, Fault> {
        if self.reader.peek() == Some(self.end) {
            return Ok(false);
        }
        if !std::mem::replace(&mut self.first, false) {
            self.reader.expect(b',', "expected a comma or the end")?;
        }
        Ok(true)
    }
}

impl<'de> de::SeqAccess<'de> for Parts<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if self.next()? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }
}

impl<'de> de::MapAccess<'de> for Parts<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        if !self.next()? {
            return Ok(None);
        }
        self.reader.expect(b'"', "expected a name in quotes")?;
        let name = self.reader.text()?;
        seed.deserialize(Name(name)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        self.reader.expect(b':', "expected a colon")?;
        seed.deserialize(&mut *self.reader)
    }
}

/// The name of a value in an object: text, or an integer in quotes.
struct Name<'de>(Cow<'de, str>);

/// Integers that names may be.
macro_rules! integer {
    ($($method:ident $visit:ident $kind:ty)+) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            match self.0.parse::<$kind>() {
                Ok(value) => visitor.$visit(value),
                Err(_) => self.deserialize_any(visitor),
            }
        }
    )+ };
}

impl<'de> de::Deserializer<'de> for Name<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    integer! {
        deserialize_i8 visit_i64 i64
        deserialize_i16 visit_i64 i64
        deserialize_i32 visit_i64 i64
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u64 u64
        deserialize_u16 visit_u64 u64
        deserialize_u32 visit_u64 u64
        deserialize_u64 visit_u64 u64
        deserialize_bool visit_bool bool
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_enum(de::value::CowStrDeserializer::new(self.0))
    }

    serde::forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// `{"Variant": ...`, after its brace.
struct Variant<'a, 'de>(&'a mut Reader<'de>);

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Fault> {
        self.0.expect(b'"', "expected a name in quotes")?;
        let name = self.0.text()?;
        let value = seed.deserialize(Name(name))?;
        self.0.expect(b':', "expected a colon")?;
        Ok((value, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Deserialize::deserialize(self.0)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        de::Deserializer::deserialize_any(self.0, visitor)
    }
}
