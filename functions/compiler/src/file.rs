//! Writing native code so that whoever maps it finds either nothing or all of it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::CompileError;

/// Writes `bytes` under `path`: a crash leaves the old file or the new one, and a file that is mapped never changes.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), CompileError> {
    let failed = |source| CompileError::Write { path: path.to_owned(), source };
    let mut name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?.to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        // The content must be on disk before its name is: a rename can survive a power cut that the content does not.
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        // Best effort: what matters is the first error.
        let _ = std::fs::remove_file(&temporary);
        failed(source)
    })
}
