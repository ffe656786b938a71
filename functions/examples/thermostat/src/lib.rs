//! Runs a fan while it is too warm.
//!
//! Whether the fan runs is asked of its output, and not remembered: after a start of the node, or when the output was
//! made safe, this is what is true.

use holm_function::gpio::Level;
use holm_function::prelude::*;

/// The output, as the manifest grants it and the node's configuration binds it.
const FAN: &str = "fan-relay";

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let reading = event.reading("temperature")?;
    let before = gpio::get(FAN)?;
    let after = if reading.is_sound() { decide(before, reading.value)? } else { Level::Low };
    if !reading.is_sound() {
        warn!("{} {} is {:?}: the fan rests", reading.value, reading.unit, reading.quality);
    }
    if after != before {
        gpio::set(FAN, after)?;
        let state = holm_function::serde_json::json!({ "fan": after, "celsius": reading.value });
        Publish::to("state/fan").json(&state)?.retain().send()?;
    }
    Ok(None)
}
holm_function::export!(handle);

fn decide(before: Level, celsius: f64) -> Result<Level, Failure> {
    let on: f64 = config::number("on")?.unwrap_or(28.0);
    let off: f64 = config::number("off")?.unwrap_or(26.0);
    Ok(match before {
        Level::Low => (celsius > on).into(),
        Level::High => (celsius >= off).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::sensors::{Quality, Reading};
    use holm_function::testing::TestHost;

    fn reading(celsius: f64) -> Reading {
        Reading::new("temperature", celsius, "°C")
    }

    fn run(host: &mut TestHost, reading: Reading) -> Result<Option<Payload>, Failure> {
        host.run(handle, Event::sensor("greenhouse", &[reading]))
    }

    #[test]
    fn the_fan_starts_above_one_value_and_stops_below_another() {
        let mut host = TestHost::new().with_line(FAN, false);
        let mut told = Vec::new();
        for (celsius, fan) in [
            (25.0, Level::Low),
            (27.9, Level::Low),
            (28.1, Level::High),
            (27.0, Level::High),
            (26.0, Level::High),
            (25.9, Level::Low),
            (27.9, Level::Low),
        ] {
            run(&mut host, reading(celsius)).unwrap();
            assert_eq!(host.line(FAN), Some(fan), "at {celsius}");
            told.push(host.publishes().len());
        }
        assert_eq!(told, [0, 0, 1, 0, 0, 1, 0], "told when it changes");
        assert_eq!(host.driven().len(), 2, "driven when it changes");
    }

    #[test]
    fn a_reading_that_cannot_be_believed_stops_the_fan() {
        let mut host = TestHost::new().with_line(FAN, true);
        run(&mut host, Reading { quality: Quality::Suspect, ..reading(80.0) }).unwrap();
        assert_eq!(host.line(FAN), Some(Level::Low));
    }

    #[test]
    fn without_its_output_it_fails() {
        let mut host = TestHost::new().with_line(FAN, false).with_denied(FAN);
        assert!(matches!(run(&mut host, reading(30.0)), Err(Failure::Reject { .. })));
    }
}
