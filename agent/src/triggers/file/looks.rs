//! What files look like, and which are there.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use bytes::Bytes;
use holm_core::{FileTrigger, Label};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};

/// Entries of a folder that are looked at: who keeps more in one has other troubles.
const MAX_ENTRIES: usize = 100_000;

/// What of a file changes when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looks {
    pub(super) bytes: u64,
    pub(super) modified: i64,
    pub(super) changed: i64,
}

impl Looks {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            bytes: meta.len(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// How many of files that are sorted by their change times may be told now: those before the first that is not ready,
/// and no part of a tick.
pub(super) fn ready(files: &[(i64, bool)]) -> usize {
    let end = files.iter().position(|(_, ready)| !ready).unwrap_or(files.len());
    match files.get(end) {
        Some((first, _)) => files.partition_point(|(changed, _)| changed < first),
        None => end,
    }
}

/// How many of files that are sorted by their change times rest where there is room for some: no part of a tick.
pub(super) fn fitting(files: &[(OsString, Looks)], room: usize) -> usize {
    let Some((_, first)) = files.get(room) else { return files.len() };
    let before = files.partition_point(|(_, looks)| looks.changed < first.changed);
    if before > 0 { before } else { files.partition_point(|(_, looks)| looks.changed <= first.changed) }
}

/// The files of a folder with a suffix, the oldest change first.
pub(super) fn list(path: &Path, suffix: &str) -> Vec<(OsString, Looks)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let names = entries.map(|entry| entry.file_name()).filter(|name| ends_with(name, suffix));
    let mut files: Vec<(OsString, Looks)> =
        names.filter_map(|name| Some((name.clone(), Looks::of(&path.join(&name))?))).collect();
    files.sort_by(|a, b| (a.1.changed, &a.0).cmp(&(b.1.changed, &b.0)));
    files
}

/// What the event of a file carries.
pub(super) async fn content(
    trigger: &FileTrigger,
    folder: &Label,
    name: &OsString,
    path: &Path,
    looks: Looks,
) -> Result<Bytes, String> {
    if !trigger.content {
        let body = serde_json::json!({
            "folder": folder.as_str(), "name": name.to_string_lossy(), "path": path.to_string_lossy(),
            "bytes": looks.bytes, "modified": looks.modified / 1_000_000,
        });
        return Ok(body.to_string().into());
    }
    let most = trigger.max_bytes;
    if looks.bytes > most {
        return Err(format!("it has {} bytes, and `max_bytes` of the trigger is {most}", looks.bytes));
    }
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let file = std::fs::File::options().read(true).custom_flags(flags).open(&path)?;
        let mut data = Vec::new();
        file.take(most + 1).read_to_end(&mut data)?;
        std::io::Result::Ok(data)
    });
    match read.await {
        Ok(Ok(data)) if data.len() as u64 <= most => Ok(data.into()),
        Ok(Ok(_)) => Err(format!("it has grown beyond `max_bytes` of the trigger, {most}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The clock of the folders' files, which runs in a rehearsal too.
pub(super) fn real_time() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    nanos(now.tv_sec, now.tv_nsec)
}

fn nanos(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

pub(super) fn ends_with(name: &OsString, suffix: &str) -> bool {
    let name = name.as_bytes();
    // What is hidden is somebody's way to write before renaming.
    name.len() > suffix.len() && name.ends_with(suffix.as_bytes()) && !name.starts_with(b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_with_the_suffix_count() {
        for (name, expected) in [
            ("a.jpg", true),
            (".jpg", false),
            (".a.jpg", false),
            ("a.jpg.part", false),
            ("a.JPG", false),
            ("b.x.jpg", true),
        ] {
            assert_eq!(ends_with(&OsString::from(name), ".jpg"), expected, "{name}");
        }
    }

    #[test]
    fn nothing_passes_an_older_file() {
        for (files, expected) in [
            (&[][..], 0),
            (&[(1, true), (2, true)], 2),
            (&[(1, false), (2, true)], 0),
            (&[(1, true), (2, false), (3, true)], 1),
            // A tick is told whole or not at all.
            (&[(1, true), (2, true), (2, false), (3, true)], 1),
        ] {
            assert_eq!(ready(files), expected, "{files:?}");
        }
    }

    #[test]
    fn the_oldest_files_rest_and_no_part_of_a_tick() {
        let file = |changed| (OsString::new(), Looks { bytes: 0, modified: 0, changed });
        for (ticks, room, expected) in [
            (&[][..], 0, 0),
            (&[1, 2, 3], 3, 3),
            (&[1, 2, 3], 2, 2),
            (&[1, 2, 2, 3], 2, 1),
            // One that is larger than the room rests beyond it.
            (&[1, 1, 1, 3], 2, 3),
        ] {
            let files: Vec<_> = ticks.iter().copied().map(file).collect();
            assert_eq!(fitting(&files, room), expected, "{ticks:?} {room}");
        }
    }
}
