//! What an invocation has staged so far, and how much more it may.
//!
//! Nothing here is visible to anyone but the guest itself, which reads its own writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Effects, Enqueue, LogLevel, LogLine, Payload, Publish, ReadSet, ResultRow, StateWrite};

use crate::capability::Grants;
use crate::secret::Revealed;

/// Publishes, results and enqueues of one invocation: a row each in the store, however small.
const MAX_EFFECTS: usize = 1024;
/// Keys that one invocation may read or write: each is remembered on the node's side.
const MAX_KEYS: usize = 8192;
/// What a log line costs beside its text, so that empty lines are not free.
const LINE_OVERHEAD: u64 = 32;
/// A line without a newline is cut here.
const MAX_LINE: usize = 4096;

/// What a payload counts. Its type is as long as the guest makes it.
fn size(payload: &Payload) -> usize {
    payload.data.len() + payload.content_type.as_ref().map_or(0, |text| text.len())
}

/// Why something cannot be staged.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It alone is more than the limit.
    TooLarge(u64),
    /// There was room, but no more.
    Full,
}

/// A key that was read or written.
#[derive(Debug, Default)]
struct Cell {
    /// What was there when it was read, until another function may have changed it.
    seen: Option<Option<Bytes>>,
    /// The lowest version that was read: everything that was read must still stand at the end.
    version: Option<u64>,
    /// The last write that is staged here; `Some(None)` is a deletion.
    written: Option<Option<Bytes>>,
    /// What the last write counts against the limit, also when it has been handed over.
    cost: u64,
}

/// Everything staged, with what counts against the limits.
#[derive(Debug, Default)]
pub(crate) struct Staging {
    publishes: Vec<Publish>,
    results: Vec<ResultRow>,
    enqueues: Vec<Enqueue>,
    /// Publishes, results and enqueues so far, also those that have been handed over.
    effects: usize,
    bytes_out: u64,
    /// By namespace handle. Ordered, so that the same run stages the same list.
    keys: BTreeMap<u32, BTreeMap<Arc<str>, Cell>>,
    key_count: usize,
    kv_bytes: u64,
    /// Where pages of keys ended: a cursor is an index.
    cursors: Vec<Arc<str>>,
    logs: Vec<LogLine>,
    log_bytes: u64,
    log_cut: u64,
    /// Text on stdout and stderr that has no newline yet.
    open_lines: [Vec<u8>; 2],
    /// Secrets that the guest has read.
    pub(crate) revealed: Revealed,
}

impl Staging {
    /// Takes room for something that will leave.
    fn take_output(&mut self, grants: &Grants, bytes: usize) -> Result<(), Refused> {
        let bytes = bytes as u64;
        if bytes > grants.output {
            return Err(Refused::TooLarge(grants.output));
        }
        if self.bytes_out + bytes > grants.output || self.effects >= MAX_EFFECTS {
            return Err(Refused::Full);
        }
        self.bytes_out += bytes;
        self.effects += 1;
        Ok(())
    }

    pub(crate) fn publish(&mut self, grants: &Grants, publish: Publish) -> Result<(), Refused> {
        let properties: usize = publish.user_properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.take_output(grants, publish.topic.as_str().len() + size(&publish.payload) + properties)?;
        self.publishes.push(publish);
        Ok(())
    }

    pub(crate) fn result(&mut self, grants: &Grants, row: ResultRow) -> Result<(), Refused> {
        self.take_output(grants, row.series.len() + row.json.len())?;
        self.results.push(row);
        Ok(())
    }

    pub(crate) fn enqueue(&mut self, grants: &Grants, enqueue: Enqueue) -> Result<(), Refused> {
        self.take_output(grants, size(&enqueue.input))?;
        self.enqueues.push(enqueue);
        Ok(())
    }

    /// Counts the handler's answer, which is bytes like the others but no row; true if it may leave.
    pub(crate) fn answer(&mut self, grants: &Grants, bytes: usize) -> bool {
        let total = self.bytes_out + bytes as u64;
        let fits = total <= grants.output;
        if fits {
            self.bytes_out = total;
        }
        fits
    }

    pub(crate) fn bytes_out(&self) -> u64 {
        self.bytes_out
    }

    /// What the invocation knows about a key: `None` if it must ask.
    pub(crate) fn known(&self, namespace: u32, key: &str) -> Option<Option<Bytes>> {
        let cell = self.keys.get(&namespace)?.get(key)?;
        cell.written.clone().or_else(|| cell.seen.clone())
    }

    fn cell(&mut self, namespace: u32, key: Arc<str>) -> Result<&mut Cell, Refused> {
        let keys = self.keys.entry(namespace).or_default();
        if !keys.contains_key(&key) {
            if self.key_count >= MAX_KEYS {
                return Err(Refused::Full);
            }
            self.key_count += 1;
        }
        Ok(keys.entry(key).or_default())
    }

    /// Remembers what was read, so that the invocation sees one value and the dispatcher can check it.
    pub(crate) fn saw(&mut self, namespace: u32, key: &str, value: Option<Bytes>, version: u64) -> Result<(), Refused> {
        let cell = self.cell(namespace, key.into())?;
        cell.seen = Some(value);
        cell.version = Some(cell.version.map_or(version, |before| before.min(version)));
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        grants: &Grants,
        namespace: u32,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), Refused> {
        let now = value.as_ref().map_or(0, Bytes::len) as u64 + key.len() as u64;
        if now > grants.kv {
            return Err(Refused::TooLarge(grants.kv));
        }
        let kv_bytes = self.kv_bytes;
        let cell = self.cell(namespace, key.into())?;
        let total = (kv_bytes + now).saturating_sub(cell.cost);
        if total > grants.kv {
            return Err(Refused::Full);
        }
        cell.written = Some(value);
        cell.cost = now;
        self.kv_bytes = total;
        Ok(())
    }

    /// Lays the staged writes over a page of keys that begins after `after` and ends with `until` (or nowhere).
    pub(crate) fn overlay(&self, namespace: u32, after: Option<&str>, until: Option<&str>, page: &mut Vec<Arc<str>>) {
        let Some(keys) = self.keys.get(&namespace) else { return };
        page.retain(|key| !matches!(keys.get(key), Some(Cell { written: Some(None), .. })));
        let here = |key: &str| after.is_none_or(|after| key > after) && until.is_none_or(|until| key <= until);
        let written = keys.iter().filter(|(key, cell)| here(key) && matches!(cell.written, Some(Some(_))));
        page.extend(written.map(|(key, _)| key.clone()));
        page.sort();
        page.dedup();
    }

    /// Where the page ended that `cursor` was given for.
    pub(crate) fn cursor(&self, cursor: u64) -> Option<Arc<str>> {
        self.cursors.get(usize::try_from(cursor).ok()?).cloned()
    }

    /// A cursor that goes on after `key`.
    pub(crate) fn remember_cursor(&mut self, key: Arc<str>) -> Result<u64, Refused> {
        if self.cursors.len() >= MAX_KEYS {
            return Err(Refused::Full);
        }
        self.cursors.push(key);
        Ok(self.cursors.len() as u64 - 1)
    }

    /// A line of log, without secrets: kept, or counted when there is no room.
    pub(crate) fn log(&mut self, grants: &Grants, level: LogLevel, context: &str, message: &str) {
        // Before anything is cut, because a part of a secret is not found.
        let (context, message) = (self.revealed.hide(context.to_owned()), self.revealed.hide(message.to_owned()));
        let (context, message) = (context.as_str(), message.as_str());
        let room = grants.log.saturating_sub(self.log_bytes);
        let cost = (context.len() + message.len()) as u64 + LINE_OVERHEAD;
        if cost <= room {
            self.log_bytes += cost;
            self.logs.push(LogLine { level, context: context.to_owned(), message: message.to_owned() });
            return;
        }
        let fits = usize::try_from(room.saturating_sub(context.len() as u64 + LINE_OVERHEAD)).unwrap_or(0);
        let (kept, cut) = message.split_at(message.floor_char_boundary(fits));
        if !kept.is_empty() {
            self.logs.push(LogLine { level, context: context.to_owned(), message: kept.to_owned() });
        }
        // Full from here on, so that what is kept is the beginning without holes.
        self.log_bytes = grants.log;
        self.log_cut += cut.len() as u64;
    }

    /// Text on stdout (`stderr` false) or stderr: a line of log for each of its lines.
    pub(crate) fn print(&mut self, grants: &Grants, stderr: bool, text: &[u8]) {
        let [out, err] = &mut self.open_lines;
        let mut line = std::mem::take(if stderr { err } else { out });
        for piece in text.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece.get(..piece.len().min(MAX_LINE)).unwrap_or(piece));
            if line.last() == Some(&b'\n') || line.len() >= MAX_LINE {
                self.print_line(grants, stderr, &line);
                line.clear();
            }
        }
        let [out, err] = &mut self.open_lines;
        *(if stderr { err } else { out }) = line;
    }

    fn print_line(&mut self, grants: &Grants, stderr: bool, line: &[u8]) {
        let (level, context) = if stderr { (LogLevel::Warn, "stderr") } else { (LogLevel::Info, "stdout") };
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if !text.is_empty() {
            self.log(grants, level, context, text);
        }
    }

    /// Takes out what is staged, because another function is about to be invoked: it sees these writes, and its effects
    /// come after these. What was read is forgotten, since that function may change it, but not that it was read; and
    /// what was taken out still counts against the limits.
    pub(crate) fn hand_over(&mut self, grants: &Grants) -> Effects {
        let mut writes = Vec::new();
        for (handle, keys) in &mut self.keys {
            let Some(namespace) = grants.namespace(*handle) else { continue };
            for (key, cell) in keys {
                cell.seen = None;
                if let Some(value) = cell.written.take() {
                    writes.push(StateWrite { namespace: namespace.name.clone(), key: key.clone(), value });
                }
            }
        }
        Effects {
            publishes: std::mem::take(&mut self.publishes),
            writes,
            results: std::mem::take(&mut self.results),
            enqueues: std::mem::take(&mut self.enqueues),
        }
    }

    /// The end of the invocation: effects that were not handed over, what was read, and the log.
    pub(crate) fn finish(mut self, grants: &Grants) -> (Effects, ReadSet, Vec<LogLine>) {
        for (stderr, line) in [false, true].into_iter().zip(std::mem::take(&mut self.open_lines)) {
            self.print_line(grants, stderr, &line);
        }
        if self.log_cut > 0 {
            let message = format!("{} bytes of log were cut at the limit of {}", self.log_cut, grants.log);
            self.logs.push(LogLine { level: LogLevel::Warn, context: "holm".to_owned(), message });
        }
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for (handle, keys) in self.keys {
            let Some(namespace) = grants.namespace(handle) else { continue };
            for (key, cell) in keys {
                if let Some(version) = cell.version {
                    reads.push((namespace.name.clone(), key.clone(), version));
                }
                if let Some(value) = cell.written {
                    writes.push(StateWrite { namespace: namespace.name.clone(), key, value });
                }
            }
        }
        let effects = Effects { publishes: self.publishes, writes, results: self.results, enqueues: self.enqueues };
        (effects, reads, self.logs)
    }
}
