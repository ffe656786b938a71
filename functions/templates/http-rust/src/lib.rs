//! Takes readings by HTTP, and answers with the mean of those of a sensor.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What is posted to `/readings/NAME`.
#[derive(Deserialize)]
struct Reading {
    value: f64,
}

/// What is kept of a sensor, and what is answered.
#[derive(Default, Serialize, Deserialize)]
struct Mean {
    mean: f64,
    readings: u32,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    // The subject is the path: /readings/NAME.
    let sensor = event
        .level(2)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::reject("which sensor?"))?;
    let state = kv::own()?;
    let mut mean: Mean = state.get(sensor)?.unwrap_or_default();
    if event.attribute("method") == Some("POST") {
        // What cannot be read is rejected: whoever asks is answered 422, with the reason.
        let reading: Reading = event.json()?;
        mean.readings += 1;
        mean.mean += (reading.value - mean.mean) / f64::from(mean.readings);
        state.set(sensor, &mean)?;
    }
    // An answer is 200 with a body; none would be 204.
    Ok(Some(Payload::json(&mean)?))
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn answers_with_the_mean() {
        let mut host = TestHost::new();
        for (value, expected) in [(20.0, 20.0), (22.0, 21.0), (27.0, 23.0)] {
            let event = Event {
                source: "http".to_owned(),
                ..Event::mqtt("/readings/a", format!(r#"{{"value":{value}}}"#))
            };
            let answer = host
                .run(handle, event.with_attribute("method", "POST"))
                .unwrap()
                .unwrap();
            let mean: Mean = serde_json::from_slice(&answer.data).unwrap();
            assert_eq!(mean.mean, expected);
        }
    }
}
