//! Dates of metadata: `2026-11-21T13:00:00Z` and no other form of ISO 8601.

use holm_core::Timestamp;

const FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Reads one. `None` for every other spelling: what two readers could read differently is not read.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let time = Timestamp(time.as_millisecond());
    (format(time)? == text).then_some(time)
}

/// Writes one, cut to the second. `None` beyond the year 9999.
pub(crate) fn format(time: Timestamp) -> Option<String> {
    let time = jiff::Timestamp::from_second(time.0.div_euclid(1000)).ok()?;
    Some(time.strftime(FORMAT).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_spelling() {
        assert_eq!(parse("1970-01-01T00:00:01Z"), Some(Timestamp(1_000)));
        assert_eq!(parse("2026-11-21T13:00:00Z"), Some(Timestamp(1_795_266_000_000)));
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T13:00:00",
            "2026-11-21T13:00:00.5Z",
            "2026-11-21T13:00:00+00:00",
            "2026-11-21t13:00:00z",
            "2026-11-21 13:00:00Z",
            "2026-02-30T13:00:00Z",
            "2026-11-21T13:00:60Z",
            "+2026-11-21T13:00:00Z",
            "99999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!(format(Timestamp(i64::MAX)), None);
        assert_eq!(format(Timestamp(1_999)).as_deref(), Some("1970-01-01T00:00:01Z"));
    }
}
