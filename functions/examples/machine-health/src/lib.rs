//! Watches a machine's vibration: a moving average per machine, and an alert when it crosses a threshold.

use holm_function::prelude::*;
use serde::{Deserialize, Serialize};

#[derive(Deserialize)]
struct Reading {
    value: f64,
}

/// What is remembered of a machine.
#[derive(Default, Serialize, Deserialize)]
struct Health {
    average: Option<f64>,
    alarmed: bool,
}

#[derive(Serialize)]
struct Alert<'a> {
    machine: &'a str,
    average: f64,
    alarmed: bool,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let reading: Reading = event.json()?;
    let machine = event.level(1).ok_or_else(|| Failure::reject("no machine in the topic"))?;
    let weight = config::get("weight")?.unwrap_or(0.2);
    let threshold = config::get("threshold")?.unwrap_or(10.0);

    let state = kv::own()?;
    let mut health: Health = state.get(machine)?.unwrap_or_default();
    let average = match health.average {
        Some(before) => before + weight * (reading.value - before),
        None => reading.value,
    };
    let alarmed = average > threshold;
    // On a change only: an alert for every reading above the threshold would bury the operator.
    if alarmed != health.alarmed {
        Publish::to(["alerts/machine/", machine].concat())
            .json(&Alert { machine, average, alarmed })?
            .retain()
            .send()?;
        if alarmed {
            warn!("{machine} is above {threshold}: {average}");
        }
    }
    health = Health { average: Some(average), alarmed };
    state.set(machine, &health)?;
    results::record("average", average)?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn alerts_when_the_average_crosses_the_threshold_and_when_it_is_back() {
        let mut host = TestHost::new().with_config("threshold", "5").with_config("weight", "0.5");
        let mut alerts = Vec::new();
        for value in [1.0, 20.0, 20.0, 1.0, 1.0, 1.0] {
            host.run(handle, Event::mqtt("machine/press", format!(r#"{{"value":{value}}}"#))).unwrap();
            alerts.push(host.publishes().len());
        }
        assert_eq!(alerts, [0, 1, 0, 0, 1, 0]);
    }
}
