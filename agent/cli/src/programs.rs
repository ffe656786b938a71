//! The other programs that this one runs: those of the same release beside it, and a language's own tools.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// Where a program is: beside `holm`, or on the path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    beside.into_iter().chain(on_path(name)).find(|path| path.is_file())
}

/// Where on the path a program may be.
pub(crate) fn on_path(name: &str) -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).collect()
}

/// The path, with the folder of `holm` itself in front.
pub(crate) fn path_with_own() -> Option<OsString> {
    let own = std::env::current_exe().ok()?.parent()?.to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&path))).ok()
}

/// The node agent. Without it nothing can be run or tested here.
pub(crate) fn holmd() -> Result<PathBuf, Failure> {
    find("holmd").ok_or_else(|| {
        Failure::new("holmd is neither beside holm nor on the PATH: nothing can be run here without it")
            .next("install the whole release, or see what else is missing with `holm doctor`")
            .page(holm_core::ErrorCode::ProgramMissing)
    })
}
