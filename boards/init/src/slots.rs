//! Which system runs: the confirmed one, or another that is on trial.
//!
//! `slots.toml` in the data partition says so. A trial is counted **before** it is begun, and what is counted is synced: a
//! system that hangs, panics or never gets to its end has used up a try all the same, and after the last one the confirmed
//! system stays. The firmware is asked for a trial for one boot only (`reboot "0 tryboot"` on a Raspberry Pi), so that
//! every reset that nobody asked for leads back to the confirmed system.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use holm_core::Document;

use crate::InitError;
use crate::seed::write;

/// The file, in the data partition.
pub const FILE: &str = "slots.toml";

/// How often a system that is on trial may be begun.
pub const TRIES: u8 = 3;

/// One of the two places for a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Slot {
    /// Partition 2.
    #[default]
    A,
    /// Partition 3.
    B,
}

impl Slot {
    /// The partition's number.
    pub fn partition(self) -> u32 {
        match self {
            Self::A => 2,
            Self::B => 3,
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// `a` or `b`, as the folders on the FAT partition are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// By its name.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "a" => Ok(Self::A),
            "b" => Ok(Self::B),
            other => Err(format!("`{other}` is no slot: a, b")),
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `slots.toml` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    /// What runs unless something is on trial.
    pub confirmed: Slot,
    /// What is on trial, and how often it may still be begun.
    pub trial: Option<(Slot, u8)>,
    /// What was tried last and given up.
    pub failed: Option<Slot>,
}

/// What to do at a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Run, as always.
    Run,
    /// Keep [`Slots`] and boot the other slot, once.
    Try(Slot),
    /// Run, and confirm when it has been healthy for a while. If it is not, restart: that leads back.
    Watch,
}

impl Slots {
    /// What the file says. One that cannot be read says nothing: the slot that booted is as good as any.
    pub fn read(data: &Path, running: Slot) -> Self {
        let nothing = Self { confirmed: running, ..Self::default() };
        match fs::read_to_string(data.join(FILE)) {
            Ok(text) => Self::parse(&text).unwrap_or(nothing),
            Err(error) if error.kind() == ErrorKind::NotFound => nothing,
            Err(_) => nothing,
        }
    }

    /// Writes the file, synced.
    pub fn write(&self, data: &Path) -> Result<(), InitError> {
        write(&data.join(FILE), self.render().as_bytes())
    }

    fn parse(text: &str) -> Option<Self> {
        let (document, mut root) = Document::parse(FILE, text).ok()?;
        let confirmed = root.require("confirmed", Slot::parse);
        let trial = root.parse("trial", Slot::parse);
        let tries = root.integer("tries", 0..=u64::from(u8::MAX)).and_then(|tries| u8::try_from(tries).ok());
        let failed = root.parse("failed", Slot::parse);
        drop(root);
        document.finish().ok()?;
        Some(Self { confirmed: confirmed?, trial: trial.map(|slot| (slot, tries.unwrap_or_default())), failed })
    }

    fn render(&self) -> String {
        let mut text = format!("confirmed = \"{}\"\n", self.confirmed);
        if let Some((slot, tries)) = self.trial {
            text.push_str(&format!("trial = \"{slot}\"\ntries = {tries}\n"));
        }
        if let Some(slot) = self.failed {
            text.push_str(&format!("failed = \"{slot}\"\n"));
        }
        text
    }

    /// What to do, now that `running` has booted. If the answer is not what the file says already, write it before acting.
    pub fn at_boot(&mut self, running: Slot) -> Decision {
        match self.trial {
            Some((slot, _)) if slot == running => Decision::Watch,
            Some((slot, 0)) => {
                (self.trial, self.failed) = (None, Some(slot));
                Decision::Run
            }
            Some((slot, tries)) => {
                self.trial = Some((slot, tries - 1));
                Decision::Try(slot)
            }
            None => Decision::Run,
        }
    }

    /// What runs has been healthy for long enough.
    pub fn confirm(&mut self, running: Slot) {
        *self = Self { confirmed: running, trial: None, failed: None };
    }

    /// The other slot has a new system: to be tried at the next boot.
    pub fn begin(&mut self, slot: Slot) {
        (self.trial, self.failed) = (Some((slot, TRIES)), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_never_gets_through_is_tried_three_times_and_given_up() {
        let data = tempfile::tempdir().unwrap();
        Slots { trial: Some((Slot::B, TRIES)), ..Slots::default() }.write(data.path()).unwrap();
        for _ in 0..TRIES {
            let mut slots = Slots::read(data.path(), Slot::A);
            assert_eq!(slots.at_boot(Slot::A), Decision::Try(Slot::B));
            slots.write(data.path()).unwrap();
            assert_eq!(Slots::read(data.path(), Slot::B).at_boot(Slot::B), Decision::Watch);
        }
        let mut slots = Slots::read(data.path(), Slot::A);
        assert_eq!(slots.at_boot(Slot::A), Decision::Run);
        assert_eq!(slots, Slots { confirmed: Slot::A, trial: None, failed: Some(Slot::B) });
    }

    #[test]
    fn a_system_that_is_healthy_is_confirmed_and_stays() {
        let data = tempfile::tempdir().unwrap();
        let mut slots = Slots::read(data.path(), Slot::A);
        assert_eq!(slots.at_boot(Slot::A), Decision::Run);
        slots.begin(Slot::B);
        assert_eq!(slots.at_boot(Slot::B), Decision::Watch);
        slots.confirm(Slot::B);
        slots.write(data.path()).unwrap();
        assert_eq!(Slots::read(data.path(), Slot::A), Slots { confirmed: Slot::B, ..Slots::default() });
    }

    #[test]
    fn a_file_that_is_damaged_keeps_no_node_from_running() {
        let data = tempfile::tempdir().unwrap();
        fs::write(data.path().join(FILE), "confirmed = \"c\"\n").unwrap();
        assert_eq!(Slots::read(data.path(), Slot::B).at_boot(Slot::B), Decision::Run);
    }
}
