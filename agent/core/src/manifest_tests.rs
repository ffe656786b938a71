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
[[trigger.function]]
from = "denoise"
on = "failure"
[permissions]
publish = ["alerts/{device}/temperature"]
kv = ["rw:self", "ro:shared/site"]
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
    assert_eq!(manifest.triggers.len(), 3);
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
fn a_syntax_error_has_its_line() {
    let problems = Manifest::parse("holm.toml", "manifest_version = 1\n[function\n").unwrap_err();
    assert_eq!(problems.problems[0].line, 2, "{problems}");
    assert!(Manifest::parse("holm.toml", "").is_err());
}
