//! `[[sensor]]`: a driver, where its chip is, and what its values are corrected by.

use std::sync::Arc;
use std::time::Duration;

use holm_core::{Label, Section};

use crate::drivers::DriverBinding;

/// How old a reading may be before it is stale, unless the configuration says otherwise.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// A sensor, bound to a name.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorBinding {
    /// What functions call it.
    pub name: Label,
    /// Which chip, and where.
    pub driver: DriverBinding,
    /// Corrections, by channel.
    pub calibration: Vec<(Arc<str>, Calibration)>,
    /// How old its last reading may be before it is stale.
    pub stale_after: Duration,
}

/// What a channel's value is corrected by, and where it is believed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Multiplied first.
    pub scale: f64,
    /// Added then.
    pub offset: f64,
    /// A corrected value below is suspect.
    pub min: f64,
    /// A corrected value above is suspect.
    pub max: f64,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { scale: 1.0, offset: 0.0, min: f64::NEG_INFINITY, max: f64::INFINITY }
    }
}

impl Calibration {
    /// The corrected value, and whether it is to be believed.
    pub fn apply(&self, value: f64) -> (f64, bool) {
        let value = value.mul_add(self.scale, self.offset);
        (value, (self.min..=self.max).contains(&value))
    }
}

impl SensorBinding {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let name = section.require("name", Label::new);
        let driver = DriverBinding::read(section);
        let stale_after = section
            .duration_in("stale_after", Duration::from_millis(10)..=Duration::from_secs(86_400))
            .unwrap_or(STALE_AFTER);
        let mut calibration = Vec::new();
        for (channel, mut correction) in
            section.section("calibration").into_iter().flat_map(|mut all| all.named_sections())
        {
            let default = Calibration::default();
            let read = Calibration {
                scale: correction.number("scale").unwrap_or(default.scale),
                offset: correction.number("offset").unwrap_or(default.offset),
                min: correction.number("min").unwrap_or(default.min),
                max: correction.number("max").unwrap_or(default.max),
            };
            if let Some(driver) = &driver
                && !driver.channels().any(|known| *known == *channel)
            {
                let known: Vec<_> = driver.channels().collect();
                correction.problem("", format_args!("this sensor has no such channel: {}", known.join(", ")));
            }
            calibration.push((channel.into(), read));
        }
        Some(Self { name: name?, driver: driver?, calibration, stale_after })
    }

    /// The correction of a channel.
    pub fn calibration(&self, channel: &str) -> Calibration {
        self.calibration.iter().find(|(name, _)| **name == *channel).map(|(_, found)| *found).unwrap_or_default()
    }

    /// What no other sensor may have: its address on its bus.
    pub(super) fn place(&self) -> Option<String> {
        let (bus, address) = self.driver.i2c()?;
        Some(format!("{address:#04x} on {bus}"))
    }
}
