//! A lamp that follows a door: the shortest way from an edge to an output.

use holm_function::prelude::*;

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let edge = event.edge()?;
    gpio::set("lamp", edge.level)?;
    Publish::to("state/door").json(&edge)?.retain().qos(Qos::AtMostOnce).send()?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::gpio::{Edge, Level};
    use holm_function::testing::TestHost;

    #[test]
    fn the_lamp_is_as_the_door() {
        let mut host = TestHost::new().with_line("lamp", false);
        for level in [Level::High, Level::Low] {
            let edge = Edge { line: "door".to_owned(), level, time_ms: 5, monotonic_us: 7 };
            host.run(handle, Event::gpio(&edge)).unwrap();
            assert_eq!(host.line("lamp"), Some(level));
            assert_eq!(host.publishes()[0].topic, "state/door");
        }
    }

    #[test]
    fn an_event_that_is_no_edge_is_rejected() {
        let answer = TestHost::new().run(handle, Event::mqtt("door", "open"));
        assert!(matches!(answer, Err(Failure::Reject { .. })));
    }
}
