//! Whether a case can ever pass: what it does and expects is held against the manifest, before anything is run.

use std::path::Path;

use holm_core::{Manifest, Problem, Problems, TopicName, TriggerKind};

use super::case::{Act, Case, Expect, File, Step};

/// Everything in a file that the manifest does not let happen.
pub(crate) fn check(file: &File, manifest: &Manifest) -> Result<(), Problems> {
    let mut problems = Vec::new();
    for (index, case) in file.cases.iter().enumerate() {
        of_case(index, case, manifest, &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems { origin: shown(&file.path), problems }) }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn of_case(index: usize, case: &Case, manifest: &Manifest, problems: &mut Vec<Problem>) {
    for (name, value) in &case.config {
        let key = format!("case[{index}].config.{name}");
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let message = match manifest.config.iter().find(|(known, _)| **known == **name) {
            Some((_, parameter)) => parameter.check(&text).err(),
            None => Some(there_is("[config] has no such parameter", manifest.config.iter().map(|(name, _)| &**name))),
        };
        problems.extend(message.map(|message| Problem { line: case.line, key, message }));
    }
    for (number, step) in case.steps.iter().enumerate() {
        let path = format!("case[{index}].step[{number}]");
        problems.extend(act(step, manifest).map(|(key, message)| {
            let key = format!("{path}.{key}");
            Problem { line: step.line, key, message }
        }));
        for (key, message) in expect(&step.expect, manifest) {
            problems.push(Problem { line: step.expect.line, key: format!("{path}.expect.{key}"), message });
        }
    }
}

/// Why nothing can come of what happens.
fn act(step: &Step, manifest: &Manifest) -> Option<(&'static str, String)> {
    let triggers = || manifest.triggers.iter().map(|trigger| &trigger.kind);
    match &step.act {
        Act::Mqtt { topic, .. } => {
            let mut filters = manifest.mqtt_topics();
            // A message that starts nothing is a fine thing to happen, if that is what the case is about.
            let wanted = step.expect.invocations != Some(0);
            let matched = filters.any(|filter| filter.matches(topic));
            (wanted && !matched).then(|| {
                let known = manifest.mqtt_topics().map(holm_core::TopicFilter::as_str);
                let words = there_is(&format!("no [[trigger.mqtt]] matches `{topic}`"), known);
                ("mqtt", format!("{words}. If that is the point, expect.invocations = 0"))
            })
        }
        Act::Function { from, .. } => {
            let known = triggers().filter_map(|kind| match kind {
                TriggerKind::Function { from, .. } => Some(from.as_str()),
                _ => None,
            });
            missing("function", "[[trigger.function]] names no such function", from, known)
        }
        Act::Schedule(name) => {
            let known = triggers().filter_map(|kind| match kind {
                TriggerKind::Schedule { name, .. } => Some(&**name),
                _ => None,
            });
            missing("schedule", "there is no [[trigger.schedule]] of that name", name, known)
        }
        Act::Sensor { sensor, .. } => {
            let started = triggers().filter_map(|kind| match kind {
                TriggerKind::Sensor(trigger) => Some(trigger.sensor.as_str()),
                _ => None,
            });
            let known = started.chain(manifest.permissions.sensors.iter().map(holm_core::Label::as_str));
            missing("sensor", "the manifest names no such sensor", sensor, known)
        }
        Act::Gpio { line, .. } => {
            let started = triggers().filter_map(|kind| match kind {
                TriggerKind::Gpio(trigger) => Some(trigger.line.as_str()),
                _ => None,
            });
            let known = started.chain(manifest.permissions.gpio.iter().map(|(line, _)| line.as_str()));
            missing("gpio", "the manifest names no such line", line, known)
        }
        Act::File { folder, name, .. } => {
            let mut known = Vec::new();
            for kind in triggers() {
                if let TriggerKind::File(trigger) = kind {
                    known.push((trigger.folder.as_str(), &*trigger.suffix));
                }
            }
            let matched = known.iter().any(|(of, suffix)| of == folder && name.ends_with(suffix));
            let shown: Vec<String> = known.iter().map(|(folder, suffix)| format!("{folder}/*{suffix}")).collect();
            (!matched && step.expect.invocations != Some(0)).then(|| {
                let words = format!("no [[trigger.file]] is for `{folder}/{name}`");
                ("file", there_is(&words, shown.iter().map(String::as_str)))
            })
        }
        Act::Http { path, .. } => {
            let mut known = Vec::new();
            for kind in triggers() {
                if let TriggerKind::Http(trigger) = kind {
                    known.push(trigger);
                }
            }
            let matched = known.iter().any(|trigger| trigger.matches(path).is_some());
            // What is no route is answered, too.
            (!matched && step.expect.status.is_none()).then(|| {
                let words = format!("no [[trigger.http]] is for `{path}`");
                ("http", there_is(&words, known.iter().map(|trigger| &*trigger.path)))
            })
        }
        Act::Advance(_) | Act::Invoke { .. } => None,
    }
}

/// Why what is expected can never be.
fn expect(expect: &Expect, manifest: &Manifest) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    for (index, message) in expect.publishes.iter().flatten().enumerate() {
        let grants = &manifest.permissions.publish;
        let granted = TopicName::new(&message.topic)
            .is_ok_and(|topic| grants.iter().any(|grant| grant.matches(&topic) || grant.as_str().contains('{')));
        if !granted {
            let words = format!("[permissions] publish does not grant `{}`", message.topic);
            let words = there_is(&words, grants.iter().map(holm_core::TopicFilter::as_str));
            wrong.push((format!("publishes[{index}].topic"), words));
        }
    }
    for (index, (series, _)) in expect.results.iter().flatten().enumerate() {
        if !manifest.results.iter().any(|(known, _)| **known == **series) {
            let words =
                there_is(&format!("there is no [results.{series}]"), manifest.results.iter().map(|(name, _)| &**name));
            wrong.push((format!("results[{index}].series"), words));
        }
    }
    let writes = manifest.permissions.kv.iter().any(|(name, write)| &**name == "self" && *write);
    if expect.state.as_ref().is_some_and(|state| !state.is_empty()) && !writes {
        wrong.push(("state".into(), "[permissions] kv does not grant `rw:self`: it can keep nothing".into()));
    }
    wrong
}

fn missing<'a>(
    key: &'static str,
    words: &str,
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Option<(&'static str, String)> {
    if known.clone().any(|known| known == name) {
        None
    } else {
        Some((key, there_is(&format!("`{name}`: {words}"), known)))
    }
}

/// `words; there is: a, b`.
fn there_is<'a>(words: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    known.dedup();
    if known.is_empty() {
        format!("{words}; there is none")
    } else {
        format!("{words}; there is: {}", known.join(", "))
    }
}
