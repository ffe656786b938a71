//! Levels and edges of a line.

/// What a line is at, as the node's configuration sees it: `High` is active, also where the wire is active low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Inactive.
    Low,
    /// Active.
    High,
}

impl Level {
    /// The text that guests and events carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::High => "high",
        }
    }
}

impl std::ops::Not for Level {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::Low => Self::High,
            Self::High => Self::Low,
        }
    }
}

/// Which changes of a line are of interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Edge {
    /// To high.
    Rising,
    /// To low.
    Falling,
    /// Either.
    Both,
}

impl Edge {
    /// The word that manifests use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rising => "rising",
            Self::Falling => "falling",
            Self::Both => "both",
        }
    }

    /// Whether a change to `level` is one of them.
    pub fn includes(self, level: Level) -> bool {
        match self {
            Self::Both => true,
            Self::Rising => level == Level::High,
            Self::Falling => level == Level::Low,
        }
    }
}
