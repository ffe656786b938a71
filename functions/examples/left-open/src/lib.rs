//! A message when a door has been open for too long, and another when it is closed at last.
//!
//! An instance does not wait: when the door opens, the function enqueues an event to itself, due later. That is part of the
//! settlement, so the timer is not lost if the node stops; and it names the opening, so that it means nothing once the door
//! has been closed.

use std::time::Duration;

use holm_function::gpio::Level;
use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What the function keeps, and sends itself: which opening, and whether it was told.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Opening {
    number: u64,
    told: bool,
}

#[derive(Serialize)]
struct Alert {
    door: &'static str,
    opening: u64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let state = kv::own()?;
    let open: Option<Opening> = state.get("open")?;
    let tell = |door, opening: Opening| publish_json("alerts/door", &Alert { door, opening: opening.number });
    if event.source == "gpio" {
        match (event.edge()?.level, open) {
            (Level::High, _) => {
                let opening = Opening { number: state.increment("openings", 1)?, told: false };
                state.set("open", &opening)?;
                let after = Duration::from_secs_f64(config::number("after_s")?.unwrap_or(120.0));
                functions::enqueue("left-open", Payload::json(&opening)?, Some(after))?;
            }
            (Level::Low, Some(opening)) => {
                state.delete("open")?;
                if opening.told {
                    tell("closed", opening)?;
                }
            }
            (Level::Low, None) => {}
        }
    } else if open == Some(event.json()?)
        && let Some(opening) = open
    {
        tell("open", opening)?;
        state.set("open", &Opening { told: true, ..opening })?;
    }
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::gpio::Edge;
    use holm_function::testing::TestHost;

    fn edge(level: Level) -> Event {
        Event::gpio(&Edge { line: "door".to_owned(), level, time_ms: 5, monotonic_us: 7 })
    }

    #[test]
    fn a_timer_of_an_opening_that_is_over_says_nothing() {
        let mut host = TestHost::new();
        host.run(handle, edge(Level::High)).unwrap();
        let (_, first) = host.enqueued()[0].clone();
        host.run(handle, edge(Level::Low)).unwrap();
        host.run(handle, edge(Level::High)).unwrap();
        let timer =
            |payload: &Payload| Event { source: "invoke".to_owned(), ..Event::mqtt("left-open", payload.data.clone()) };
        let (_, second) = host.enqueued()[0].clone();
        host.run(handle, timer(&first)).unwrap();
        assert!(host.publishes().is_empty());
        host.run(handle, timer(&second)).unwrap();
        assert_eq!(host.publishes()[0].payload.data, br#"{"door":"open","opening":2}"#);
    }
}
