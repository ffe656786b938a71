//! Adds up what `chain-clean` answers: the second of a chain.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

/// What `chain-clean` answers.
#[derive(Deserialize)]
struct Amount {
    cents: u64,
}

#[derive(Serialize)]
struct Total {
    cents: u64,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let Amount { cents } = event.json()?;
    let total = Total { cents: kv::own()?.increment("cents", cents)? };
    Publish::to("till/total").json(&total)?.retain().send()?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn the_total_is_published_after_every_amount() {
        let mut host = TestHost::new();
        for (cents, total) in [(5, 5), (7, 12)] {
            host.run(handle, Event::mqtt("chain-clean", format!(r#"{{"cents":{cents}}}"#))).unwrap();
            assert_eq!(host.publishes()[0].payload.data, format!(r#"{{"cents":{total}}}"#).as_bytes());
        }
    }
}
