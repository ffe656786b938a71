//! Whose certificate opens the door, in memory: the broker asks in the middle of a handshake.
//!
//! It says what the records say, a moment later: who is added was committed before, who is removed too.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use holm_core::ClientId;

use crate::secret::Hash;

/// See the module.
#[derive(Default)]
pub(crate) struct Live {
    owners: RwLock<HashMap<Hash, ClientId>>,
}

impl Live {
    pub(crate) fn add(&self, fingerprint: Hash, thing: &str) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        owners.insert(fingerprint, ClientId(thing.into()));
    }

    pub(crate) fn remove(&self, fingerprints: &[Hash]) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        for fingerprint in fingerprints {
            owners.remove(fingerprint);
        }
    }

    /// Who has this certificate, in DER.
    pub(crate) fn owner(&self, der: &[u8]) -> Option<ClientId> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).get(&Hash::of(der)).cloned()
    }
}
