//! Which node a command is about: the one that has this data folder.

use std::path::{Path, PathBuf};

/// The folder of a development node, under the working folder.
const HERE: &str = ".holm/data";

/// The folder of an installed node.
const INSTALLED: &str = "/var/lib/holm";

/// The data folder: as given, else `$HOLM_DATA`, else `./.holm/data` if it is there, else `/var/lib/holm`.
pub(crate) fn folder(given: Option<PathBuf>) -> PathBuf {
    let named = std::env::var_os("HOLM_DATA").filter(|folder| !folder.is_empty());
    choose(given, named.map(PathBuf::from), Path::new(HERE).is_dir())
}

fn choose(given: Option<PathBuf>, named: Option<PathBuf>, here: bool) -> PathBuf {
    given.or(named).unwrap_or_else(|| PathBuf::from(if here { HERE } else { INSTALLED }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_wins() {
        let path = |text: &str| Some(PathBuf::from(text));
        for (given, named, here, expected) in [
            (path("a"), path("b"), true, "a"),
            (None, path("b"), true, "b"),
            (None, None, true, HERE),
            (None, None, false, INSTALLED),
        ] {
            assert_eq!(choose(given, named, here), Path::new(expected));
        }
    }
}
