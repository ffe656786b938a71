//! Which functions are running, written where it survives the death of the process, and who is to blame for it.
//!
//! Each worker owns a record of the file `running`. It is written when the worker turns to another function and when it
//! goes idle, not for every event, so it costs nothing under load. It is outside every transaction on purpose: a
//! transaction would be rolled back with the evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holm_core::FunctionName;

/// Bytes of one worker's record: a function name is at most 63.
const RECORD: usize = 64;

/// A worker's record.
pub struct Breadcrumb {
    file: Arc<File>,
    offset: u64,
    current: Option<FunctionName>,
}

impl Breadcrumb {
    /// This function runs from now on.
    pub fn mark(&mut self, function: &FunctionName) {
        if self.current.as_ref() != Some(function) {
            self.write(function.as_str());
            self.current = Some(function.clone());
        }
    }

    /// Nothing runs.
    pub fn clear(&mut self) {
        if self.current.take().is_some() {
            self.write("");
        }
    }

    fn write(&self, name: &str) {
        let mut record = [0; RECORD];
        for (to, from) in record.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        // Best effort: without it a boot loop is not recognised, and events must still run.
        let _ = self.file.write_all_at(&record, self.offset);
    }
}

/// What the last exits tell.
pub struct Blame {
    folder: PathBuf,
    running: Arc<File>,
    /// Unclean exits in a row at which each function was running.
    pub strikes: BTreeMap<String, u32>,
    /// Whether the last exit was unclean.
    pub unclean: bool,
}

impl Blame {
    /// Reads what the last run left, and notes that this one has begun.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        let path = folder.join("running");
        // `clean` is written at a clean exit and removed at the start.
        let marker = folder.join("clean");
        let before = std::fs::read(&path).unwrap_or_default();
        let unclean = path.exists() && !marker.exists();
        let names: BTreeSet<String> = before
            .chunks(RECORD)
            .map(|record| String::from_utf8_lossy(record).trim_end_matches('\0').to_owned())
            .filter(|name| FunctionName::new(name).is_ok())
            .collect();
        let strikes_path = folder.join("strikes");
        let mut strikes: BTreeMap<String, u32> =
            std::fs::read(&strikes_path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if unclean {
            strikes.retain(|name, _| names.contains(name));
            for name in names {
                *strikes.entry(name).or_default() += 1;
            }
        } else {
            strikes.clear();
        }
        write_synced(&strikes_path, &serde_json::to_vec(&strikes).unwrap_or_default())?;
        let _ = std::fs::remove_file(&marker);
        let running = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        Ok(Self { folder: folder.to_owned(), running: Arc::new(running), strikes, unclean })
    }

    /// The record of worker `index`.
    pub fn breadcrumb(&self, index: usize) -> Breadcrumb {
        Breadcrumb { file: self.running.clone(), offset: (index * RECORD) as u64, current: None }
    }

    /// Forgets all strikes: the node has been up long enough, or the operator says so.
    pub fn forgive(&self) -> std::io::Result<()> {
        write_synced(&self.folder.join("strikes"), b"{}")
    }

    /// This exit is clean.
    pub fn clean_exit(&self) -> std::io::Result<()> {
        write_synced(&self.folder.join("clean"), b"")
    }
}

/// Forgets one function's strikes.
pub fn pardon(folder: &Path, function: &str) -> std::io::Result<()> {
    let path = folder.join("strikes");
    let mut strikes: BTreeMap<String, u32> =
        std::fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    if strikes.remove(function).is_none() {
        return Ok(());
    }
    write_synced(&path, &serde_json::to_vec(&strikes).unwrap_or_default())
}

/// Forgets all strikes and the last exit, before [`Blame::open`]: no function was to blame for it.
pub fn acquit(folder: &Path) {
    for name in ["running", "strikes"] {
        // At worst a function is shut away until somebody releases it.
        let _ = std::fs::remove_file(folder.join(name));
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn strikes_count_unclean_exits_in_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let name = FunctionName::new("bad").unwrap();
        let run = |clean: bool, mark: bool| {
            let blame = Blame::open(folder.path()).unwrap();
            let strikes = blame.strikes.get("bad").copied().unwrap_or_default();
            let mut crumb = blame.breadcrumb(1);
            if mark {
                crumb.mark(&name);
            }
            if clean {
                blame.clean_exit().unwrap();
            }
            strikes
        };
        assert_eq!(run(false, true), 0);
        assert_eq!(run(false, true), 1);
        assert_eq!(run(false, false), 2);
        assert_eq!(run(false, true), 0, "an unclean exit without it breaks the row");
        assert_eq!(run(true, true), 1);
        assert_eq!(run(true, false), 0, "a clean exit forgives");
    }
}
