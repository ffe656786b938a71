//! Takes what another function answers, and keeps the largest value. What this one answers is for the next in the chain.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What the function before this one answers.
#[derive(Deserialize)]
struct Clean {
    value: f64,
}

/// What this one answers, and publishes on `records/highest` when it has changed.
#[derive(Serialize)]
struct Highest {
    highest: f64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let clean: Clean = event.json()?;
    let state = kv::own()?;
    let before: Option<f64> = state.get("highest")?;
    let highest = before.map_or(clean.value, |before| before.max(clean.value));
    if before != Some(highest) {
        state.set("highest", &highest)?;
        publish_json("records/highest", &Highest { highest })?;
    }
    Ok(Some(Payload::json(&Highest { highest })?))
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn only_a_new_record_is_published() {
        let mut host = TestHost::new();
        let mut published = Vec::new();
        for value in [3.0, 2.0, 5.0, 5.0] {
            let event = Event {
                source: "function".to_owned(),
                ..Event::mqtt("denoise", format!(r#"{{"value":{value}}}"#))
            };
            host.run(handle, event).unwrap();
            published.push(host.publishes().len());
        }
        assert_eq!(published, [1, 0, 1, 0]);
    }
}
