//! Sensors: every reading, or only those with which a channel leaves its bounds or comes back.
//!
//! A sensor is read as often as the most impatient of its functions asks; the others are given the reading nearest their
//! time. A reading that somebody asked for in between counts like any other. Thresholds go by readings that
//! can be believed: what is suspect crosses nothing. Which side of its bounds a channel is on is not kept over a start:
//! the first reading outside is told again.
//!
//! Called on the thread that owns the sensor's bus, which only queues events.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use holm_core::{Label, Quality, Reading, SensorTrigger, Source, TriggerKind, Zone};

use crate::clock;
use crate::dispatch::{ActiveSet, Dispatcher, Slot, event_now};

/// What functions ask of sensors.
#[derive(Default)]
pub struct Sensors {
    watches: RwLock<HashMap<Label, Vec<Watch>>>,
}

/// One trigger of one function.
struct Watch {
    slot: Arc<Slot>,
    trigger: SensorTrigger,
    durable: bool,
    /// How much earlier than its time a reading may come: half of how often the sensor is read.
    slack: Duration,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// When the next reading is wanted, by [`clock::steady`].
    due: Option<Duration>,
    zone: Zone,
}

/// What an event carries.
#[derive(serde::Serialize)]
struct Body<'a> {
    sensor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    crossing: Option<&'static str>,
    readings: Vec<&'a Reading>,
}

impl Sensors {
    /// Takes over what the functions of `set` ask for; answers with how often each sensor is to be read.
    pub fn plan(&self, set: &ActiveSet) -> BTreeMap<Label, Duration> {
        let mut intervals: BTreeMap<Label, Duration> = BTreeMap::new();
        let mut watches: HashMap<Label, Vec<Watch>> = HashMap::new();
        let mut all = self.watches.write().unwrap_or_else(PoisonError::into_inner);
        for slot in set.slots.values() {
            let Some(loaded) = slot.loaded() else { continue };
            for wanted in &loaded.manifest.triggers {
                let TriggerKind::Sensor(trigger) = &wanted.kind else { continue };
                // Only for what may run, or keeps its events until it may.
                if !wanted.durable && !slot.is_runnable() {
                    continue;
                }
                let interval = intervals.entry(trigger.sensor.clone()).or_insert(trigger.interval);
                *interval = trigger.interval.min(*interval);
                let same = |old: &&Watch| old.slot.name == slot.name && old.trigger == *trigger;
                let old = all.get(&trigger.sensor).and_then(|old| old.iter().find(same));
                watches.entry(trigger.sensor.clone()).or_default().push(Watch {
                    slot: slot.clone(),
                    trigger: trigger.clone(),
                    durable: wanted.durable,
                    slack: Duration::ZERO,
                    state: old.map(|old| old.state.clone()).unwrap_or_default(),
                });
            }
        }
        for (sensor, watches) in &mut watches {
            let slack = intervals.get(sensor).map_or(Duration::ZERO, |interval| *interval / 2);
            watches.iter_mut().for_each(|watch| watch.slack = slack);
        }
        *all = watches;
        intervals
    }

    /// A sensor was read.
    pub fn sample(&self, dispatcher: &Arc<Dispatcher>, sensor: &Label, readings: &[Reading]) {
        let now = clock::steady();
        let all = self.watches.read().unwrap_or_else(PoisonError::into_inner);
        for watch in all.get(sensor).into_iter().flatten() {
            let Some((crossing, readings)) = watch.take(readings, now) else { continue };
            let body = Body { sensor: sensor.as_str(), crossing: crossing.map(Zone::as_str), readings };
            let Ok(data) = serde_json::to_vec(&body) else { continue };
            let mut event = event_now(dispatcher.new_id(), Source::Sensor, sensor.shared());
            event.content_type = Some("application/json".into());
            event.data = Bytes::from(data);
            // Nobody waits for it: a durable one is in the dispatcher's books from here on.
            drop(dispatcher.trigger(&watch.slot, event, watch.durable, Vec::new()));
        }
    }
}

impl Watch {
    /// What of a sample is an event, if anything.
    fn take<'a>(&self, readings: &'a [Reading], now: Duration) -> Option<(Option<Zone>, Vec<&'a Reading>)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.due.is_some_and(|due| now + self.slack < due) {
            return None;
        }
        let wanted = |reading: &&Reading| self.trigger.channel.as_ref().is_none_or(|name| *name == reading.channel);
        let readings: Vec<&Reading> = readings.iter().filter(wanted).collect();
        let first = readings.first()?;
        // In step with the times that were asked for, unless too far behind to catch up.
        let due = state.due.filter(|due| now < *due + self.trigger.interval).unwrap_or(now);
        state.due = Some(due + self.trigger.interval);
        let Some(threshold) = &self.trigger.threshold else { return Some((None, readings)) };
        if !matches!(first.quality, Quality::Good | Quality::Simulated) {
            return None;
        }
        let zone = threshold.zone(state.zone, first.value);
        (std::mem::replace(&mut state.zone, zone) != zone).then_some((Some(zone), readings))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holm_core::{FunctionName, Threshold, Timestamp};

    fn reading(channel: &str, value: f64, quality: Quality) -> Reading {
        Reading { channel: channel.into(), value, unit: "°C".into(), time: Timestamp(0), quality }
    }

    /// Feeds temperatures at milliseconds, read every 100 ms, and says which were taken.
    fn check(interval: u64, threshold: Option<Threshold>, samples: &[(u64, f64, Quality)], taken: &[u64]) {
        let ms = Duration::from_millis;
        let watch = Watch {
            slot: Arc::new(Slot::new(FunctionName::new("f").unwrap(), None)),
            trigger: SensorTrigger {
                sensor: Label::new("s").unwrap(),
                channel: Some("temperature".into()),
                interval: ms(interval),
                threshold,
            },
            durable: false,
            slack: ms(50),
            state: Arc::default(),
        };
        let begin = ms(1_000_000);
        let found: Vec<u64> = samples
            .iter()
            .filter(|(at, value, quality)| {
                let readings = [reading("humidity", 50.0, Quality::Good), reading("temperature", *value, *quality)];
                let taken = watch.take(&readings, begin + ms(*at));
                taken.is_some_and(|(_, readings)| readings.len() == 1 && &*readings[0].channel == "temperature")
            })
            .map(|(at, ..)| *at)
            .collect();
        assert_eq!(found, taken);
    }

    #[test]
    fn a_patient_function_gets_the_reading_at_its_time_and_keeps_its_phase() {
        let samples: Vec<_> = (0..12).map(|n| (n * 100 + n % 3, 20.0, Quality::Good)).collect();
        check(100, None, &samples, &samples.iter().map(|(at, ..)| *at).collect::<Vec<_>>());
        check(250, None, &samples, &[0, 202, 502, 701, 1001]);
        // After a long silence it does not make up for what was missed.
        check(
            100,
            None,
            &[(0, 1.0, Quality::Good), (1000, 1.0, Quality::Good), (1010, 1.0, Quality::Good)],
            &[0, 1000],
        );
    }

    #[test]
    fn only_crossings_that_can_be_believed_are_told() {
        let threshold = Threshold { above: Some(28.0), below: None, hysteresis: 1.0 };
        let (good, suspect) = (Quality::Simulated, Quality::Suspect);
        let samples = [(0, 20.0, good), (100, 99.0, suspect), (200, 29.0, good), (300, 27.5, good), (400, 26.0, good)];
        check(100, Some(threshold), &samples, &[200, 400]);
    }
}
