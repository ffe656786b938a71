//! Symbols: a component with the debugging information that its bundle does without, kept on the machine that built it.
//!
//! They are found again by the digest of the component that devices have, which is the same code: only sections that tools
//! read are taken out of it. So a trap of any device leads back to lines, as long as it was built here, or the file was brought here.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use holm_bundle::Digest;

use crate::strip::strip;

/// Bytes that all symbols may have; then those that were not used for longest go.
const MOST: u64 = 512 << 20;

/// Where symbols are: `$HOLM_SYMBOLS`, else under `$XDG_DATA_HOME`, which is `~/.local/share` by default.
pub(crate) fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = || set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    set("HOLM_SYMBOLS").or_else(|| data().map(|data| data.join("holm/symbols")))
}

/// The symbols of a component, if they are here.
pub(crate) fn find(component: &str) -> Option<PathBuf> {
    let path = folder()?.join(format!("{component}.wasm"));
    let there = path.is_file();
    if let (true, Ok(file)) = (there, std::fs::File::open(&path)) {
        // Used now: others go first. Best effort.
        let _ = file.set_modified(now());
    }
    there.then_some(path)
}

/// Takes debugging information out of what a build has made, and keeps the whole as symbols of what is left.
pub(crate) fn split(whole: Vec<u8>) -> Vec<u8> {
    // What is no component is for somebody else to complain about.
    let stripped = strip(&whole).unwrap_or_else(|| whole.clone());
    if let Some(folder) = folder() {
        // Best effort: a bundle is good without, and `holm build` remarks on it.
        let _ = keep(&folder, &Digest::of(&stripped), &whole);
    }
    stripped
}

fn keep(folder: &Path, digest: &Digest, whole: &[u8]) -> std::io::Result<()> {
    let path = folder.join(format!("{digest}.wasm"));
    std::fs::create_dir_all(folder)?;
    let temporary = folder.join(format!("{digest}.part{}", std::process::id()));
    std::fs::write(&temporary, whole)?;
    std::fs::rename(&temporary, &path)?;
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)?.flatten() {
        let meta = entry.metadata()?;
        all.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()));
    }
    all.sort();
    let mut bytes: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, size, old) in all {
        if bytes <= MOST || old == path {
            break;
        }
        bytes -= size;
        std::fs::remove_file(&old)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "of files on the laptop, which have the laptop's time")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_symbols_go_when_there_is_no_more_room() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let old = folder.path().join("old.wasm");
        std::fs::File::create(&old)?.set_len(MOST)?;
        std::fs::File::open(&old)?.set_modified(SystemTime::UNIX_EPOCH)?;
        let digest = Digest::of(b"new");
        keep(folder.path(), &digest, b"whole")?;
        assert!(!old.exists() && folder.path().join(format!("{digest}.wasm")).is_file());
        Ok(())
    }
}
