//! The system's own sensors: `/sys/class/thermal` and `/sys/class/hwmon`, found by what they are called and not by
//! their numbers, which change from boot to boot.

use std::sync::Arc;

use holm_core::Section;

use super::{Channel, Driver, DriverBinding, Kind, Place, Sample, Tools};
use crate::bindings::device_name;
use crate::sim::{Model, Signals, chips};
use crate::{Board, BoardError};

#[derive(Debug, Clone)]
enum Binding {
    /// A zone by its type.
    Thermal(String),
    /// A chip by its name, and one of its inputs.
    Hwmon { chip: String, input: String, quantity: Quantity },
}

/// What an input measures, by the first letters of its name (the kernel's `Documentation/hwmon/sysfs-interface.rst`).
#[derive(Debug, Clone, Copy)]
struct Quantity {
    channel: &'static str,
    unit: &'static str,
    scale: f64,
    min: f64,
    max: f64,
}

const QUANTITIES: [(&str, Quantity); 6] = [
    ("temp", Quantity { channel: "temperature", unit: "°C", scale: 0.001, min: -60.0, max: 150.0 }),
    ("in", Quantity { channel: "voltage", unit: "V", scale: 0.001, min: -300.0, max: 300.0 }),
    ("curr", Quantity { channel: "current", unit: "A", scale: 0.001, min: -1000.0, max: 1000.0 }),
    ("power", Quantity { channel: "power", unit: "W", scale: 1e-6, min: -1e6, max: 1e6 }),
    ("fan", Quantity { channel: "speed", unit: "1/min", scale: 1.0, min: 0.0, max: 100_000.0 }),
    ("humidity", Quantity { channel: "humidity", unit: "%", scale: 0.001, min: 0.0, max: 100.0 }),
];

pub(super) fn read_thermal(section: &mut Section<'_>) -> Option<DriverBinding> {
    Some(DriverBinding::new("thermal", Binding::Thermal(section.require("zone", device_name)?)))
}

pub(super) fn read_hwmon(section: &mut Section<'_>) -> Option<DriverBinding> {
    let chip = section.require("chip", device_name);
    let input = section.require("input", |text| {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let word = text.strip_suffix(digits).unwrap_or_default();
        let known = QUANTITIES.iter().find(|(name, _)| *name == word).map(|(_, quantity)| *quantity);
        match known {
            Some(quantity) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok((text.to_owned(), quantity))
            }
            _ => Err(format!("`{text}` is not an input: temp1, in0, curr1, power1, fan1, humidity1, ...")),
        }
    });
    let (input, quantity) = input?;
    Some(DriverBinding::new("hwmon", Binding::Hwmon { chip: chip?, input, quantity }))
}

impl Binding {
    /// The folder that numbered devices are in, the start of their names, what says who they are, and what to read.
    fn where_to_look(&self) -> (&str, &str, &str, &str, String) {
        match self {
            Self::Thermal(zone) => ("/sys/class/thermal", "thermal_zone", "type", zone, "temp".into()),
            Self::Hwmon { chip, input, .. } => ("/sys/class/hwmon", "hwmon", "name", chip, format!("{input}_input")),
        }
    }

    fn quantity(&self) -> Quantity {
        match self {
            Self::Thermal(_) => QUANTITIES[0].1,
            Self::Hwmon { quantity, .. } => *quantity,
        }
    }
}

impl Kind for Binding {
    fn place(&self) -> Place {
        Place::System
    }

    fn channels(&self) -> Vec<Channel> {
        let Quantity { channel, unit, min, max, .. } = self.quantity();
        vec![Channel::new(channel, unit, min, max)]
    }

    fn open(&self, tools: &Tools<'_>) -> Result<Box<dyn Driver>, BoardError> {
        let (folder, start, key, wanted, file) = self.where_to_look();
        for device in tools.board.list(folder) {
            let identity = tools.board.read_attribute(&format!("{folder}/{device}/{key}"));
            if device.starts_with(start) && identity.is_ok_and(|text| text.trim() == wanted) {
                let path = format!("{folder}/{device}/{file}");
                let board = tools.board.clone();
                return Ok(Box::new(Attribute {
                    sensor: tools.sensor.to_owned(),
                    path,
                    board,
                    scale: self.quantity().scale,
                }));
            }
        }
        Err(BoardError::NoAnswer { what: format!("{} (`{wanted}` in {folder})", tools.sensor) })
    }

    fn model(&self, signals: Signals) -> Model {
        let (folder, start, key, wanted, file) = self.where_to_look();
        let model = chips::Attribute::new(signals, self.quantity().scale);
        // Numbered by name, so that several do not meet.
        let device = format!("{folder}/{start}-{wanted}");
        Model::Device {
            identity: (format!("{device}/{key}"), wanted.to_owned()),
            file: (format!("{device}/{file}"), Box::new(model)),
        }
    }
}

struct Attribute {
    sensor: String,
    path: String,
    board: Arc<dyn Board>,
    scale: f64,
}

impl Driver for Attribute {
    fn read(&mut self, samples: &mut Vec<Sample>) -> Result<(), BoardError> {
        let text = self.board.read_attribute(&self.path)?;
        let number: f64 = text
            .trim()
            .parse()
            .map_err(|_| BoardError::Nonsense { what: self.sensor.clone(), reason: "not a number".into() })?;
        samples.push(Sample::good(number * self.scale));
        Ok(())
    }
}
