//! Secrets: revealed to the guest that is granted them, and taken out of what its node keeps of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::bindings::holm::function::secrets;
use holm_core::Recording;

use crate::recorder::Nature;
use crate::state::State;

/// Shorter texts are too common to be looked for, and no secrets.
const SHORTEST: usize = 4;

/// Lines of a longer secret are looked for one by one: a log has lines.
const SHORTEST_LINE: usize = 8;

/// The secrets that a node has for a function, by name. Its `Debug` shows the names.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct SecretValues(BTreeMap<Arc<str>, Arc<[u8]>>);

impl SecretValues {
    /// From names and values.
    pub fn new(values: impl IntoIterator<Item = (Arc<str>, Vec<u8>)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name, Arc::from(value))).collect())
    }
}

impl fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a guest knows by now, to be found in its words.
#[derive(Default)]
pub(crate) struct Revealed(Vec<(Arc<str>, String)>);

impl Revealed {
    fn add(&mut self, name: &str, value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.len() < SHORTEST || self.0.iter().any(|(known, _)| **known == *name) {
            return;
        }
        let name: Arc<str> = name.into();
        self.0.push((name.clone(), text.to_owned()));
        let lines = text.lines().filter(|line| line.len() >= SHORTEST_LINE && line.len() < text.len());
        self.0.extend(lines.map(|line| (name.clone(), line.to_owned())));
    }

    /// The text without them.
    pub(crate) fn hide(&self, mut text: String) -> String {
        for (name, value) in &self.0 {
            if text.contains(value.as_str()) {
                text = text.replace(value.as_str(), &format!("[secret {name}]"));
            }
        }
        text
    }

    /// A recording, unless the guest has handed one on: to another function, say. What it asked is kept with the answers, and recordings are
    /// shown and sent.
    pub(crate) fn keep_out(&self, mut recording: Recording) -> Recording {
        let told = |(_, value): &(Arc<str>, String)| {
            recording.bytes.windows(value.len()).any(|window| window == value.as_bytes())
        };
        if self.0.iter().any(told) {
            recording.missing = recording.missing.saturating_add(recording.calls);
            recording.calls = 0;
            recording.bytes.clear();
        }
        recording
    }

    /// The one that is in these bytes.
    pub(crate) fn within(&self, bytes: &[u8]) -> Option<&str> {
        let text = std::str::from_utf8(bytes).ok()?;
        self.0.iter().find(|(_, value)| text.contains(value.as_str())).map(|(name, _)| &**name)
    }
}

impl fmt::Debug for Revealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl secrets::Host for State {
    fn get(&mut self, name: String) -> wasmtime::Result<Result<Vec<u8>, secrets::Error>> {
        if !self.grants.may_reveal(&name) {
            let words = format!("the manifest grants no secret `{name}`");
            return Ok(Err(secrets::Error::Denied(words)));
        }
        let secrets = self.secrets.clone();
        let value = secrets.0.get(name.as_str());
        // A recording says whether there was one, and never what: it is kept, shown and sent. A replay gets a stand-in.
        if !self.recorder.answer(Nature::World, "secrets.get", &name, || value.is_some())? {
            return Ok(Err(secrets::Error::NotFound));
        }
        let value = match value {
            Some(value) if !self.recorder.is_replay() => value.to_vec(),
            _ => format!("[secret {name}]").into_bytes(),
        };
        self.staging.revealed.add(&name, &value);
        Ok(Ok(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_revealed_is_taken_out_of_texts() {
        let mut revealed = Revealed::default();
        revealed.add("key", b"hunter2\n");
        revealed.add("pem", b"-----BEGIN-----\nabcdefgh\nxyz\n");
        revealed.add("short", b"a");
        revealed.add("binary", &[0xff; 9]);
        for (text, hidden) in [
            ("nothing", "nothing"),
            ("key=hunter2, again hunter2", "key=[secret key], again [secret key]"),
            ("line abcdefgh of it", "line [secret pem] of it"),
            ("xyz and a", "xyz and a"),
        ] {
            assert_eq!(revealed.hide(text.to_owned()), hidden);
            assert_eq!(revealed.within(text.as_bytes()).is_some(), text != hidden, "{text}");
        }
        assert!(!format!("{revealed:?}").contains("hunter2"));
        let recording = |bytes: &[u8]| Recording { bytes: bytes.to_vec(), calls: 2, missing: 1 };
        assert_eq!(revealed.keep_out(recording(b"\xff\0hunter")), recording(b"\xff\0hunter"));
        let withheld = Recording { bytes: Vec::new(), calls: 0, missing: 3 };
        assert_eq!(revealed.keep_out(recording(b"\xff\0hunter2\xff")), withheld);
    }
}
