//! What Holm puts into a repository, and says of it in `custom`.
//!
//! | target | what |
//! | --- | --- |
//! | `functions/{function}/{version}/{function}.holm` | a bundle |
//! | `functions/{function}/{version}/{engine key}.cwasm` | native code of its component |
//! | `agents/{version}/{arch}` | the agent's program for a processor |
//! | `deployment-keys.json` | whose desired states devices accept |
//!
//! The last one is how the online deployment key is vouched for by the offline targets key: a target like any other, fetched and
//! checked like any other.

use std::collections::BTreeSet;

use holm_bundle::Digest;
use holm_core::FunctionName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Target;
use crate::{PublicKey, Role, TrustError};

/// The name of the target with the deployment keys.
pub const DEPLOYMENT_KEYS: &str = "deployment-keys.json";

/// The largest such target that is read, in bytes.
pub const MAX_DEPLOYMENT_KEYS: u64 = 16 << 10;

/// What Holm says of a target, under `holm` in its `custom`. Unknown fields are ignored: newer publishers may say more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Listing {
    /// A function's bundle.
    Bundle {
        /// Which function's.
        #[serde(with = "name")]
        function: FunctionName,
        /// Which version, for people.
        version: String,
        /// The release sequence: goes up with each release of a function, and a device does not take a lower one without a permit.
        sequence: u64,
        /// What its manifest asks for, one line each. What was approved when it was published.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        permissions: Vec<String>,
    },
    /// Native code of a component, for one engine and profile.
    Native {
        /// Of the component's bytes; `sha256:` and 64 digits.
        #[serde(with = "tagged")]
        component: Digest,
        /// The full version of wasmtime.
        engine: String,
        /// The engine profile's name.
        profile: String,
    },
    /// An agent.
    Agent {
        /// Its version.
        version: String,
        /// The processor, in Rust's word.
        arch: String,
        /// The full version of wasmtime in it.
        engine: String,
        /// The name of its engine profile.
        profile: String,
        /// As for bundles, and the same for all processors.
        sequence: u64,
    },
    /// Of a kind that this agent does not know.
    #[serde(other)]
    Unknown,
}

impl Listing {
    /// What is said of a target. `None`: nothing.
    pub fn of(target: &Target) -> Result<Option<Self>, TrustError> {
        let Some(said) = target.custom.get("holm") else { return Ok(None) };
        Self::deserialize(said).map(Some).map_err(|source| TrustError::Unreadable { source })
    }

    /// The `custom` that says it.
    pub fn custom(&self) -> Result<Value, TrustError> {
        let said = serde_json::to_value(self).map_err(|source| TrustError::Unreadable { source })?;
        Ok(json!({ "holm": said }))
    }

    /// The name of a bundle's target.
    pub fn bundle_name(function: &FunctionName, version: &str) -> String {
        format!("functions/{function}/{version}/{function}.holm")
    }

    /// The name of an agent's target.
    pub fn agent_name(version: &str, arch: &str) -> String {
        format!("agents/{version}/{arch}")
    }

    /// The name of native code's target.
    pub fn native_name(function: &FunctionName, version: &str, engine_key: &str) -> String {
        format!("functions/{function}/{version}/{engine_key}.cwasm")
    }
}

/// The contents of [`DEPLOYMENT_KEYS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentKeys {
    keys: BTreeSet<PublicKey>,
    threshold: usize,
}

#[derive(Serialize, Deserialize)]
struct Shape {
    format: u32,
    keys: Vec<String>,
    threshold: usize,
}

/// The format that is written and read.
const FORMAT: u32 = 1;

impl DeploymentKeys {
    /// Fails as [`Role::new`] does.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>, threshold: usize) -> Result<Self, TrustError> {
        let keys = Self { keys: keys.into_iter().collect(), threshold };
        keys.role()?;
        Ok(keys)
    }

    /// Reads the target's bytes, which must have been checked before.
    pub fn read(bytes: &[u8]) -> Result<Self, TrustError> {
        let shape: Shape = serde_json::from_slice(bytes).map_err(|source| TrustError::Unreadable { source })?;
        if shape.format != FORMAT {
            return Err(TrustError::Nonsense { what: format!("format {} of {DEPLOYMENT_KEYS}", shape.format) });
        }
        let keys: Result<Vec<PublicKey>, TrustError> = shape.keys.iter().map(|key| PublicKey::parse(key)).collect();
        Self::new(keys?, shape.threshold)
    }

    /// The target's bytes, the same for the same keys.
    pub fn write(&self) -> Result<Vec<u8>, TrustError> {
        let keys = self.keys.iter().map(PublicKey::to_string).collect();
        let shape = Shape { format: FORMAT, keys, threshold: self.threshold };
        serde_json::to_vec(&shape).map_err(|source| TrustError::Unreadable { source })
    }

    /// For [`crate::Judge::deployment`].
    pub fn role(&self) -> Result<Role, TrustError> {
        Role::new(self.keys.iter().copied(), self.threshold)
    }
}

/// A function's name as its text.
mod name {
    use holm_core::FunctionName;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(name: &FunctionName, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(name)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FunctionName, D::Error> {
        let text = String::deserialize(deserializer)?;
        FunctionName::new(&text).map_err(serde::de::Error::custom)
    }
}

/// `sha256:` before a digest.
mod tagged {
    use holm_bundle::Digest;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("sha256:{digest}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digest = text.strip_prefix("sha256:").and_then(|digest| digest.parse().ok());
        digest.ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not `sha256:` and a digest")))
    }
}
