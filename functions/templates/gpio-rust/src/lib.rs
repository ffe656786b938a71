//! A lamp that is on while a door is open, and a message when it changes.

use holm_function::gpio::Level;
use holm_function::prelude::*;
use serde::Serialize;

/// What this function publishes on `state/door`.
#[derive(Serialize)]
struct Door {
    open: bool,
    openings: u64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let edge = event.edge()?;
    let open = edge.level == Level::High;
    // An output is driven at once, and again if the event is: so say what it shall be, and never that it shall change.
    gpio::set("lamp", edge.level)?;
    let openings = kv::own()?.increment("openings", u64::from(open))?;
    Publish::to("state/door")
        .json(&Door { open, openings })?
        .retain()
        .send()?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::gpio::Edge;
    use holm_function::testing::TestHost;

    #[test]
    fn the_lamp_is_as_the_door() {
        let mut host = TestHost::new().with_line("lamp", false);
        for level in [Level::High, Level::Low, Level::High] {
            let edge = Edge {
                line: "door".to_owned(),
                level,
                time_ms: 5,
                monotonic_us: 7,
            };
            host.run(handle, Event::gpio(&edge)).unwrap();
            assert_eq!(host.line("lamp"), Some(level));
        }
        assert_eq!(host.key("self", "openings"), Some(b"2".as_slice()));
    }
}
