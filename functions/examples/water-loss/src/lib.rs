//! Watches the flow through a pipe: tells when water is lost or leaks, of peaks, and of readings that are missing.
//!
//! A reading on `water/flow` is `{"time": "2022-03-24T09:00:00+01:00", "flow": 51.53}`, in litres per second. Alerts go to
//! `alerts/water`; the flow and the level it is held against are recorded as results. The rules are in [`detector`].

pub mod detector;
pub mod time;

use holm_function::prelude::*;
use serde::Deserialize;

use crate::detector::{Detector, Thresholds};

#[derive(Deserialize)]
struct Reading {
    time: String,
    flow: f64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let reading: Reading = event.json()?;
    let time = time::parse(&reading.time).ok_or_else(|| Failure::reject("the time is not RFC 3339"))?;
    if reading.flow < 0.0 {
        return Err(Failure::reject("a flow below zero"));
    }
    let usual = Thresholds::default();
    let thresholds = Thresholds {
        loss: config::number("loss")?.unwrap_or(usual.loss),
        leak: config::number("leak")?.unwrap_or(usual.leak),
        peak: config::number("peak")?.unwrap_or(usual.peak),
    };

    let state = kv::own()?;
    let mut detector: Detector = state.get("detector")?.unwrap_or_default();
    for alert in detector.reading(time, reading.flow, &thresholds) {
        publish_json("alerts/water", &alert)?;
    }
    state.set("detector", &detector)?;
    results::record("flow", reading.flow)?;
    if let Some(level) = detector.level() {
        results::record("level", level)?;
    }
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::serde_json::{Value, from_slice, json};
    use holm_function::testing::TestHost;

    const SERIES: &str = include_str!("../../../../tests/data/water-flow.csv");

    #[test]
    fn finds_the_known_events_of_the_series_and_nothing_else() {
        let mut host = TestHost::new();
        let mut alerts = Vec::new();
        for line in SERIES.lines().skip(1) {
            let (time, flow) = line.split_once(',').unwrap();
            host.run(handle, Event::mqtt("water/flow", format!(r#"{{"time":"{time}","flow":{flow}}}"#))).unwrap();
            alerts.extend(host.publishes().iter().map(|publish| from_slice::<Value>(&publish.payload.data).unwrap()));
            assert!(host.key("self", "detector").unwrap().len() < 300);
        }
        let (gaps, alerts): (Vec<_>, Vec<_>) = alerts.into_iter().partition(|alert| alert["kind"] == "gap");
        assert_eq!(gaps.len(), 10);
        assert_eq!(gaps[2], json!({"kind": "gap", "since": "2022-04-24T00:00:00Z", "until": "2022-04-25T08:00:00Z"}));
        let told: Vec<_> = alerts
            .iter()
            .map(|alert| (alert["kind"].as_str().unwrap(), alert["since"].as_str().unwrap(), alert["until"].as_str()))
            .collect();
        assert_eq!(
            told,
            [
                ("loss-begin", "2022-03-24T08:00:00Z", None),
                ("loss-end", "2022-03-24T08:00:00Z", Some("2022-03-24T22:00:00Z")),
                ("loss-begin", "2022-03-29T07:00:00Z", None),
                ("loss-end", "2022-03-29T07:00:00Z", Some("2022-03-29T16:00:00Z")),
                ("peak", "2022-04-03T04:00:00Z", None),
                ("loss-begin", "2022-04-27T14:00:00Z", None),
                ("loss-end", "2022-04-27T14:00:00Z", Some("2022-04-28T02:00:00Z")),
            ]
        );
        assert_eq!(host.results().len(), 2);
    }

    #[test]
    fn a_reading_that_comes_twice_changes_nothing() {
        let mut host = TestHost::new();
        let event = Event::mqtt("water/flow", r#"{"time":"2022-03-24T09:00:00+01:00","flow":100.0}"#);
        host.run(handle, event.clone()).unwrap();
        let before = host.key("self", "detector").unwrap().to_vec();
        host.run(handle, event).unwrap();
        assert_eq!(host.key("self", "detector"), Some(&before[..]));
    }

    #[test]
    fn what_is_no_reading_is_rejected() {
        for data in ["", "{}", r#"{"time":"yesterday","flow":1}"#, r#"{"time":"2022-03-24T09:00:00Z","flow":-1}"#] {
            let answer = TestHost::new().run(handle, Event::mqtt("water/flow", data));
            assert!(matches!(answer, Err(Failure::Reject { .. })), "{data}");
        }
    }
}
