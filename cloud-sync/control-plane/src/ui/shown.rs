//! Times, amounts and states as people read them.

use std::fmt::Write as _;

use holm_core::Timestamp;
use maud::{Markup, html};
use time::OffsetDateTime;

/// A moment as it is written in tables, with the whole of it behind the pointer.
pub(super) fn ago(time: Timestamp, now: Timestamp) -> Markup {
    let exact = utc(time);
    html! { time datetime=(iso(time)) title=(exact) { (distance(time, now)) } }
}

/// A moment, whole.
pub(super) fn moment(time: Timestamp) -> Markup {
    html! { time datetime=(iso(time)) { (utc(time)) } }
}

/// The time of day with milliseconds, with the whole of it behind the pointer.
pub(super) fn clock(time: Timestamp) -> Markup {
    let day = utc(time);
    let text = match date(time) {
        Some(date) => {
            format!("{:02}:{:02}:{:02}.{:03}", date.hour(), date.minute(), date.second(), date.millisecond())
        }
        None => day.clone(),
    };
    html! { time datetime=(iso(time)) title=(day) { (text) } }
}

fn date(time: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(time.0) * 1_000_000).ok()
}

/// A device's clock may say anything.
pub(super) fn utc(time: Timestamp) -> String {
    match date(time) {
        Some(date) => {
            let (month, day) = (u8::from(date.month()), date.day());
            let (hour, minute, second) = (date.hour(), date.minute(), date.second());
            format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC", date.year())
        }
        None => format!("{} ms after 1970", time.0),
    }
}

fn iso(time: Timestamp) -> String {
    utc(time).replacen(' ', "T", 1).replace(" UTC", "Z")
}

/// How far away, in words.
pub(super) fn distance(time: Timestamp, now: Timestamp) -> String {
    let apart = now.0.saturating_sub(time.0);
    match apart {
        0..5_000 => "now".to_owned(),
        5_000.. => format!("{} ago", span(apart)),
        // A clock that is a little ahead.
        -5_000..0 => "now".to_owned(),
        _ => format!("in {}", span(apart.saturating_neg())),
    }
}

/// A length of time in milliseconds, in one unit.
pub(super) fn span(milliseconds: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second")];
    // From two of a unit on: 90 minutes say more than one hour.
    let found = UNITS.into_iter().find(|(length, _)| milliseconds >= 2 * length).unwrap_or((1_000, "second"));
    let (length, name) = found;
    let count = milliseconds.saturating_add(length / 2) / length;
    format!("{count} {name}{}", if count == 1 { "" } else { "s" })
}

/// With a thin space between thousands.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{2009}');
        }
        text.push(digit);
    }
    text
}

/// So many of something.
pub(super) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// An amount of memory or data.
pub(super) fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut whole, mut rest, mut unit) = (number, 0, 0);
    while whole >= 1_024 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1_024, whole % 1_024, unit + 1);
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 || whole >= 100 { format!("{whole} {name}") } else { format!("{whole}.{} {name}", rest * 10 / 1_024) }
}

/// A number with about six digits that matter.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e15).contains(&size) {
        let whole = if size < 1.0 { 0 } else { format!("{:.0}", size.trunc()).len() };
        let text = format!("{value:.*}", 6_usize.saturating_sub(whole.max(1)) + usize::from(size < 1.0) * 3);
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    } else {
        format!("{value:e}")
    }
}

/// A payload, cut to what a line holds.
pub(super) fn payload(data: &[u8], most: usize) -> String {
    match std::str::from_utf8(data) {
        Ok(text) => {
            let mut shown: String = text.chars().take(most).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            shown
        }
        Err(_) => {
            let mut shown = format!("{} bytes: ", data.len());
            for byte in data.iter().take(most / 4) {
                let _ = write!(shown, "{byte:02x}");
            }
            shown
        }
    }
}

/// How something is: in words, with a colour that says no more than they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    Busy,
    Bad,
    Quiet,
}

/// See [`Mood`].
pub(super) fn state(mood: Mood, text: &str) -> Markup {
    let class = match mood {
        Mood::Good => "state good",
        Mood::Busy => "state busy",
        Mood::Bad => "state bad",
        Mood::Quiet => "state",
    };
    html! { span class=(class) { (text) } }
}

/// A job's status.
pub(super) fn job(status: &str) -> Markup {
    match status {
        "SUCCEEDED" => state(Mood::Good, "confirmed"),
        "QUEUED" => state(Mood::Busy, "queued"),
        "IN_PROGRESS" => state(Mood::Busy, "in progress"),
        "FAILED" => state(Mood::Bad, "failed"),
        "REJECTED" => state(Mood::Bad, "refused"),
        "TIMED_OUT" => state(Mood::Bad, "timed out"),
        "CANCELED" => state(Mood::Quiet, "replaced"),
        other => state(Mood::Quiet, &other.to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_one_unit() {
        for (apart, expected) in [
            (0, "now"),
            (4_000, "now"),
            (-2_000, "now"),
            (59_000, "59 seconds ago"),
            (90_000, "90 seconds ago"),
            (180_000, "3 minutes ago"),
            (5_400_000, "90 minutes ago"),
            (86_400_000, "24 hours ago"),
            (10 * 86_400_000, "10 days ago"),
            (-7_200_000, "in 2 hours"),
            (-86_399_000, "in 24 hours"),
        ] {
            assert_eq!(distance(Timestamp(1_731_000_000_000), Timestamp(1_731_000_000_000 + apart)), expected);
        }
        assert_eq!(utc(Timestamp(1_731_000_000_123)), "2024-11-07 17:20:00 UTC");
        assert_eq!(iso(Timestamp(1_731_000_000_123)), "2024-11-07T17:20:00Z");
        assert_eq!(utc(Timestamp(i64::MAX)), "9223372036854775807 ms after 1970");
        assert_eq!(distance(Timestamp(i64::MIN), Timestamp(i64::MAX)), "106751991167 days ago");
    }

    #[test]
    fn amounts_are_short() {
        for (given, expected) in
            [(0, "0 B"), (1_023, "1023 B"), (1_536, "1.5 KiB"), (128 << 20, "128 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(bytes(given), expected);
        }
        assert_eq!(count(1_234_567).replace('\u{2009}', " "), "1 234 567");
        assert_eq!(counted(1, "device", "devices"), "1 device");
        for (given, expected) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (12.5, "12.5"),
            (100.0, "100"),
            (0.123_456_789, "0.12345679"),
            (1_234.567_89, "1234.57"),
            (1e20, "1e20"),
            (123_456_789.0, "123456789"),
        ] {
            assert_eq!(number(given), expected);
        }
        assert_eq!(payload("äöü".as_bytes(), 2), "äö…");
        assert_eq!(payload(&[0xff, 0], 40), "2 bytes: ff00");
    }
}
