//! A series over time, drawn in the terminal with the dots of Braille characters: each character is two dots wide and four
//! high (Unicode, 22.11).

use crate::look::{Look, Tone};

/// Dots of a character.
const WIDE: usize = 2;
const HIGH: usize = 4;

/// The bit of a dot in its character, by column and row from the top.
const BITS: [[u8; HIGH]; WIDE] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

/// How wide the figures at the left side are.
const MARGIN: usize = 10;

/// A point of a series: when, in milliseconds since 1970, and what.
pub(crate) type Point = (i64, f64);

/// Draws a series that is in the order of time, in so many columns and rows. Where several points share a column, all
/// of what lies between the lowest and the highest is drawn: no peak is lost.
pub(crate) fn draw(name: &str, points: &[Point], columns: usize, rows: usize, look: &Look) -> String {
    let finite: Vec<Point> = points.iter().copied().filter(|(_, value)| value.is_finite()).collect();
    let (Some(first), Some(last)) = (finite.first(), finite.last()) else {
        return format!("{name}  no numbers to draw\n");
    };
    let (begin, end) = (first.0, last.0.max(first.0 + 1));
    let low = finite.iter().map(|point| point.1).fold(f64::INFINITY, f64::min);
    let high = finite.iter().map(|point| point.1).fold(f64::NEG_INFINITY, f64::max);
    // A series that does not move is a line in the middle.
    let (bottom, top) = if high > low { (low, high) } else { (low - 1.0, high + 1.0) };
    let (width, height) = (columns.max(1) * WIDE, rows.max(1) * HIGH);
    let x = |time: i64| ((time - begin) as f64 / (end - begin) as f64 * (width - 1) as f64).round() as usize;
    let y = |value: f64| ((top - value) / (top - bottom) * (height - 1) as f64).round() as usize;
    // The highest and the lowest dot of each column.
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; width];
    let mut mark = |column: usize, dot: usize| {
        if let Some(span) = spans.get_mut(column) {
            *span = Some(span.map_or((dot, dot), |(above, below)| (above.min(dot), below.max(dot))));
        }
    };
    let mut before: Option<Point> = None;
    for (time, value) in &finite {
        // A straight line from the point before, so that few points are a curve, too.
        if let Some((start, from)) = before.filter(|(start, _)| x(*start) < x(*time)) {
            let (left, right) = (x(start), x(*time));
            for column in left + 1..right {
                let part = (column - left) as f64 / (right - left) as f64;
                mark(column, y(from + (value - from) * part));
            }
        }
        mark(x(*time), y(*value));
        before = Some((*time, *value));
    }
    let mut cells = vec![vec![0_u8; columns.max(1)]; rows.max(1)];
    for (column, span) in spans.iter().enumerate() {
        let Some((above, below)) = *span else { continue };
        for dot in above..=below {
            let bit = BITS.get(column % WIDE).and_then(|bits| bits.get(dot % HIGH)).copied().unwrap_or_default();
            if let Some(cell) = cells.get_mut(dot / HIGH).and_then(|row| row.get_mut(column / WIDE)) {
                *cell |= bit;
            }
        }
    }
    let mean = finite.iter().map(|point| point.1).sum::<f64>() / finite.len() as f64;
    let mut text = format!(
        "{}  {} rows, lowest {}, mean {}, highest {}\n",
        look.paint(Tone::Strong, name),
        finite.len(),
        figure(low),
        figure(mean),
        figure(high)
    );
    let middle = cells.len() / 2;
    for (index, row) in cells.iter().enumerate() {
        let label = match index {
            0 => figure(top),
            index if index + 1 == cells.len() => figure(bottom),
            index if index == middle && cells.len() > 4 => figure(f64::midpoint(top, bottom)),
            _ => String::new(),
        };
        let dots: String = row.iter().map(|bits| char::from_u32(0x2800 + u32::from(*bits)).unwrap_or(' ')).collect();
        let dots = dots.trim_end_matches('\u{2800}');
        let dots = if dots.is_empty() { String::new() } else { look.paint(Tone::Good, dots) };
        let line = format!("{} {dots}", look.paint(Tone::Dim, &format!("{label:>MARGIN$}")));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let (from, to) = (look.moment(begin), look.moment(last.0));
    let gap = columns.saturating_sub(from.chars().count() + to.chars().count()).max(2);
    let axis = format!("{}{from}{}{to}", " ".repeat(MARGIN + 1), " ".repeat(gap));
    text.push_str(&format!("{}\n", look.paint(Tone::Dim, &axis)));
    text
}

/// A number in at most ten characters.
fn figure(value: f64) -> String {
    let size = value.abs();
    match value {
        _ if size != 0.0 && !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        _ if size >= 1e3 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(points: &[Point], columns: usize, rows: usize, expected: &str) {
        assert_eq!(draw("a", points, columns, rows, &Look::plain()), expected);
    }

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let points: Vec<Point> = (0..8).map(|n| (1_780_300_800_000 + n * 1000, n as f64)).collect();
        check(
            &points,
            4,
            2,
            "a  8 rows, lowest 0.000, mean 3.500, highest 7.000\n     7.000 \u{2800}\u{2800}⡠⠊\n     0.000 ⡠⠊\n           2026-06-01 08:00:00  2026-06-01 08:00:07\n",
        );
    }

    #[test]
    fn a_peak_is_seen_however_many_points_share_its_column() {
        let points: Vec<Point> = (0..1000).map(|n| (n, if n == 500 { 100.0 } else { 0.0 })).collect();
        let text = draw("a", &points, 10, 3, &Look::plain());
        let top = text.lines().nth(1).unwrap();
        assert!(top.contains(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{text}");
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        assert_eq!(draw("a", &[(0, f64::NAN)], 10, 3, &Look::plain()), "a  no numbers to draw\n");
        assert!(draw("a", &[(5, 2.0)], 10, 3, &Look::plain()).contains("1 rows"));
        for (value, expected) in
            [(0.0, "0.000"), (-12.34, "-12.3"), (12_345.6, "12346"), (1e9, "1.00e9"), (1e-5, "1.00e-5")]
        {
            assert_eq!(figure(value), expected);
        }
    }
}
