//! Symbols: a component with the debugging information that its bundle does without, kept on the machine that built it.
//!
//! They are found again by the digest of the component that devices have, which is the same code: only sections that tools
//! read are taken out of it. So a trap of any device leads back to lines, as long as it was built here, or the file was brought here.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use holm_bundle::Digest;

/// Bytes that all symbols may have; then those that were not used for longest go.
const MOST: u64 = 512 << 20;

/// Sections of debugging information begin so.
const DEBUG: &str = ".debug_";

/// The first bytes of every module and component.
const MAGIC: &[u8] = b"\0asm";

/// Sections that hold a whole module or component: of a component only (component model, binary format).
const NESTED: [u8; 2] = [1, 4];

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

/// A module or component without debugging information. `None` if it is neither.
pub(crate) fn strip(wasm: &[u8]) -> Option<Vec<u8>> {
    let (head, mut rest) = wasm.split_at_checked(8)?;
    if !head.starts_with(MAGIC) {
        return None;
    }
    let component = head.get(6) == Some(&1);
    let mut out = head.to_vec();
    while let Some((id, after)) = rest.split_first() {
        let (size, after) = number(after)?;
        let (content, after) = after.split_at_checked(size)?;
        rest = after;
        if *id == 0 && is_debug(content) {
            continue;
        }
        let inner = if component && NESTED.contains(id) { strip(content) } else { None };
        let content = inner.as_deref().unwrap_or(content);
        out.push(*id);
        push_number(&mut out, content.len());
        out.extend_from_slice(content);
    }
    Some(out)
}

/// Whether a custom section has a name of debugging information.
fn is_debug(content: &[u8]) -> bool {
    let name = number(content).and_then(|(length, rest)| rest.get(..length));
    name.is_some_and(|name| name.starts_with(DEBUG.as_bytes()))
}

/// A number in LEB128, as the binary format has them (WebAssembly, 5.2.2).
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0_usize;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f).checked_shl(u32::try_from(at * 7).ok()?)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

fn push_number(out: &mut Vec<u8>, mut value: usize) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(id: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![id];
        push_number(&mut bytes, content.len());
        [bytes, content.to_vec()].concat()
    }

    fn custom(name: &str, content: &[u8]) -> Vec<u8> {
        section(0, &[&[name.len() as u8], name.as_bytes(), content].concat())
    }

    #[test]
    fn debugging_information_goes_and_everything_else_stays() {
        let code = section(10, &[7; 300]);
        let module = |more: &[u8]| [b"\0asm\x01\0\0\0", &*code, &custom("name", b"n"), more].concat();
        let component = |module: &[u8]| [b"\0asm\x0d\0\x01\0", &*section(1, module), &custom("x", b"y")].concat();
        let debug = [custom(".debug_info", &[1; 200]), custom(".debug_line", b"2")].concat();
        let whole = component(&module(&debug));
        assert_eq!(strip(&whole), Some(component(&module(b""))));
        assert_eq!(strip(&component(&module(b""))), Some(component(&module(b""))));
        for broken in [&b"elf"[..], b"\0asm\x0d\0\x01\0\x01\xff", b"\0asm\x0d\0\x01\0\x01\x05\x00"] {
            assert_eq!(strip(broken), None);
        }
    }

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
