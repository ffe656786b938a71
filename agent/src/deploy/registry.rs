//! The registry's document: which versions are active, and what each of them replaced.

use std::collections::{BTreeMap, BTreeSet};

use holm_bundle::Digest;

/// What this release writes, and all that it reads.
const FORMAT: u32 = 1;

/// The registry's document.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Registry {
    pub(super) format: u32,
    pub(super) functions: BTreeMap<String, Entry>,
    #[serde(default)]
    pub(super) quarantined: BTreeSet<String>,
    /// Of the desired state that this set came with; 0 if there was none.
    #[serde(default)]
    pub(super) generation: u64,
    /// A whole set is being watched, and this comes back at a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) before: Option<Box<Before>>,
}

/// All that ran before a set that is being watched.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Before {
    pub(super) functions: BTreeMap<String, Entry>,
    #[serde(default)]
    pub(super) quarantined: BTreeSet<String>,
    #[serde(default)]
    pub(super) generation: u64,
}

/// One function of the registry.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Entry {
    pub(super) version: String,
    pub(super) digest: Digest,
    pub(super) component: Digest,
    pub(super) deployed: i64,
    /// As its author wrote it, so that a start need not open the bundle. Entries of before have none.
    #[serde(default)]
    pub(super) manifest: String,
    /// What differs from the manifest's defaults.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) config: BTreeMap<String, String>,
    /// As they came: what they are is known in memory only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) secrets: BTreeMap<String, String>,
    /// The version is being watched; `previous` comes back at a start.
    #[serde(default)]
    pub(super) trial: bool,
    /// Whether an event has exercised it in its health window.
    #[serde(default)]
    pub(super) exercised: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) previous: Option<Box<Entry>>,
}

impl Registry {
    /// Without functions.
    pub(super) fn empty() -> Self {
        Self { format: FORMAT, ..Self::default() }
    }

    /// Reads the document. One of a later format is not read, because what it has more would be lost when it is written.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let read: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match read.format {
            FORMAT => Ok(read),
            other => Err(format!("it has format {other}, and this release knows {FORMAT}")),
        }
    }

    /// Functions of which a version is being watched.
    pub(super) fn on_trial(&self) -> BTreeSet<String> {
        self.functions.iter().filter(|(_, entry)| entry.trial).map(|(name, _)| name.clone()).collect()
    }

    /// Ends all trials as a start does. True if there were any.
    pub(super) fn end_trials(&mut self) -> bool {
        let mut changed = false;
        if let Some(before) = self.before.take() {
            changed = true;
            let Before { functions, quarantined, generation } = *before;
            tracing::warn!(generation = self.generation, "back to the set of functions before the trial");
            (self.functions, self.quarantined, self.generation) = (functions, quarantined, generation);
        }
        for (name, entry) in std::mem::take(&mut self.functions) {
            if entry.trial {
                changed = true;
                tracing::warn!(
                    function = name,
                    version = entry.version,
                    "the node went down during the trial: back to the version before"
                );
            }
            self.functions.extend(entry.settled().map(|entry| (name, entry)));
        }
        changed
    }

    /// Takes a function's version back.
    pub(super) fn take_back(&mut self, name: &str) {
        match self.functions.get(name).and_then(|entry| entry.previous.clone()) {
            Some(previous) => self.functions.insert(name.to_owned(), *previous),
            None => self.functions.remove(name),
        };
    }
}

impl Entry {
    /// What a start brings up: a version that is in its trial does not count, but the one before it, if there was one.
    pub(super) fn settled(self) -> Option<Self> {
        if self.trial { self.previous.map(|previous| *previous) } else { Some(self) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(version: &str, trial: bool, previous: Option<Entry>) -> Entry {
        let digest = Digest::of(version.as_bytes());
        let previous = previous.map(Box::new);
        Entry {
            version: version.to_owned(),
            digest,
            component: digest,
            deployed: 0,
            manifest: String::new(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            trial,
            exercised: false,
            previous,
        }
    }

    #[test]
    fn a_version_in_trial_is_never_what_a_node_goes_back_to() {
        let version = |entry: Option<Entry>| entry.map(|entry| entry.version);
        assert_eq!(version(entry("1", false, None).settled()), Some("1".to_owned()));
        assert_eq!(version(entry("2", true, Some(entry("1", false, None))).settled()), Some("1".to_owned()));
        assert_eq!(version(entry("2", true, None).settled()), None);
        assert_eq!(version(entry("2", false, Some(entry("1", false, None))).settled()), Some("2".to_owned()));
    }

    #[test]
    fn a_registry_of_a_later_format_is_not_taken_for_ours() {
        let text = |format: u32| format!(r#"{{"format":{format},"functions":{{}},"more":1}}"#);
        assert!(Registry::read(&text(1)).is_ok());
        assert!(Registry::read(&text(2)).unwrap_err().contains("format 2"));
    }

    #[test]
    fn a_start_ends_trials_and_keeps_the_rest() {
        let mut registry = Registry::empty();
        registry.functions.insert("new".to_owned(), entry("1", true, None));
        registry.functions.insert("better".to_owned(), entry("2", true, Some(entry("1", false, None))));
        registry.functions.insert("good".to_owned(), entry("3", false, None));
        assert!(registry.end_trials());
        let left: Vec<_> = registry.functions.iter().map(|(name, one)| (name.as_str(), one.version.as_str())).collect();
        assert_eq!(left, [("better", "1"), ("good", "3")]);
        assert!(!registry.end_trials());
    }

    #[test]
    fn a_set_in_trial_goes_back_as_a_whole() {
        let before = Before {
            functions: [("old", entry("1", false, None)), ("changed", entry("1", false, None))]
                .map(|(name, entry)| (name.to_owned(), entry))
                .into(),
            quarantined: ["old".to_owned()].into(),
            generation: 4,
        };
        let mut registry = Registry { generation: 5, before: Some(Box::new(before)), ..Registry::empty() };
        registry.functions.insert("changed".to_owned(), entry("2", true, None));
        registry.functions.insert("added".to_owned(), entry("1", true, None));
        let text = serde_json::to_string(&registry).unwrap();
        let mut read: Registry = serde_json::from_str(&text).unwrap();
        assert!(read.end_trials());
        let left: Vec<_> = read.functions.iter().map(|(name, one)| (name.as_str(), one.version.as_str())).collect();
        assert_eq!(left, [("changed", "1"), ("old", "1")]);
        assert_eq!((read.generation, read.quarantined.len(), read.before.is_none()), (4, 1, true));
        assert!(!read.end_trials());
    }
}
