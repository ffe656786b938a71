//! The screen of `holm top`, and the line that stands for it elsewhere.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};

use crate::functions;
use crate::journal;
use crate::look::{self, Look, Tone};
use crate::top::figures::Figures;
use crate::top::sample::Sample;

/// One line for those who have no terminal.
pub(crate) fn line(figures: &Figures) -> String {
    let functions: Vec<String> = figures
        .functions
        .iter()
        .map(|row| format!("{} {}/s {} failed", row.name, look::rate(row.invocations_per_s), row.failed))
        .collect();
    let outbox: u64 = figures.outbox.iter().map(|lane| lane.rows).sum();
    format!(
        "{} up {}: {} events/s, {} commits/s of {} each{}, inbox {}, dead {}, outbox {}; {}",
        figures.device,
        look::span(figures.uptime_s),
        look::rate(figures.events_per_s),
        look::rate(figures.store.commits_per_s),
        look::micros(figures.store.mean_commit_us),
        if figures.store.failing { " FAILING" } else { "" },
        look::count(figures.inbox),
        look::count(figures.dead),
        look::count(outbox),
        functions.join(", "),
    )
}

/// The whole screen. `told` is why the figures are old, if they are.
pub(crate) fn draw(frame: &mut Frame<'_>, figures: &Figures, sample: &Sample, told: Option<&str>, look: &Look) {
    let rows = u16::try_from(figures.functions.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [head, functions, below, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Length(rows.min(frame.area().height / 2)),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let [events, logs] = Layout::vertical([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(below);
    let paint = Paint::new(look);
    frame.render_widget(Paragraph::new(paint.head(figures)), head);
    frame.render_widget(paint.table(figures), functions);
    let plain = Look { color: false, zone: look.zone.clone() };
    let entries: Vec<(Tone, String)> = sample
        .events
        .iter()
        .map(|event| {
            let tone = if event.outcome == "ok" { Tone::Plain } else { Tone::Bad };
            (tone, journal::event(event, &plain))
        })
        .collect();
    frame.render_widget(paint.tail(" events ", &entries, events), events);
    let entries: Vec<(Tone, String)> = sample
        .logs
        .iter()
        .map(|log| {
            let tone = if matches!(&*log.level, "warn" | "error" | "critical") { Tone::Warn } else { Tone::Plain };
            (tone, journal::log(log, &plain))
        })
        .collect();
    frame.render_widget(paint.tail(" logs ", &entries, logs), logs);
    let foot_text = match told {
        Some(told) => Span::styled(look::short(told, 200), paint.style(Tone::Bad)),
        None => Span::styled("q or Ctrl-C ends this view, not the node", paint.style(Tone::Dim)),
    };
    frame.render_widget(Paragraph::new(foot_text), foot);
}

/// How tones look on a screen.
pub(crate) struct Paint {
    color: bool,
}

impl Paint {
    /// With colours where they are wanted.
    pub(crate) fn new(look: &Look) -> Self {
        Self { color: look.color }
    }

    pub(crate) fn style(&self, tone: Tone) -> Style {
        let color = |color| if self.color { Style::new().fg(color) } else { Style::new() };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => color(Color::Green),
            Tone::Warn => color(Color::Yellow),
            Tone::Bad => color(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Strong => Style::new().add_modifier(Modifier::BOLD),
        }
    }

    /// A name and its value, as often as needed.
    pub(crate) fn pairs(&self, pairs: Vec<(&'static str, String, Tone)>) -> Line<'static> {
        let mut spans = Vec::new();
        for (name, value, tone) in pairs {
            spans.push(Span::styled(format!("{name} "), self.style(Tone::Dim)));
            spans.push(Span::styled(format!("{value}   "), self.style(tone)));
        }
        Line::from(spans)
    }

    fn head(&self, figures: &Figures) -> Vec<Line<'static>> {
        let bad = |number: u64, tone| if number > 0 { tone } else { Tone::Plain };
        let (broker, store) = (&figures.broker, &figures.store);
        let lanes: Vec<String> = figures
            .outbox
            .iter()
            .map(|lane| format!("{} {} ({})", lane.lane, look::count(lane.rows), look::bytes(lane.bytes)))
            .collect();
        let state = if store.failing { ("FAILING", Tone::Bad) } else { ("good", Tone::Good) };
        vec![
            self.pairs(vec![
                ("holm", figures.device.clone(), Tone::Strong),
                ("holmd", figures.version.clone(), Tone::Plain),
                ("up", look::span(figures.uptime_s), Tone::Plain),
                ("events/s", look::rate(figures.events_per_s), Tone::Strong),
                ("invocations/s", look::rate(figures.invocations_per_s), Tone::Strong),
            ]),
            self.pairs(vec![
                ("events", look::count(figures.events), Tone::Plain),
                ("not taken", look::count(figures.not_taken), bad(figures.not_taken, Tone::Warn)),
                ("duplicates", look::count(figures.duplicates), Tone::Plain),
                ("inbox", look::count(figures.inbox), bad(figures.inbox, Tone::Warn)),
                ("dead", look::count(figures.dead), bad(figures.dead, Tone::Bad)),
            ]),
            self.pairs(vec![
                ("broker clients", broker.clients.to_string(), Tone::Plain),
                ("in/s", look::rate(broker.in_per_s), Tone::Plain),
                ("out/s", look::rate(broker.out_per_s), Tone::Plain),
                ("queued", look::count(broker.queued), Tone::Plain),
                ("dropped", look::count(broker.dropped), bad(broker.dropped, Tone::Warn)),
            ]),
            self.pairs(vec![
                ("store", state.0.to_owned(), state.1),
                ("commits/s", look::rate(store.commits_per_s), Tone::Plain),
                ("each", look::micros(store.mean_commit_us), Tone::Plain),
                ("settlements/commit", format!("{:.1}", store.settlements_per_commit), Tone::Plain),
                ("failures", look::count(store.failures), bad(store.failures, Tone::Bad)),
                ("file", look::bytes(store.database_bytes), Tone::Plain),
            ]),
            self.pairs(vec![("outbox", lanes.join(", "), Tone::Plain)]),
        ]
    }

    fn table(&self, figures: &Figures) -> Table<'static> {
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(9),
            Constraint::Length(21),
            Constraint::Length(9),
            Constraint::Length(11),
            Constraint::Length(8),
            Constraint::Length(9),
            Constraint::Length(8),
        ];
        let head = ["FUNCTION", "VERSION", "STATE", "PER S", "OK", "FAILED", "MEAN", "WAITING"];
        let rows = figures.functions.iter().map(|row| {
            let failed = if row.failed > 0 { Tone::Bad } else { Tone::Plain };
            Row::new([
                Cell::from(row.name.clone()).style(self.style(Tone::Strong)),
                Cell::from(row.version.clone()),
                Cell::from(row.state.clone()).style(self.style(functions::tone(&row.state))),
                Cell::from(look::rate(row.invocations_per_s)),
                Cell::from(look::count(row.succeeded)),
                Cell::from(look::count(row.failed)).style(self.style(failed)),
                Cell::from(look::micros(row.mean_us as f64)),
                Cell::from(look::count(row.waiting)),
            ])
        });
        let title = if figures.deploying { " functions (as they were: a deployment runs) " } else { " functions " };
        Table::new(rows, widths).header(Row::new(head).style(self.style(Tone::Dim))).block(self.block(title))
    }

    /// The last entries that fit.
    fn tail(&self, title: &'static str, entries: &[(Tone, String)], area: Rect) -> Paragraph<'static> {
        let fit = usize::from(area.height.saturating_sub(1));
        let lines: Vec<Line<'static>> = entries
            .iter()
            .skip(entries.len().saturating_sub(fit))
            .map(|(tone, text)| Line::styled(text.replace('\n', " "), self.style(*tone)))
            .collect();
        Paragraph::new(lines).block(self.block(title))
    }

    /// A line with a title above something.
    pub(crate) fn block(&self, title: &'static str) -> Block<'static> {
        Block::new().borders(Borders::TOP).border_style(self.style(Tone::Dim)).title(title)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::top::figures::tests::samples;

    #[test]
    fn the_line_says_it_all_in_one() {
        let (before, now) = samples();
        let expected = "pi3 up 1h 1m: 200 events/s, 50.0 commits/s of 250 µs each FAILING, inbox 3, dead 1, outbox 2,540; water-loss 200/s 10 failed";
        assert_eq!(line(&Figures::of(&before, &now)), expected);
    }

    #[test]
    fn the_screen_holds_everything() {
        let (before, now) = samples();
        let figures = Figures::of(&before, &now);
        let Ok(mut terminal) = Terminal::new(TestBackend::new(100, 20));
        let Ok(_) = terminal.draw(|frame| draw(frame, &figures, &now, None, &Look::plain()));
        let buffer = terminal.backend().buffer();
        let rows: Vec<String> = buffer
            .content()
            .chunks(100)
            .map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned())
            .collect();
        let expected = "\
holm pi3   holmd 0.1.0   up 1h 1m   events/s 200   invocations/s 200
events 1,668   not taken 2   duplicates 0   inbox 3   dead 1
broker clients 1   in/s 210   out/s 0   queued 0   dropped 0
store FAILING   commits/s 50.0   each 250 µs   settlements/commit 4.0   failures 0   file 1.0 MiB
outbox alarms 4 (300 B), results 2,536 (19.5 KiB)
";
        assert_eq!(rows.iter().take(5).map(|row| format!("{row}\n")).collect::<String>(), expected);
        for words in [
            "water-loss",
            "confirmed",
            "1,390",
            "water-loss ok 184 µs mqtt water/flow 0 B e-1",
            "machine-health warn press is above 10",
        ] {
            assert!(rows.iter().any(|row| row.contains(words)), "{words}: {rows:#?}");
        }
    }
}
