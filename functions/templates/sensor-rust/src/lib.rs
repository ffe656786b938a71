//! The mean temperature of every ten readings.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// How many readings make a mean.
const READINGS: u32 = 10;

/// What is kept between two readings.
#[derive(Default, Serialize, Deserialize)]
struct Sum {
    celsius: f64,
    readings: u32,
}

/// What this function publishes on `greenhouse/mean`.
#[derive(Serialize)]
struct Mean {
    celsius: f64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let reading = event.reading("temperature")?;
    if !reading.is_sound() {
        // Too old, or outside what the sensor can measure.
        warn!(
            "a {} is {:?}, and left out",
            reading.channel, reading.quality
        );
        return Ok(None);
    }
    let state = kv::own()?;
    let mut sum: Sum = state.get("sum")?.unwrap_or_default();
    sum.celsius += reading.value;
    sum.readings += 1;
    if sum.readings < READINGS {
        state.set("sum", &sum)?;
        return Ok(None);
    }
    state.delete("sum")?;
    let celsius = sum.celsius / f64::from(sum.readings);
    results::record("mean", celsius)?;
    publish_json("greenhouse/mean", &Mean { celsius })?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::sensors::Reading;
    use holm_function::testing::TestHost;

    #[test]
    fn ten_readings_make_a_mean() {
        let mut host = TestHost::new();
        for round in 1..=20 {
            let reading = Reading::new("temperature", f64::from(round), "°C");
            host.run(handle, Event::sensor("greenhouse", &[reading]))
                .unwrap();
            assert_eq!(
                host.results().len(),
                usize::from(round % 10 == 0),
                "at {round}"
            );
        }
        assert_eq!(host.results()[0].1, 15.5);
    }
}
