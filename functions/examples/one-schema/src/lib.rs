//! Zigbee2MQTT, Tasmota and Shelly devices in one schema: who reads `home/NAME/state` need not know who made the device.

use std::collections::BTreeMap;

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What is published. What a device does not say is not there.
#[derive(Default, Serialize)]
struct State {
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    humidity_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    battery_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    power_w: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    energy_kwh: Option<f64>,
}

/// <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>
#[derive(Deserialize)]
struct Zigbee2Mqtt {
    temperature: Option<f64>,
    humidity: Option<f64>,
    battery: Option<f64>,
    state: Option<String>,
    power: Option<f64>,
    energy: Option<f64>,
}

impl From<Zigbee2Mqtt> for State {
    fn from(device: Zigbee2Mqtt) -> Self {
        Self {
            temperature_c: device.temperature,
            humidity_percent: device.humidity,
            battery_percent: device.battery,
            on: device.state.map(|state| state == "ON"),
            power_w: device.power,
            energy_kwh: device.energy,
        }
    }
}

/// `tele/NAME/SENSOR` of <https://tasmota.github.io/docs/MQTT/>: every sensor of the device by its chip's name.
#[derive(Deserialize)]
struct Tasmota {
    #[serde(rename = "TempUnit")]
    unit: Option<String>,
    #[serde(flatten)]
    sensors: BTreeMap<String, Chip>,
}

/// A chip; or the time, which is text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Chip {
    Sensor {
        #[serde(rename = "Temperature")]
        temperature: Option<f64>,
        #[serde(rename = "Humidity")]
        humidity: Option<f64>,
        #[serde(rename = "Power")]
        power: Option<f64>,
        #[serde(rename = "Total")]
        energy: Option<f64>,
    },
    Other(serde::de::IgnoredAny),
}

impl From<Tasmota> for State {
    fn from(device: Tasmota) -> Self {
        let celsius = |degrees: f64| if device.unit.as_deref() == Some("F") { (degrees - 32.0) / 1.8 } else { degrees };
        let mut state = Self::default();
        for chip in device.sensors.into_values() {
            if let Chip::Sensor { temperature, humidity, power, energy } = chip {
                state.temperature_c = state.temperature_c.or(temperature.map(celsius));
                state.humidity_percent = state.humidity_percent.or(humidity);
                state.power_w = state.power_w.or(power);
                state.energy_kwh = state.energy_kwh.or(energy);
            }
        }
        state
    }
}

/// <https://shelly-api-docs.shelly.cloud/gen2/ComponentsAndServices/Switch>: energy is in watt-hours, and the temperature that of
/// the device itself.
#[derive(Deserialize)]
struct Shelly {
    output: Option<bool>,
    apower: Option<f64>,
    aenergy: Option<Energy>,
    temperature: Option<Temperature>,
}

#[derive(Deserialize)]
struct Energy {
    total: f64,
}

#[derive(Deserialize)]
struct Temperature {
    #[serde(rename = "tC")]
    celsius: Option<f64>,
}

impl From<Shelly> for State {
    fn from(device: Shelly) -> Self {
        Self {
            temperature_c: device.temperature.and_then(|temperature| temperature.celsius),
            on: device.output,
            power_w: device.apower,
            energy_kwh: device.aenergy.map(|energy| energy.total / 1000.0),
            ..Self::default()
        }
    }
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let mut levels = event.subject.split('/');
    let (first, second) = (levels.next().unwrap_or_default(), levels.next().unwrap_or_default());
    let (name, state): (&str, State) = match first {
        "zigbee2mqtt" => (second, event.json::<Zigbee2Mqtt>()?.into()),
        "tele" => (second, event.json::<Tasmota>()?.into()),
        shelly => (shelly, event.json::<Shelly>()?.into()),
    };
    Publish::to(["home/", name, "/state"].concat()).json(&state)?.retain().send()?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn fahrenheit_is_made_celsius() {
        let mut host = TestHost::new();
        let text = r#"{"Time":"2026-06-01T08:00:00","DS18B20":{"Id":"0316","Temperature":212.0},"TempUnit":"F"}"#;
        host.run(handle, Event::mqtt("tele/boiler/SENSOR", text)).unwrap();
        assert_eq!(host.publishes()[0].payload.data, br#"{"temperature_c":100.0}"#);
    }
}
