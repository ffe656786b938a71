//! The files that records lie in: one for each, in the order of their names, bounded in bytes.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use holm_core::Timestamp;
use serde::Serialize;

use crate::record::Record;

/// Records, however small.
const MOST: usize = 256;

/// What a list says of a record.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its name.
    pub id: String,
    /// When the trap was.
    pub time: Timestamp,
    /// Which function.
    pub function: String,
    /// Its version.
    pub version: String,
    /// `trap`, `timeout` or `exhausted`.
    pub outcome: String,
    /// The fault's words.
    pub fault: Option<String>,
    /// Of the event.
    pub event: String,
    /// Of the event.
    pub source: holm_core::Source,
    /// Of the event.
    pub subject: String,
    /// Of the event.
    pub attempt: u32,
    /// Calls that were kept.
    pub recorded: u32,
    /// What is not whole.
    pub cut: Vec<String>,
    /// Of the record.
    pub bytes: u64,
}

/// What is kept, oldest first.
pub struct Shelf {
    folder: PathBuf,
    most: u64,
    bytes: u64,
    next: u64,
    entries: VecDeque<(PathBuf, Summary)>,
    /// Records that went because there was no more room.
    gone: u64,
}

impl Shelf {
    pub(super) fn new(folder: PathBuf, most: u64) -> Self {
        Self { folder, most, bytes: 0, next: 1, entries: VecDeque::new(), gone: 0 }
    }

    /// Finds what an earlier run has left. A file that is no record goes: a crash may have left half of one.
    pub(super) fn open(&mut self) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            names.push(entry?.path());
        }
        names.sort();
        for path in names {
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let record = std::fs::read(&path).ok();
            let record = record.and_then(|bytes| Some((serde_json::from_slice(&bytes).ok()?, bytes.len() as u64)));
            match (number, record) {
                (Some(number), Some((record, bytes))) => {
                    self.next = self.next.max(number + 1);
                    self.bytes += bytes;
                    self.entries.push_back((path, Summary::of(&record, bytes)));
                }
                _ => drop(std::fs::remove_file(&path)),
            }
        }
        self.make_room();
        Ok(())
    }

    /// Adds a record. Not synced: what a power cut takes is a record, and no effect.
    pub(super) fn put(&mut self, record: &Record, document: &[u8]) -> io::Result<()> {
        let path = self.folder.join(format!("{:010}.json", self.next));
        self.next += 1;
        std::fs::create_dir_all(&self.folder)?;
        std::fs::write(&path, document)?;
        let bytes = document.len() as u64;
        self.bytes += bytes;
        self.entries.push_back((path, Summary::of(record, bytes)));
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        while self.bytes > self.most || self.entries.len() > MOST {
            let Some((path, summary)) = self.entries.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(summary.bytes);
            self.gone += 1;
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "the record of an old trap could not be removed");
            }
        }
    }

    /// Newest first, of one function or of all.
    pub fn list(&self, function: Option<&str>, limit: usize) -> Vec<Summary> {
        let all = self.entries.iter().rev().map(|(_, summary)| summary);
        all.filter(|one| function.is_none_or(|name| one.function == name)).take(limit).cloned().collect()
    }

    /// Bytes in use, the most of them, and how many records went for want of room since the start.
    pub fn room(&self) -> (u64, u64, u64) {
        (self.bytes, self.most, self.gone)
    }

    /// The file of the record whose name begins so, if only one does.
    pub fn find(&self, id: &str) -> Option<PathBuf> {
        let mut found = self.entries.iter().filter(|(_, summary)| !id.is_empty() && summary.id.starts_with(id));
        let (path, _) = found.next()?;
        found.next().is_none().then(|| path.clone())
    }
}

impl Summary {
    fn of(record: &Record, bytes: u64) -> Self {
        Self {
            id: record.id.clone(),
            time: record.time,
            function: record.function.clone(),
            version: record.version.clone(),
            outcome: record.outcome.clone(),
            fault: record.fault.clone(),
            event: record.event.id.clone(),
            source: record.event.source,
            subject: record.event.subject.clone(),
            attempt: record.event.attempt,
            recorded: record.recorded,
            cut: record.cut.clone(),
            bytes,
        }
    }
}
