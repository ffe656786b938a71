//! `[[gpio]]`: lines by name.

use std::time::Duration;

use holm_core::{Label, Level, Section};

use super::device_name;

/// How long an input must hold still before it has changed, unless the configuration says otherwise. It keeps a line
/// that rings, or that nothing is connected to, from keeping the node busy.
const DEBOUNCE: Duration = Duration::from_millis(1);

/// The longest debounce that is passed on to the kernel.
const MAX_DEBOUNCE: Duration = Duration::from_secs(10);

/// A line, bound to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineBinding {
    /// What functions call it.
    pub name: Label,
    /// What the kernel or the profile calls it: `GPIO17`.
    pub line: String,
    /// Where it is if nothing has that name: the label of a chip, and the offset there.
    pub place: Option<(String, u32)>,
    /// In or out.
    pub direction: Direction,
    /// Whether a low wire is active.
    pub active_low: bool,
}

/// What a line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It is read.
    In {
        /// Its bias.
        pull: Pull,
        /// How long it must hold still before it has changed.
        debounce: Duration,
    },
    /// It is driven.
    Out {
        /// What it is driven to while nobody is in charge of it: at start, at the end, and when no function is granted
        /// it any more.
        safe: Level,
    },
}

/// The bias of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// As the board has it.
    AsIs,
    /// Off.
    None,
    /// To high.
    Up,
    /// To low.
    Down,
}

impl LineBinding {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = section.require("name", Label::new);
        let line = section.require("line", line_name);
        let chip = section.parse("chip", device_name);
        let offset = section.integer("offset", 0..=511).map(|offset| offset as u32);
        let place = match (chip, offset) {
            (Some(chip), Some(offset)) => Some((chip, offset)),
            (None, None) => None,
            (Some(_), None) => {
                section.problem("offset", "a chip needs the offset of the line there");
                None
            }
            (None, Some(_)) => {
                section.problem("chip", "an offset needs the label of its chip");
                None
            }
        };
        let active_low = section.boolean("active_low").unwrap_or(false);
        let out = section.require("direction", |text| match text {
            "in" => Ok(false),
            "out" => Ok(true),
            _ => Err(format!("`{text}` is not one of `in`, `out`")),
        })?;
        let safe = section.choice("safe", &[("low", Level::Low), ("high", Level::High)]);
        let pulls = [("as-is", Pull::AsIs), ("none", Pull::None), ("up", Pull::Up), ("down", Pull::Down)];
        let pull = section.choice("pull", &pulls);
        let debounce = section.duration_in("debounce", Duration::ZERO..=MAX_DEBOUNCE);
        let direction = if out {
            if pull.is_some() || debounce.is_some() {
                section.problem("direction", "`pull` and `debounce` are for inputs");
            }
            if safe.is_none() {
                section.problem("safe", "an output needs the level at which it does no harm: \"low\" or \"high\"");
            }
            Direction::Out { safe: safe? }
        } else {
            if safe.is_some() {
                section.problem("direction", "`safe` is for outputs");
            }
            Direction::In { pull: pull.unwrap_or(Pull::AsIs), debounce: debounce.unwrap_or(DEBOUNCE) }
        };
        Some(Self { name: name?, line: line?, place, direction, active_low })
    }

    /// Whether it is driven, and to what while nobody is in charge of it.
    pub fn safe(&self) -> Option<Level> {
        match self.direction {
            Direction::Out { safe } => Some(safe),
            Direction::In { .. } => None,
        }
    }
}

/// The kernel's names of lines may have spaces and brackets (`P9_12 [gpio1_28]`), but are short.
fn line_name(text: &str) -> Result<String, String> {
    if (1..=31).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not the name of a line: at most 31 printable characters"))
    }
}
