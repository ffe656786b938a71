//! An American weather station in SI units, under other names.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What the station reports, in the words of the Weather Underground protocol. What it has no sensor for is not there.
#[derive(Deserialize)]
struct Report {
    tempf: Option<f64>,
    humidity: Option<f64>,
    windspeedmph: Option<f64>,
    baromin: Option<f64>,
    rainin: Option<f64>,
}

/// What this function publishes.
#[derive(Serialize)]
struct Weather {
    #[serde(skip_serializing_if = "Option::is_none")]
    celsius: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    humidity: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wind_m_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pressure_hpa: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rain_mm: Option<f64>,
}

// NIST Special Publication 811 (2008), appendix B.8: exact, but for the inch of mercury (at 0 °C).
const METRES_PER_SECOND: f64 = 0.44704;
const HECTOPASCAL: f64 = 33.86389;
const MILLIMETRES: f64 = 25.4;

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let report: Report = event.json()?;
    let weather = Weather {
        celsius: report.tempf.map(|fahrenheit| (fahrenheit - 32.0) / 1.8),
        humidity: report.humidity,
        wind_m_s: report.windspeedmph.map(|speed| speed * METRES_PER_SECOND),
        pressure_hpa: report.baromin.map(|inches| inches * HECTOPASCAL),
        rain_mm: report.rainin.map(|inches| inches * MILLIMETRES),
    };
    publish_json(&["weather/", event.level(1).unwrap_or("unknown")].concat(), &weather)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn what_is_not_reported_is_not_published() {
        let mut host = TestHost::new();
        host.run(handle, Event::mqtt("station/roof/report", r#"{"tempf": 212, "dateutc": "now"}"#)).unwrap();
        assert_eq!(host.publishes()[0].topic, "weather/roof");
        assert_eq!(host.publishes()[0].payload.data, br#"{"celsius":100.0}"#);
    }
}
