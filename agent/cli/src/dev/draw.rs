//! The screen of `holm dev`.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::board::{Board, Tail};
use crate::look::{self, Tone};
use crate::top::Paint;

/// What keys do.
const KEYS: &str = "q or Ctrl-C ends this   b builds all again   c clears the tails   space holds the screen still";

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, board: &Board, paint: &Paint, held: bool) {
    let rows = u16::try_from(board.functions.len()).unwrap_or(u16::MAX).saturating_add(2);
    let [head, functions, events, below, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(rows.min(frame.area().height / 2)),
        Constraint::Percentage(50),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [logs, state] = Layout::horizontal([Constraint::Percentage(65), Constraint::Percentage(35)]).areas(below);
    let mut pairs = vec![("holm dev", String::new(), Tone::Strong)];
    pairs.extend(board.head.iter().map(|text| ("", text.clone(), Tone::Strong)));
    pairs.push(("events", look::count(board.invocations), Tone::Strong));
    frame.render_widget(Paragraph::new(paint.pairs(pairs)), head);
    frame.render_widget(table(board, paint), functions);
    frame.render_widget(tail(paint, " events ", &board.events, events), events);
    frame.render_widget(tail(paint, " logs and builds ", &board.logs, logs), logs);
    frame.render_widget(kept(board, paint, state), state);
    let (text, tone) = if held { ("held still; space goes on", Tone::Warn) } else { (KEYS, Tone::Dim) };
    frame.render_widget(Line::styled(text, paint.style(tone)), foot);
}

fn table(board: &Board, paint: &Paint) -> Table<'static> {
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Fill(5),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let head = ["FUNCTION", "VERSION", "BUILD", "OK", "FAILED", "P50", "P95"];
    let rows = board.functions.iter().map(|function| {
        let (tone, words) = function.build.words();
        let failed = if function.failed > 0 { Tone::Bad } else { Tone::Plain };
        let wall = |hundredths| function.percentile(hundredths).map(look::micros).unwrap_or_default();
        Row::new([
            Cell::from(function.name.clone()).style(paint.style(Tone::Strong)),
            Cell::from(function.version.clone()),
            Cell::from(words).style(paint.style(tone)),
            Cell::from(look::count(function.succeeded)),
            Cell::from(look::count(function.failed)).style(paint.style(failed)),
            Cell::from(wall(50)),
            Cell::from(wall(95)),
        ])
    });
    Table::new(rows, widths).header(Row::new(head).style(paint.style(Tone::Dim))).block(paint.block(" functions "))
}

/// The last lines that fit.
fn tail(paint: &Paint, title: &'static str, lines: &Tail, area: Rect) -> Paragraph<'static> {
    let fit = usize::from(area.height.saturating_sub(1));
    let lines: Vec<Line<'static>> =
        lines.last(fit).map(|(tone, text)| Line::styled(text.clone(), paint.style(*tone))).collect();
    Paragraph::new(lines).block(paint.block(title))
}

/// What functions keep: as many keys as fit, and how many there are.
fn kept(board: &Board, paint: &Paint, area: Rect) -> Paragraph<'static> {
    let fit = usize::from(area.height.saturating_sub(1));
    let more = board.state.len() > fit;
    let shown = if more { fit.saturating_sub(1) } else { fit };
    let mut lines: Vec<Line<'static>> = board
        .state
        .iter()
        .take(shown)
        .map(|((namespace, key), value)| Line::raw(format!("{namespace}  {key} = {value}")))
        .collect();
    if more {
        let rest = board.state.len() - shown;
        lines.push(Line::styled(format!("and {} more", look::count(rest as u64)), paint.style(Tone::Dim)));
    }
    Paragraph::new(lines).block(paint.block(" state "))
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::dev::board::tests::board;
    use crate::look::Look;

    fn rows(board: &Board, width: u16, height: u16, held: bool) -> Vec<String> {
        let paint = Paint::new(&Look::plain());
        let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
        let Ok(_) = terminal.draw(|frame| draw(frame, board, &paint, held));
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
    }

    #[test]
    fn the_screen_holds_everything() {
        let rows = rows(&board(), 130, 24, false);
        assert!(rows[0].starts_with("holm dev") && rows[0].contains("mqtt://127.0.0.1:1883"), "{rows:#?}");
        for words in [
            "heat",
            "runs: 175.8 KiB, built 820.0 ms, swap 90.0 ms",
            "failed; the last good one runs",
            "200 µs   300 µs",
            "00:00:00.000 trap    heat mqtt a/b 31.5  200 µs",
            "heat warn hot",
            "error[E0308]: mismatched types",
            "heat  n = 7",
            "b builds all again",
        ] {
            assert!(rows.iter().any(|row| row.contains(words)), "{words}: {rows:#?}");
        }
    }

    #[test]
    fn a_small_terminal_shows_what_fits() {
        let mut board = board();
        (0..20).for_each(|number| board.keep("heat", &format!("key-{number:02}"), Some(&serde_json::json!("1"))));
        let shown = rows(&board, 80, 16, true);
        assert!(shown.iter().any(|row| row.contains("more")), "{shown:#?}");
        assert!(shown[15].contains("held still"), "{shown:#?}");
        for (width, height) in [(1, 1), (10, 3), (200, 2)] {
            assert_eq!(rows(&board, width, height, false).len(), usize::from(height));
        }
    }
}
