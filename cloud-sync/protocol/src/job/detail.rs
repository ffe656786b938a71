//! `statusDetails`: what a device says about a job beside its status.

use std::collections::BTreeMap;

use crate::error::{bounded, excerpt};
use crate::limits::{MAX_DETAIL_KEY, MAX_DETAIL_VALUE, MAX_STATUS_DETAILS};
use crate::{Phase, ProtocolError, ReasonCode};

/// Pairs of texts within the limits of AWS IoT Jobs. One value out of bounds would make the service reject the whole update, and
/// a deployment whose end cannot be reported hangs; so values are cut and cleaned here instead.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct StatusDetails(BTreeMap<String, String>);

impl StatusDetails {
    /// The key of a deployment's phase.
    pub const PHASE: &'static str = "phase";
    /// The key of the reason why a deployment ended as it did.
    pub const REASON: &'static str = "reason";
    /// The key of the sentence for the operator.
    pub const MESSAGE: &'static str = "message";
    /// The key of the time, in milliseconds since 1970, when functions that have a deployment wait are asked again.
    pub const UNTIL: &'static str = "until";
    /// The key of the generation that is spoken of.
    pub const GENERATION: &'static str = "generation";

    /// What a device says about the deployment of `generation`.
    pub fn of_deployment(generation: u64, phase: &Phase, reason: Option<&ReasonCode>, message: Option<&str>) -> Self {
        let mut pairs = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            if let Some(value) = clean(value) {
                pairs.insert(key.to_owned(), value);
            }
        };
        put(Self::GENERATION, &generation.to_string());
        put(Self::PHASE, phase.as_str());
        if let Some(reason) = reason {
            put(Self::REASON, reason.as_str());
        }
        if let Some(message) = message {
            put(Self::MESSAGE, message);
        }
        Self(pairs)
    }

    /// Adds a pair, or replaces it. The value is cut at [`MAX_DETAIL_VALUE`] characters, what is not printable becomes a space,
    /// and an empty one is left out. Fails for a key that AWS would refuse and for more than [`MAX_STATUS_DETAILS`] pairs.
    pub fn insert(&mut self, key: &str, value: &str) -> Result<(), ProtocolError> {
        check_key(key)?;
        let Some(value) = clean(value) else { return Ok(()) };
        if !self.0.contains_key(key) {
            bounded("the number of status details", self.0.len() + 1, MAX_STATUS_DETAILS)?;
        }
        self.0.insert(key.to_owned(), value);
        Ok(())
    }

    /// A value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The phase, where there is one.
    pub fn phase(&self) -> Option<Phase> {
        self.get(Self::PHASE).map(Phase::parse)
    }

    /// The reason, where there is one.
    pub fn reason(&self) -> Option<ReasonCode> {
        self.get(Self::REASON).map(ReasonCode::parse)
    }

    /// All pairs, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// What a service checks of a request before it accepts it.
    pub fn check(&self) -> Result<(), ProtocolError> {
        bounded("the number of status details", self.0.len(), MAX_STATUS_DETAILS)?;
        for (key, value) in &self.0 {
            check_key(key)?;
            bounded("a status detail, in characters,", value.chars().count(), MAX_DETAIL_VALUE)?;
            if value.is_empty() || value.chars().any(is_other) {
                return Err(ProtocolError::invalid("statusDetails", format!("the value of `{key}` is not printable")));
            }
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), ProtocolError> {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_' | b'-');
    if (1..=MAX_DETAIL_KEY).contains(&key.len()) && key.bytes().all(valid) {
        return Ok(());
    }
    Err(ProtocolError::Name {
        what: "key of a status detail",
        text: excerpt(key),
        rule: "1 to 128 of A-Z, a-z, 0-9, `:`, `_` and `-`",
    })
}

fn clean(value: &str) -> Option<String> {
    let printable = |c: char| if is_other(c) { ' ' } else { c };
    let text: String = value.chars().map(printable).take(MAX_DETAIL_VALUE).collect();
    if text.trim().is_empty() { None } else { Some(text) }
}

/// Unicode's general category C as far as text has it: controls, formats that change direction or are invisible, private use,
/// and noncharacters. AWS refuses values with any of them (`[^\p{C}]+`). Unassigned characters, which that pattern refuses too,
/// change with every version of Unicode and are let through.
fn is_other(c: char) -> bool {
    let code = u32::from(c);
    c.is_control()
        || matches!(code, 0xAD | 0x600..=0x605 | 0x61C | 0x6DD | 0x70F | 0x180E | 0xFEFF | 0x1_10BD | 0x1_10CD)
        || matches!(code, 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F | 0xFFF0..=0xFFFB)
        || matches!(code, 0xE000..=0xF8FF | 0xFDD0..=0xFDEF | 0xE_0000..=0x10_FFFF | 0x1_D173..=0x1_D17A)
        || code & 0xFFFE == 0xFFFE
}
