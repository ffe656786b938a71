//! Counts events, and how often it saw each: what the crash tests check the promises of delivery with.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Numbered {
    id: String,
}

#[derive(Serialize)]
struct Counted {
    n: u64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let numbered: Numbered = event.json()?;
    let state = kv::own()?;
    let n = state.increment("n", 1)?;
    state.increment(&["seen/", &numbered.id].concat(), 1)?;
    let name = event.level(1).unwrap_or("unknown");
    publish_json(&["counted/", name].concat(), &Counted { n })?;
    results::record("n", n as f64)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn counts_every_event_and_every_repetition() {
        let mut host = TestHost::new();
        for id in ["a", "b", "a"] {
            host.run(handle, Event::mqtt("count/x", format!(r#"{{"id":"{id}"}}"#))).unwrap();
        }
        assert_eq!(host.key("self", "n"), Some(b"3".as_slice()));
        assert_eq!(host.key("self", "seen/a"), Some(b"2".as_slice()));
        assert_eq!(host.publishes()[0].topic, "counted/x");
        assert_eq!(host.results()[0].0, "n");
    }
}
