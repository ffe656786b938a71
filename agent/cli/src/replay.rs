//! `holm replay`: a new version of a function, run over the events that the old one had, with nothing done, and held against
//! what that did.
//!
//! Each event is taken by itself: the new version is told what the old one was told at that event, its state above all. What it
//! asks beyond that has gone, and the event says so rather than being compared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use holm_bundle::{Bundle, BundleLimits};
use holm_core::ErrorCode;
use serde::Serialize;
use serde_json::Value;

use crate::build::{self, chain};
use crate::client::Client;
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::remote::query;
use crate::rerun::{Again, Component, Record, Rerun};
use crate::screen::Screen;

/// Events whose differences are shown, unless all are asked for.
const SHOWN: usize = 20;

/// What an invocation does, by the names that it has in JSON.
const EFFECTS: [&str; 4] = ["publishes", "state", "results", "enqueued"];

/// See `holm replay --help`.
#[derive(clap::Args)]
pub(crate) struct Replay {
    /// The new version: NAME@VERSION, whose bundle is here, a bundle, or a function's folder, which is built
    #[arg(long, value_name = "WHAT")]
    function: String,
    /// Only events that are so young
    #[arg(long, default_value = "1h", value_parser = holm_core::parse_duration, value_name = "TIME")]
    since: Duration,
    /// At most so many, the newest
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// Show all differences
    #[arg(long)]
    all: bool,
    /// As JSON, an event a line and then the sum
    #[arg(long)]
    json: bool,
}

/// How the new version did at one event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
enum Verdict {
    /// It did the same.
    Same,
    /// It did something else.
    Differs {
        /// Lines that begin with `-` or `+`.
        differences: Vec<String>,
    },
    /// Nothing can be said.
    NotComparable {
        /// Why.
        why: String,
    },
}

/// All of them.
#[derive(Debug, Default, Serialize)]
struct Sum {
    events: usize,
    same: usize,
    differ: usize,
    not_comparable: usize,
    /// The reasons, with how often.
    why: BTreeMap<String, usize>,
    /// Answers that were made up, with the number of events.
    made_up: BTreeMap<String, usize>,
    /// Versions that were recorded.
    versions: BTreeSet<String>,
    /// Time of the first event.
    from: i64,
}

impl Replay {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let path = self.bundle(screen)?;
        let unread = |error: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {error}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| unread(&error))?;
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(|error| unread(&chain(&error)))?;
        let (name, version) = (bundle.manifest.name.to_string(), bundle.manifest.version.to_string());
        let component = Component::open(&path)?;
        let mut rerun = Rerun::start(&component)?;

        let since = i64::try_from(self.since.as_millis()).unwrap_or(i64::MAX);
        let since = jiff::Timestamp::now().as_millisecond().saturating_sub(since);
        let fields = [
            ("function", Some(name.clone())),
            ("since", Some(since.to_string())),
            ("limit", self.limit.map(|limit| limit.to_string())),
        ];
        let mut records = client.stream(&query("/v1/recordings", &fields)).await?;
        let (mut sum, mut shown) = (Sum::default(), 0);
        while let Some(whole) = records.next().await? {
            let record: Record = serde_json::from_value(whole.clone()).unwrap_or_default();
            let again = rerun.again(&whole, Some(&bundle.manifest_text))?;
            let verdict = judge(&record, &again);
            sum.add(&record, &again, &verdict);
            if self.json {
                let event = serde_json::json!({ "event": record.event.id, "time": record.time, "verdict": verdict });
                screen.json(&event)?;
            } else if let Verdict::Differs { differences } = &verdict {
                shown += 1;
                if self.all || shown <= SHOWN {
                    let text = difference(&record, differences, &screen.look);
                    screen.text(&text)?;
                }
            }
        }
        if sum.events == 0 {
            return Err(Failure::new(format!("the node has no recordings of {name} of that time"))
                .next(format!(
                    "let events come, or ask for more with --since; see them with `holm events --function {name}`"
                ))
                .page(ErrorCode::RecordingsMissing));
        }
        if self.json {
            return screen.json(&serde_json::json!({ "sum": sum }));
        }
        if shown > SHOWN && !self.all {
            screen.line(format_args!("and {} more that differ: `--all` shows them\n", shown - SHOWN))?;
        }
        let text = total(&sum, &name, &version, &screen.look);
        screen.text(&text)
    }

    /// The new version's bundle.
    fn bundle(&self, screen: &Screen) -> Result<PathBuf, Failure> {
        let given = Path::new(&self.function);
        if given.is_dir() {
            return Ok(build::build(given, None, screen)?.bundle);
        }
        if given.is_file() {
            return Ok(given.to_owned());
        }
        let Some((name, version)) = self.function.split_once('@') else {
            return Err(Failure::new(format!("{} is neither a bundle nor a function's folder", given.display()))
                .next("name a file that `holm build` made, a folder with a holm.toml, or NAME@VERSION"));
        };
        let file = format!("{name}-{version}.holm");
        let places = [PathBuf::from(&file), Path::new(name).join(&file)];
        places.into_iter().find(|place| place.is_file()).ok_or_else(|| {
            Failure::new(format!("there is no {file} here, nor in {name}/"))
                .next("build that version with `holm build`, or name its bundle: --function FILE.holm")
        })
    }
}

/// Holds what it did against what the old one had done.
fn judge(record: &Record, again: &Again) -> Verdict {
    if let Some(why) = &again.error {
        return Verdict::NotComparable { why: why.clone() };
    }
    if let Some(diverged) = &again.diverged {
        let asked = diverged.split(" asked for ").nth(1).and_then(|rest| rest.split(" where ").next());
        let asked = asked.unwrap_or(diverged);
        return Verdict::NotComparable { why: format!("it asks {asked}, which was not asked then and has gone") };
    }
    let mut differences = Vec::new();
    let ended = |outcome: &str, fault: &Option<String>| match fault {
        Some(fault) => format!("{outcome}: {}", look::short(fault, 100)),
        None => outcome.to_owned(),
    };
    if record.outcome != again.outcome {
        differences.push(format!("- ended {}", ended(&record.outcome, &record.fault)));
        differences.push(format!("+ ended {}", ended(&again.outcome, &again.fault)));
    }
    let part = |did: &Value, name: &str| did.get(name).cloned().unwrap_or_default();
    for name in EFFECTS {
        compare(name, &part(&record.did, name), &part(&again.did, name), &mut differences);
    }
    let (before, after) = (part(&record.did, "answer"), part(&again.did, "answer"));
    if before != after {
        differences.push(format!("- answer {before}"));
        differences.push(format!("+ answer {after}"));
    }
    if differences.is_empty() { Verdict::Same } else { Verdict::Differs { differences } }
}

/// What is in one and not in the other; what both have, in another order, is said as well.
fn compare(name: &str, before: &Value, after: &Value, differences: &mut Vec<String>) {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (before, mut left) = (items(before), items(after));
    let all = left.clone();
    let mut gone = Vec::new();
    for item in &before {
        match left.iter().position(|other| other == item) {
            Some(at) => drop(left.remove(at)),
            None => gone.push(item),
        }
    }
    if gone.is_empty() && left.is_empty() && before != all && name != "state" {
        differences.push(format!("~ {name} in another order"));
    }
    differences.extend(gone.into_iter().map(|item| format!("- {name} {item}")));
    differences.extend(left.iter().map(|item| format!("+ {name} {item}")));
}

impl Sum {
    fn add(&mut self, record: &Record, again: &Again, verdict: &Verdict) {
        if self.events == 0 {
            self.from = record.time;
        }
        self.events += 1;
        self.versions.insert(record.version.clone());
        match verdict {
            Verdict::Same => self.same += 1,
            Verdict::Differs { .. } => self.differ += 1,
            Verdict::NotComparable { why } => {
                self.not_comparable += 1;
                *self.why.entry(why.clone()).or_default() += 1;
            }
        }
        for call in &again.made_up {
            *self.made_up.entry(call.clone()).or_default() += 1;
        }
    }
}

fn difference(record: &Record, differences: &[String], look: &Look) -> String {
    let mut text = format!(
        "{} {} {} {}\n",
        look.paint(Tone::Dim, &look.clock(record.time)),
        record.event.source,
        record.event.subject,
        look.paint(Tone::Dim, &record.event.id),
    );
    for line in differences {
        let tone = match line.as_bytes().first() {
            Some(b'-') => Tone::Bad,
            Some(b'+') => Tone::Good,
            _ => Tone::Warn,
        };
        text.push_str(&format!("  {}\n", look.paint(tone, &look::short(line, 400))));
    }
    text.push('\n');
    text
}

fn total(sum: &Sum, name: &str, version: &str, look: &Look) -> String {
    let old: Vec<&str> = sum.versions.iter().map(String::as_str).collect();
    let mut text = format!(
        "{} {version} over {} events of {}, from {} on: {} the same, {} differ, {} not comparable\n",
        look.paint(Tone::Strong, name),
        look::count(sum.events as u64),
        old.join(", "),
        look.moment(sum.from),
        look::count(sum.same as u64),
        look::count(sum.differ as u64),
        look::count(sum.not_comparable as u64),
    );
    for (why, count) in &sum.why {
        text.push_str(&format!("{} {count}: {why}\n", look.paint(Tone::Warn, "not comparable")));
    }
    for (call, count) in &sum.made_up {
        text.push_str(&format!(
            "{} {call}, which was not asked then, at {count} events\n",
            look.paint(Tone::Warn, "made up")
        ));
    }
    text.push_str(
        "each event had the state that the old version read at it; what the new one stored before is not in it\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(before: Value, after: Value, expected: &[&str]) {
        let record = Record { outcome: "ok".into(), did: before, ..Record::default() };
        let again = Again { outcome: "ok".into(), did: after, ..Again::default() };
        let found = match judge(&record, &again) {
            Verdict::Same => Vec::new(),
            Verdict::Differs { differences } => differences,
            Verdict::NotComparable { why } => vec![why],
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn says_what_is_not_done_any_more_and_what_is_done_instead() {
        check(json!({"publishes": [1, 2]}), json!({"publishes": [1, 2], "state": []}), &[]);
        check(json!({"publishes": [1, 2]}), json!({"publishes": [2, 3]}), &["- publishes 1", "+ publishes 3"]);
        check(json!({"publishes": [1, 2]}), json!({"publishes": [2, 1]}), &["~ publishes in another order"]);
        check(json!({"state": [1, 2]}), json!({"state": [2, 1]}), &[]);
        check(json!({"answer": "a"}), json!({"answer": null}), &["- answer \"a\"", "+ answer null"]);
    }

    #[test]
    fn what_the_old_one_did_not_ask_is_not_compared() {
        let words = "replay diverged at call 2: the guest asked for keyvalue.get x of f where the recording has no such question";
        let again = Again { diverged: Some(words.into()), ..Again::default() };
        let why = "it asks keyvalue.get x of f, which was not asked then and has gone".to_owned();
        let verdict = judge(&Record::default(), &again);
        assert_eq!(verdict, Verdict::NotComparable { why: why.clone() });
        let mut sum = Sum::default();
        let record = Record { version: "0.1.0".into(), ..Record::default() };
        sum.add(&record, &again, &verdict);
        sum.add(&record, &Again { made_up: vec!["random.u64".into()], ..Again::default() }, &Verdict::Same);
        let expected = format!(
            "f 0.2.0 over 2 events of 0.1.0, from 1970-01-01 00:00:00 on: 1 the same, 0 differ, 1 not comparable\n\
             not comparable 1: {why}\n\
             made up random.u64, which was not asked then, at 1 events\n\
             each event had the state that the old version read at it; what the new one stored before is not in it\n"
        );
        assert_eq!(total(&sum, "f", "0.2.0", &Look::plain()), expected);
    }
}
