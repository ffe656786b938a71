//! What a process wrote, synced and sent, as strace saw it: the raw material of a power cut.
//!
//! `strace -f -y -xx -s 100000` prints every call whole, with the file's name and its bytes in hexadecimal. Replaying a
//! prefix of the calls on files of our own, without some of what had not been synced by then, gives the disk as a power
//! cut could have left it. Recording system calls rather than SQLite's own interface means that everything the real
//! process does is seen, whoever does it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// Something that matters for a power cut, in the order in which it happened.
#[derive(Debug, Clone)]
pub enum Step {
    /// Bytes written to a file at an offset. Not yet on the disk.
    Write {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// The file was cut or grown. Not yet on the disk.
    Truncate {
        /// The file.
        path: PathBuf,
        /// To how many bytes.
        length: u64,
    },
    /// All that was done to the file before this is on the disk.
    Sync {
        /// The file.
        path: PathBuf,
    },
    /// These bytes left through a socket.
    Sent(Vec<u8>),
}

/// Reads strace's output. Calls of several threads may be cut in two (`unfinished`, `resumed`); a write counts from
/// its beginning, a sync from its end, which is the pessimistic reading of both.
pub fn parse(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    // Syncs that have begun, by thread.
    let mut unfinished: HashMap<&str, String> = HashMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.trim_start().split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            if is_sync(begun) {
                unfinished.insert(thread, begun.to_owned());
            } else if let Some(step) = call(begun) {
                steps.push(step);
            }
        } else if rest.starts_with("<... ") {
            let resumed = unfinished.remove(thread).filter(|_| rest.ends_with("= 0"));
            steps.extend(resumed.and_then(|begun| call(&begun)));
        } else if !rest.contains(") = -1 ") {
            steps.extend(call(rest));
        }
    }
    steps
}

fn is_sync(text: &str) -> bool {
    text.starts_with("fdatasync(") || text.starts_with("fsync(")
}

fn call(text: &str) -> Option<Step> {
    let (name, arguments) = text.split_once('(')?;
    let file = || {
        let name = arguments.split_once('<')?.1.split_once('>')?.0;
        String::from_utf8(unescape(name)).ok().filter(|name| name.starts_with('/')).map(PathBuf::from)
    };
    match name {
        "fdatasync" | "fsync" => Some(Step::Sync { path: file()? }),
        "pwrite64" => {
            let data = bytes(arguments)?;
            let offset = arguments.rsplit_once('"')?.1.split(", ").nth(2)?;
            let offset = offset.trim_end_matches(|c: char| !c.is_ascii_digit()).split(')').next()?.parse().ok()?;
            Some(Step::Write { path: file()?, offset, data })
        }
        "ftruncate" => {
            let length = arguments.split(", ").nth(1)?.split(')').next()?.trim().parse().ok()?;
            Some(Step::Truncate { path: file()?, length })
        }
        "sendto" | "write" | "writev" | "sendmsg" => {
            // Only sockets: their name is `socket:[inode]`, escaped like a file's.
            let name = arguments.split_once('<')?.1.split_once('>')?.0;
            unescape(name).starts_with(b"socket:").then(|| bytes(arguments).map(Step::Sent)).flatten()
        }
        _ => None,
    }
}

/// The first string among the arguments.
fn bytes(arguments: &str) -> Option<Vec<u8>> {
    let text = arguments.split_once('"')?.1.split_once('"')?.0;
    Some(unescape(text))
}

fn unescape(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).filter_map(|pair| u8::from_str_radix(pair.get(..2)?, 16).ok()).collect()
}

/// A disk that loses what is not synced.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// What a power cut cannot take.
    durable: BTreeMap<PathBuf, Vec<u8>>,
    /// What it can, in order.
    pending: Vec<Step>,
}

/// What happens to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All of it is lost.
    Dropped,
    /// All of it arrived.
    Kept,
    /// Each write arrived or not, as a coin falls: the disk reorders.
    Reordered,
    /// As reordered, and some writes arrived only in part, in sectors of 512 bytes.
    Torn,
}

impl Disk {
    /// A disk that holds these files.
    pub fn new(files: impl IntoIterator<Item = (PathBuf, Vec<u8>)>) -> Self {
        Self { durable: files.into_iter().collect(), pending: Vec::new() }
    }

    /// Takes the next step.
    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Write { .. } | Step::Truncate { .. } => self.pending.push(step.clone()),
            Step::Sync { path } => {
                let (synced, rest): (Vec<Step>, Vec<Step>) =
                    std::mem::take(&mut self.pending).into_iter().partition(|pending| target(pending) == Some(path));
                self.pending = rest;
                for step in synced {
                    apply(&mut self.durable, &step, None);
                }
            }
            Step::Sent(_) => {}
        }
    }

    /// The files after a power cut; `coin` gives random numbers.
    pub fn cut(&self, fate: Fate, mut coin: impl FnMut() -> u64) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = self.durable.clone();
        for step in &self.pending {
            match fate {
                Fate::Dropped => {}
                Fate::Kept => apply(&mut files, step, None),
                Fate::Reordered if coin().is_multiple_of(2) => apply(&mut files, step, None),
                Fate::Torn if !coin().is_multiple_of(3) => apply(&mut files, step, Some(coin())),
                Fate::Reordered | Fate::Torn => {}
            }
        }
        files
    }
}

fn target(step: &Step) -> Option<&PathBuf> {
    match step {
        Step::Write { path, .. } | Step::Truncate { path, .. } | Step::Sync { path } => Some(path),
        Step::Sent(_) => None,
    }
}

/// `sectors`: only those of 512 bytes whose bit is set arrive.
fn apply(files: &mut BTreeMap<PathBuf, Vec<u8>>, step: &Step, sectors: Option<u64>) {
    match step {
        Step::Write { path, offset, data } => {
            let file = files.entry(path.clone()).or_default();
            let offset = usize::try_from(*offset).unwrap();
            if file.len() < offset + data.len() {
                file.resize(offset + data.len(), 0);
            }
            for (index, sector) in data.chunks(512).enumerate() {
                if sectors.is_none_or(|bits| bits >> (index % 64) & 1 == 1) {
                    let at = offset + index * 512;
                    file[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        Step::Truncate { path, length } => {
            files.entry(path.clone()).or_default().resize(usize::try_from(*length).unwrap(), 0);
        }
        Step::Sync { .. } | Step::Sent(_) => {}
    }
}
