//! Alerts held against what is known.
//!
//! An alert is right if something of its kind is known and the alert's `since` lies in it; a known stretch is found if an
//! alert is right about it. Precision is the share of alerts that are right, recall the share of stretches that are
//! found.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::link::Alert;
use crate::series::{Kind, Stretch};

/// Where the water alerts come.
const TOPIC: &str = "alerts/water";

/// The flow falls over more than one reading: an alert may name the one before or after the first.
const SLACK: SignedDuration = SignedDuration::from_hours(2);

/// Knows what is known.
pub struct Judge {
    known: Vec<Stretch>,
    seams: Vec<(Timestamp, Timestamp)>,
}

impl Judge {
    /// With what is known of the readings that were sent, and where nothing but gaps can be known.
    pub fn new(known: Vec<Stretch>, seams: Vec<(Timestamp, Timestamp)>) -> Self {
        Self { known, seams }
    }

    /// The verdict.
    pub fn report(&self, alerts: &[Alert]) -> Value {
        let water: Vec<(Kind, Timestamp)> = alerts.iter().filter_map(claim).collect();
        let at_seam = |since: Timestamp| self.seams.iter().any(|(from, to)| (*from..=*to).contains(&since));
        let judged: Vec<(Kind, Timestamp)> =
            water.iter().filter(|(kind, since)| *kind == Kind::Gap || !at_seam(*since)).copied().collect();
        let first_pass: Vec<Value> = self
            .known
            .iter()
            .filter(|stretch| stretch.pass == 0)
            .map(|stretch| {
                let found = judged.iter().any(|claim| right(claim, stretch));
                json!({ "kind": word(stretch.kind), "from": stretch.from.to_string(), "to": stretch.to.to_string(), "found": found })
            })
            .collect();
        json!({
            "alerts": alerts.len(),
            "water_alerts": water.len(),
            "at_seams": water.len() - judged.len(),
            "losses": self.score(Kind::Loss, &judged),
            "leaks": self.score(Kind::Leak, &judged),
            "peaks": self.score(Kind::Peak, &judged),
            "gaps": self.score(Kind::Gap, &judged),
            "first_pass": first_pass,
        })
    }

    fn score(&self, kind: Kind, claims: &[(Kind, Timestamp)]) -> Value {
        let known: Vec<&Stretch> = self.known.iter().filter(|stretch| stretch.kind == kind).collect();
        let claims: Vec<&(Kind, Timestamp)> = claims.iter().filter(|claim| claim.0 == kind).collect();
        let good = claims.iter().filter(|claim| known.iter().any(|stretch| right(claim, stretch))).count();
        let found = known.iter().filter(|stretch| claims.iter().any(|claim| right(claim, stretch))).count();
        let share =
            |part: usize, whole: usize| if whole == 0 { Value::Null } else { json!(part as f64 / whole as f64) };
        json!({
            "known": known.len(), "found": found, "alerts": claims.len(), "right": good,
            "precision": share(good, claims.len()), "recall": share(found, known.len()),
        })
    }
}

fn right((kind, since): &(Kind, Timestamp), stretch: &Stretch) -> bool {
    let begin = stretch.from.checked_sub(SLACK).unwrap_or(stretch.from);
    *kind == stretch.kind && (begin..=stretch.to).contains(since)
}

/// What an alert claims. The ends of losses and leaks claim nothing new.
fn claim(alert: &Alert) -> Option<(Kind, Timestamp)> {
    if alert.topic != TOPIC {
        return None;
    }
    let kind = match alert.payload.get("kind")?.as_str()? {
        "loss-begin" => Kind::Loss,
        "leak" => Kind::Leak,
        "peak" => Kind::Peak,
        "gap" => Kind::Gap,
        _ => return None,
    };
    Some((kind, alert.payload.get("since")?.as_str()?.parse().ok()?))
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Loss => "loss",
        Kind::Leak => "leak",
        Kind::Peak => "peak",
        Kind::Gap => "gap",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn counts_what_is_right_what_is_found_and_what_is_not() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let stretch = |from, to| Stretch { kind: Kind::Leak, from: time(from), to: time(to), pass: 1 };
        let known = vec![
            stretch("2022-06-01T10:00:00Z", "2022-06-01T20:00:00Z"),
            stretch("2022-06-03T10:00:00Z", "2022-06-03T20:00:00Z"),
        ];
        let alert =
            |kind: &str, since: &str| Alert { topic: TOPIC.into(), payload: json!({ "kind": kind, "since": since }) };
        let alerts = [
            alert("leak", "2022-06-01T11:00:00Z"),
            alert("leak-end", "2022-06-01T11:00:00Z"),
            alert("leak", "2022-06-02T11:00:00Z"),
            alert("leak", "2022-05-01T11:00:00Z"),
        ];
        let seams = vec![(time("2022-05-01T00:00:00Z"), time("2022-05-02T00:00:00Z"))];
        let report = Judge::new(known, seams).report(&alerts);
        assert_eq!(report["at_seams"], 1);
        assert_eq!(
            report["leaks"],
            json!({"known": 2, "found": 1, "alerts": 2, "right": 1, "precision": 0.5, "recall": 0.5})
        );
        assert_eq!(report["losses"]["recall"], Value::Null);
    }
}
