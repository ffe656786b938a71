//! This machine's own readings, from `/proc` and `/sys`, and two small streams for the other examples.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Something to read.
struct Sensor {
    name: String,
    unit: &'static str,
    file: PathBuf,
    read: fn(&str) -> Option<f64>,
}

/// What there is to read here.
pub struct Machine {
    sensors: Vec<Sensor>,
    seconds: u64,
}

impl Machine {
    /// Looks for sensors. Load and memory are always there on Linux; temperatures only on real machines.
    pub fn find() -> Self {
        let mut sensors = vec![
            Sensor { name: "load".into(), unit: "1", file: "/proc/loadavg".into(), read: first },
            Sensor { name: "memory-available".into(), unit: "GiB", file: "/proc/meminfo".into(), read: available },
        ];
        for folder in folders("/sys/class/thermal", "thermal_zone") {
            let kind = std::fs::read_to_string(folder.join("type")).unwrap_or_default();
            sensors.push(temperature(&kind, folder.join("temp")));
        }
        for folder in folders("/sys/class/hwmon", "hwmon") {
            let kind = std::fs::read_to_string(folder.join("name")).unwrap_or_default();
            for file in folders(&folder.to_string_lossy(), "temp") {
                if file.to_string_lossy().ends_with("_input") {
                    sensors.push(temperature(&kind, file));
                }
            }
        }
        sensors.retain(|sensor| sensor.value().is_some());
        let mut taken = BTreeSet::new();
        for sensor in &mut sensors {
            let (name, mut number) = (sensor.name.clone(), 1);
            while !taken.insert(sensor.name.clone()) {
                number += 1;
                sensor.name = format!("{name}-{number}");
            }
        }
        Self { sensors, seconds: 0 }
    }

    /// What is read here.
    pub fn names(&self) -> Vec<&str> {
        self.sensors.iter().map(|sensor| &*sensor.name).collect()
    }

    /// One of each, as (topic, payload), for a second.
    pub fn readings(&mut self) -> Vec<(String, Value)> {
        self.seconds += 1;
        let mut readings: Vec<(String, Value)> = self
            .sensors
            .iter()
            .filter_map(|sensor| {
                let value = sensor.value()?;
                Some((format!("machine/{}", sensor.name), json!({ "value": value, "unit": sensor.unit })))
            })
            .collect();
        // A temperature of the mind, from 20 to 35 degrees once a minute: not every machine has a thermometer.
        let phase = self.seconds as f64 / 60.0 * std::f64::consts::TAU;
        let degrees = 27.5 - 7.5 * phase.cos();
        readings
            .push(("sensors/simulated/temp".into(), json!({ "id": "simulated", "t": degrees, "seq": self.seconds })));
        readings.push(("count/seconds".into(), json!({ "id": self.seconds.to_string() })));
        readings
    }
}

impl Sensor {
    fn value(&self) -> Option<f64> {
        (self.read)(&std::fs::read_to_string(&self.file).ok()?)
    }
}

fn temperature(kind: &str, file: PathBuf) -> Sensor {
    let kind: String = kind
        .trim()
        .chars()
        .map(|letter| if letter.is_ascii_alphanumeric() { letter.to_ascii_lowercase() } else { '-' })
        .collect();
    let thousandths = |text: &str| text.trim().parse::<f64>().ok().map(|value| value / 1_000.0);
    Sensor { name: format!("temperature-{kind}"), unit: "°C", file, read: thousandths }
}

/// Entries of a folder whose name begins so, in order.
fn folders(folder: &str, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(Path::new(folder))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found
}

fn first(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

fn available(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(first("0.52 0.58 0.59 1/467 12345\n"), Some(0.52));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:    1048576 kB\n"), Some(1.0));
        let names = Machine::find().names().iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert!(names.contains("load"));
    }
}
