//! Values to JSON.

use serde::ser::{self, Serialize};

use super::{Fault, number};
use crate::Error;

pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut out = Writer(Vec::new());
    value.serialize(&mut out).map_err(|fault| Error::Invalid(fault.0))?;
    Ok(out.0)
}

impl ser::Error for Fault {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn put(&mut self, text: &str) -> Result<(), Fault> {
        self.0.extend(text.as_bytes());
        Ok(())
    }

    fn string(&mut self, text: &str) -> Result<(), Fault> {
        self.0.push(b'"');
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => self.0.extend([b'\\', byte]),
                b'\n' => self.0.extend(b"\\n"),
                b'\r' => self.0.extend(b"\\r"),
                b'\t' => self.0.extend(b"\\t"),
                0x08 => self.0.extend(b"\\b"),
                0x0c => self.0.extend(b"\\f"),
                0..0x20 => {
                    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' - 10 + value };
                    self.0.extend([b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
                }
                _ => self.0.push(byte),
            }
        }
        self.0.push(b'"');
        Ok(())
    }

    fn signed(&mut self, value: i64) -> Result<(), Fault> {
        if value < 0 {
            self.0.push(b'-');
        }
        number::write_integer(&mut self.0, value.unsigned_abs());
        Ok(())
    }

    fn unsigned(&mut self, value: u64) -> Result<(), Fault> {
        number::write_integer(&mut self.0, value);
        Ok(())
    }

    /// `{"Variant":`, which the end of the variant closes.
    fn variant(&mut self, name: &str) -> Result<(), Fault> {
        self.put("{")?;
        self.string(name)?;
        self.put(":")
    }

    fn open(&mut self, begin: &str, end: &'static str) -> Result<Parts<'_>, Fault> {
        self.put(begin)?;
        Ok(Parts { out: self, first: true, end })
    }
}

/// An array or an object that is being written.
struct Parts<'a> {
    out: &'a mut Writer,
    first: bool,
    end: &'static str,
}

impl Parts<'_> {
    fn next(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.first, false) { Ok(()) } else { self.out.put(",") }
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.next()?;
        value.serialize(&mut *self.out)
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Fault> {
        self.next()?;
        self.out.string(name)?;
        self.out.put(":")?;
        value.serialize(&mut *self.out)
    }

    fn close(self) -> Result<(), Fault> {
        self.out.put(self.end)
    }
}

impl<'a> ser::Serializer for &'a mut Writer {
    type Ok = ();
    type Error = Fault;
    type SerializeSeq = Parts<'a>;
    type SerializeTuple = Parts<'a>;
    type SerializeTupleStruct = Parts<'a>;
    type SerializeTupleVariant = Parts<'a>;
    type SerializeMap = Parts<'a>;
    type SerializeStruct = Parts<'a>;
    type SerializeStructVariant = Parts<'a>;

    fn serialize_bool(self, value: bool) -> Result<(), Fault> {
        self.put(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), Fault> {
        self.signed(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), Fault> {
        self.signed(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), Fault> {
        self.signed(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), Fault> {
        self.signed(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Fault> {
        self.unsigned(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), Fault> {
        self.unsigned(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), Fault> {
        self.unsigned(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), Fault> {
        self.unsigned(value)
    }

    fn serialize_f32(self, value: f32) -> Result<(), Fault> {
        number::write_float(&mut self.0, value.into(), true);
        Ok(())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Fault> {
        number::write_float(&mut self.0, value, false);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Fault> {
        self.string(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Fault> {
        self.string(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Fault> {
        let mut parts = self.open("[", "]")?;
        for byte in value {
            parts.element(byte)?;
        }
        parts.close()
    }

    fn serialize_none(self) -> Result<(), Fault> {
        self.put("null")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Fault> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Fault> {
        self.put("null")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Fault> {
        self.put("null")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<(), Fault> {
        self.string(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Fault> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        value: &T,
    ) -> Result<(), Fault> {
        self.variant(name)?;
        value.serialize(&mut *self)?;
        self.put("}")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'a>, Fault> {
        self.open("[", "]")
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'a>, Fault> {
        self.open("[", "]")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Fault> {
        self.open("[", "]")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Fault> {
        self.variant(name)?;
        self.open("[", "]}")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'a>, Fault> {
        self.open("{", "}")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'a>, Fault> {
        self.open("{", "}")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        name: &'static str,
        _: usize,
    ) -> Result<Parts<'a>, Fault> {
        self.variant(name)?;
        self.open("{", "}}")
    }
}

/// Arrays, by all the names that serde has for them.
macro_rules! array {
    ($($shape:ident $method:ident)+) => { $(
        impl ser::$shape for Parts<'_> {
            type Ok = ();
            type Error = Fault;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
                self.element(value)
            }

            fn end(self) -> Result<(), Fault> {
                self.close()
            }
        }
    )+ };
}
array! {
    SerializeSeq serialize_element
    SerializeTuple serialize_element
    SerializeTupleStruct serialize_field
    SerializeTupleVariant serialize_field
}

/// Objects whose names are known.
macro_rules! object {
    ($($shape:ident)+) => { $(
        impl ser::$shape for Parts<'_> {
            type Ok = ();
            type Error = Fault;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Fault> {
                self.field(name, value)
            }

            fn end(self) -> Result<(), Fault> {
                self.close()
            }
        }
    )+ };
}
object! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for Parts<'_> {
    type Ok = ();
    type Error = Fault;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Fault> {
        self.next()?;
        let begin = self.out.0.len();
        key.serialize(&mut *self.out)?;
        // A name is a string: what is written as a number, or as true or false, gets its quotes.
        match self.out.0.get(begin) {
            Some(b'"') => Ok(()),
            Some(b'{' | b'[' | b'n') | None => Err(Fault("the name of a value must be a string".to_owned())),
            Some(_) => {
                self.out.0.insert(begin, b'"');
                self.out.put("\"")
            }
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Fault> {
        self.out.put(":")?;
        value.serialize(&mut *self.out)
    }

    fn end(self) -> Result<(), Fault> {
        self.close()
    }
}
