//! Against serde_json, which everybody believes, and for numbers against the standard library.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{from_slice, to_vec};

/// Xorshift: the same numbers every time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn text(&mut self) -> String {
        let letters = ['a', 'ß', '"', '\\', '\n', '\u{1}', '€', '🏝', '/', ' '];
        (0..self.below(8)).map(|_| letters[self.below(letters.len() as u64) as usize]).collect()
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.below(if depth == 0 { 6 } else { 8 }) {
            0 => Value::Null,
            1 => Value::Bool(self.next() & 1 == 1),
            2 => Value::from(self.next() >> self.below(64)),
            3 => Value::from((self.next() >> self.below(64)) as i64),
            4 => Value::from((self.below(2_000_000) as f64 - 1e6) / 1e3),
            5 => Value::from(self.text()),
            6 => (0..self.below(4)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.below(4))
                .map(|_| (self.text(), self.value(depth - 1)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

#[test]
fn any_value_is_read_and_written_as_serde_json_does() {
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let value = dice.value(4);
        let theirs = serde_json::to_vec(&value).unwrap();
        let ours = to_vec(&value).unwrap();
        assert_eq!(String::from_utf8(ours).unwrap(), String::from_utf8(theirs.clone()).unwrap());
        assert_eq!(from_slice::<Value>(&theirs).unwrap(), value);
        assert_eq!(from_slice::<Value>(&serde_json::to_vec_pretty(&value).unwrap()).unwrap(), value);
    }
}

#[test]
fn what_serde_json_refuses_is_refused() {
    let mut dice = Dice(11);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..50_000 {
        let mut text = serde_json::to_vec(&dice.value(3)).unwrap();
        for _ in 0..1 + dice.below(2) {
            let at = dice.below(text.len() as u64) as usize;
            let odd = b"\"\\{}[],:0123456789.eE+-tfn \x00\xff\x80u";
            match dice.below(3) {
                0 => text[at] = odd[dice.below(odd.len() as u64) as usize],
                1 => drop(text.remove(at)),
                _ => text.insert(at, odd[dice.below(odd.len() as u64) as usize]),
            }
            if text.is_empty() {
                break;
            }
        }
        let (ours, theirs) = (from_slice::<Value>(&text), serde_json::from_slice::<Value>(&text));
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{}: {ours:?}, {theirs:?}", String::from_utf8_lossy(&text));
        match theirs {
            Ok(_) => good += 1,
            Err(_) => bad += 1,
        }
    }
    assert!(good > 1000 && bad > 1000, "{good}, {bad}");
}

#[test]
fn a_number_that_is_written_reads_back_as_the_same() {
    let mut dice = Dice(13);
    for _ in 0..200_000 {
        let any = f64::from_bits(dice.next());
        let usual = (dice.below(2_000_000) as f64 - 1e6) / 10_f64.powi(dice.below(7) as i32);
        // Near the ends of the range, digits may be lost.
        let far = any != 0.0 && !(1e-250..1e280).contains(&any.abs());
        for value in [any, usual].into_iter().filter(|value| value.is_finite() && !(far && *value == any)) {
            let text = String::from_utf8(to_vec(&value).unwrap()).unwrap();
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{text}");
            assert_eq!(from_slice::<f64>(text.as_bytes()).unwrap().to_bits(), value.to_bits(), "{text}");
            let shortest = format!("{value:e}");
            let digits = |text: &str| text.bytes().take_while(|byte| *byte != b'e').filter(u8::is_ascii_digit).count();
            assert_eq!(digits(&format!("{:e}", text.parse::<f64>().unwrap())), digits(&shortest));
            assert!(text.len() <= 26, "{text}");
        }
        let single = f32::from_bits(dice.next() as u32);
        if single.is_finite() {
            let text = String::from_utf8(to_vec(&single).unwrap()).unwrap();
            assert_eq!(text.parse::<f32>().unwrap(), single, "{text}");
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i32, i32),
    Box { width: u8, height: Option<u16> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct All<'a> {
    #[serde(borrow)]
    text: &'a str,
    shapes: Vec<Shape>,
    by_number: BTreeMap<u32, bool>,
    by_name: BTreeMap<String, ()>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
    pair: (char, i8),
}

#[test]
fn every_shape_that_serde_has_is_written_and_read_as_serde_json_does() {
    let all = All {
        text: "plain",
        shapes: vec![
            Shape::Point,
            Shape::Circle(0.1),
            Shape::Line(-1, 2),
            Shape::Box { width: 1, height: None },
            Shape::Box { width: 2, height: Some(3) },
        ],
        by_number: [(1, true), (20, false)].into(),
        by_name: [("é".to_owned(), ())].into(),
        rest: [("more".to_owned(), serde_json::json!({"a": [1, -2, 2.5]}))].into(),
        pair: ('ß', -3),
    };
    let text = to_vec(&all).unwrap();
    assert_eq!(String::from_utf8(text.clone()).unwrap(), serde_json::to_string(&all).unwrap());
    assert_eq!(from_slice::<All<'_>>(&text).unwrap(), all);
}

#[test]
fn errors_say_what_and_where() {
    #[derive(Debug, Deserialize)]
    struct Reading {
        #[allow(dead_code)]
        celsius: f64,
    }
    for (text, words) in [
        ("{}", "invalid: missing field `celsius` at line 1 column 1"),
        ("{\"celsius\":\n \"warm\"}", "invalid: invalid type: a string, expected f64 at line 2 column 7"),
        ("[1]", "invalid: invalid type: an array, expected struct Reading at line 1 column 1"),
        ("warm", "invalid: expected a value at line 1 column 0"),
        ("", "invalid: the document ends where a value should be at line 1 column 0"),
        ("{\"celsius\":1} x", "invalid: there is more after the value at line 1 column 14"),
        ("{\"celsius\":1e999}", "invalid: number out of range at line 1 column 16"),
        ("{\"celsius\":1 \"a\":2}", "invalid: expected a comma or the end at line 1 column 13"),
    ] {
        assert_eq!(from_slice::<Reading>(text.as_bytes()).unwrap_err().to_string(), words, "{text}");
    }
    let deep = "[".repeat(100) + &"]".repeat(100);
    assert!(from_slice::<Value>(deep.as_bytes()).unwrap_err().to_string().contains("nested too deep"));
    assert!(to_vec(&BTreeMap::from([((1, 2), 3)])).unwrap_err().to_string().contains("must be a string"));
}
