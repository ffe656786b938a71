//! Named values of a query or a JSON body, read so that every problem is found before anything is done.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use axum::body::Bytes;
use serde_json::Value;

use super::problem::Problem;

/// See the module. Take every field, then call [`Fields::finish`].
pub(crate) struct Fields {
    left: BTreeMap<String, Value>,
    problems: Vec<String>,
}

impl Fields {
    /// Of a query, as it is in the URL.
    pub(crate) fn of_query(query: Option<&str>) -> Self {
        let (mut left, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, value) in pairs(query.unwrap_or_default()) {
            if left.insert(name.clone(), Value::String(value)).is_some() {
                problems.push(format!("`{name}` comes twice"));
            }
        }
        Self { left, problems }
    }

    /// Of a JSON object. An empty body is an empty object.
    pub(crate) fn of_json(body: &Bytes) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self { left: BTreeMap::new(), problems: Vec::new() });
        }
        match serde_json::from_slice(body) {
            Ok(left) => Ok(Self { left, problems: Vec::new() }),
            Err(error) => Err(Problem::bad_request(vec![format!("the body is not a JSON object: {error}")])),
        }
    }

    /// Of an object within another.
    pub(super) fn of_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(map) => Ok(Self { left: map.into_iter().collect(), problems: Vec::new() }),
            _ => Err("not an object".to_owned()),
        }
    }

    /// A value that is checked by its type.
    pub(crate) fn parse<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = match self.left.remove(name)? {
            Value::Null => return None,
            Value::String(text) => text,
            other => other.to_string(),
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problems.push(format!("`{name}`: {error}"));
                None
            }
        }
    }

    /// A number within bounds.
    pub(crate) fn number(&mut self, name: &str, least: i64, most: i64) -> Option<i64> {
        let number = self.parse(name)?;
        if (least..=most).contains(&number) {
            return Some(number);
        }
        self.problems.push(format!("`{name}`: {number} is not between {least} and {most}"));
        None
    }

    /// One of some words.
    pub(crate) fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text: String = self.parse(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problems.push(format!("`{name}`: `{}` is none of {}", cut(&text), known.join(", ")));
        }
        found
    }

    /// A value as it is; `null` is none.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.left.remove(name).filter(|value| !value.is_null())
    }

    /// A list of texts. A number is one too: `"stages": [5, "100%"]`.
    pub(super) fn texts(&mut self, name: &str) -> Option<Vec<String>> {
        let text = |value: Value| match value {
            Value::String(text) => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let texts = match self.value(name)? {
            Value::Array(values) => values.into_iter().map(text).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.problems.push(format!("`{name}`: not a list of texts"));
        }
        texts
    }

    /// True or false; false if nothing is said.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.parse(name).unwrap_or_default()
    }

    /// Something that was found out elsewhere.
    pub(crate) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// Fails if anything was wrong, or is left that nobody took.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        match self.into_problems() {
            problems if problems.is_empty() => Ok(()),
            problems => Err(Problem::bad_request(problems)),
        }
    }

    /// All that was wrong, and what is left that nobody took.
    pub(super) fn into_problems(mut self) -> Vec<String> {
        self.problems.extend(self.left.keys().map(|name| format!("`{}` is not known here", cut(name))));
        self.problems
    }
}

fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// The pairs of a query (<https://url.spec.whatwg.org/#urlencoded-parsing>).
fn pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As a part of a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_taken_apart() {
        let mut fields = Fields::of_query(Some("series=a%2Fb+c&limit=5&device=%zz&x"));
        assert_eq!(fields.parse::<String>("series").unwrap(), "a/b c");
        assert_eq!(fields.number("limit", 1, 10), Some(5));
        assert_eq!(fields.parse::<String>("device").unwrap(), "%zz");
        assert_eq!(fields.parse::<String>("absent"), None);
        assert!(fields.finish().is_err(), "x is left");
    }

    #[test]
    fn what_is_encoded_comes_back() {
        for text in ["", "a b+c&d=e", "/fleet?q=ü", "100%"] {
            assert_eq!(decode(&encode(text)), text);
        }
    }

    #[test]
    fn every_problem_is_told() {
        let mut fields = Fields::of_query(Some("limit=0&order=up&limit=9&more=1&since=now"));
        assert_eq!(fields.number("limit", 1, 5), None);
        assert_eq!(fields.word("order", &[("first", 1), ("latest", 2)]), None);
        assert_eq!(fields.parse::<i64>("since"), None);
        let problem = format!("{:?}", fields.finish().unwrap_err());
        for told in ["comes twice", "not between 1 and 5", "none of first, latest", "`since`", "`more` is not known"] {
            assert!(problem.contains(told), "{told}: {problem}");
        }
    }
}
