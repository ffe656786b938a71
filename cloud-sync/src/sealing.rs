//! The key that secrets for this device are sealed to, in `identity/sealing.key` of the data folder, and opening them.
//!
//! It is not the key of the certificate: that one signs, and is replaced with each renewal, while what was sealed has to open for as
//! long as the function runs. It is made when the link first needs it, so a device that was enrolled before there were secrets has
//! one too, and it stays where the data folder is: another card has another key, and its secrets are sealed anew.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_bundle::Digest;
use holm_protocol::{ReasonCode, ThingName};
use holm_trust::{OpeningKey, Purpose};

use crate::deploy::Refusal;
use crate::{IdentityFolder, SyncError};

/// What opens a device's secrets. Cheap to clone; reads its files when it is first asked.
#[derive(Debug, Clone)]
pub struct Secrets {
    folder: IdentityFolder,
    opener: Arc<Mutex<Option<(ThingName, OpeningKey)>>>,
}

impl Secrets {
    /// Of a data folder.
    pub fn of(data: &Path) -> Self {
        Self { folder: IdentityFolder::of(data), opener: Arc::default() }
    }

    /// A value as the desired state has it. Blocks on the disk the first time.
    pub fn open(&self, name: &str, sealed: &str) -> Result<Vec<u8>, Refusal> {
        let refused = |words: String| Refusal::new(ReasonCode::SecretUnreadable, format!("{name}: {words}"));
        let (thing, key) = self.opener().map_err(|error| refused(error.chain()))?;
        let sealed = STANDARD.decode(sealed).map_err(|_| refused("it is not base64".to_owned()))?;
        let purpose = Purpose { thing: thing.as_str(), name };
        key.open(purpose, &sealed).map_err(|error| refused(error.to_string()))
    }

    fn opener(&self) -> Result<(ThingName, OpeningKey), SyncError> {
        let mut opener = self.opener.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*opener {
            return Ok(known.clone());
        }
        let identity = self.folder.current()?.ok_or_else(|| SyncError::Given {
            what: "the device's identity",
            problem: "there is none: secrets are for devices that are enrolled".to_owned(),
        })?;
        let found = (identity.thing().clone(), self.folder.opening_key()?);
        *opener = Some(found.clone());
        Ok(found)
    }
}

/// As it is in the file.
pub(crate) fn write(key: &OpeningKey) -> String {
    format!("holm-sealing-key 1 {}\n", Digest::from(key.to_bytes()))
}

/// See [`write`].
pub(crate) fn read(text: &str) -> Option<OpeningKey> {
    let bytes: Digest = text.strip_prefix("holm-sealing-key 1 ")?.trim_end().parse().ok()?;
    Some(OpeningKey::from_bytes(*bytes.as_bytes()))
}
