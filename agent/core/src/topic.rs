//! MQTT topic names and filters, checked when made (MQTT 5.0, section 4.7).

use std::fmt;
use std::sync::Arc;

/// The longest topic the protocol can carry, in bytes of UTF-8.
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// The most levels we accept in a topic, so that matching work is bounded by something smaller than the packet.
pub const MAX_TOPIC_LEVELS: usize = 128;

/// Why a text is not a topic name or filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Zero characters.
    #[error("topic is empty")]
    Empty,
    /// More than [`MAX_TOPIC_BYTES`].
    #[error("topic is longer than {MAX_TOPIC_BYTES} bytes")]
    TooLong,
    /// More than [`MAX_TOPIC_LEVELS`].
    #[error("topic has more than {MAX_TOPIC_LEVELS} levels")]
    TooDeep,
    /// U+0000 is forbidden everywhere.
    #[error("topic holds a NUL character")]
    Nul,
    /// `+` or `#` in a topic name.
    #[error("`+` and `#` are for filters, not for the topic of a message")]
    WildcardInName,
    /// `+` beside other characters, or `#` anywhere but alone at the end.
    #[error("`+` must fill a level, and `#` must fill the last one")]
    MisplacedWildcard,
}

/// The topic of one message: no wildcards. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks `text` as a topic name.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        if text.contains(['+', '#']) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text.into()))
    }

    /// The topic as it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A subscription pattern with `+` and `#`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Checks `text` as a topic filter. Shared subscriptions (`$share/...`) are not filters here.
    pub fn new(text: &str) -> Result<Self, TopicError> {
        check_common(text)?;
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            let last = levels.peek().is_none();
            let well_placed = match level {
                "+" => true,
                "#" => last,
                other => !other.contains(['+', '#']),
            };
            if !well_placed {
                return Err(TopicError::MisplacedWildcard);
            }
        }
        Ok(Self(text.into()))
    }

    /// The filter as it travels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a message on `topic` belongs to this filter. A leading wildcard does not match topics that begin with
    /// `$` (MQTT 5.0, 4.7.2).
    pub fn matches(&self, topic: &TopicName) -> bool {
        self.matches_str(topic.as_str())
    }

    /// Whether every topic that `other` matches is matched by this filter too: what an ACL must ask of a subscription.
    pub fn covers(&self, other: &TopicFilter) -> bool {
        if other.0.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let (mut mine, mut theirs) = (self.0.split('/'), other.0.split('/'));
        loop {
            match (mine.next(), theirs.next()) {
                (Some("#"), _) => return true,
                (_, Some("#")) => return false,
                (Some("+"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    fn matches_str(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let (mut filter, mut levels) = (self.0.split('/'), topic.split('/'));
        loop {
            match (filter.next(), levels.next()) {
                (Some("#"), _) => return true,
                (Some("+"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

fn check_common(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > MAX_TOPIC_BYTES {
        Err(TopicError::TooLong)
    } else if text.contains('\0') {
        Err(TopicError::Nul)
    } else if text.split('/').count() > MAX_TOPIC_LEVELS {
        Err(TopicError::TooDeep)
    } else {
        Ok(())
    }
}

macro_rules! text_traits {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl std::str::FromStr for $type {
            type Err = TopicError;
            fn from_str(text: &str) -> Result<Self, TopicError> {
                Self::new(text)
            }
        }
    };
}
text_traits!(TopicName);
text_traits!(TopicFilter);

#[cfg(test)]
#[path = "topic_tests.rs"]
mod tests;
