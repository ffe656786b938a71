//! RFC 3339 times, to seconds since 1970 and back. The arithmetic of days is Howard Hinnant's `days_from_civil`
//! (<https://howardhinnant.github.io/date_algorithms.html>).

use serde::Serializer;

/// Seconds since 1970 of a time such as `2022-03-24T09:00:00+01:00`. A fraction of a second is cut off.
pub fn parse(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let (clock, zone) = rest.split_at_checked(9)?;
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock.strip_prefix(['T', 't', ' '])?, ':', [2, 2, 2])?;
    let sound = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second <= 60;
    let fraction_ends = match zone.strip_prefix('.') {
        Some(fraction) => 1 + fraction.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?,
        None => 0,
    };
    let offset = match zone.get(fraction_ends..)? {
        "Z" | "z" => 0,
        zone => {
            let sign = match zone.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let [hours, minutes] = numbers(zone.get(1..)?, ':', [2, 2])?;
            sign * (hours * 3_600 + minutes * 60)
        }
    };
    sound.then(|| days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset)
}

/// The inverse, in UTC.
pub fn format(seconds: i64) -> String {
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

pub(crate) fn serialize<S: Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*seconds))
}

pub(crate) fn serialize_option<S: Serializer>(seconds: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match seconds {
        Some(seconds) => serialize(seconds, serializer),
        None => serializer.serialize_none(),
    }
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Numbers of so many digits, and nothing else, between separators.
fn numbers<const N: usize>(text: &str, separator: char, digits: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut found = [0; N];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part = parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_zone_and_written_in_utc() {
        for (text, seconds, utc) in [
            ("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"),
            ("2022-03-24T09:00:00+01:00", 1_648_108_800, "2022-03-24T08:00:00Z"),
            ("2022-03-27T03:00:00+02:00", 1_648_342_800, "2022-03-27T01:00:00Z"),
            ("2024-02-29t23:59:59.125-01:30", 1_709_256_599, "2024-03-01T01:29:59Z"),
            ("1969-12-31T23:59:59Z", -1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(parse(text), Some(seconds), "{text}");
            assert_eq!(format(seconds), utc);
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "2022-03-24",
            "2022-03-24T09:00:00",
            "2022-13-24T09:00:00Z",
            "2022-03-24T25:00:00Z",
            "2022-3-24T09:00:00Z",
            "2022-03-24T09:00:00+01",
            "2022-03-24T09:00:00.Z",
            "2022-03-24T09:00:00Z ",
            "2022-03-2éT09:00:00Z",
            "+022-03-24T09:00:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
