//! Texts that people read, held against files: `HOLM_BLESS=1` writes the files anew, for a look at the difference.

use std::path::Path;

use crate::functions::repository;

/// Holds a text against `tests/golden/NAME`.
pub fn check(name: &str, text: &str) {
    hold(&repository().join("tests/golden").join(name), text);
}

/// Holds a text against a file.
pub fn hold(path: &Path, text: &str) {
    if std::env::var_os("HOLM_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let differs = expected.lines().zip(text.lines()).position(|(one, other)| one != other);
    let line = differs.unwrap_or_else(|| expected.lines().count().min(text.lines().count()));
    let at = |text: &str| text.lines().skip(line).take(5).map(|line| format!("  {line}\n")).collect::<String>();
    assert!(
        expected == text,
        "{} is not what it says now, from line {} on:\nexpected\n{}found\n{}if that is right: HOLM_BLESS=1, and look at the difference",
        path.display(),
        line + 1,
        at(&expected),
        at(text)
    );
}

/// The names of all files in a folder of `tests/golden`, without their ends.
pub fn names(folder: &str) -> Vec<String> {
    let folder = repository().join("tests/golden").join(folder);
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        Path::new(path.file_stem().unwrap()).display().to_string()
    };
    let mut names: Vec<String> = std::fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}
