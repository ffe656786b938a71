//! A repository and the keys behind it, published into what the desk serves.

use std::collections::{BTreeMap, BTreeSet};

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::Timestamp;
use holm_protocol::{
    Artifact, DESIRED_STATE_FORMAT, DESIRED_STATE_TYPE, DeploymentPolicy, DesiredFunction, DesiredState, ThingName,
};
use holm_trust::tuf::edit::{self, NewTarget, OnlineKeys, RoleSet, Terms};
use holm_trust::tuf::{DEPLOYMENT_KEYS, DeploymentKeys, Draft, Kept, Listing};
use holm_trust::{Role, SigningKey, sign};
use serde_json::Value;

use super::https::Desk;

/// The time that the scripted control plane tells, in milliseconds since 1970.
pub const NOW: Timestamp = Timestamp(1_795_000_000_123);

/// See the module.
pub struct Repository {
    root: SigningKey,
    targets: SigningKey,
    online: SigningKey,
    /// Signs desired states.
    pub deployment: SigningKey,
    kept: Kept,
    sequence: u64,
}

fn key() -> SigningKey {
    SigningKey::generate().unwrap().0
}

fn signed(mut draft: Draft, key: &SigningKey) -> Vec<u8> {
    draft.sign(key).unwrap();
    draft.write().unwrap()
}

impl Repository {
    /// One with deployment keys and nothing else.
    pub fn new(desk: &mut Desk) -> Self {
        let (root, targets, online, deployment) = (key(), key(), key(), key());
        let role = |key: &SigningKey| Role::new([key.public()], 1).unwrap();
        let roles =
            RoleSet { root: role(&root), targets: role(&targets), snapshot: role(&online), timestamp: role(&online) };
        let first = signed(edit::root(&roles, NOW, &Terms::default()).unwrap(), &root);
        let mut this = Self { root, targets, online, deployment, kept: Kept::new(first), sequence: 0 };
        let keys = DeploymentKeys::new([this.deployment.public()], 1).unwrap().write().unwrap();
        this.add(desk, DEPLOYMENT_KEYS, &keys, Value::Null);
        this
    }

    /// The root that devices are given.
    pub fn root_json(&self) -> Value {
        serde_json::from_slice(&self.kept.root).unwrap()
    }

    /// Releases a bundle under the next sequence.
    pub fn release(&mut self, desk: &mut Desk, bundle: &[u8]) -> DesiredFunction {
        let opened = Bundle::open(bundle, &BundleLimits::default()).unwrap();
        let (name, version) = (opened.manifest.name.clone(), opened.manifest.version.to_string());
        self.sequence += 1;
        let listing = Listing::Bundle {
            function: name.clone(),
            version: version.clone(),
            sequence: self.sequence,
            permissions: Vec::new(),
        };
        self.add(desk, &Listing::bundle_name(&name, &version), bundle, listing.custom().unwrap());
        let bundle = Artifact { sha256: opened.digest, length: bundle.len() as u64 };
        DesiredFunction { name, version, bundle, config: BTreeMap::new(), secrets: BTreeMap::new(), permit: None }
    }

    /// Lists a target and publishes.
    pub fn add(&mut self, desk: &mut Desk, name: &str, bytes: &[u8], custom: Value) {
        let sha256 = Digest::of(bytes);
        let target = NewTarget { length: bytes.len() as u64, sha256, custom };
        let add = BTreeMap::from([(name.to_owned(), target)]);
        let previous = self.kept.targets.as_deref();
        let draft = edit::targets(previous, &add, &BTreeSet::new(), NOW, &Terms::default()).unwrap();
        let targets = signed(draft, &self.targets);
        let file = match name.rsplit_once('/') {
            Some((folder, file)) => format!("/tuf/targets/{folder}/{sha256}.{file}"),
            None => format!("/tuf/targets/{sha256}.{name}"),
        };
        desk.files.insert(file, bytes.to_vec());
        self.publish(desk, Some(targets), NOW);
    }

    /// Snapshot and timestamp anew, made at `now`.
    pub fn publish(&mut self, desk: &mut Desk, targets: Option<Vec<u8>>, now: Timestamp) {
        let keys = OnlineKeys { snapshot: &[&self.online], timestamp: &[&self.online] };
        let published = edit::publish(&self.kept, Vec::new(), targets, keys, now, &Terms::default()).unwrap();
        self.kept = published.kept;
        for (name, bytes) in published.files {
            desk.files.insert(format!("/tuf/metadata/{name}"), bytes);
        }
        desk.root_json = self.root_json();
    }

    /// A desired state for `pi3`, which is in force.
    pub fn desired(&self, generation: u64, window_s: u32, functions: Vec<DesiredFunction>) -> DesiredState {
        DesiredState {
            format: DESIRED_STATE_FORMAT,
            device: ThingName::new("pi3").unwrap(),
            generation,
            rollout: None,
            issued: Timestamp(NOW.0 - 1_000),
            expires: Timestamp(NOW.0 + 86_400_000),
            policy: DeploymentPolicy { health_window_s: window_s, deadline_s: 3_600, window: None },
            agent: None,
            functions,
        }
    }

    /// The document of a job.
    pub fn document(&self, state: &DesiredState) -> String {
        sign(DESIRED_STATE_TYPE, state.write().unwrap(), &[&self.deployment]).write().unwrap()
    }

    /// One that somebody else signed.
    pub fn forged(&self, state: &DesiredState) -> String {
        sign(DESIRED_STATE_TYPE, state.write().unwrap(), &[&self.root]).write().unwrap()
    }
}
