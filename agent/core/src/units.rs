//! Sizes, durations and rates as people write them: `16MiB`, `500ms`, `50/s`.

use std::time::Duration;

/// Why a text is not a size, duration or rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a byte size.
    #[error("`{0}` is not a size: a whole number and B, KiB, MiB or GiB, such as `16MiB`")]
    Bytes(String),
    /// Not a duration.
    #[error("`{0}` is not a duration: a number and ms, s, m, h or d, such as `500ms`")]
    Duration(String),
    /// Not a rate.
    #[error("`{0}` is not a rate: a whole number per s, m or h, such as `50/s`")]
    Rate(String),
}

/// Bytes from `64KiB` and the like.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let error = || UnitError::Bytes(text.to_owned());
    let (number, unit) = split_unit(text);
    let number: u64 = number.parse().map_err(|_| error())?;
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(error()),
    };
    number.checked_mul(factor).ok_or_else(error)
}

/// A duration from `500ms`, `1.5s`, `7d` and the like.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let error = || UnitError::Duration(text.to_owned());
    let (number, unit) = split_unit(text);
    let number: f64 = number.parse().map_err(|_| error())?;
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(error()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| error())
}

/// Events per second from `50/s`, `10/m`, `1/h`.
pub fn parse_rate(text: &str) -> Result<f64, UnitError> {
    let error = || UnitError::Rate(text.to_owned());
    let (number, unit) = text.split_once('/').ok_or_else(error)?;
    let number: u32 = number.trim().parse().map_err(|_| error())?;
    let seconds = match unit.trim() {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(error()),
    };
    if number == 0 { Err(error()) } else { Ok(f64::from(number) / seconds) }
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_people_write_them() {
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("3 KiB"), Ok(3072));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_rate("50/s"), Ok(50.0));
        assert_eq!(parse_rate("30/m"), Ok(0.5));
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        for text in ["", "16", "MiB", "16MB", "-1MiB", "1.5MiB", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
        for text in ["", "5", "s", "-1s", "1e3s", "1..2s", "99999999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        for text in ["", "5", "0/s", "5/d", "-1/s"] {
            assert!(parse_rate(text).is_err(), "{text:?}");
        }
    }
}
