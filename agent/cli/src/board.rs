//! `holm board`: sensors with what they said last, and lines with what they are at.

use serde::Deserialize;

use crate::client::{Client, parse};
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::screen::Screen;
use crate::table::{Cell, Table};

/// See `holm board --help`.
#[derive(clap::Args)]
pub(crate) struct Board {
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sensor {
    name: String,
    driver: String,
    readings: Vec<Reading>,
    error: Option<String>,
    tries: u64,
    failures: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reading {
    channel: String,
    value: f64,
    unit: String,
    time: i64,
    quality: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    name: String,
    line: String,
    direction: String,
    safe: Option<String>,
    level: Option<String>,
    error: Option<String>,
}

impl Board {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let path = "/v1/board";
        let answer = client.get(path).await?;
        if self.json {
            return screen.json(&answer);
        }
        let sensors: Vec<Sensor> = parse(answer.clone(), path, "sensors")?;
        let lines: Vec<Line> = parse(answer, path, "lines")?;
        if sensors.is_empty() && lines.is_empty() {
            screen.note("the node's configuration binds no sensor and no line: see [[sensor]] and [[gpio]]");
            return Ok(());
        }
        let text = render(&sensors, &lines, &screen.look);
        screen.text(&text)
    }
}

fn render(sensors: &[Sensor], lines: &[Line], look: &Look) -> String {
    let mut text = String::new();
    if !sensors.is_empty() {
        let mut table = Table::new(&["SENSOR", "DRIVER", "CHANNEL", ">VALUE", "UNIT", "QUALITY", "READ", ">FAILED"]);
        for sensor in sensors {
            let nothing = [Reading { channel: "-".to_owned(), ..Reading::default() }];
            let readings = if sensor.readings.is_empty() { &nothing[..] } else { &sensor.readings };
            for reading in readings {
                let there = !reading.quality.is_empty();
                let tone = if matches!(&*reading.quality, "good" | "simulated") { Tone::Plain } else { Tone::Warn };
                let failed = if sensor.failures > 0 { Tone::Warn } else { Tone::Plain };
                table.row([
                    Cell::toned(Tone::Strong, &*sensor.name),
                    (&*sensor.driver).into(),
                    (&*reading.channel).into(),
                    if there { format!("{:.2}", reading.value) } else { "-".to_owned() }.into(),
                    (&*reading.unit).into(),
                    Cell::toned(tone, if there { &*reading.quality } else { "-" }),
                    if there { look.clock(reading.time) } else { "never".to_owned() }.into(),
                    Cell::toned(failed, format!("{} of {}", look::count(sensor.failures), look::count(sensor.tries))),
                ]);
            }
        }
        text.push_str(&table.render(look));
    }
    if !lines.is_empty() {
        let mut table = Table::new(&["LINE", "WIRE", "DIRECTION", "SAFE", "LEVEL"]);
        for line in lines {
            let level = line.level.as_deref().map_or(Cell::toned(Tone::Bad, "?"), Cell::from);
            table.row([
                Cell::toned(Tone::Strong, &*line.name),
                (&*line.line).into(),
                (&*line.direction).into(),
                line.safe.as_deref().unwrap_or("-").into(),
                level,
            ]);
        }
        text.push_str(if text.is_empty() { "" } else { "\n" });
        text.push_str(&table.render(look));
    }
    let broken = sensors.iter().map(|sensor| (&sensor.name, &sensor.error));
    for (name, error) in broken.chain(lines.iter().map(|line| (&line.name, &line.error))) {
        if let Some(error) = error {
            text.push_str(&format!("{} {name}: {error}\n", look.paint(Tone::Warn, "cannot use")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_sensors_said_and_what_lines_are_at() {
        let sensors: Vec<Sensor> = serde_json::from_value(serde_json::json!([
            {"name": "attic", "driver": "bme280", "tries": 7, "failures": 2, "error": "attic does not answer", "readings": [
                {"channel": "temperature", "value": 21.456, "unit": "°C", "time": 0, "quality": "good"},
                {"channel": "humidity", "value": 40.0, "unit": "%", "time": 0, "quality": "suspect"}]},
            {"name": "soil", "driver": "ads1115", "tries": 0, "failures": 0, "error": null, "readings": []},
        ]))
        .unwrap_or_default();
        let lines: Vec<Line> = serde_json::from_value(serde_json::json!([
            {"name": "pump", "line": "GPIO27", "direction": "out", "safe": "low", "level": "high", "error": null},
            {"name": "door", "line": "GPIO17", "direction": "in", "safe": null, "level": null, "error": "in use"},
        ]))
        .unwrap_or_default();
        let expected = "\
SENSOR  DRIVER   CHANNEL      VALUE  UNIT  QUALITY  READ          FAILED
attic   bme280   temperature  21.46  °C    good     00:00:00.000  2 of 7
attic   bme280   humidity     40.00  %     suspect  00:00:00.000  2 of 7
soil    ads1115  -                -        -        never         0 of 0

LINE  WIRE    DIRECTION  SAFE  LEVEL
pump  GPIO27  out        low   high
door  GPIO17  in         -     ?
cannot use attic: attic does not answer
cannot use door: in use
";
        assert_eq!(render(&sensors, &lines, &Look::plain()), expected);
    }
}
