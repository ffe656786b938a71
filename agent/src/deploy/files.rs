//! Files of bundles and native code: there whole or not at all, and what was written.

use std::io::Write as _;
use std::path::Path;

use holm_bundle::Digest;

use super::DeployError;

/// Whether there is native code, and the compiler's note of it: what they say is for [`is_sound`].
pub(super) fn is_there(native: &Path) -> bool {
    native.is_file() && native.with_extension("sha256").is_file()
}

/// Whether native code is what the compiler wrote. Loading checks the engine's version and no more, and what a worn card
/// has changed would run as it is.
pub(super) fn is_sound(native: &Path) -> bool {
    let noted = std::fs::read_to_string(native.with_extension("sha256"));
    let found = std::fs::read(native).map(|bytes| Digest::of(&bytes).to_string());
    match (noted, found) {
        (Ok(noted), Ok(found)) if noted == found => true,
        (_, Ok(_)) => {
            tracing::warn!(native = %native.display(), "native code is not what the compiler wrote: it is compiled again");
            false
        }
        (_, Err(_)) => false,
    }
}

/// Writes a file that is there whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), DeployError> {
    let failed = |action| move |source| DeployError::File { action, path: path.to_owned(), source };
    let temporary = path.with_extension("part");
    let mut file = std::fs::File::create(&temporary).map_err(failed("create"))?;
    file.write_all(bytes).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    std::fs::rename(&temporary, path).map_err(failed("rename"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of"))
}
