//! What people are told of the board.

use axum::Json;
use axum::extract::State as Extract;
use holm_boards::{LineReport, SensorReport};
use serde_json::{Value, json};

use super::State;

/// Sensors with what they said last, and lines with what they are at.
pub(super) async fn board(Extract(state): Extract<State>) -> Json<Value> {
    let Some(hardware) = state.dispatcher.controls.hardware() else {
        return Json(json!({ "sensors": [], "lines": [] }));
    };
    let sensors: Vec<Value> = hardware.sensor_reports().into_iter().map(sensor).collect();
    let lines: Vec<Value> = hardware.line_reports().into_iter().map(line).collect();
    Json(json!({ "sensors": sensors, "lines": lines }))
}

fn sensor(report: SensorReport) -> Value {
    json!({
        "name": report.name.as_str(), "driver": report.driver, "readings": report.readings,
        "error": report.error.map(|error| error.to_string()), "tries": report.tries, "failures": report.failures,
    })
}

fn line(report: LineReport) -> Value {
    let LineReport { binding, level } = report;
    json!({
        "name": binding.name.as_str(), "line": binding.line,
        "direction": if binding.safe().is_some() { "out" } else { "in" },
        "safe": binding.safe().map(|safe| safe.as_str()),
        "level": level.as_ref().ok().map(|level| level.as_str()),
        "error": level.err().map(|error| error.to_string()),
    })
}
