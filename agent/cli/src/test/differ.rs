//! What was expected against what there was.

use std::collections::BTreeMap;

use holm_core::Level;
use serde_json::Value;

use super::case::{Body, Expect, Message};
use crate::look::{Look, Tone};

/// What a step has led to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    /// What the function did, invocation by invocation, as the node's tape has it.
    pub(crate) takes: Vec<Value>,
    /// Its state. Only where it is asked for, as are those below.
    pub(crate) state: BTreeMap<String, Value>,
    /// Dead letters.
    pub(crate) dead_letters: u64,
    /// What lines are at.
    pub(crate) lines: BTreeMap<String, Level>,
    /// What a request was answered with.
    pub(crate) reply: Option<Reply>,
}

/// What a request was answered with.
#[derive(Debug, Clone, serde::Deserialize)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// By name in small letters.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// As text, or as the node shows bytes.
    #[serde(default)]
    pub(crate) body: Value,
}

/// One thing that is not as expected.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Difference {
    /// Which.
    pub(crate) what: &'static str,
    /// Line by line, for people.
    pub(crate) lines: Vec<Line>,
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "is", content = "text")]
pub(crate) enum Line {
    /// As expected.
    Same(String),
    /// Expected, and not there.
    Missing(String),
    /// There, and not expected.
    Extra(String),
}

impl Difference {
    /// A thing with one value.
    fn of(what: &'static str, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what, lines: vec![Line::Missing(expected.into()), Line::Extra(found.into())] }
    }

    /// Something that took too much.
    pub(crate) fn at_most(what: &'static str, most: impl std::fmt::Display, found: impl Into<String>) -> Self {
        Self::of(what, format!("at most {most}"), found)
    }

    /// For people: what was expected with a minus, what there was with a plus.
    pub(crate) fn render(&self, look: &Look) -> String {
        let mut text = format!("      {}\n", self.what);
        for line in &self.lines {
            let line = match line {
                Line::Same(same) => format!("          {same}"),
                Line::Missing(missing) => look.paint(Tone::Bad, &format!("        - {missing}")),
                Line::Extra(extra) => look.paint(Tone::Good, &format!("        + {extra}")),
            };
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// Everything that is not as expected.
pub(crate) fn differences(expect: &Expect, found: &Found, tolerance: f64) -> Vec<Difference> {
    let mut all = Vec::new();
    let field = |take: &Value, name: &str| take.get(name).cloned().unwrap_or_default();
    let each = |name: &str| -> Vec<Value> {
        found.takes.iter().flat_map(|take| field(take, name).as_array().cloned().unwrap_or_default()).collect()
    };
    let last = found.takes.last();
    if let Some(expected) = expect.invocations
        && expected != found.takes.len() as u64
    {
        let mut difference = Difference::of("invocations", expected.to_string(), found.takes.len().to_string());
        difference.lines.extend(found.takes.iter().map(|take| Line::Same(invocation(take))));
        all.push(difference);
    }
    if let Some(expected) = &expect.outcome {
        let outcome = last.map_or("it did not run".to_owned(), |take| text(&field(take, "outcome")));
        if outcome != *expected {
            all.push(Difference::of("outcome", expected, with_fault(&outcome, last)));
        }
    } else if let Some(take) = last
        && field(take, "outcome") != "ok"
    {
        // A handler that fails where nothing is said of it is never what was meant.
        all.push(Difference::of("outcome", "ok", with_fault(&text(&field(take, "outcome")), last)));
    }
    if let Some(expected) = &expect.answer {
        let answer = last.map(|take| field(take, "answer")).filter(|answer| !answer.is_null());
        let answer = answer.map(|answer| parsed(&answer));
        if !answer.as_ref().is_some_and(|answer| same(expected, answer, tolerance)) {
            all.push(Difference::of("answer", expected.to_string(), answer.map_or("none".into(), |it| it.to_string())));
        }
    }
    if let Some(expected) = &expect.publishes {
        let found = each("publishes");
        all.extend(sequence("publishes", expected, &found, Message::words, publish, |expected, found| {
            fits(expected, found, tolerance)
        }));
    }
    if let Some(expected) = &expect.results {
        let found = each("results");
        let words = |(series, value): &(String, Value)| format!("{series} {value}");
        let told = |row: &Value| format!("{} {}", text(&field(row, "series")), field(row, "value"));
        all.extend(sequence("results", expected, &found, words, told, |(series, value), row| {
            field(row, "series") == **series && same(value, &field(row, "value"), tolerance)
        }));
    }
    if let Some(expected) = &expect.state {
        all.extend(state(expected, &found.state, tolerance));
    }
    if let Some(expected) = &expect.logs {
        let lines: Vec<String> = each("logs").iter().map(|line| text(&field(line, "message"))).collect();
        all.extend(logs(expected, &lines));
    }
    if let Some(expected) = expect.dead_letters
        && expected != found.dead_letters
    {
        all.push(Difference::of("dead letters", expected.to_string(), found.dead_letters.to_string()));
    }
    for (line, level) in expect.lines.iter().flatten() {
        let now = found.lines.get(line);
        if now != Some(level) {
            let now = now.map_or("this node has no such line", |level| level.as_str());
            all.push(Difference::of("lines", format!("{line} {}", level.as_str()), format!("{line} {now}")));
        }
    }
    all.extend(reply(expect, found.reply.as_ref(), tolerance));
    all
}

/// What a request was answered with.
fn reply(expect: &Expect, found: Option<&Reply>, tolerance: f64) -> Vec<Difference> {
    let mut all = Vec::new();
    let none = || "it was no request".to_owned();
    if let Some(status) = expect.status
        && found.is_none_or(|found| found.status != status)
    {
        let found = found.map_or_else(none, |found| format!("{} {}", found.status, text(&found.body)));
        all.push(Difference::of("status", status.to_string(), found));
    }
    for (name, wanted) in &expect.headers {
        let value = found.and_then(|found| found.headers.get(name));
        if value != Some(wanted) {
            let value = found.map_or_else(none, |_| value.cloned().unwrap_or_else(|| "is not there".to_owned()));
            all.push(Difference::of("headers", format!("{name}: {wanted}"), format!("{name}: {value}")));
        }
    }
    let fits = |body: &Body, found: &Value| match body {
        Body::Text(wanted) => *found == **wanted,
        Body::Json(wanted) => same(wanted, &parsed(found), tolerance),
        Body::Has(wanted) => has(wanted, &parsed(found), tolerance),
    };
    if let Some(body) = &expect.body
        && !found.is_some_and(|found| fits(body, &found.body))
    {
        let wanted = match body {
            Body::Text(text) => text.clone(),
            Body::Json(value) | Body::Has(value) => value.to_string(),
        };
        all.push(Difference::of("body", wanted, found.map_or_else(none, |found| text(&parsed(&found.body)))));
    }
    all
}

impl Message {
    fn words(&self) -> String {
        let payload = match &self.payload {
            None => String::new(),
            Some(Body::Text(text)) => format!(" {text}"),
            Some(Body::Json(value)) => format!(" {value}"),
            Some(Body::Has(value)) => format!(" at least {value}"),
        };
        let qos = self.qos.map_or_else(String::new, |qos| format!(" qos {qos}"));
        let retain = self.retain.map_or("", |retain| if retain { " retained" } else { " not retained" });
        format!("{}{payload}{qos}{retain}", self.topic)
    }
}

/// A message on the tape, for people.
fn publish(message: &Value) -> String {
    let field = |name: &str| message.get(name).cloned().unwrap_or_default();
    let retained = if field("retain") == true { " retained" } else { "" };
    format!("{} {} qos {}{retained}", text(&field("topic")), text(&parsed(&field("payload"))), field("qos"))
}

fn fits(expected: &Message, found: &Value, tolerance: f64) -> bool {
    let field = |name: &str| found.get(name).cloned().unwrap_or_default();
    let payload = field("payload");
    let fits = match &expected.payload {
        None => true,
        Some(Body::Text(text)) => payload == **text,
        Some(Body::Json(value)) => same(value, &parsed(&payload), tolerance),
        Some(Body::Has(value)) => has(value, &parsed(&payload), tolerance),
    };
    field("topic") == *expected.topic
        && fits
        && expected.qos.is_none_or(|qos| field("qos") == qos)
        && expected.retain.is_none_or(|retain| field("retain") == retain)
}

/// Two lists, side by side in their order: up to the first pair that differs they are the same, and so are they from the
/// end on.
fn sequence<E, F>(
    what: &'static str,
    expected: &[E],
    found: &[F],
    words: impl Fn(&E) -> String,
    told: impl Fn(&F) -> String,
    fits: impl Fn(&E, &F) -> bool,
) -> Option<Difference> {
    let pairs = || expected.iter().zip(found);
    let head = pairs().take_while(|(expected, found)| fits(expected, found)).count();
    if head == expected.len() && head == found.len() {
        return None;
    }
    let ends = expected.iter().skip(head).rev().zip(found.iter().skip(head).rev());
    let tail = ends.take_while(|(expected, found)| fits(expected, found)).count();
    let mut lines: Vec<Line> = found.iter().take(head).map(|one| Line::Same(told(one))).collect();
    let missing = expected.iter().take(expected.len() - tail).skip(head);
    let extra = found.iter().take(found.len() - tail).skip(head);
    lines.extend(missing.map(|one| Line::Missing(words(one))));
    lines.extend(extra.map(|one| Line::Extra(told(one))));
    lines.extend(found.iter().skip(found.len() - tail).map(|one| Line::Same(told(one))));
    Some(Difference { what, lines })
}

fn state(expected: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>, tolerance: f64) -> Option<Difference> {
    let mut lines = Vec::new();
    let mut differs = false;
    let mut keys: Vec<&String> = expected.keys().chain(found.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (wanted, there) = (expected.get(key), found.get(key).map(parsed));
        match (wanted, there) {
            (Some(wanted), Some(there)) if same(wanted, &there, tolerance) => {
                lines.push(Line::Same(format!("{key} = {there}")));
                continue;
            }
            (wanted, there) => {
                lines.extend(wanted.map(|wanted| Line::Missing(format!("{key} = {wanted}"))));
                lines.extend(there.map(|there| Line::Extra(format!("{key} = {there}"))));
            }
        }
        differs = true;
    }
    differs.then_some(Difference { what: "state", lines })
}

/// Every text is in a line of its own, in order; other lines may be between.
fn logs(expected: &[String], lines: &[String]) -> Option<Difference> {
    let mut rest = lines.iter();
    let missing: Vec<&String> =
        expected.iter().filter(|wanted| !rest.by_ref().any(|line| line.contains(wanted.as_str()))).collect();
    if missing.is_empty() {
        return None;
    }
    let missing = missing.into_iter().map(|wanted| Line::Missing(wanted.clone()));
    Some(Difference { what: "logs", lines: missing.chain(lines.iter().cloned().map(Line::Same)).collect() })
}

/// A payload as JSON where it is JSON, else as it is.
fn parsed(payload: &Value) -> Value {
    match payload.as_str().map(serde_json::from_str) {
        Some(Ok(value)) => value,
        _ => payload.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn with_fault(outcome: &str, take: Option<&Value>) -> String {
    let fault = take.and_then(|take| take.get("fault")).and_then(Value::as_str);
    fault.map_or_else(|| outcome.to_owned(), |fault| format!("{outcome}: {fault}"))
}

fn invocation(take: &Value) -> String {
    let event = take.get("event").cloned().unwrap_or_default();
    let field = |name: &str| event.get(name).map(text).unwrap_or_default();
    let outcome = take.get("outcome").map(text).unwrap_or_default();
    format!(
        "{} {}, attempt {}: {}",
        field("source"),
        field("subject"),
        field("attempt"),
        with_fault(&outcome, Some(take))
    )
}

/// Equal, but for numbers, which may be a little off.
fn same(expected: &Value, found: &Value, tolerance: f64) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => a == b || near(a.as_f64(), b.as_f64(), tolerance),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b, tolerance)))
        }
        (a, b) => a == b,
    }
}

/// The same, but objects may have more fields than expected.
fn has(expected: &Value, found: &Value, tolerance: f64) -> bool {
    match (expected, found) {
        (Value::Object(a), Value::Object(b)) => {
            a.iter().all(|(key, a)| b.get(key).is_some_and(|b| has(a, b, tolerance)))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| has(a, b, tolerance)),
        (a, b) => same(a, b, tolerance),
    }
}

/// Within the tolerance, or within the part of it that the size of the number makes.
fn near(a: Option<f64>, b: Option<f64>, tolerance: f64) -> bool {
    let (Some(a), Some(b)) = (a, b) else { return false };
    (a - b).abs() <= tolerance * a.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(topic: &str, value: Value) -> Message {
        Message { topic: topic.to_owned(), payload: Some(Body::Json(value)), qos: None, retain: None }
    }

    fn take(publishes: Value) -> Value {
        json!({ "outcome": "ok", "publishes": publishes, "results": [{"series": "n", "value": 2}], "logs": [{"message": "one two"}] })
    }

    /// What people read of the differences between these.
    fn check(expect: Expect, found: Found, expected: &str) {
        let text: String =
            differences(&expect, &found, 1e-9).iter().map(|difference| difference.render(&Look::plain())).collect();
        assert_eq!(text, expected);
    }

    #[test]
    fn shows_what_is_missing_and_what_is_too_much_between_what_is_the_same() {
        let sent = |n: u64| json!({"topic": "t", "payload": format!("{{\"n\":{n}}}"), "qos": 1, "retain": false});
        let publishes =
            Some(vec![message("t", json!({"n": 1})), message("t", json!({"n": 2})), message("t", json!({"n": 4}))]);
        let found = Found { takes: vec![take(json!([sent(1), sent(3), sent(4)]))], ..Found::default() };
        check(
            Expect { publishes, ..Expect::default() },
            found.clone(),
            "      publishes\n          t {\"n\":1} qos 1\n        - t {\"n\":2}\n        + t {\"n\":3} qos 1\n          t {\"n\":4} qos 1\n",
        );
        check(Expect { results: Some(vec![("n".into(), json!(2.0))]), ..Expect::default() }, found.clone(), "");
        check(Expect { logs: Some(vec!["two".into()]), ..Expect::default() }, found.clone(), "");
        check(
            Expect { logs: Some(vec!["three".into()]), ..Expect::default() },
            found,
            "      logs\n        - three\n          one two\n",
        );
    }

    #[test]
    fn a_fault_that_nobody_expected_is_told() {
        let found = Found { takes: vec![json!({"outcome": "trap", "fault": "unreachable"})], ..Found::default() };
        check(Expect::default(), found.clone(), "      outcome\n        - ok\n        + trap: unreachable\n");
        check(Expect { outcome: Some("trap".into()), ..Expect::default() }, found, "");
    }

    #[test]
    fn state_is_the_whole_of_it() {
        let state = BTreeMap::from([("a".to_owned(), json!("1")), ("b".to_owned(), json!("text"))]);
        let found = Found { state, ..Found::default() };
        let expected = BTreeMap::from([("a".to_owned(), json!(1)), ("c".to_owned(), json!(true))]);
        check(
            Expect { state: Some(expected), ..Expect::default() },
            found,
            "      state\n          a = 1\n        + b = \"text\"\n        - c = true\n",
        );
    }

    #[test]
    fn part_of_an_object_is_enough_where_that_is_what_is_asked() {
        assert!(has(&json!({"a": {"b": 1}}), &json!({"a": {"b": 1.0, "c": 2}, "d": 3}), 1e-9));
        assert!(!has(&json!({"a": {"b": 1}}), &json!({"a": {"c": 2}}), 1e-9));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": 2}), 1e-9));
        assert!(same(&json!([20.0]), &json!([20.04]), 0.05));
    }
}
