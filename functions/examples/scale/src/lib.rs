//! Celsius to Fahrenheit, and an alert when it is hot: the workload W1 that Holm is measured with.

use std::sync::atomic::{AtomicU32, Ordering};

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Reading<'a> {
    id: &'a str,
    t: f64,
    seq: u64,
}

#[derive(Serialize)]
struct Scaled {
    seq: u64,
    f: f64,
}

#[derive(Serialize)]
struct Alert {
    seq: u64,
    t: f64,
}

/// Every event has an instance of its own, and Holm's speed is measured with that: an instance that is used again answers
/// nothing. (Natively, the tests share one process.)
fn must_be_fresh() -> Result<(), Failure> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if CALLS.fetch_add(1, Ordering::Relaxed) > 0 && cfg!(target_family = "wasm") {
        return Err(Failure::reject("this instance has handled an event before"));
    }
    Ok(())
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    must_be_fresh()?;
    let reading: Reading<'_> = event.json()?;
    let scaled = Scaled { seq: reading.seq, f: reading.t * 1.8 + 32.0 };
    let topic = ["out/", reading.id, "/fahrenheit"].concat();
    Publish::to(topic).json(&scaled)?.qos(event.qos()).send()?;
    if reading.t > 30.0 {
        let alert = Alert { seq: reading.seq, t: reading.t };
        Publish::to(["alerts/", reading.id].concat()).json(&alert)?.qos(event.qos()).send()?;
    }
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn alerts_only_when_it_is_hot() {
        for (t, topics) in [(20.0, vec!["out/s1/fahrenheit"]), (31.0, vec!["out/s1/fahrenheit", "alerts/s1"])] {
            let mut host = TestHost::new();
            let event =
                Event::mqtt("sensors/s1/temp", format!(r#"{{"id":"s1","t":{t},"seq":7}}"#)).with_attribute("qos", "1");
            host.run(handle, event).unwrap();
            let published: Vec<_> = host.publishes().iter().map(|publish| publish.topic.as_str()).collect();
            assert_eq!(published, topics);
            assert_eq!(host.publishes()[0].qos, Qos::AtLeastOnce);
        }
    }

    #[test]
    fn rejects_what_is_no_reading() {
        let answer = TestHost::new().run(handle, Event::mqtt("sensors/s1/temp", "hello"));
        assert!(matches!(answer, Err(Failure::Reject { .. })));
    }
}
