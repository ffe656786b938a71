//! Calls by which a process makes something last, or gives it its name, and a SIGKILL at a chosen one.
//!
//! A run is recorded first, so that it is known which calls there are. Then there is a run for each of them that is killed as it makes the
//! call, before anything of it is done: what is between two of them is on the disk as it was after the first. They are told apart by their file,
//! because strace counts calls for each thread, and threads are not the same twice. So of a file that several threads sync, only the
//! first sync is a place: a SIGKILL loses nothing that was not synced, and finds the others' disk at whatever comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What makes something last, or gives it its name.
const CALLS: &str = "fsync,fdatasync,rename,renameat,renameat2";

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// Such as `rename`.
    pub call: String,
    /// The file; of a renaming the one that there was.
    pub path: PathBuf,
    /// The first of such calls with such a file by the same thread is 1.
    pub nth: u32,
}

impl Site {
    /// The words before a program that is killed there.
    pub fn killer(&self) -> Vec<String> {
        let Self { call, path, nth } = self;
        let inject = format!("inject={call}:signal=KILL:when={nth}");
        let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", path.to_str().unwrap(), "-e"];
        let more = [format!("trace={call}"), "-e".to_owned(), inject];
        words.iter().map(ToString::to_string).chain(more).collect()
    }

    /// Such as `fdatasync holm.db-wal`: what is the same for calls of a kind.
    pub fn kind(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let folder = self.path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        // What is named by its hash, or by nobody.
        let plain = |name: &str| name.len() < 24 && !name.starts_with('.');
        let name = if plain(&name) { name.into_owned() } else { format!("{folder}/*") };
        format!("{} {name}", self.call)
    }
}

/// The words before a program whose calls are recorded in this file.
pub fn recorder(file: &Path) -> Vec<String> {
    let trace = format!("trace={CALLS},execve");
    let words = ["strace", "-f", "-qq", "-y", "-o", file.to_str().unwrap(), "-e", &trace];
    words.iter().map(ToString::to_string).collect()
}

/// The calls of the recorded program, in order, and of no other that it has started.
pub fn recorded(text: &str) -> Vec<Site> {
    let mut counts: BTreeMap<(&str, &str, &str), u32> = BTreeMap::new();
    let (mut sites, mut others, mut first) = (Vec::new(), BTreeSet::new(), true);
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let Some((call, arguments)) = rest.trim_start().split_once('(') else { continue };
        if call == "execve" {
            if !std::mem::take(&mut first) {
                others.insert(thread.to_owned());
            }
            continue;
        }
        let path = match call {
            "fsync" | "fdatasync" => arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')),
            "rename" | "renameat" | "renameat2" => arguments.split_once('"').and_then(|(_, rest)| rest.split_once('"')),
            _ => None,
        };
        let Some((path, _)) = path.filter(|_| !others.contains(thread)) else { continue };
        let nth = counts.entry((thread, call, path)).or_default();
        *nth += 1;
        let site = Site { call: call.to_owned(), path: path.into(), nth: *nth };
        if !sites.contains(&site) {
            sites.push(site);
        }
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_their_file_and_those_of_other_programs_are_not() {
        let text = "7 execve(\"/holmd\", [\"holmd\"], 0x1) = 0\n\
                    8 fdatasync(5</d/holm.db-wal>) = 0\n\
                    9 execve(\"/holm-compile\", [], 0x1) = 0\n\
                    9 rename(\"/d/native/.a\", \"/d/native/a\") = 0\n\
                    8 fdatasync(5</d/holm.db-wal> <unfinished ...>\n\
                    7 renameat2(AT_FDCWD, \"/d/x\", AT_FDCWD, \"/d/y\", 0) = 0\n\
                    8 <... fdatasync resumed>) = 0\n\
                    6 fdatasync(5</d/holm.db-wal>) = 0\n";
        let site = |call: &str, path: &str, nth| Site { call: call.to_owned(), path: path.into(), nth };
        let expected = [
            site("fdatasync", "/d/holm.db-wal", 1),
            site("fdatasync", "/d/holm.db-wal", 2),
            site("renameat2", "/d/x", 1),
        ];
        assert_eq!(recorded(text), expected);
        assert_eq!(expected[0].kind(), "fdatasync holm.db-wal");
    }
}
