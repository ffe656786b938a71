//! Clocks that are wrong, and jump under programs that run.

use std::path::{Path, PathBuf};

/// The library that tells a program another time, if it is here.
pub fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|path| path.is_file());
    if found.is_none() {
        crate::skip("faketime is not installed");
    }
    found
}

/// A clock that is so many seconds ahead of the machine's.
pub struct Clock {
    file: PathBuf,
    ahead: i64,
}

impl Clock {
    /// As the machine's, with a file in this folder.
    pub fn new(folder: &Path) -> Self {
        let mut clock = Self { file: folder.join("clock"), ahead: 0 };
        clock.jump(0);
        clock
    }

    /// Seconds since 1970, as programs under it have them.
    pub fn now(&self) -> i64 {
        time::OffsetDateTime::now_utc().unix_timestamp() + self.ahead
    }

    /// Seconds of this hour that have passed.
    pub fn past_hour(&self) -> i64 {
        self.now() % 3_600
    }

    /// Ahead by so many more seconds, or back.
    pub fn jump(&mut self, seconds: i64) {
        self.ahead += seconds;
        // Whole, because it may be read at any moment.
        let part = self.file.with_extension("part");
        std::fs::write(&part, format!("{:+}\n", self.ahead)).unwrap();
        std::fs::rename(part, &self.file).unwrap();
    }

    /// The words before a program that goes by it.
    pub fn under(&self, library: &Path) -> Vec<String> {
        let set = self.environment(library).map(|(name, value)| format!("{name}={value}"));
        std::iter::once("env".to_owned()).chain(set).collect()
    }

    /// What a program that goes by it has in its environment.
    pub fn environment(&self, library: &Path) -> [(&'static str, String); 5] {
        let (file, library) = (self.file.display().to_string(), library.display().to_string());
        [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
        ]
    }
}
