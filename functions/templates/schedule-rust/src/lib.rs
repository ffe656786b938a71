//! Counts messages, and says every five minutes how many there were.

use holm_function::prelude::*;
use serde::Serialize;

/// What this function publishes on `reports/traffic`.
#[derive(Serialize)]
struct Report {
    messages: u64,
    until_ms: u64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let state = kv::own()?;
    if event.source != "schedule" {
        state.increment("messages", 1)?;
        return Ok(None);
    }
    let messages = state.get("messages")?.unwrap_or(0);
    // The count begins anew in the same transaction in which the report is made: none is counted twice.
    state.delete("messages")?;
    publish_json(
        "reports/traffic",
        &Report {
            messages,
            until_ms: event.time_ms,
        },
    )?;
    results::record("messages", messages as f64)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn a_report_has_what_came_since_the_last_one() {
        let mut host = TestHost::new();
        let tick = || Event {
            source: "schedule".to_owned(),
            ..Event::mqtt("report", "")
        };
        for (messages, expected) in [(3, 3.0), (0, 0.0), (1, 1.0)] {
            for _ in 0..messages {
                host.run(handle, Event::mqtt("sensors/a", "x")).unwrap();
            }
            host.run(handle, tick()).unwrap();
            assert_eq!(host.results(), [("messages".to_owned(), expected.into())]);
        }
    }
}
