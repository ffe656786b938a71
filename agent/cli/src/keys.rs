//! The folder of the offline keys.
//!
//! ```text
//! root-1.key, root-2.key   sign roots; may be on sticks in a drawer, and are needed once a year
//! targets.key              signs releases
//! targets.key.new          the next targets key, until the control plane has taken it (`holm key recover`)
//! root-1.key.new           as much of root keys (`holm key rotate`)
//! trusted/                 the repository's metadata as it was last seen, so that nobody can show an older one
//! ```
//!
//! All of it is for its owner's eyes only. Control planes never have these keys, and what they say of the repository is believed
//! only as far as these keys have signed it.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_trust::SigningKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::failure::Failure;
use crate::remote::Profile;

/// The most root keys that anybody has. Each is one more place to lose one in.
pub(crate) const MAX_ROOTS: usize = 9;

/// The keys that are in a folder. Not all need to be.
pub(crate) struct Keys {
    pub(crate) folder: PathBuf,
    pub(crate) roots: Vec<SigningKey>,
    pub(crate) targets: Option<SigningKey>,
}

/// The folder that is meant: the one that is named, or the usual one.
pub(crate) fn folder(named: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let usual = Profile::path().and_then(|path| Some(path.parent()?.join("keys")));
    usual.ok_or_else(|| Failure::new("there is no home folder for keys").next("name a folder with --keys DIR"))
}

impl Keys {
    /// Reads those that are there.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, Failure> {
        let mut roots = Vec::new();
        for number in 1..=MAX_ROOTS {
            roots.extend(read(&root_path(&folder, number))?);
        }
        let targets = read(&folder.join("targets.key"))?;
        Ok(Self { folder, roots, targets })
    }

    /// Makes so many root keys and a targets key. Fails if there is any key already: what is lost with one cannot be made anew.
    pub(crate) fn make(folder: PathBuf, roots: usize) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("cannot make {}: {error}", folder.display()));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed)?;
        let trusted = folder.join("trusted");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&trusted).map_err(failed)?;
        let before = Self::open(folder.clone())?;
        if !before.roots.is_empty() || before.targets.is_some() {
            return Err(Failure::new(format!("there are keys in {} already", folder.display()))
                .next("`holm key status` tells about them; `holm key new --keys DIR` makes others"));
        }
        for number in 1..=roots {
            write(&root_path(&folder, number))?;
        }
        write(&folder.join("targets.key"))?;
        std::fs::File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Self::open(folder)
    }

    /// Where believed metadata is kept.
    pub(crate) fn trusted(&self) -> PathBuf {
        self.folder.join("trusted")
    }

    /// A targets key to come in place of the one that is lost or stolen. The same one again, if a recovery was cut off.
    pub(crate) fn next_targets(&self) -> Result<SigningKey, Failure> {
        let path = self.folder.join("targets.key.new");
        if let Some(key) = read(&path)? {
            return Ok(key);
        }
        write(&path)?;
        read(&path)?.ok_or_else(|| Failure::new(format!("{} is gone", path.display())))
    }

    /// The next targets key counts now; the one before is kept beside it.
    pub(crate) fn replace_targets(&self) -> Result<(), Failure> {
        let path = self.folder.join("targets.key");
        let failed = |error: std::io::Error| Failure::new(format!("cannot replace {}: {error}", path.display()));
        if path.exists() {
            std::fs::rename(&path, self.folder.join("targets.key.old")).map_err(failed)?;
        }
        std::fs::rename(self.folder.join("targets.key.new"), &path).map_err(failed)
    }

    /// Root keys to come in place of those that there are. The same ones again, if a rotation was cut off.
    pub(crate) fn next_roots(&self, count: usize) -> Result<Vec<SigningKey>, Failure> {
        let next = |number| {
            let path = next_root_path(&self.folder, number);
            if read(&path)?.is_none() {
                write(&path)?;
            }
            read(&path)?.ok_or_else(|| Failure::new(format!("{} is gone", path.display())))
        };
        (1..=count).map(next).collect()
    }

    /// The next root keys count now; those before are kept beside them.
    pub(crate) fn replace_roots(&self) -> Result<(), Failure> {
        for number in 1..=MAX_ROOTS {
            let (path, next) = (root_path(&self.folder, number), next_root_path(&self.folder, number));
            let failed = |error: std::io::Error| Failure::new(format!("cannot replace {}: {error}", path.display()));
            if path.exists() {
                std::fs::rename(&path, path.with_extension("key.old")).map_err(failed)?;
            }
            if next.exists() {
                std::fs::rename(&next, &path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The key that signs releases.
    pub(crate) fn targets(&self) -> Result<&SigningKey, Failure> {
        self.targets.as_ref().ok_or_else(|| {
            Failure::new(format!("there is no targets key in {}", self.folder.display()))
                .next("name its folder with --keys DIR, or make keys with `holm key new --cloud`")
                .page(holm_core::ErrorCode::KeyMissing)
        })
    }
}

fn root_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("root-{number}.key"))
}

fn next_root_path(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("root-{number}.key.new"))
}

fn read(path: &Path) -> Result<Option<SigningKey>, Failure> {
    let bad = |why: &dyn std::fmt::Display| Failure::new(format!("cannot read the key {}: {why}", path.display()));
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(bad(&error)),
    };
    let document = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|error| bad(&error))?;
    SigningKey::from_pkcs8(document.secret_pkcs8_der()).map(Some).map_err(|error| bad(&error))
}

/// Makes a key and its file, which must not be there.
fn write(path: &Path) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("cannot make the key {}: {why}", path.display()));
    let (_, document) = SigningKey::generate().map_err(|error| failed(&error))?;
    let mut options = std::fs::File::options();
    let mut file = options.create_new(true).write(true).mode(0o600).open(path).map_err(|error| failed(&error))?;
    file.write_all(pem(&document).as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed(&error))
}

/// RFC 7468.
fn pem(document: &[u8]) -> String {
    let mut text = "-----BEGIN PRIVATE KEY-----".to_owned();
    for (place, letter) in STANDARD.encode(document).chars().enumerate() {
        if place % 64 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text.push_str("\n-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let made = Keys::make(path.clone(), 2).unwrap();
        let again = Keys::open(path.clone()).unwrap();
        let public = |keys: &Keys| keys.roots.iter().map(SigningKey::public).collect::<Vec<_>>();
        assert_eq!((public(&made).len(), public(&made)), (2, public(&again)));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&path.join("root-1.key")), mode(&path.join("targets.key"))),
            (0o700, 0o600, 0o600)
        );
        assert!(Keys::make(path, 1).is_err());
    }
}
