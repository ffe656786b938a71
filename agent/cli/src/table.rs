//! Tables for people: columns as wide as they must be, two blanks between them, no lines.

use crate::look::{Look, Tone};

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// In a tone.
    pub(crate) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// A table in the making.
#[derive(Debug)]
pub(crate) struct Table {
    /// (heading, whether it is a figure and stands to the right)
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Headings; those that begin with `>` are of figures, and stand to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let column = |heading: &&'static str| match heading.strip_prefix('>') {
            Some(heading) => (heading, true),
            None => (*heading, false),
        };
        Self { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    /// One row: a cell for every heading.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The whole table, every line ended.
    pub(crate) fn render(&self, look: &Look) -> String {
        let head: Vec<Cell> = self.columns.iter().map(|(text, _)| Cell::toned(Tone::Dim, *text)).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |index: usize| {
            lines.iter().filter_map(|line| line.get(index)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            // Blanks are written before the next cell, so that no line ends with any.
            let mut blanks = 0;
            for ((cell, width), (_, right)) in line.iter().zip(&widths).zip(&self.columns) {
                let missing = width - cell.text.chars().count().min(*width);
                if !cell.text.is_empty() {
                    text.push_str(&" ".repeat(if *right { blanks + missing } else { blanks }));
                    text.push_str(&look.paint(cell.tone, &cell.text));
                    blanks = 0;
                }
                blanks += 2 + if cell.text.is_empty() {
                    *width
                } else if *right {
                    0
                } else {
                    missing
                };
            }
            text.push('\n');
        }
        text
    }
}

/// Two columns: what, and its value. What has no value is left out.
pub(crate) fn list(look: &Look, entries: &[(&str, String)]) -> String {
    let width = entries.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in entries.iter().filter(|(_, value)| !value.is_empty()) {
        let blanks = " ".repeat(width - name.chars().count() + 2);
        text.push_str(&format!("{}{blanks}{value}\n", look.paint(Tone::Dim, name)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_with_blanks() {
        let mut table = Table::new(&["NAME", ">N", "NOTE"]);
        table.row(["a".into(), "1".into(), "".into()]);
        table.row(["longer".into(), "1,000".into(), Cell::toned(Tone::Bad, "µ broken")]);
        assert_eq!(table.render(&Look::plain()), "NAME        N  NOTE\na           1\nlonger  1,000  µ broken\n");
        let color = Look { color: true, ..Look::plain() };
        assert!(table.render(&color).contains("\x1b[31mµ broken\x1b[0m\n"));
    }
}
