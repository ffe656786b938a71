//! The online keys: two of the code repository, and the one that signs what devices shall run.
//!
//! They are made at the first start and kept in the data folder. What they can do is bounded by the offline keys: snapshot and
//! timestamp keys count because a root names them, the deployment key because a target does.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_trust::SigningKey;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use crate::CloudError;
use crate::error::trust;
use crate::folder::{Folder, read, write_private};

/// See the module.
pub(crate) struct Signing {
    pub(crate) snapshot: SigningKey,
    pub(crate) timestamp: SigningKey,
    pub(crate) deployment: SigningKey,
}

impl Signing {
    /// Reads the keys, and makes those that are not there. One that is there and cannot be read is never replaced: devices
    /// believe it.
    pub(crate) fn open(folder: &Folder) -> Result<Self, CloudError> {
        Ok(Self {
            snapshot: key(folder, "snapshot")?,
            timestamp: key(folder, "timestamp")?,
            deployment: key(folder, "deployment")?,
        })
    }
}

fn key(folder: &Folder, name: &str) -> Result<SigningKey, CloudError> {
    let path = folder.key(name);
    match read(&path)? {
        Some(text) => {
            let document = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
                .map_err(|error| CloudError::Broken { what: format!("{} is no key: {error}", path.display()) })?;
            SigningKey::from_pkcs8(document.secret_pkcs8_der()).map_err(trust("read an online key"))
        }
        None => {
            let (key, document) = SigningKey::generate().map_err(trust("make an online key"))?;
            write_private(&path, pem(&document).as_bytes())?;
            Ok(key)
        }
    }
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
    let _ = writeln!(text, "\n-----END PRIVATE KEY-----");
    text
}
