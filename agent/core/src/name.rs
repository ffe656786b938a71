//! Names of functions, and of what a node's configuration binds for them.

use std::fmt;
use std::sync::Arc;

/// Why a text is not a function name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: 1 to 63 of a-z, 0-9 and `-`, beginning with a letter, not ending with `-`")]
pub struct NameError(pub String);

/// The name of a function: an RFC 1035 label, so that it can be part of a topic, a file name or a host name. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FunctionName(Arc<str>);

impl FunctionName {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        label(text).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl std::str::FromStr for FunctionName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

/// The name of a sensor, a line or a bus, as the node's configuration binds it and manifests ask for it: an RFC 1035
/// label too. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Arc<str>);

impl Label {
    /// Checks `text`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        label(text).map(Self)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub fn shared(&self) -> Arc<str> {
        self.0.clone()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Label {
    fn borrow(&self) -> &str {
        &self.0
    }
}

fn label(text: &str) -> Result<Arc<str>, NameError> {
    let bytes = text.as_bytes();
    let well_formed = (1..=63).contains(&bytes.len())
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last() != Some(&b'-');
    if well_formed { Ok(text.into()) } else { Err(NameError(text.chars().take(80).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rfc_1035_labels() {
        for (text, valid) in [
            ("a", true),
            ("temp-alert2", true),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("2a", false),
            ("a.b", false),
        ] {
            assert_eq!(FunctionName::new(text).is_ok(), valid, "{text:?}");
        }
        assert!(FunctionName::new(&"a".repeat(64)).is_err());
    }
}
