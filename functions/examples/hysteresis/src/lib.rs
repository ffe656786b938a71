//! Above a threshold or not, without chatter around it.
//!
//! The state changes to "above" over `upper + hysteresis`, and back under `upper - hysteresis`; in between it stays what it was.
//! A message goes out when it changes, and is retained for those who ask later.

use holm_function::prelude::*;

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let value: f64 = event.json()?;
    let sensor = event.level(1).unwrap_or("unknown");
    let upper = config::number("upper")?.unwrap_or(15.0);
    let hysteresis = config::number("hysteresis")?.unwrap_or(2.5);

    let state = kv::own()?;
    let before: Option<bool> = state.get(sensor)?;
    let above = match before {
        Some(true) => value >= upper - hysteresis,
        _ => value > upper + hysteresis,
    };
    if before != Some(above) {
        state.set(sensor, &above)?;
        Publish::to(["state/", sensor, "/above"].concat()).json(&above)?.retain().send()?;
    }
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    /// The series and states of Home Assistant's test of its threshold sensor (`test_sensor_upper_hysteresis`).
    #[test]
    fn the_state_is_what_home_assistant_says() {
        for (values, above) in [
            (&[17.5][..], false),
            (&[17.5, 12.5], false),
            (&[17.5, 12.5, 20.0], true),
            (&[17.5, 12.5, 20.0, 13.0], true),
            (&[17.5, 12.5, 20.0, 13.0, 12.0], false),
            (&[17.5, 12.5, 20.0, 13.0, 12.0, 17.0], false),
            (&[17.5, 12.5, 20.0, 13.0, 12.0, 17.0, 18.0], true),
            (&[14.0, 17.6], true),
            (&[16.0, 12.4], false),
            (&[14.0, 16.0], false),
            (&[16.0, 14.0], false),
            (&[20.0, 16.0, 14.0], true),
            (&[10.0, 14.0, 16.0], false),
        ] {
            let mut host = TestHost::new();
            for value in values {
                host.run(handle, Event::mqtt("sensors/a/value", value.to_string())).unwrap();
            }
            let state = host.key("self", "a").unwrap();
            assert_eq!(state, above.to_string().as_bytes(), "{values:?}");
        }
    }
}
