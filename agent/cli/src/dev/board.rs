//! What the screen of `holm dev` shows: how the functions stand, what happened last, what they keep. No terminal in here.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::follow;
use crate::look::{self, Look, Tone};

/// Lines that are kept of each tail: more than fit most screens.
const LINES: usize = 300;

/// Invocations that latencies are told of.
const WALLS: usize = 500;

/// Everything that is shown.
#[derive(Debug, Default)]
pub(super) struct Board {
    /// Where the node is reached, and what else stands in the first line.
    pub(super) head: Vec<String>,
    /// In the order of the command line.
    pub(super) functions: Vec<Function>,
    /// Invocations and what they did.
    pub(super) events: Tail,
    /// What functions wrote, and what was said about builds.
    pub(super) logs: Tail,
    /// By function and key.
    pub(super) state: BTreeMap<(String, String), String>,
    /// Invocations since the start.
    pub(super) invocations: u64,
}

/// One function's folder.
#[derive(Debug, Default)]
pub(super) struct Function {
    /// Its folder, until a build says what it is called.
    pub(super) name: String,
    pub(super) version: String,
    pub(super) build: Build,
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    /// Of the last invocations, in microseconds.
    walls: VecDeque<f64>,
}

/// How a function's newest build stands.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Build {
    /// It waits for its turn.
    #[default]
    Waits,
    /// The compiler runs, or the node tries it. What ran before goes on.
    Goes {
        /// Whether there is something that goes on.
        over: bool,
    },
    /// It runs.
    Runs { bytes: u64, compiled: Duration, swapped: Duration },
    /// It failed.
    Failed {
        /// Whether the one before goes on.
        over: bool,
    },
}

impl Build {
    /// Whether some version of the function runs.
    pub(super) fn is_running(&self) -> bool {
        matches!(self, Self::Runs { .. } | Self::Goes { over: true } | Self::Failed { over: true })
    }

    /// For people, with what it means.
    pub(super) fn words(&self) -> (Tone, String) {
        let ms = |time: &Duration| look::micros(time.as_secs_f64() * 1e6);
        match self {
            Self::Waits => (Tone::Dim, "waits".to_owned()),
            Self::Goes { over: false } => (Tone::Warn, "builds".to_owned()),
            Self::Goes { over: true } => (Tone::Warn, "builds; the last good one runs".to_owned()),
            Self::Failed { over: false } => (Tone::Bad, "failed".to_owned()),
            Self::Failed { over: true } => (Tone::Bad, "failed; the last good one runs".to_owned()),
            Self::Runs { bytes, compiled, swapped } => {
                let size = look::bytes(*bytes);
                (Tone::Good, format!("runs: {size}, built {}, swap {}", ms(compiled), ms(swapped)))
            }
        }
    }
}

impl Function {
    pub(super) fn new(folder: &std::path::Path) -> Self {
        Self { name: PathBuf::from(folder).display().to_string(), ..Self::default() }
    }

    /// The latency that so many of a hundred invocations did not exceed; `None` before the first.
    pub(super) fn percentile(&self, hundredths: usize) -> Option<f64> {
        let mut walls: Vec<f64> = self.walls.iter().copied().collect();
        walls.sort_by(f64::total_cmp);
        let index = (walls.len() * hundredths).div_ceil(100).saturating_sub(1);
        walls.get(index).copied()
    }
}

/// The last lines of something.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<(Tone, String)>);

impl Tail {
    pub(super) fn push(&mut self, tone: Tone, text: &str) {
        for line in text.lines() {
            self.0.push_back((tone, line.replace('\t', "    ")));
        }
        while self.0.len() > LINES {
            self.0.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The last so many, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &(Tone, String)> {
        self.0.iter().skip(self.0.len().saturating_sub(count))
    }
}

impl Board {
    /// An invocation has ended.
    pub(super) fn take(&mut self, take: &Value, look: &Look) {
        self.invocations += 1;
        let plain = Look { color: false, zone: look.zone.clone() };
        let name = take.get("function").and_then(Value::as_str).unwrap_or_default();
        let good = take.get("outcome").and_then(Value::as_str) == Some("ok");
        if let Some(function) = self.functions.iter_mut().find(|function| function.name == name) {
            *(if good { &mut function.succeeded } else { &mut function.failed }) += 1;
            function.walls.extend(take.get("wall_us").and_then(Value::as_f64));
            while function.walls.len() > WALLS {
                function.walls.pop_front();
            }
        }
        self.events.push(if good { Tone::Plain } else { Tone::Bad }, &follow::render(take, &plain));
        for line in rows(take, "logs") {
            let level = line.get("level").and_then(Value::as_str).unwrap_or_default();
            let tone = if matches!(level, "warn" | "error" | "critical") { Tone::Warn } else { Tone::Plain };
            let message = line.get("message").and_then(Value::as_str).unwrap_or_default();
            self.logs.push(tone, &format!("{name} {level} {}", message.trim_end()));
        }
        for write in rows(take, "state") {
            let namespace = write.get("namespace").and_then(Value::as_str).unwrap_or(name);
            let key = write.get("key").and_then(Value::as_str).unwrap_or_default();
            self.keep(namespace, key, write.get("value"));
        }
    }

    /// What a function keeps under a key; nothing takes it away.
    pub(super) fn keep(&mut self, namespace: &str, key: &str, value: Option<&Value>) {
        let place = (namespace.to_owned(), key.to_owned());
        match value {
            None | Some(Value::Null) => drop(self.state.remove(&place)),
            Some(value) => drop(self.state.insert(place, follow::payload(Some(value)))),
        }
    }

    /// A build of a function begins.
    pub(super) fn begins(&mut self, index: usize) {
        if let Some(function) = self.functions.get_mut(index) {
            function.build = Build::Goes { over: function.build.is_running() };
        }
    }

    /// And has failed.
    pub(super) fn failed(&mut self, index: usize, words: &str) {
        if let Some(function) = self.functions.get_mut(index) {
            function.build = Build::Failed { over: function.build.is_running() };
        }
        self.logs.push(Tone::Bad, words);
    }
}

fn rows<'a>(take: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    take.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A run in which two functions were built, one of them again and in vain.
    pub(in crate::dev) fn board() -> Board {
        let mut board = Board { head: vec!["mqtt://127.0.0.1:1883".into()], ..Board::default() };
        board.functions = ["heat", "door"].map(|name| Function::new(std::path::Path::new(name))).into();
        let (compiled, swapped) = (Duration::from_millis(820), Duration::from_millis(90));
        for function in &mut board.functions {
            function.version = "0.1.0".into();
            function.build = Build::Runs { bytes: 180_000, compiled, swapped };
        }
        board.begins(1);
        board.failed(1, "error[E0308]: mismatched types\n  --> src/lib.rs:7:5");
        for (wall, outcome) in [(100, "ok"), (300, "ok"), (200, "trap")] {
            let take = serde_json::json!({
                "function": "heat", "time": 0, "outcome": outcome, "wall_us": wall,
                "event": {"source": "mqtt", "subject": "a/b", "attempt": 1, "data": "31.5"},
                "logs": [{"level": "warn", "message": "hot"}],
                "state": [{"namespace": "heat", "key": "n", "value": "7"}, {"namespace": "heat", "key": "m", "value": null}],
            });
            board.take(&take, &Look::plain());
        }
        board
    }

    #[test]
    fn a_board_counts_and_remembers() {
        let board = board();
        let [heat, door] = &board.functions[..] else { panic!("{board:?}") };
        assert_eq!((heat.succeeded, heat.failed, board.invocations), (2, 1, 3));
        assert_eq!((heat.percentile(50), heat.percentile(99), door.percentile(50)), (Some(200.0), Some(300.0), None));
        assert_eq!(door.build, Build::Failed { over: true });
        assert_eq!(board.state.get(&("heat".into(), "n".into())).map(String::as_str), Some("7"));
        assert_eq!(board.state.len(), 1);
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let mut tail = Tail::default();
        (0..LINES + 5).for_each(|number| tail.push(Tone::Plain, &number.to_string()));
        assert_eq!(tail.last(2).map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["303", "304"]);
        assert_eq!(tail.last(10_000).count(), LINES);
    }
}
