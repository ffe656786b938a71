//! What people and programs are told of a run: lines, JSON, JUnit.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::case::{Case, File};
use super::run::Passed;
use crate::look::{self, Look, Tone};

/// A case that was run, or could not be.
pub(crate) struct Ran<'a> {
    pub(crate) file: &'a File,
    pub(crate) case: &'a Case,
    /// `Err` says why it could not be run.
    pub(crate) result: Result<Passed, String>,
}

impl Ran<'_> {
    pub(crate) fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|passed| passed.failed.is_none())
    }

    /// The line of what failed, and what there is to say of it.
    fn failure(&self, look: &Look) -> Option<(usize, String)> {
        let passed = match &self.result {
            Ok(passed) => passed,
            Err(why) => return Some((self.case.line, format!("    {}\n", why.replace('\n', "\n    ")))),
        };
        let (number, differences) = passed.failed.as_ref()?;
        let step = self.case.steps.get(number.checked_sub(1)?)?;
        let mut text = format!("    step {number}, {}, line {}\n", step.act.words(), step.line);
        for difference in differences {
            text.push_str(&difference.render(look));
        }
        let left = self.case.steps.len() - number;
        if left > 0 {
            let _ = writeln!(text, "    the {left} steps after it were not run");
        }
        Some((step.line, text))
    }

    /// For people.
    pub(crate) fn render(&self, look: &Look) -> String {
        let name = &self.case.name;
        match (self.failure(look), &self.result) {
            (Some((line, text)), _) => {
                let place = look.paint(Tone::Dim, &format!("{}:{line}", self.file.path.display()));
                format!("{}  {name}  {place}\n{text}", look.paint(Tone::Bad, "FAIL"))
            }
            (None, Ok(passed)) => {
                let figures = format!(
                    "{} invocations, at most {} and {}",
                    passed.invocations,
                    look::bytes(passed.peak_memory),
                    look::micros(passed.slowest.as_secs_f64() * 1e6)
                );
                format!("{}    {name}  {}\n", look.paint(Tone::Good, "ok"), look.paint(Tone::Dim, &figures))
            }
            _ => String::new(),
        }
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let file = self.file.path.display().to_string();
        let mut value = json!({ "file": file, "line": self.case.line, "name": self.case.name, "ok": self.is_good() });
        let Some(fields) = value.as_object_mut() else { return value };
        match &self.result {
            Err(why) => drop(fields.insert("error".into(), json!(why))),
            Ok(passed) => {
                fields.insert("invocations".into(), json!(passed.invocations));
                fields.insert("peak_memory".into(), json!(passed.peak_memory));
                fields.insert("slowest_us".into(), json!(passed.slowest.as_micros() as u64));
                fields.insert("ms".into(), json!(passed.took.as_millis() as u64));
                if let Some((step, differences)) = &passed.failed {
                    fields.insert("step".into(), json!(step));
                    fields.insert("differences".into(), json!(differences));
                }
            }
        }
        value
    }
}

/// The last line.
pub(crate) fn summary(all: &[Ran<'_>], took: Duration, look: &Look) -> String {
    let failed = all.iter().filter(|ran| !ran.is_good()).count();
    let end = match failed {
        0 => look.paint(Tone::Good, &format!("{} passed", all.len())),
        _ => look.paint(Tone::Bad, &format!("{failed} of {} failed", all.len())),
    };
    format!("{end} in {:.2} s\n", took.as_secs_f64())
}

/// JUnit's XML, as CI systems read it: <https://github.com/testmoapp/junitxml>.
pub(crate) fn junit(function: &str, all: &[Ran<'_>], took: Duration) -> String {
    let failed = all.iter().filter(|ran| ran.result.is_ok() && !ran.is_good()).count();
    let errors = all.iter().filter(|ran| ran.result.is_err()).count();
    let (function, tests, time) = (escape(function), all.len(), took.as_secs_f64());
    let counts = format!("tests=\"{tests}\" failures=\"{failed}\" errors=\"{errors}\" time=\"{time:.3}\"");
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n");
    let _ = writeln!(text, "  <testsuite name=\"{function}\" {counts}>");
    for ran in all {
        let file = escape(&ran.file.path.display().to_string());
        let time = ran.result.as_ref().map_or(0.0, |passed| passed.took.as_secs_f64());
        let (name, line) = (escape(&ran.case.name), ran.case.line);
        let head = format!(
            "    <testcase classname=\"{function}\" name=\"{name}\" file=\"{file}\" line=\"{line}\" time=\"{time:.3}\""
        );
        match ran.failure(&Look { color: false, zone: jiff::tz::TimeZone::UTC }) {
            None => {
                let _ = writeln!(text, "{head}/>");
            }
            Some((line, words)) => {
                let kind = if ran.result.is_ok() { "failure" } else { "error" };
                let message = format!("{file}:{line}");
                let words = escape(&words);
                let _ =
                    writeln!(text, "{head}>\n      <{kind} message=\"{message}\">{words}</{kind}>\n    </testcase>");
            }
        }
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

/// A text in XML 1.0: what it cannot hold at all becomes a replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xml_holds_any_text() {
        assert_eq!(escape("a<b> & \"c\"\n\u{1b}[31m"), "a&lt;b&gt; &amp; &quot;c&quot;\n\u{fffd}[31m");
    }
}
