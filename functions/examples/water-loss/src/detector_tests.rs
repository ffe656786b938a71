//! The detector against the series, with leaks injected at every hour.

use super::*;

const SERIES: &str = include_str!("../../../../tests/data/water-flow.csv");

/// The known events, with a day around them where a leak cannot be told apart.
const TAKEN: [(&str, &str); 4] = [
    ("2022-03-23T09:00:00+01:00", "2022-03-25T23:00:00+01:00"),
    ("2022-03-28T09:00:00+02:00", "2022-03-30T18:00:00+02:00"),
    ("2022-04-02T18:00:00+02:00", "2022-04-03T18:00:00+02:00"),
    ("2022-04-26T16:00:00+02:00", "2022-04-29T04:00:00+02:00"),
];

fn series() -> Vec<(i64, f64)> {
    let reading = |line: &str| {
        let (time, flow) = line.split_once(',').unwrap();
        (time::parse(time).unwrap(), flow.parse().unwrap())
    };
    SERIES.lines().skip(1).map(reading).collect()
}

fn run(series: &[(i64, f64)]) -> Vec<Alert> {
    let mut detector = Detector::default();
    series.iter().flat_map(|(time, flow)| detector.reading(*time, *flow, &Thresholds::default())).collect()
}

/// Readings of these flows, an hour apart.
#[track_caller]
fn check(flows: &[f64], expected: &[(Kind, i64)]) {
    let series: Vec<_> = flows.iter().enumerate().map(|(hour, flow)| (hour as i64 * 3_600, *flow)).collect();
    let told: Vec<_> = run(&series).iter().map(|alert| (alert.kind, alert.since / 3_600)).collect();
    assert_eq!(told, expected);
}

#[test]
fn finds_a_leak_of_five_percent_at_nearly_every_hour_and_never_one_that_is_not_there() {
    let clean = series();
    let (mut leaks, mut found, mut to_the_hour) = (0, 0, 0);
    for start in 24..clean.len() - 12 {
        let mut series = clean.clone();
        let leak = &mut series[start..start + 12];
        let (begin, end) = (leak[0].0, leak[11].0);
        if TAKEN.iter().any(|(a, b)| begin <= time::parse(b).unwrap() && end >= time::parse(a).unwrap()) {
            continue;
        }
        leak.iter_mut().for_each(|(_, flow)| *flow *= 0.95);
        let told: Vec<i64> =
            run(&series).iter().filter(|alert| alert.kind == Kind::Leak).map(|alert| alert.since).collect();
        assert!(told.len() <= 1 && told.iter().all(|since| (begin..=end).contains(since)), "{begin}: {told:?}");
        leaks += 1;
        found += told.len();
        to_the_hour += usize::from(told.first() == Some(&begin));
    }
    assert!(leaks > 900, "{leaks}");
    // DESIGN.md says which are missed, and why.
    assert!(found * 1000 >= leaks * 997, "{found} of {leaks}");
    assert!(to_the_hour * 100 >= leaks * 99, "{to_the_hour} of {leaks} to the hour");
}

#[test]
fn one_low_reading_is_no_leak_and_two_are() {
    let usual = [100.0; 8];
    check(&[&usual[..], &[90.0], &usual].concat(), &[]);
    check(&[&usual[..], &[90.0, 90.0], &usual].concat(), &[(Kind::Leak, 8), (Kind::LeakEnd, 8)]);
}

#[test]
fn a_leak_that_becomes_a_loss_ends_first() {
    let flows = [&[100.0; 8][..], &[90.0, 90.0, 20.0, 100.0, 100.0]].concat();
    check(&flows, &[(Kind::Leak, 8), (Kind::LeakEnd, 8), (Kind::LossBegin, 10), (Kind::LossEnd, 10)]);
}

#[test]
fn a_loss_that_does_not_recover_wholly_is_a_leak() {
    let flows = [&[100.0; 8][..], &[20.0], &[90.0; 30]].concat();
    check(&flows, &[(Kind::LossBegin, 8), (Kind::LossEnd, 8), (Kind::Leak, 9)]);
}

#[test]
fn a_new_level_becomes_usual() {
    let flows = [&[100.0; 8][..], &[90.0; 60], &[120.0; 12]].concat();
    check(&flows, &[(Kind::Leak, 8), (Kind::LeakEnd, 8), (Kind::Peak, 68)]);
}

#[test]
fn readings_out_of_order_are_passed_over() {
    let mut detector = Detector::default();
    for hour in 0..8 {
        detector.reading(hour * 3_600, 100.0, &Thresholds::default());
    }
    let before = detector.clone();
    assert_eq!(detector.reading(3_600, 0.0, &Thresholds::default()), []);
    assert_eq!(detector, before);
}
