//! The recorded series, what is known of it, and its replay without end.
//!
//! The first pass is the record as it is. Every further pass is the same record, some weeks later, so that time only
//! moves forward; with a seed, leaks are put into those.

use anyhow::{Context as _, ensure};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// What a pass is shifted by, per pass: whole weeks, longer than the record, so that a Monday stays a Monday.
const PASS: SignedDuration = SignedDuration::from_hours(63 * 24);

/// Italian time, where the record comes from (POSIX, so that no time zone database is needed).
const ZONE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

/// More than this between two readings is a gap.
const GAP: SignedDuration = SignedDuration::from_mins(90);

/// After a seam between two passes, alerts are about our shift and not about the pipe for so many readings.
pub const SEAM: usize = 72;

/// What is left of the flow while it leaks.
const LEAK: f64 = 0.95;

/// Leaks that are put into a pass.
const LEAKS: usize = 8;

/// Readings that a leak lasts, at least and at most.
const LEAK_READINGS: (u64, u64) = (6, 30);

/// Readings between a leak and anything else that is known, so that each is judged by itself.
const APART: usize = 30;

/// What is known to be in the record besides its gaps (`tests/data/README.md`): kind, first and last reading.
const KNOWN: [(Kind, &str, &str); 4] = [
    (Kind::Loss, "2022-03-24T09:00:00+01:00", "2022-03-24T23:00:00+01:00"),
    (Kind::Loss, "2022-03-29T09:00:00+02:00", "2022-03-29T18:00:00+02:00"),
    (Kind::Loss, "2022-04-27T16:00:00+02:00", "2022-04-28T04:00:00+02:00"),
    (Kind::Peak, "2022-04-03T06:00:00+02:00", "2022-04-03T06:00:00+02:00"),
];

/// What can be known of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Most of the flow is gone.
    Loss,
    /// A little of it is gone: we took it.
    Leak,
    /// One reading far above the others.
    Peak,
    /// Readings are missing.
    Gap,
}

/// A stretch of which something is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// What.
    pub kind: Kind,
    /// The first reading; of a gap, the last one before it.
    pub from: Timestamp,
    /// The last reading; of a gap, the first one after it.
    pub to: Timestamp,
    /// 0 is the record as it is.
    pub pass: u64,
}

/// The record.
pub struct Series {
    rows: Vec<(Timestamp, f64)>,
    zone: TimeZone,
}

impl Series {
    /// Reads `Time,Flow` with a head.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let zone = TimeZone::posix(ZONE).context("the time zone")?;
        let mut rows = Vec::new();
        for (number, line) in text.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty()) {
            let row = || {
                let (time, flow) = line.split_once(',')?;
                Some((time.trim().parse::<Timestamp>().ok()?, flow.trim().parse::<f64>().ok()?))
            };
            rows.push(row().with_context(|| format!("line {}: `{line}` is not a time and a flow", number + 1))?);
        }
        ensure!(rows.len() > 2 * SEAM, "the series has {} readings: too few", rows.len());
        ensure!(rows.is_sorted_by(|a, b| a.0 < b.0), "the series is not in the order of its times");
        Ok(Self { rows, zone })
    }

    /// What is known of the first pass.
    fn known(&self) -> Vec<Stretch> {
        let mut known: Vec<Stretch> = KNOWN
            .iter()
            .filter_map(|(kind, from, to)| {
                let (from, to) = (from.parse().ok()?, to.parse().ok()?);
                Some(Stretch { kind: *kind, from, to, pass: 0 })
            })
            .collect();
        for ((from, _), (to, _)) in self.rows.iter().zip(self.rows.iter().skip(1)) {
            if to.duration_since(*from) > GAP {
                known.push(Stretch { kind: Kind::Gap, from: *from, to: *to, pass: 0 });
            }
        }
        known
    }
}

/// One reading to send.
pub struct Reading {
    /// RFC 3339, with the offset of the place.
    pub time: String,
    /// Litres per second.
    pub flow: f64,
}

/// The replay.
pub struct Replay<'a> {
    series: &'a Series,
    random: Option<Random>,
    pass: u64,
    index: usize,
    /// First and last index of this pass's leaks.
    leaks: Vec<(usize, usize)>,
    known: Vec<Stretch>,
    last: Option<Timestamp>,
    seams: Vec<(Timestamp, Timestamp)>,
}

impl<'a> Replay<'a> {
    /// From the beginning; with leaks if there is a seed for them.
    pub fn new(series: &'a Series, seed: Option<u64>) -> Self {
        let known = series.known();
        let mut replay = Self {
            series,
            random: seed.map(Random),
            pass: 0,
            index: 0,
            leaks: Vec::new(),
            known,
            last: None,
            seams: Vec::new(),
        };
        // The first readings teach a detector what is usual: there is nothing to judge yet, as at every seam.
        replay.seam();
        replay
    }

    /// Passes that are over.
    pub fn pass(&self) -> u64 {
        self.pass
    }

    /// The next reading.
    pub fn next_reading(&mut self) -> Reading {
        let (time, mut flow) = self.series.rows.get(self.index).copied().unwrap_or_default();
        let time = self.shift(time, self.pass);
        if self.leaks.iter().any(|(first, last)| (*first..=*last).contains(&self.index)) {
            flow = (flow * LEAK * 100.0).round() / 100.0;
        }
        self.last = Some(time);
        let text = time.to_zoned(self.series.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        self.index += 1;
        if self.index >= self.series.rows.len() {
            self.turn(time);
        }
        Reading { time: text, flow }
    }

    /// What is known of everything that was sent whole.
    pub fn known(&self) -> Vec<Stretch> {
        let over = |stretch: &&Stretch| self.last.is_some_and(|last| stretch.to <= last);
        self.known.iter().filter(over).copied().collect()
    }

    /// Stretches in which nothing but gaps is judged.
    pub fn seams(&self) -> Vec<(Timestamp, Timestamp)> {
        self.seams.clone()
    }

    fn shift(&self, time: Timestamp, pass: u64) -> Timestamp {
        // A pass takes a second at best: nobody lives to see the end of time.
        let shift = PASS.checked_mul(i32::try_from(pass).unwrap_or(i32::MAX)).unwrap_or(SignedDuration::ZERO);
        time.checked_add(shift).unwrap_or(time)
    }

    /// Begins the next pass.
    fn turn(&mut self, end: Timestamp) {
        self.index = 0;
        self.pass += 1;
        let pass = self.pass;
        let moved: Vec<Stretch> = self
            .series
            .known()
            .into_iter()
            .map(|stretch| Stretch {
                from: self.shift(stretch.from, pass),
                to: self.shift(stretch.to, pass),
                pass,
                ..stretch
            })
            .collect();
        self.known.extend(moved);
        if let Some((first, _)) = self.series.rows.first() {
            let to = self.shift(*first, pass);
            self.known.push(Stretch { kind: Kind::Gap, from: end, to, pass });
        }
        self.seam();
        self.leak();
    }

    fn seam(&mut self) {
        let at = |index: usize| self.series.rows.get(index).map(|(time, _)| self.shift(*time, self.pass));
        self.seams.extend(at(0).zip(at(SEAM)));
    }

    /// Finds places for this pass's leaks.
    fn leak(&mut self) {
        self.leaks.clear();
        let Some(mut random) = self.random.take() else { return };
        let known = self.series.known();
        let rows = &self.series.rows;
        let busy = |index: usize| {
            let time = rows.get(index).map(|(time, _)| *time).unwrap_or_default();
            known.iter().any(|stretch| (stretch.from..=stretch.to).contains(&time))
        };
        // Tries, not a promise: on a short record there may be no room for all of them.
        for _ in 0..LEAKS * 20 {
            if self.leaks.len() >= LEAKS {
                break;
            }
            let length = LEAK_READINGS.0 + random.below(LEAK_READINGS.1 - LEAK_READINGS.0 + 1);
            let first = SEAM + random.below(rows.len() as u64) as usize;
            let last = first + length as usize;
            let reach = first.saturating_sub(APART)..=last + APART;
            let apart = self.leaks.iter().all(|(a, b)| !reach.contains(a) && !reach.contains(b));
            if last + APART < rows.len() && apart && !reach.clone().any(busy) {
                self.leaks.push((first, last));
            }
        }
        for (first, last) in &self.leaks {
            if let (Some((from, _)), Some((to, _))) = (rows.get(*first), rows.get(*last)) {
                let (from, to) = (self.shift(*from, self.pass), self.shift(*to, self.pass));
                self.known.push(Stretch { kind: Kind::Leak, from, to, pass: self.pass });
            }
        }
        self.random = Some(random);
    }
}

/// Sebastiano Vigna's SplitMix64: the same leaks for the same seed, on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    const RECORD: &str = include_str!("../../data/water-flow.csv");

    #[test]
    fn the_first_pass_is_the_record_to_the_letter() {
        let series = Series::parse(RECORD).unwrap();
        let mut replay = Replay::new(&series, Some(1));
        for line in RECORD.lines().skip(1) {
            let (time, flow) = line.split_once(',').unwrap();
            let reading = replay.next_reading();
            assert_eq!((&*reading.time, reading.flow), (time, flow.parse().unwrap()));
        }
        let gaps = replay.known().iter().filter(|stretch| stretch.kind == Kind::Gap).count();
        assert_eq!((replay.pass(), gaps), (1, 10));
    }

    #[test]
    fn later_passes_go_on_in_time_and_leak_where_the_seed_says() {
        let series = Series::parse(RECORD).unwrap();
        let times = |seed| {
            let mut replay = Replay::new(&series, seed);
            let mut last = Timestamp::MIN;
            let mut sum = 0.0;
            for _ in 0..4 * series.rows.len() {
                let reading = replay.next_reading();
                let time: Timestamp = reading.time.parse().unwrap();
                assert!(time > last, "{time}");
                last = time;
                sum += reading.flow;
            }
            (sum, replay.known().into_iter().filter(|stretch| stretch.kind == Kind::Leak).collect::<Vec<_>>())
        };
        let ((dry, none), (leaky, leaks)) = (times(None), times(Some(7)));
        assert!(none.is_empty() && leaky < dry);
        assert_eq!(leaks.len(), 3 * LEAKS);
        assert_eq!(times(Some(7)).1, leaks);
        assert_ne!(times(Some(8)).1, leaks);
    }
}
