#![allow(clippy::unwrap_used)]
use super::*;

const GOOD: &str = r#"
manifest_version = 1
[function]
name = "temp-alert"
version = "1.4.0"
[[trigger.mqtt]]
topics = ["sensors/+/temperature"]
qos = 1
[[trigger.schedule]]
cron = "*/5 * * * *"
missed = "run-once"
[[trigger.sensor]]
sensor = "greenhouse"
channel = "temperature"
interval = "2s"
above = 28
hysteresis = 0.5
[[trigger.sensor]]
sensor = "soil"
interval = "1m"
[[trigger.gpio]]
line = "door"
edge = "rising"
debounce = "20ms"
[[trigger.function]]
from = "denoise"
on = "failure"
[permissions]
publish = ["alerts/{device}/temperature"]
kv = ["rw:self", "ro:shared/site"]
sensors = ["greenhouse"]
gpio = ["out:fan-relay", "in:door"]
i2c = ["expansion:0x20", "display:*"]
spi = ["radio"]
[limits]
memory = "16MiB"
timeout = "500ms"
rate = "50/s"
[config]
threshold_c = { type = "number", default = 30.0, min = -40.0, max = 125.0 }
[results.alert]
unit = "°C"
priority = "high"
"#;

#[test]
fn a_good_manifest_is_read() {
    let manifest = Manifest::parse("holm.toml", GOOD).unwrap();
    assert_eq!(manifest.name.as_str(), "temp-alert");
    let durable: Vec<bool> = manifest.triggers.iter().map(|trigger| trigger.durable).collect();
    assert_eq!(durable, [true, true, true, false, true, true]);
    let label = |text| Label::new(text).unwrap();
    assert_eq!(manifest.permissions.gpio, [(label("fan-relay"), true), (label("door"), false)]);
    assert_eq!(manifest.permissions.i2c, [(label("expansion"), Some(0x20)), (label("display"), None)]);
    assert_eq!(manifest.limits.rate, Some(50.0));
    assert_eq!(manifest.limits.concurrency, 1);
    assert_eq!(&*manifest.config[0].1.default, "30.0");
    assert!(manifest.results[0].1.high_priority);
    assert_eq!(manifest.permissions.kv, [("self".into(), true), ("shared/site".into(), false)]);
}

#[test]
fn all_problems_are_listed_with_line_and_key() {
    let text = r#"
manifest_version = 1
[function]
name = "Temp"
version = "1.4"
colour = "red"
[[trigger.mqtt]]
topics = ["a/#/b"]
qos = 3
[limits]
memory = "9TB"
timeot = "1s"
concurrency = "two"
[config]
t = { type = "number", default = 200, max = 125 }
"#;
    let problems = Manifest::parse("holm.toml", text).unwrap_err();
    let listed: Vec<_> = problems.problems.iter().map(|p| (p.line, p.key.as_str())).collect();
    assert_eq!(
        listed,
        [
            (4, "function.name"),
            (5, "function.version"),
            (6, "function.colour"),
            (7, "trigger.mqtt[0].topics"),
            (8, "trigger.mqtt[0].topics"),
            (9, "trigger.mqtt[0].qos"),
            (11, "limits.memory"),
            (12, "limits.timeot"),
            (13, "limits.concurrency"),
            (15, "config.t.default"),
        ]
    );
    let shown = problems.to_string();
    assert!(shown.contains("line 12: limits.timeot: unknown key, did you mean `timeout`?"), "{shown}");
}

#[test]
fn what_is_wrong_about_the_board_is_all_said() {
    let text = r#"
manifest_version = 1
[function]
name = "a"
version = "1.0.0"
[[trigger.sensor]]
sensor = "Greenhouse"
above = 1
hysteresis = -1
[[trigger.sensor]]
sensor = "soil"
interval = "1ms"
hysteresis = 1
[[trigger.sensor]]
sensor = "soil"
interval = "1s"
channel = "moisture"
above = 10
below = 20
[[trigger.gpio]]
edge = "up"
debounce = "1h"
[permissions]
sensors = ["Soil"]
gpio = ["door"]
i2c = ["bus", "bus:32", "bus:0x99"]
spi = ["?"]
"#;
    let problems = Manifest::parse("holm.toml", text).unwrap_err();
    let listed: Vec<_> = problems.problems.iter().map(|p| (p.line, p.key.as_str())).collect();
    assert_eq!(
        listed,
        [
            (6, "trigger.sensor[0].channel"),
            (6, "trigger.sensor[0].hysteresis"),
            (6, "trigger.sensor[0].interval"),
            (7, "trigger.sensor[0].sensor"),
            (10, "trigger.sensor[1].hysteresis"),
            (12, "trigger.sensor[1].interval"),
            (14, "trigger.sensor[2].hysteresis"),
            (20, "trigger.gpio[0].line"),
            (21, "trigger.gpio[0].edge"),
            (22, "trigger.gpio[0].debounce"),
            (24, "permissions.sensors"),
            (25, "permissions.gpio"),
            (26, "permissions.i2c"),
            (26, "permissions.i2c"),
            (26, "permissions.i2c"),
            (27, "permissions.spi"),
        ]
    );
}

#[test]
fn a_syntax_error_has_its_line() {
    let problems = Manifest::parse("holm.toml", "manifest_version = 1\n[function\n").unwrap_err();
    assert_eq!(problems.problems[0].line, 2, "{problems}");
    assert!(Manifest::parse("holm.toml", "").is_err());
}

#[test]
fn triggers_that_could_never_start_anything_are_told() {
    let text = format!(
        "{}\n[[trigger.schedule]]\nname = \"a\"\ninterval = \"1s\"\n[[trigger.schedule]]\nname = \"a\"\ninterval = \"2s\"\n\
         [[trigger.lifecycle]]\n",
        GOOD.split("[[trigger.mqtt]]").next().unwrap()
    );
    let problems = Manifest::parse("holm.toml", &text).unwrap_err().to_string();
    assert!(problems.contains("another schedule `a`") && problems.contains("needs at least one of"), "{problems}");
}
