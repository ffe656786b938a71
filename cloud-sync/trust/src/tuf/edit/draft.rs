//! A metadata file that is being signed.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use serde_json::{Map, Value, json};

use crate::tuf::key::to_hex;
use crate::tuf::{RoleName, date, json};
use crate::{SigningKey, TrustError};

/// A metadata file, and the signatures that it has so far. Signing does not change what is signed, so signers can come one after
/// another, each with the file that the last one left.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    signed: Map<String, Value>,
    signatures: BTreeMap<String, String>,
}

impl Draft {
    /// Goes on from `previous`, the same role's file, so that fields which are not known here stay; or begins at version 1.
    pub(super) fn follow(
        role: RoleName,
        previous: Option<&[u8]>,
        now: Timestamp,
        valid: std::time::Duration,
    ) -> Result<Self, TrustError> {
        let mut draft = match previous {
            Some(previous) => Self::read(previous)?,
            None => Self { signed: Map::new(), signatures: BTreeMap::new() },
        };
        draft.signatures.clear();
        let version = if previous.is_some() { draft.version()?.checked_add(1) } else { Some(1) };
        let version = version.ok_or_else(|| nonsense("no version can follow"))?;
        let valid = i64::try_from(valid.as_millis()).unwrap_or(i64::MAX);
        let expires = date::format(Timestamp(now.0.saturating_add(valid)));
        let expires = expires.ok_or_else(|| nonsense("it would expire after the year 9999"))?;
        draft.set("_type", json!(role.as_str()));
        draft.set("spec_version", json!("1.0.34"));
        draft.set("version", json!(version));
        draft.set("expires", json!(expires));
        Ok(draft)
    }

    /// Reads a file, signed or not. Nothing of it is checked.
    pub fn read(bytes: &[u8]) -> Result<Self, TrustError> {
        #[derive(serde::Deserialize)]
        struct Signature {
            keyid: String,
            sig: String,
        }
        #[derive(serde::Deserialize)]
        struct Shape {
            signed: Map<String, Value>,
            signatures: Vec<Signature>,
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|source| TrustError::Unreadable { source })?;
        let signatures = shape.signatures.into_iter().map(|signature| (signature.keyid, signature.sig)).collect();
        Ok(Self { signed: shape.signed, signatures })
    }

    /// The file. The same for the same contents and signatures.
    pub fn write(&self) -> Result<Vec<u8>, TrustError> {
        let signature = |(keyid, sig): (&String, &String)| json!({ "keyid": keyid, "sig": sig });
        let signatures: Vec<Value> = self.signatures.iter().map(signature).collect();
        let file = json!({ "signatures": signatures, "signed": self.signed });
        serde_json::to_vec(&file).map_err(|source| TrustError::Unreadable { source })
    }

    /// Adds a signature, or makes that of the same key anew.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), TrustError> {
        let message = json::canonical(&Value::Object(self.signed.clone()))?;
        self.signatures.insert(key.public().id(), to_hex(&key.sign(&message)));
        Ok(())
    }

    /// The ids of the keys that have signed so far, or say so.
    pub fn signed_by(&self) -> impl Iterator<Item = &str> {
        self.signatures.keys().map(String::as_str)
    }

    /// Its version.
    pub fn version(&self) -> Result<u64, TrustError> {
        self.get("version").and_then(Value::as_u64).ok_or_else(|| nonsense("it has no version"))
    }

    pub(super) fn get(&self, field: &str) -> Option<&Value> {
        self.signed.get(field)
    }

    pub(super) fn set(&mut self, field: &str, value: Value) {
        self.signed.insert(field.to_owned(), value);
    }

    /// An object among its fields, made if it is not there.
    pub(super) fn object(&mut self, field: &'static str) -> Result<&mut Map<String, Value>, TrustError> {
        let value = self.signed.entry(field).or_insert_with(|| json!({}));
        value.as_object_mut().ok_or_else(|| nonsense(field))
    }
}

pub(super) fn nonsense(what: &str) -> TrustError {
    TrustError::Nonsense { what: what.to_owned() }
}
