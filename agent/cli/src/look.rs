//! How things are written for people: colours, times, sizes, durations.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// What a piece of text means, where colour may say it too. Never the only sign of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As it is.
    Plain,
    /// As it should be.
    Good,
    /// To look at.
    Warn,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

/// How to write for one reader.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// Whether colours are wanted.
    pub(crate) color: bool,
    /// Whose times are shown.
    pub(crate) zone: TimeZone,
}

impl Look {
    /// Without colour, in UTC: what goldens hold.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { color: false, zone: TimeZone::UTC }
    }

    /// With the colour of a tone (ECMA-48, SGR), where colours are wanted.
    pub(crate) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A time with its date.
    pub(crate) fn moment(&self, milliseconds: i64) -> String {
        self.format(milliseconds, "%Y-%m-%d %H:%M:%S")
    }

    /// A time of day.
    pub(crate) fn clock(&self, milliseconds: i64) -> String {
        self.format(milliseconds, "%H:%M:%S%.3f")
    }

    fn format(&self, milliseconds: i64, pattern: &str) -> String {
        match Timestamp::from_millisecond(milliseconds) {
            Ok(time) => time.to_zoned(self.zone.clone()).strftime(pattern).to_string(),
            Err(_) => milliseconds.to_string(),
        }
    }
}

/// `1.5 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// `1.5 ms`.
pub(crate) fn micros(micros: f64) -> String {
    match micros {
        _ if micros < 1e3 => format!("{micros:.0} µs"),
        _ if micros < 1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// `2d 3h`, the two largest units.
pub(crate) fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match () {
        () if days > 0 => format!("{days}d {}h", hours % 24),
        () if hours > 0 => format!("{hours}h {}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m {}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// `12.3`, `4,560`: figures per second.
pub(crate) fn rate(value: f64) -> String {
    match value {
        _ if value <= 0.0 => "0".to_owned(),
        _ if value < 100.0 => format!("{value:.1}"),
        _ => count(value.round() as u64),
    }
}

/// `1,234,567`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The first line of a text, cut to so many characters.
pub(crate) fn short(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most && line.len() == text.trim_end().len() {
        return line.to_owned();
    }
    let cut: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_figures_for_people() {
        let cases = [
            (bytes(0), "0 B"),
            (bytes(1_536), "1.5 KiB"),
            (bytes(3 << 30), "3.0 GiB"),
            (micros(87.4), "87 µs"),
            (micros(1_234.0), "1.2 ms"),
            (span(59), "59s"),
            (span(93_784), "1d 2h"),
            (rate(0.25), "0.2"),
            (rate(4_560.4), "4,560"),
            (count(1_234_567), "1,234,567"),
            (short("one\ntwo", 10), "one…"),
            (short("a long line", 6), "a lon…"),
            (Look::plain().moment(1_648_108_800_000), "2022-03-24 08:00:00"),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }
}
