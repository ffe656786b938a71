//! From TOML, in which cases are written, to JSON, in which nodes answer.

use std::collections::BTreeMap;

use holm_core::Section;
use serde_json::Value;
use toml::de::DeValue;

/// A value. Times are texts.
pub(super) fn value(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.into_owned()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.map_or(Value::Null, Value::from)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(value) => Value::from(value),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(values) => values.into_iter().map(|one| self::value(one.into_inner())).collect(),
        DeValue::Table(table) => {
            let fields = table.into_iter();
            fields.map(|(key, value)| (key.into_inner().into_owned(), self::value(value.into_inner()))).collect()
        }
    }
}

/// A table whose keys are the author's.
pub(super) fn entries(entries: Vec<(String, DeValue<'_>)>) -> BTreeMap<String, Value> {
    entries.into_iter().map(|(key, value)| (key, self::value(value))).collect()
}

/// A table of numbers; anything else in it is a problem.
pub(super) fn numbers(section: &mut Section<'_>) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    for (key, value) in entries(section.entries()) {
        match value.as_f64() {
            Some(number) => drop(numbers.insert(key, number)),
            None => section.problem(&key, "is not a number"),
        }
    }
    numbers
}
