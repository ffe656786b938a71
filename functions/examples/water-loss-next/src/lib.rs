//! The next version of `water-loss`, with a fault: it traps on its first reading. The demo rolls it out, and watches it go back.

use holm_function::prelude::*;

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let reading: serde_json::Value = event.json()?;
    let flow = reading.get("flow").and_then(serde_json::Value::as_f64).unwrap_or_default();
    let bucket = kv::own()?;
    let readings: u64 = bucket.get("readings")?.unwrap_or(0);
    let sum: u64 = bucket.get("sum")?.unwrap_or(0);
    let mean = sum / readings;
    bucket.set("readings", &(readings + 1))?;
    bucket.set("sum", &(sum + flow as u64))?;
    if flow < mean as f64 / 2.0 {
        publish_json("alerts/water", &serde_json::json!({ "kind": "loss", "flow": flow }))?;
    }
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    /// The test that its author has not written.
    #[test]
    #[should_panic(expected = "divide by zero")]
    fn the_first_reading_traps() {
        let _ = TestHost::new().run(handle, Event::mqtt("water/flow", r#"{"time":"0","flow":1.5}"#));
    }
}
