//! What can go wrong with images and cards.

use std::io;
use std::path::{Path, PathBuf};

use crate::card::Absent;

/// The step that failed, and on what.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something about a file or a disk.
    #[error("cannot {action} {path}", path = path.display())]
    File {
        /// Such as `read`.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is no image of ours.
    #[error("{path} is no Holm image: {problem}", path = path.display())]
    NotAnImage {
        /// Which.
        path: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// An image that is not what it was when it was made.
    #[error("{path} is damaged: its digest is {found}, and it was made with {expected}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The digest that it says.
        expected: String,
        /// The digest that it has.
        found: String,
    },
    /// An image for something else.
    #[error("{path} is for the board {found}, and you asked for {asked}", path = path.display())]
    WrongBoard {
        /// Which.
        path: PathBuf,
        /// Its board.
        found: String,
        /// What was asked for.
        asked: String,
    },
    /// What is not a disk.
    #[error("{path} {problem}", path = path.display())]
    NotADisk {
        /// What was named.
        path: PathBuf,
        /// What it is.
        problem: String,
    },
    /// A disk that must not be written, with all reasons.
    #[error("{path} is not written:{list}", path = path.display(), list = lines(reasons))]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why, one sentence each.
        reasons: Vec<String>,
    },
    /// It is another disk than a moment ago.
    #[error("{path} has changed since it was looked at: {what} was {before} and is {now}; nothing was written", path = path.display())]
    Changed {
        /// Which.
        path: PathBuf,
        /// Such as `the serial number`.
        what: &'static str,
        /// Then.
        before: String,
        /// Now.
        now: String,
    },
    /// Something else has the disk open.
    #[error("{path} is in use by another program; nothing was written", path = path.display())]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// The card gives back something else than what was written.
    #[error("{path} does not keep what is written to it: its digest is {found}, and {expected} was written", path = path.display())]
    BadCard {
        /// Which.
        path: PathBuf,
        /// What was written.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A seed that cannot be used.
    #[error("the seed cannot be used: {problem}")]
    Seed {
        /// Why.
        problem: String,
    },
    /// A card that is not as a card should be.
    #[error("{path} cannot be booted: {problem}", path = path.display())]
    Card {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What is neither a card nor a part of one.
    #[error("{path} is no card: {problem}", path = path.display())]
    NoTable {
        /// Which.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// A card without a database, as far as can be seen.
    #[error("no database of a node is on {path}:{list}", path = path.display(), list = lines(seen))]
    NoDatabase {
        /// Which.
        path: PathBuf,
        /// What was looked at, a line each.
        seen: Vec<String>,
        /// Why there is none.
        why: Absent,
    },
    /// A card with several.
    #[error("{path} has databases in several partitions: {list}", path = path.display(), list = list(numbers))]
    Several {
        /// Which.
        path: PathBuf,
        /// The partitions.
        numbers: Vec<u32>,
    },
    /// A card that this system has mounted.
    #[error("{partition} of {path} is mounted at {place}, and what is written there may not be on the card yet", path = path.display())]
    Mounted {
        /// Which.
        path: PathBuf,
        /// The partition, as the kernel calls it.
        partition: String,
        /// Where.
        place: String,
    },
    /// A data folder whose node runs.
    #[error("a node runs in {path}", path = path.display())]
    Running {
        /// Which.
        path: PathBuf,
    },
    /// A folder that should be empty.
    #[error("{path} has something in it already", path = path.display())]
    NotEmpty {
        /// Which.
        path: PathBuf,
    },
    /// An image that is packed in a way that is not unpacked here.
    #[error("{path} is packed", path = path.display())]
    Packed {
        /// Which image.
        path: PathBuf,
        /// What unpacks it.
        program: &'static str,
    },
    /// A system that cannot be seeded.
    #[error("{path} cannot be seeded: {problem}", path = path.display())]
    Unfit {
        /// Which image.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// A file that is no package of Debian.
    #[error("{path} is no package of Debian: {problem}", path = path.display())]
    NotAPackage {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A program that is needed.
    #[error("{program} is needed, and is not here: apt-get install {package}")]
    Program {
        /// Which.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
    },
    /// A program that failed.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which.
        program: String,
        /// The end of what it said.
        said: String,
    },
    /// A board that no image is made for.
    #[error("no image is made for the board {board}: {known}")]
    NoSuchBoard {
        /// Which.
        board: String,
        /// The ones there are.
        known: String,
    },
    /// A board that QEMU has no machine for.
    #[error("cards for the board {board} are not booted here: {known}")]
    NoMachine {
        /// The board.
        board: String,
        /// Those that are.
        known: &'static str,
    },
    /// A part that does not fit into its place.
    #[error("{part} has {bytes} bytes, and there is room for {most}")]
    TooLarge {
        /// Which.
        part: &'static str,
        /// What it has.
        bytes: u64,
        /// What it may have.
        most: u64,
    },
    /// Lines of the configuration of a kernel that it did not take.
    #[error("{package} does not take these lines of tiny.config:{list}", list = lines(options))]
    Dropped {
        /// The package with its source.
        package: String,
        /// The lines. What they depend on is not there, or is called otherwise.
        options: Vec<String>,
    },
    /// A kernel package without something.
    #[error("{package} has no {what}")]
    Missing {
        /// Which package.
        package: String,
        /// What.
        what: String,
    },
}

impl ImageError {
    /// Of a file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// With all its causes.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(&format!(": {error}"));
            next = error.source();
        }
        text
    }
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

fn lines(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  {reason}")).collect()
}
