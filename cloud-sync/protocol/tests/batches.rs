//! Batches: what goes in comes out, and always fits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod sample;

use holm_core::Timestamp;
use holm_protocol::limits::{BATCH_LINES_TARGET, BATCH_TEXT_TARGET, MAX_BATCH_TEXT, MAX_PAYLOAD_BYTES, MAX_SEQUENCE};
use holm_protocol::*;
use proptest::prelude::*;
use sample::*;

/// Bytes that no compressor makes smaller, always the same ones.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn read(payload: &[u8]) -> Batch {
    Batch::read(payload, &BatchLimits::default()).unwrap()
}

#[test]
fn a_batch_takes_lines_until_it_is_full() {
    let line = record(1_731_000_000_000, None, b"21.5");
    let mut builder = BatchBuilder::new(start(1));
    let mut sequence = 1;
    while builder.push(sequence, &line).unwrap() == Push::Taken {
        sequence += 1;
    }
    assert_eq!(builder.lines(), BATCH_LINES_TARGET);
    assert_eq!(builder.push(sequence, &line).unwrap(), Push::Full, "and stays full");
    let (header, payload) = builder.finish(Timestamp(0)).unwrap();
    assert_eq!((header.first, header.count, header.last()), (1, 500, 500));
    assert_eq!(read(&payload).lines.len(), 500);
}

#[test]
fn lines_that_do_not_compress_fit_all_the_same() {
    for size in [100, 5_000, 40_000] {
        let line = record(0, Some("application/octet-stream"), &noise(size));
        let mut builder = BatchBuilder::new(start(1)).max_lines(usize::MAX);
        let mut sequence = 1;
        while builder.push(sequence, &line).unwrap() == Push::Taken {
            sequence += 1;
        }
        assert!(builder.text_len() <= BATCH_TEXT_TARGET, "{size}");
        let (_, payload) = builder.finish(Timestamp(0)).unwrap();
        assert!(payload.len() <= MAX_PAYLOAD_BYTES, "{size}: {}", payload.len());
        assert_eq!(read(&payload).lines.len() as u64, sequence - 1);
    }
}

#[test]
fn one_long_line_has_the_batch_to_itself() {
    let long = record(0, None, format!("\"{}\"", "water ".repeat(100_000)).as_bytes());
    let (_, payload) = build(1, std::slice::from_ref(&long));
    assert_eq!(read(&payload).lines, [(1, long.clone())]);
    let mut builder = BatchBuilder::new(start(1));
    builder.push(1, &record(0, None, b"1")).unwrap();
    assert_eq!(builder.push(2, &long).unwrap(), Push::Full, "not beside others");
}

#[test]
fn a_line_for_which_there_is_no_batch_is_told_apart() {
    let mut builder = BatchBuilder::new(start(1));
    let endless = record(0, None, &vec![b'a'; MAX_BATCH_TEXT + 1]);
    assert!(matches!(builder.push(1, &endless), Err(ProtocolError::TooLarge { .. })));
    // Shorter than that, but it does not compress: seen at the end. A gap takes its place.
    let mut builder = BatchBuilder::new(start(1));
    builder.push(1, &record(0, None, &noise(200_000))).unwrap();
    assert!(matches!(builder.finish(Timestamp(0)), Err(ProtocolError::TooLarge { .. })));
    let (header, payload) = build(1, &[gap(1, GapReason::TooLarge)]);
    assert_eq!(header.count, 1);
    assert_eq!(read(&payload).lines, [(1, gap(1, GapReason::TooLarge))]);
}

#[test]
fn sequence_numbers_have_no_holes() {
    let line = record(0, None, b"1");
    let mut builder = BatchBuilder::new(start(10));
    for (sequence, fine) in [(9, false), (11, false), (10, true), (10, false), (12, false), (11, true)] {
        assert_eq!(builder.push(sequence, &line).is_ok(), fine, "{sequence}");
    }
    assert!(builder.push(12, &gap(0, GapReason::Cap)).is_err(), "a gap of nothing");
    assert!(BatchBuilder::new(start(1)).finish(Timestamp(0)).is_err(), "an empty batch");
    let mut builder = BatchBuilder::new(start(MAX_SEQUENCE));
    builder.push(MAX_SEQUENCE, &gap(2, GapReason::Cap)).unwrap();
    assert!(builder.finish(Timestamp(0)).is_err(), "past the last number");
}

#[test]
fn batches_are_for_their_own_topic() {
    let (header, _) = build(1, &[record(0, None, b"1")]);
    let own = header.address();
    assert_eq!(own.to_string(), "holm/pump-7/r/results/result_water-loss_flow");
    header.check_address(&own).unwrap();
    for other in [
        "holm/pump-8/r/results/result_water-loss_flow",
        "holm/pump-7/r/alarms/result_water-loss_flow",
        "holm/pump-7/r/results/other",
        "holm/pump-7/ack",
    ] {
        let error = header.check_address(&Address::parse(other).unwrap()).unwrap_err();
        assert_eq!(error.refusal(), RefusalReason::Mismatch, "{other}");
    }
}

#[test]
fn records_take_a_quarter_of_their_plain_size() {
    // What the design asks for: a typical record of about 100 bytes, in batches of 100.
    let data = |n: u64| {
        let (flow, pressure) = (20.0 + (n * 37 % 101) as f64 / 10.0, 3.0 + (n * 53 % 89) as f64 / 100.0);
        format!(
            r#"{{"sensor":"flow-{}","flow":{flow:.1},"pressure":{pressure:.2},"unit":"l/s","valve":"open","ok":true,"n":{n}}}"#,
            n % 7
        )
    };
    let lines: Vec<Line> =
        (1..=100).map(|n| record(1_731_000_000_000 + n as i64 * 997, None, data(n).as_bytes())).collect();
    let plain: usize = (1..=100).map(|n| data(n).len()).sum();
    let (_, payload) = build(1, &lines);
    assert!(payload.len() * 4 <= plain, "{} of {plain} bytes", payload.len());
}

fn any_line() -> impl Strategy<Value = Line> {
    let json = prop_oneof![
        Just("null".to_owned()),
        Just("{\"a\":[1,2.50,1e999,\"\\u0041\"]}".to_owned()),
        Just(" 1".to_owned()),
        Just("1\n".to_owned()),
        Just("{\n}".to_owned()),
        Just("[".repeat(200)),
        any::<f64>().prop_map(|number| number.to_string()),
    ]
    .prop_map(String::into_bytes);
    let data = prop_oneof![json, any::<Vec<u8>>(), "\\PC*".prop_map(String::into_bytes)];
    let content_type = prop::option::of("[a-z]{1,8}/[a-z\"\\\\]{1,8}");
    let reason = prop_oneof![Just(GapReason::Cap), Just(GapReason::Damage), Just(GapReason::parse("moths"))];
    prop_oneof![
        8 => (any::<i64>(), content_type, data)
            .prop_map(|(time, content_type, data)| record(time, content_type.as_deref(), &data)),
        1 => (1..1_000_000_u64, reason).prop_map(|(count, reason)| gap(count, reason)),
    ]
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(first in 1..1_000_000_u64, lines in prop::collection::vec(any_line(), 1..40)) {
        let (header, payload) = build(first, &lines);
        let batch = read(&payload);
        prop_assert_eq!(&batch.header, &header);
        let mut next = first;
        for ((sequence, found), line) in batch.lines.iter().zip(&lines) {
            prop_assert_eq!(*sequence, next);
            prop_assert_eq!(found, line);
            next += line.covers();
        }
        prop_assert_eq!(batch.lines.len(), lines.len());
        prop_assert_eq!(header.last() + 1, next);
    }
}
