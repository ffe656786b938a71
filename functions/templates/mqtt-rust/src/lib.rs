//! Warns when a temperature rises above a threshold: once, until it has come back below it.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What sensors publish on `sensors/NAME/temperature`.
#[derive(Deserialize)]
struct Reading {
    celsius: f64,
}

/// What this function publishes on `alerts/NAME/temperature`.
#[derive(Serialize)]
struct Alert {
    celsius: f64,
    threshold: f64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    // A payload that is not what it should be is rejected: it goes to the dead letters, and is not tried again.
    let reading: Reading = event.json()?;
    let sensor = event.level(1).unwrap_or("unknown");
    let threshold = config::number("threshold_c")?.unwrap_or(30.0);
    let hysteresis = config::number("hysteresis_c")?.unwrap_or(1.0);

    // State, publishes and results happen together with the event's completion, or not at all.
    let state = kv::own()?;
    let warned = state.get(sensor)?.unwrap_or(false);
    if !warned && reading.celsius > threshold {
        publish_json(
            &format!("alerts/{sensor}/temperature"),
            &Alert {
                celsius: reading.celsius,
                threshold,
            },
        )?;
        state.set(sensor, &true)?;
    } else if warned && reading.celsius < threshold - hysteresis {
        state.delete(sensor)?;
    }
    results::record("temperature", reading.celsius)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn warns_once_until_it_is_cool_again() {
        let mut host = TestHost::new();
        let mut alerts = Vec::new();
        for celsius in [29.0, 31.0, 32.0, 29.5, 31.0, 28.0, 31.0] {
            let event = Event::mqtt(
                "sensors/attic/temperature",
                format!(r#"{{"celsius":{celsius}}}"#),
            );
            host.run(handle, event).unwrap();
            alerts.push(host.publishes().len());
        }
        assert_eq!(alerts, [0, 1, 0, 0, 0, 0, 1]);
    }
}
