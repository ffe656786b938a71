//! The data folder: what is where, and who may read it.
//!
//! ```text
//! cloud.lock       held while the control plane runs
//! records.db       everything that is asked for and changes
//! blobs/           what is named by its hash
//! ca/root.crt      what devices and operators trust; to be handed out
//! ca/root.key      signs issuing certificates and nothing else: may be kept elsewhere, see the README
//! keys/*.key       online keys: snapshot and timestamp of the code repository, and deployments
//! ca/issuing.*     signs devices, and this server's own certificate, which is made anew at each start and kept in memory
//! ```

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::CloudError;
use crate::error::file;

/// A data folder that is ours alone.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if need be, shuts others out, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, CloudError> {
        for folder in [path.to_owned(), path.join("ca"), path.join("blobs"), path.join("keys")] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(file("create", &folder))?;
            // One that was there before, such as by `mkdir`, may be open to others.
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(file("protect", &folder))?;
        }
        let lock_path = path.join("cloud.lock");
        let lock = private().truncate(false).open(&lock_path).map_err(file("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(fs::TryLockError::WouldBlock) => Err(CloudError::InUse { path: path.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(file("lock", &lock_path)(source)),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("records.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// The file of an online key.
    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.path.join("keys").join(format!("{name}.key"))
    }

    /// A file of the authority.
    pub(crate) fn authority(&self, name: &str) -> PathBuf {
        self.path.join("ca").join(name)
    }
}

fn private() -> fs::OpenOptions {
    let mut options = File::options();
    options.create(true).write(true).mode(0o600);
    options
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CloudError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut target = private().truncate(true).open(&new).map_err(file("create", &new))?;
    target.write_all(bytes).and_then(|()| target.sync_all()).map_err(file("write", &new))?;
    fs::rename(&new, path).map_err(file("write", path))?;
    sync_folder(path)
}

/// Makes the name of a file last.
pub(crate) fn sync_folder(path: &Path) -> Result<(), CloudError> {
    // The parent of a bare name has no name.
    let folder = path.parent().unwrap_or(path);
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(file("sync", folder))
}

/// Reads a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, CloudError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}
