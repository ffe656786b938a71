//! The median and the mean of the last five readings: against outliers, and against noise.

use holm_function::prelude::*;
use serde::Serialize;

/// How many readings count.
const WINDOW: usize = 5;

#[derive(Serialize)]
struct Smooth {
    median: f64,
    mean: f64,
}

/// Of a window that is not empty.
fn smooth(window: &[f64]) -> Smooth {
    let mut sorted = window.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let half = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        1 => sorted[half],
        _ => (sorted[half - 1] + sorted[half]) / 2.0,
    };
    Smooth { median, mean: window.iter().sum::<f64>() / window.len() as f64 }
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let value: f64 = event.json()?;
    let sensor = event.level(1).unwrap_or("unknown");
    let state = kv::own()?;
    let mut window: Vec<f64> = state.get(sensor)?.unwrap_or_default();
    window.push(value);
    let window = &window[window.len().saturating_sub(WINDOW)..];
    state.set(sensor, window)?;

    let smooth = smooth(window);
    results::record("median", smooth.median)?;
    results::record("mean", smooth.mean)?;
    publish_json(&["sensors/", sensor, "/smooth"].concat(), &smooth)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[derive(serde::Deserialize)]
    struct Row {
        value: f64,
        median: f64,
        mean: f64,
    }

    /// `tests/oracle.py` has made the rows, with NumPy.
    #[test]
    fn median_and_mean_are_those_of_numpy() {
        let rows: Vec<Row> = holm_function::json::from_slice(include_bytes!("../tests/oracle.json")).unwrap();
        assert_eq!(rows.len(), 200);
        let mut host = TestHost::new();
        for (index, row) in rows.iter().enumerate() {
            host.run(handle, Event::mqtt("sensors/a/raw", row.value.to_string())).unwrap();
            let found: Vec<f64> = host.results().iter().map(|(_, value)| value.as_f64().unwrap()).collect();
            assert_eq!(found[0], row.median, "median at {index}");
            assert!((found[1] - row.mean).abs() < 1e-12 * row.mean.abs().max(1.0), "mean at {index}");
        }
    }
}
