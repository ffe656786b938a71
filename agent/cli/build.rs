//! Puts the templates, the SDK, the WIT packages and the pages of errors into the command: what `holm new` writes and
//! `holm explain` says is of the same release.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// What is embedded, under `functions/`.
const FOLDERS: [&str; 4] = ["templates", "sdk", "sdk-c", "wit"];

fn main() -> io::Result<()> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).unwrap_or_default();
    let functions = variable("CARGO_MANIFEST_DIR").join("../../functions").canonicalize()?;
    let mut code = String::from(
        "/// Path under `functions/`, and what is in the file.\npub(crate) static FILES: &[(&str, &[u8])] = &[\n",
    );
    for folder in FOLDERS {
        let mut files = Vec::new();
        gather(&functions.join(folder), &mut files)?;
        files.sort();
        for file in files {
            let name = file.strip_prefix(&functions).unwrap_or(&file).display().to_string();
            let _ = writeln!(code, "    ({name:?}, include_bytes!({:?})),", file.display().to_string());
        }
        println!("cargo::rerun-if-changed={}", functions.join(folder).display());
    }
    code.push_str("];\n\n/// Code, and its page.\npub(crate) static PAGES: &[(&str, &str)] = &[\n");
    let pages = variable("CARGO_MANIFEST_DIR").join("../../docs/reference/errors").canonicalize()?;
    let mut files = Vec::new();
    gather(&pages, &mut files)?;
    files.sort();
    for file in files.iter().filter(|file| file.file_name().is_some_and(|name| name != "README.md")) {
        let name = file.file_stem().unwrap_or_default().display().to_string();
        let _ = writeln!(code, "    ({name:?}, include_str!({:?})),", file.display().to_string());
    }
    println!("cargo::rerun-if-changed={}", pages.display());
    code.push_str("];\n");
    std::fs::write(variable("OUT_DIR").join("embedded.rs"), code)
}

fn gather(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // What a build leaves behind is not the author's.
        if path.file_name().is_some_and(|name| name == "target") {
            continue;
        }
        if path.is_dir() { gather(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
