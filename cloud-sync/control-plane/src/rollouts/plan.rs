//! How a rollout goes about it: in which stages, how fast, and what stops it.
//!
//! # Who is in which stage
//!
//! Devices are put in an order by the hash of the rollout's id and their name: the same for everybody who computes it, and another
//! one for each rollout, so that it is not always the same devices that go first. A stage takes a part of that order, counted from
//! its begin, or a group; a device is in the first stage that takes it.

use std::fmt;
use std::str::FromStr;

use holm_bundle::Digest;
use holm_protocol::{GroupName, UpdateWindow};
use serde::{Deserialize, Serialize};

/// Stages of one rollout. More is a schedule, and not watched by anybody.
pub(crate) const MAX_STAGES: usize = 20;

/// Devices that the first stage has at least where nobody says anything about stages: one device that happens to be idle
/// proves nothing.
const FIRST: u32 = 5;

/// Which devices a stage reaches, those of the stages before it included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// So many of 10,000.
    Share(u32),
    /// So many.
    Count(u32),
    /// Those of a group.
    Group(GroupName),
}

/// All of them.
const WHOLE: u32 = 10_000;

impl FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a stage: a part such as 5%, a number of devices, or a group");
        if let Some(percent) = text.strip_suffix('%') {
            let plain = percent.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
            let share = percent.parse::<f64>().ok().filter(|percent| plain && (0.01..=100.0).contains(percent));
            // Within bounds, and whole.
            return share.map(|percent| Self::Share((percent * 100.0).round() as u32)).ok_or_else(wrong);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().filter(|count| *count > 0).map(Self::Count).ok_or_else(wrong);
        }
        GroupName::new(text).map(Self::Group).map_err(|_| wrong())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) if share % 100 == 0 => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}%", f64::from(*share) / 100.0),
            Self::Count(count) => write!(f, "{count}"),
            Self::Group(group) => write!(f, "{group}"),
        }
    }
}

impl Serialize for Stage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// See the module. Written down with its rollout, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) stages: Vec<Stage>,
    /// After a stage, the time in which its devices are looked at before the next one begins, in seconds.
    pub(crate) soak_s: u32,
    /// Devices that are told in a minute; as many as there are if nothing is said.
    pub(crate) rate_per_minute: Option<u32>,
    /// Of a stage's devices that have reported, so many of 100 must have confirmed.
    pub(crate) success_percent: u32,
    /// Devices of a stage that must have reported before the next one begins.
    pub(crate) min_reported: u32,
    /// Of all devices that have reported, so many of 100 that failed end the rollout in the middle of a stage.
    pub(crate) abort_percent: u32,
    /// As soon as so many have reported.
    pub(crate) abort_min: u32,
    /// A device that has not taken up its job for so long, in seconds, counts as unknown.
    pub(crate) queued_timeout_s: u32,
    /// A device that has, and does not end, for so long, has failed.
    pub(crate) progress_timeout_s: u32,
    /// How long the device watches.
    pub(crate) health_window_s: u32,
    /// How long everything before that may take on the device.
    pub(crate) deadline_s: u32,
    /// When an update may begin on a device; at any time if nothing is said. Going back waits for no window.
    #[serde(default)]
    pub(crate) window: Option<UpdateWindow>,
    /// A device that has confirmed has failed all the same when so many of 100 invocations since were faults.
    #[serde(default = "usual_fault_percent")]
    pub(crate) fault_percent: u32,
    /// As soon as there were so many.
    #[serde(default = "usual_fault_min")]
    pub(crate) fault_min: u32,
}

/// Of what was written down before there was a word for it.
pub(crate) const fn usual_fault_percent() -> u32 {
    20
}

/// See [`usual_fault_percent`].
pub(crate) const fn usual_fault_min() -> u32 {
    10
}

impl Plan {
    /// Whether a version that faulted so often does not stay.
    pub(crate) fn is_too_much(&self, invocations: u64, faults: u64) -> bool {
        let share = u128::from(faults) * 100 >= u128::from(invocations) * u128::from(self.fault_percent);
        faults > 0 && invocations >= u64::from(self.fault_min) && share
    }

    /// Every problem with the stages.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.stages.len() > MAX_STAGES {
            problems.push(format!("`stages`: {} are more than {MAX_STAGES}", self.stages.len()));
        }
        if self.stages.last() != Some(&Stage::Share(WHOLE)) {
            problems.push("`stages`: the last one has to be 100%".to_owned());
        }
        for (one, next) in self.stages.iter().zip(self.stages.iter().skip(1)) {
            let grows = match (one, next) {
                (Stage::Share(one), Stage::Share(next)) | (Stage::Count(one), Stage::Count(next)) => one < next,
                _ => true,
            };
            if !grows {
                problems.push(format!("`stages`: {next} after {one} reaches nobody new"));
            }
        }
        problems
    }
}

/// The stages for so many devices where nobody says anything about them.
pub(crate) fn usual_stages(devices: usize) -> Vec<Stage> {
    let share = |share| reach(share, devices);
    let first = u32::try_from(share(100)).unwrap_or(FIRST).max(FIRST);
    vec![Stage::Count(first), Stage::Share(1_000), Stage::Share(5_000), Stage::Share(WHOLE)]
        .into_iter()
        // Of a few devices, five are more than a tenth.
        .filter(|stage| match stage {
            Stage::Share(part) => *part == WHOLE || share(*part) > first as usize,
            _ => (first as usize) < devices,
        })
        .collect()
}

/// So many devices a share of them is, rounded up: 5 % of three devices is one.
fn reach(share: u32, devices: usize) -> usize {
    devices.saturating_mul(share as usize).div_ceil(WHOLE as usize)
}

/// The stage of each member, given its name and groups.
pub(crate) fn assign(id: &str, stages: &[Stage], members: &[(String, Vec<String>)]) -> Vec<usize> {
    let mut order: Vec<(Digest, usize)> = members
        .iter()
        .enumerate()
        .map(|(place, (thing, _))| (Digest::of(format!("{id}\n{thing}").as_bytes()), place))
        .collect();
    order.sort();
    let last = stages.len().saturating_sub(1);
    let mut assigned = vec![last; members.len()];
    for (rank, (_, place)) in order.into_iter().enumerate() {
        let takes = |stage: &Stage| match stage {
            Stage::Share(share) => rank < reach(*share, members.len()),
            Stage::Count(count) => rank < *count as usize,
            Stage::Group(group) => {
                members.get(place).is_some_and(|(_, groups)| groups.iter().any(|name| name == group.as_str()))
            }
        };
        if let Some(slot) = assigned.get_mut(place) {
            *slot = stages.iter().position(takes).unwrap_or(last);
        }
    }
    assigned
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plan(stages: &[&str]) -> Plan {
        Plan {
            stages: stages.iter().map(|text| text.parse().unwrap()).collect(),
            soak_s: 60,
            rate_per_minute: None,
            success_percent: 95,
            min_reported: 1,
            abort_percent: 5,
            abort_min: 20,
            queued_timeout_s: 3_600,
            progress_timeout_s: 3_600,
            health_window_s: 60,
            deadline_s: 600,
            window: None,
            fault_percent: usual_fault_percent(),
            fault_min: usual_fault_min(),
        }
    }

    #[test]
    fn stages_are_read_and_written() {
        for text in ["5%", "0.5%", "100%", "3", "canary"] {
            assert_eq!(text.parse::<Stage>().unwrap().to_string(), text);
        }
        for text in ["", "%", "0%", "101%", "-1%", "1e1%", "0", "99999999999", "a b"] {
            assert!(text.parse::<Stage>().is_err(), "{text}");
        }
    }

    #[test]
    fn stages_end_with_everybody_and_grow() {
        for (stages, problems) in [
            (&["100%"][..], 0),
            (&["canary", "1", "5%", "100%"], 0),
            (&["5%"], 1),
            (&[], 1),
            (&["10%", "5%", "100%"], 1),
            (&["5", "5", "50%", "50%"], 3),
        ] {
            let found = plan(stages).problems();
            assert_eq!(found.len(), problems, "{stages:?} {found:?}");
        }
    }

    #[test]
    fn nobody_is_left_out_and_parts_are_rounded_up() {
        let members = |count: usize| {
            let groups = |n: usize| if n < 2 { vec!["canary".to_owned()] } else { Vec::new() };
            (0..count).map(|n| (format!("pi{n}"), groups(n))).collect::<Vec<_>>()
        };
        for (stages, count, sizes) in [
            (&["5%", "100%"][..], 3, vec![1, 2]),
            (&["1%", "10%", "50%", "100%"], 200, vec![2, 18, 80, 100]),
            (&["3", "100%"], 2, vec![2, 0]),
            (&["canary", "100%"], 5, vec![2, 3]),
        ] {
            let plan = plan(stages);
            let assigned = assign("r-1", &plan.stages, &members(count));
            let size = |stage| assigned.iter().filter(|of| **of == stage).count();
            assert_eq!((0..sizes.len()).map(size).collect::<Vec<_>>(), sizes, "{stages:?}");
            assert_eq!(assigned, assign("r-1", &plan.stages, &members(count)));
        }
        let stages = plan(&["10%", "100%"]).stages;
        assert_ne!(assign("r-1", &stages, &members(100)), assign("r-2", &stages, &members(100)));
    }

    #[test]
    fn a_small_fleet_has_few_stages() {
        let usual = |devices| usual_stages(devices).iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        assert_eq!(usual(3), "100%");
        assert_eq!(usual(6), "5,100%");
        assert_eq!(usual(40), "5,50%,100%");
        assert_eq!(usual(1_000), "10,10%,50%,100%");
    }
}
