//! Reading a TOML document so that **all** its problems come out at once, each with its line and key.
//!
//! A [`Section`] hands out typed values by key and remembers which keys were asked for; what nobody asked for is an
//! unknown key. Nothing is returned to the caller but values, and [`Document::finish`] gives the verdict.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::units::{parse_bytes, parse_duration, parse_rate};

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// 1-based; 0 when the problem is that something is missing altogether.
    pub line: usize,
    /// Dotted, such as `limits.memory`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Everything that is wrong with a document, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file, or what stands for it.
    pub origin: String,
    /// Never empty.
    pub problems: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "{}: {count} problem{}", self.origin, if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            match problem.line {
                0 => write!(f, "\n  {}: {}", problem.key, problem.message)?,
                line => write!(f, "\n  line {line}: {}: {}", problem.key, problem.message)?,
            }
        }
        Ok(())
    }
}

type Sink = Rc<Report>;

struct Report {
    line_starts: Vec<usize>,
    lines: usize,
    problems: RefCell<Vec<Problem>>,
}

impl Report {
    /// The line of an offset. The end of a text that ends with a newline belongs to its last line.
    fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).min(self.lines)
    }

    fn add(&self, line: usize, key: String, message: String) {
        self.problems.borrow_mut().push(Problem { line, key, message });
    }
}

/// A parsed document that is being read.
pub struct Document {
    origin: String,
    report: Sink,
}

impl Document {
    /// Parses `text` as TOML. A syntax error is the only problem that is reported alone.
    pub fn parse<'a>(origin: &str, text: &'a str) -> Result<(Self, Section<'a>), Problems> {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let report = Rc::new(Report { line_starts, lines: text.lines().count().max(1), problems: RefCell::default() });
        match DeTable::parse(text) {
            Ok(table) => {
                let root = Section::new(table.into_inner(), 0..0, String::new(), report.clone());
                Ok((Self { origin: origin.to_owned(), report }, root))
            }
            Err(error) => {
                let line = error.span().map_or(0, |span| report.line(span.start));
                let problem =
                    Problem { line, key: "syntax".into(), message: error.message().trim().replace('\n', ", ") };
                Err(Problems { origin: origin.to_owned(), problems: vec![problem] })
            }
        }
    }

    /// The verdict, after every section was dropped.
    pub fn finish(self) -> Result<(), Problems> {
        let mut problems = self.report.problems.take();
        problems.sort_by(|a, b| (a.line, &a.key).cmp(&(b.line, &b.key)));
        if problems.is_empty() { Ok(()) } else { Err(Problems { origin: self.origin, problems }) }
    }
}

/// A table of the document. Dropping it reports the keys that nobody asked for.
pub struct Section<'a> {
    entries: Vec<(Spanned<String>, Spanned<DeValue<'a>>)>,
    known: Vec<&'static str>,
    span: Range<usize>,
    path: String,
    report: Sink,
}

impl<'a> Section<'a> {
    fn new(table: DeTable<'a>, span: Range<usize>, path: String, report: Sink) -> Self {
        let entries = table
            .into_iter()
            .map(|(key, value)| (Spanned::new(key.span(), key.into_inner().into_owned()), value))
            .collect();
        Self { entries, known: Vec::new(), span, path, report }
    }

    /// The dotted name of `key` in this section.
    fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'a>>> {
        self.known.push(key);
        let at = self.entries.iter().position(|(name, _)| name.get_ref() == key)?;
        Some(self.entries.swap_remove(at).1)
    }

    fn wrong(&self, key: &str, span: Range<usize>, message: impl fmt::Display) {
        self.report.add(self.report.line(span.start), self.name(key), message.to_string());
    }

    /// Reports a problem that concerns this whole section.
    pub fn problem(&self, key: &str, message: impl fmt::Display) {
        let line = if self.span.is_empty() { 0 } else { self.report.line(self.span.start) };
        self.report.add(line, self.name(key), message.to_string());
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(DeValue<'a>) -> Option<T>,
    ) -> Option<(T, Range<usize>)> {
        let value = self.take(key)?;
        let span = value.span();
        let found = value.get_ref().type_str();
        match read(value.into_inner()) {
            Some(value) => Some((value, span)),
            None => {
                self.wrong(key, span, format_args!("is {found}, expected {what}"));
                None
            }
        }
    }

    fn parsed<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let (text, span) = self.value(key, what, text)?;
        parse(&text).map_err(|error| self.wrong(key, span, error)).ok()
    }

    /// Where it begins: 1-based, 0 if nobody can say.
    pub fn line(&self) -> usize {
        if self.span.is_empty() { 0 } else { self.report.line(self.span.start) }
    }

    /// Whether `key` is there. Asking does not make it known.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(name, _)| name.get_ref() == key)
    }

    /// A value of any kind, as it is: for what is handed on or compared, and not read.
    pub fn any(&mut self, key: &'static str) -> Option<DeValue<'a>> {
        Some(self.take(key)?.into_inner())
    }

    /// Every entry, as it is: for tables whose keys are names of the author's choice.
    pub fn entries(&mut self) -> Vec<(String, DeValue<'a>)> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        entries.map(|(key, value)| (key.into_inner(), value.into_inner())).collect()
    }

    /// The tables of an array of them in a list, `key = [{ ... }]`, or `[[key]]`; whether the key is there.
    pub fn tables(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let there = self.has(key);
        let sections = self.sections(key);
        there.then_some(sections)
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        Some(self.value(key, "a text", text)?.0)
    }

    /// A text that some parser accepts.
    pub fn parse<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.parsed(key, "a text", parse)
    }

    /// A text that some parser accepts; its absence is a problem.
    pub fn require<T, E: fmt::Display>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        if !self.entries.iter().any(|(name, _)| name.get_ref() == key) {
            self.known.push(key);
            self.problem(key, "is missing");
            return None;
        }
        self.parsed(key, "a text", parse)
    }

    /// One of a closed set of words.
    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        self.parsed(key, "a text", |text| {
            choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<_> = choices.iter().map(|(word, _)| format!("`{word}`")).collect();
                format!("`{text}` is not one of {}", words.join(", "))
            })
        })
    }

    /// A duration such as `500ms`.
    pub fn duration(&mut self, key: &'static str) -> Option<Duration> {
        self.parsed(key, "a duration such as \"500ms\"", parse_duration)
    }

    /// A duration within bounds.
    pub fn duration_in(&mut self, key: &'static str, bounds: std::ops::RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(key, "a duration such as \"500ms\"", |text| {
            let value = parse_duration(text).map_err(|error| error.to_string())?;
            if bounds.contains(&value) {
                Ok(value)
            } else {
                Err(format!("{value:?} is out of range, {:?} to {:?}", bounds.start(), bounds.end()))
            }
        })
    }

    /// A size such as `16MiB`, within bounds.
    pub fn bytes(&mut self, key: &'static str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        self.parsed(key, "a size such as \"16MiB\"", |text| {
            let value = parse_bytes(text).map_err(|error| error.to_string())?;
            if bounds.contains(&value) {
                Ok(value)
            } else {
                Err(format!("{value} bytes is out of range, {} to {}", bounds.start(), bounds.end()))
            }
        })
    }

    /// A rate such as `50/s`, in events per second.
    pub fn rate(&mut self, key: &'static str) -> Option<f64> {
        self.parsed(key, "a rate such as \"50/s\"", parse_rate)
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, key: &'static str, bounds: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (value, span) = self.value(key, "a whole number", |value| match value {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        })?;
        match u64::try_from(value) {
            Ok(value) if bounds.contains(&value) => Some(value),
            _ => {
                self.wrong(key, span, format_args!("{value} is out of range, {} to {}", bounds.start(), bounds.end()));
                None
            }
        }
    }

    /// A number, whole or not, and finite.
    pub fn number(&mut self, key: &'static str) -> Option<f64> {
        let number = |value| match value {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n as f64),
            DeValue::Float(number) => number.as_str().parse().ok().filter(|n: &f64| n.is_finite()),
            _ => None,
        };
        Some(self.value(key, "a number", number)?.0)
    }

    /// True or false.
    pub fn boolean(&mut self, key: &'static str) -> Option<bool> {
        let boolean = |value| if let DeValue::Boolean(value) = value { Some(value) } else { None };
        Some(self.value(key, "true or false", boolean)?.0)
    }

    /// A list of texts, each accepted by a parser.
    pub fn texts<T, E: fmt::Display>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, E>) -> Vec<T> {
        let array = |value| if let DeValue::Array(values) = value { Some(values) } else { None };
        let Some((values, _)) = self.value(key, "a list of texts", array) else { return Vec::new() };
        let mut parsed = Vec::new();
        for value in values {
            let span = value.span();
            match text(value.into_inner()) {
                Some(item) => match parse(&item) {
                    Ok(item) => parsed.push(item),
                    Err(error) => self.wrong(key, span, error),
                },
                None => self.wrong(key, span, "every entry must be a text"),
            }
        }
        parsed
    }

    /// A table below this one.
    pub fn section(&mut self, key: &'static str) -> Option<Section<'a>> {
        let table = |value| if let DeValue::Table(table) = value { Some(table) } else { None };
        let (table, span) = self.value(key, "a table", table)?;
        Some(Section::new(table, span, self.name(key), self.report.clone()))
    }

    /// The tables of an array of tables, `[[key]]`.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let array = |value| if let DeValue::Array(values) = value { Some(values) } else { None };
        let Some((values, _)) = self.value(key, "an array of tables", array) else { return Vec::new() };
        let mut sections = Vec::new();
        for (index, value) in values.into_iter().enumerate() {
            let span = value.span();
            match value.into_inner() {
                DeValue::Table(table) => {
                    let path = format!("{}[{index}]", self.name(key));
                    sections.push(Section::new(table, span, path, self.report.clone()));
                }
                _ => self.wrong(key, span, "every entry must be a table"),
            }
        }
        sections
    }

    /// Every entry, as (key, table): for sections whose keys are names of the author's choice.
    pub fn named_sections(&mut self) -> Vec<(String, Section<'a>)> {
        let mut sections = Vec::new();
        for (key, value) in std::mem::take(&mut self.entries) {
            let span = value.span();
            let path = self.name(key.get_ref());
            match value.into_inner() {
                DeValue::Table(table) => {
                    let section = Section::new(table, span, path, self.report.clone());
                    sections.push((key.into_inner(), section));
                }
                _ => self.wrong(key.get_ref(), span, "must be a table"),
            }
        }
        sections.sort_by(|a, b| a.0.cmp(&b.0));
        sections
    }

    /// A value of any simple kind, as (kind, text form).
    pub fn simple(&mut self, key: &'static str) -> Option<(&'static str, String)> {
        let simple = |value| match value {
            DeValue::String(text) => Some(("text", text.into_owned())),
            DeValue::Integer(number) => Some(("number", number.as_str().to_owned())),
            DeValue::Float(number) => Some(("number", number.as_str().to_owned())),
            DeValue::Boolean(value) => Some(("boolean", value.to_string())),
            _ => None,
        };
        Some(self.value(key, "a text, a number, true or false", simple)?.0)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for (key, _) in &self.entries {
            let nearest = self.known.iter().map(|known| (distance(key.get_ref(), known), *known)).min();
            let hint = match nearest {
                Some((near, known)) if near <= 2 => format!(", did you mean `{known}`?"),
                _ if self.known.is_empty() => String::new(),
                _ => format!(", known here: {}", self.known.join(", ")),
            };
            let line = self.report.line(key.span().start);
            self.report.add(line, self.name(key.get_ref()), format!("unknown key{hint}"));
        }
    }
}

fn text(value: DeValue<'_>) -> Option<String> {
    if let DeValue::String(text) = value { Some(text.into_owned()) } else { None }
}

/// Levenshtein's distance, for `did you mean`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let change = diagonal + usize::from(x != *y);
            diagonal = *cell;
            left = change.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
