//! What a rollout makes different on a device.

use std::collections::BTreeMap;

use holm_core::FunctionName;
use holm_protocol::{AGENT, Artifact, DesiredFunction, Envelope};
use serde::{Deserialize, Serialize};

use super::super::desired::{self, Confirmed, Last};

/// See the module. Written down with its rollout: what a version is does not change while it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Change {
    /// A release. The function's configuration stays.
    Release {
        version: String,
        bundle: Artifact,
        /// Of an agent, by processor.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        builds: BTreeMap<String, Artifact>,
        sequence: u64,
        /// To be older than what devices have, signed by the targets keys.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        permit: Option<Envelope>,
    },
    /// The bundle that the device had confirmed before the one that it has, with the configuration of that time. Before an agent there is
    /// always one: the installed.
    Back,
    /// Values of its configuration. `None`: the manifest's default.
    Config { values: BTreeMap<String, Option<String>> },
    /// The function goes.
    Remove,
}

impl Change {
    /// The function as this device shall run it, or why that cannot be.
    pub(super) fn wanted(
        &self,
        name: &FunctionName,
        last: &Last,
        confirmed: &Confirmed,
    ) -> Result<Option<DesiredFunction>, String> {
        let current = last.function(name);
        match self {
            Self::Release { version, bundle, builds, sequence, permit } => {
                let bundle = desired::for_device(builds, *bundle, last)?;
                if permit.is_none() && !confirmed.admits(&bundle, *sequence) {
                    let has = current.map_or("what it had", |current| &current.version);
                    if !builds.is_empty() {
                        return Err(format!("{version} is older than {has}, and an agent goes back one step only"));
                    }
                    return Err(format!("{version} is older than {has}: going back needs a permit of the targets key"));
                }
                let (version, permit) = (version.clone(), permit.clone());
                Ok(Some(match current {
                    Some(old) => DesiredFunction { version, bundle, permit, ..old.clone() },
                    None => DesiredFunction {
                        name: name.clone(),
                        version,
                        bundle,
                        config: BTreeMap::new(),
                        secrets: BTreeMap::new(),
                        permit,
                    },
                }))
            }
            Self::Back => match &confirmed.before {
                Some(before) if confirmed.before_is_older => Ok(Some(before.clone())),
                // It went back once already: once more would be forward, to what was not good then.
                Some(before) => Err(format!(
                    "what it had confirmed before, {}, is not older than what it has: name a version",
                    before.version
                )),
                None if name.as_str() == AGENT && confirmed.now.is_some() => Ok(None),
                None => Err(format!("there is no version of {name} before that it has confirmed")),
            },
            Self::Config { .. } if name.as_str() == AGENT => {
                Err("an agent takes no parameters from here: it has its agent.toml".to_owned())
            }
            Self::Config { values } => {
                let Some(current) = current else { return Err(format!("it does not run {name}")) };
                let mut wanted = current.clone();
                for (key, value) in values {
                    match value {
                        Some(value) => drop(wanted.config.insert(key.clone(), value.clone())),
                        None => drop(wanted.config.remove(key)),
                    }
                }
                Ok(Some(wanted))
            }
            Self::Remove => Ok(None),
        }
    }

    /// For people.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Release { version, .. } => version.clone(),
            Self::Back => "the version before".to_owned(),
            Self::Config { values } => {
                let pair = |(name, value): (&String, &Option<String>)| match value {
                    Some(value) => format!("{name}={value}"),
                    None => format!("{name} (default)"),
                };
                values.iter().map(pair).collect::<Vec<_>>().join(" ")
            }
            Self::Remove => "removed".to_owned(),
        }
    }

    /// Whether devices take new code for it: then they want fresh metadata.
    pub(super) fn is_release(&self) -> bool {
        matches!(self, Self::Release { .. })
    }
}
