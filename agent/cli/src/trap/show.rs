//! A record, and what came of running it again, as people read them.

use crate::look::{self, Look, Tone};
use crate::rerun::{Again, Frame, Record, Source};
use crate::table::list;

/// Paths of code that nobody debugs a function in: the language's own, and what others wrote.
const OTHERS: [&str; 5] = ["/rustc/", "/rust/deps/", "/library/", "/registry/src/", "/rustlib/"];

/// Calls that are shown.
const CALLS: usize = 40;

/// A record whole.
pub(super) fn record(record: &Record, look: &Look) -> String {
    let mut text = head(record, look);
    let section = |text: &mut String, name: &str| {
        text.push_str(&format!("\n{}\n", look.paint(Tone::Strong, name)));
    };
    section(&mut text, "event");
    let payload = match (&record.event.data, &record.event.base64) {
        (Some(data), _) => data.clone(),
        (None, Some(encoded)) => format!("base64 {encoded}"),
        (None, None) => String::new(),
    };
    text.push_str(&format!("{}\n", look::short(&payload, 2_000)));
    if !record.config.is_empty() {
        section(&mut text, "parameters");
        record.config.iter().for_each(|(name, value)| text.push_str(&format!("{name} = {value}\n")));
    }
    if !record.calls.is_empty() {
        section(&mut text, "what it asked, and was told");
        for (number, call) in record.calls.iter().take(CALLS).enumerate() {
            text.push_str(&format!("{:>3}  {} -> {}\n", number + 1, call.asked, call.told));
        }
        let more = record.recorded.saturating_sub(record.calls.len().min(CALLS) as u64);
        if more > 0 {
            text.push_str(&format!("     and {more} more: `--json` has them\n"));
        }
    }
    if !record.logs.is_empty() {
        section(&mut text, "log");
        record.logs.iter().for_each(|line| text.push_str(&format!("{} {}\n", line.level, line.message.trim_end())));
    }
    text.push_str(&format!("\nrun it again with `holm trap show {} --replay`\n", record.id));
    text
}

fn head(record: &Record, look: &Look) -> String {
    let fault = record.fault.as_deref().unwrap_or_default();
    let mut text = list(
        look,
        &[
            ("trap", record.id.clone()),
            ("function", format!("{} {}", look.paint(Tone::Strong, &record.function), record.version)),
            ("device", record.thing.clone().unwrap_or_else(|| record.device.clone())),
            ("when", format!("{}, after {}", look.moment(record.time), look::micros(record.wall_us as f64))),
            (
                "event",
                format!(
                    "{}, {} {}, attempt {}, {}",
                    record.event.id,
                    record.event.source,
                    record.event.subject,
                    record.event.attempt,
                    look::bytes(record.event.bytes)
                ),
            ),
            ("fault", look.paint(Tone::Bad, &format!("{}: {fault}", record.outcome))),
        ],
    );
    for cut in &record.cut {
        text.push_str(&format!("{} {cut}\n", look.paint(Tone::Warn, "not whole:")));
    }
    text
}

/// Whether it ended as it had: a backtrace goes on longer here, so its names are not compared.
pub(super) fn is_same(record: &Record, again: &Again) -> bool {
    let cause = |fault: &Option<String>| {
        fault.as_deref().and_then(|fault| fault.split(" at ").next()).unwrap_or_default().to_owned()
    };
    again.diverged.is_none() && again.outcome == record.outcome && cause(&again.fault) == cause(&record.fault)
}

/// What to do when the answers do not fit.
pub(super) fn after_divergence(record: &Record) -> String {
    if record.missing > 0 {
        return format!("the record ends there: what it was told until then is in `holm trap show {}`", record.id);
    }
    "is the clock, an address or the order of a hash map part of what it does? report this if not: the same component must ask the same"
        .to_owned()
}

/// What came of running it again.
pub(super) fn again(record: &Record, again: &Again, has_lines: bool, look: &Look) -> String {
    let mut text = head(record, look);
    let fault = again.fault.as_deref().and_then(|fault| fault.split(" at ").next()).unwrap_or_default();
    let verdict = match is_same(record, again) {
        true => look.paint(Tone::Good, &format!("the same {} again: {fault}", again.outcome)),
        false => look.paint(Tone::Bad, &format!("not the same: {} {fault}", again.outcome)),
    };
    text.push_str(&format!("{}  {verdict}\n", look.paint(Tone::Dim, "replay")));
    if let Some(own) = own_code(&again.frames) {
        text.push_str(&format!("{}      {}\n", look.paint(Tone::Dim, "at"), look.paint(Tone::Strong, &place(own))));
    }
    if !again.frames.is_empty() {
        text.push('\n');
    }
    for (number, frame) in again.frames.iter().enumerate() {
        if frame.lines.is_empty() {
            let name = frame.function.as_ref().map(|name| format!("{:#}", rustc_demangle::demangle(name)));
            let name = name.unwrap_or_else(|| format!("function {}", frame.index));
            text.push_str(&format!("{number:>3}  {name}\n"));
        }
        for (inlined, line) in frame.lines.iter().enumerate() {
            let number = if inlined == 0 { format!("{number:>3}") } else { "   ".to_owned() };
            let tone = if is_own(line) { Tone::Plain } else { Tone::Dim };
            text.push_str(&format!("{number}  {}\n", look.paint(tone, &place(line))));
        }
    }
    if !again.logs.is_empty() {
        text.push('\n');
        again.logs.iter().for_each(|line| text.push_str(&format!("{} {}\n", line.level, line.message.trim_end())));
    }
    if !has_lines && !again.frames.is_empty() {
        text.push_str(&format!(
            "{} no files and lines: the component was not built here with debugging information. Set `debug = \"line-tables-only\"` \
             and `strip = \"none\"` in [profile.release] and build that version with `holm build`, which keeps them\n",
            look.paint(Tone::Warn, "note:")
        ));
    }
    text
}

/// The innermost place in the author's own code.
fn own_code(frames: &[Frame]) -> Option<&Source> {
    frames.iter().flat_map(|frame| &frame.lines).find(|line| is_own(line))
}

fn is_own(line: &Source) -> bool {
    line.file.as_ref().is_some_and(|file| {
        !OTHERS.iter().any(|others| file.contains(others))
            && !file.starts_with("library/")
            && !file.contains("/.holm/sdk/")
    })
}

fn place(line: &Source) -> String {
    let function = line.function.as_deref().unwrap_or("a function without a name");
    match (&line.file, line.line) {
        (Some(file), Some(number)) => {
            let column = line.column.map(|column| format!(":{column}")).unwrap_or_default();
            format!("{function}  {file}:{number}{column}")
        }
        (Some(file), None) => format!("{function}  {file}"),
        (None, _) => function.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rerun::{Given, Told};

    fn trapped() -> Record {
        Record {
            id: "0123456789ab".into(),
            time: 1_648_108_800_000,
            device: "pi1".into(),
            function: "heat".into(),
            version: "0.1.0".into(),
            outcome: "trap".into(),
            fault: Some("unreachable at abort < handle".into()),
            event: Given {
                id: "e-1".into(),
                source: "mqtt".into(),
                subject: "a/b".into(),
                attempt: 1,
                bytes: 3,
                data: Some("{x}".into()),
                base64: None,
            },
            config: [("limit".to_owned(), "30".to_owned())].into(),
            calls: vec![Told { asked: "keyvalue.get n of heat".into(), told: "7".into() }],
            recorded: 2,
            cut: vec!["1 call had no room".into()],
            wall_us: 184,
            ..Record::default()
        }
    }

    #[test]
    fn a_record_says_what_was_given_and_told() {
        let expected = "\
trap      0123456789ab
function  heat 0.1.0
device    pi1
when      2022-03-24 08:00:00, after 184 µs
event     e-1, mqtt a/b, attempt 1, 3 B
fault     trap: unreachable at abort < handle
not whole: 1 call had no room

event
{x}

parameters
limit = 30

what it asked, and was told
  1  keyvalue.get n of heat -> 7
     and 1 more: `--json` has them

run it again with `holm trap show 0123456789ab --replay`
";
        assert_eq!(record(&trapped(), &Look::plain()), expected);
    }

    #[test]
    fn a_replay_points_at_the_authors_own_line() {
        let line = |function: &str, file: &str| Source {
            function: Some(function.into()),
            file: Some(file.into()),
            line: Some(12),
            column: Some(5),
        };
        let frame = |lines: Vec<Source>| Frame { function: Some("f".into()), lines, ..Frame::default() };
        let again = Again {
            outcome: "trap".into(),
            fault: Some("unreachable at abort < panic < handle".into()),
            frames: vec![
                frame(vec![line("abort", "/rustc/1/library/std/src/process.rs")]),
                frame(vec![line("heat::check", "src/lib.rs"), line("heat::handle", "src/lib.rs")]),
                Frame { function: Some("_ZN6guests6handle17h3aff07708048331bE".into()), ..Frame::default() },
            ],
            ..Again::default()
        };
        assert!(is_same(&trapped(), &again));
        let text = super::again(&trapped(), &again, true, &Look::plain());
        let (_, text) = text.split_once("replay").unwrap_or_default();
        let expected = "  the same trap again: unreachable
at      heat::check  src/lib.rs:12:5

  0  abort  /rustc/1/library/std/src/process.rs:12:5
  1  heat::check  src/lib.rs:12:5
     heat::handle  src/lib.rs:12:5
  2  guests::handle
";
        assert_eq!(text, expected);
        let other = Again { outcome: "ok".into(), fault: None, ..Again::default() };
        assert!(!is_same(&trapped(), &other));
        let diverged = Again { diverged: Some("x".into()), ..again };
        assert!(!is_same(&trapped(), &diverged));
    }
}
