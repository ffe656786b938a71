//! The table, and the same as JSON.

use serde::Serialize;
use serde_json::{Value, json};

/// What a figure is held to.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The middle of the ratios ours / baseline is at least this.
    RatioAtLeast(f64),
    /// The middle of the ratios is at most this.
    RatioAtMost(f64),
    /// No value is beyond this.
    AtMost(f64),
    /// Only told.
    None,
}

/// One line of the table: a value of ours for every round, and the baseline's of the same round where there is one.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    name: String,
    unit: &'static str,
    ours: Vec<f64>,
    baseline: Vec<f64>,
    target: Target,
}

/// Least, middle and greatest.
fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some([*sorted.first()?, *sorted.get(sorted.len() / 2)?, *sorted.last()?])
}

fn shown(values: Option<[f64; 3]>) -> String {
    let number = |value: f64| match value.abs() {
        big if big >= 1000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    match values {
        None => "-".to_owned(),
        Some([least, middle, most]) if least == most => number(middle),
        Some([least, middle, most]) => format!("{} / {} / {}", number(least), number(middle), number(most)),
    }
}

impl Figure {
    /// Rounds of both sides.
    pub fn pair(
        name: impl Into<String>,
        unit: &'static str,
        ours: Vec<f64>,
        baseline: Vec<f64>,
        target: Target,
    ) -> Self {
        Self { name: name.into(), unit, ours, baseline, target }
    }

    /// Rounds of ours alone.
    pub fn alone(name: impl Into<String>, unit: &'static str, ours: Vec<f64>, target: Target) -> Self {
        Self::pair(name, unit, ours, Vec::new(), target)
    }

    fn ratios(&self) -> Vec<f64> {
        self.ours.iter().zip(&self.baseline).map(|(ours, baseline)| ours / baseline).collect()
    }

    /// Whether the target is met; `None` where there is none.
    pub fn met(&self) -> Option<bool> {
        let ratio = spread(&self.ratios()).map_or(f64::NAN, |[_, middle, _]| middle);
        let most = spread(&self.ours).map_or(f64::NAN, |[_, _, most]| most);
        match self.target {
            Target::RatioAtLeast(limit) => Some(ratio >= limit),
            Target::RatioAtMost(limit) => Some(ratio <= limit),
            Target::AtMost(limit) => Some(most <= limit),
            Target::None => None,
        }
    }

    fn row(&self) -> [String; 7] {
        let target = match self.target {
            Target::RatioAtLeast(limit) => format!("ratio >= {limit}"),
            Target::RatioAtMost(limit) => format!("ratio <= {limit}"),
            Target::AtMost(limit) => format!("<= {limit}"),
            Target::None => String::new(),
        };
        let met = match self.met() {
            Some(true) => "met",
            Some(false) => "NOT met",
            None => "",
        };
        [
            self.name.clone(),
            self.unit.to_owned(),
            shown(spread(&self.ours)),
            shown(spread(&self.baseline)),
            shown(spread(&self.ratios())),
            target,
            met.to_owned(),
        ]
    }

    fn json(&self) -> Value {
        let mut value = json!(self);
        if let Value::Object(fields) = &mut value {
            fields.insert("ratios".into(), json!(self.ratios()));
            fields.insert("met".into(), json!(self.met()));
            fields.insert(
                "medians".into(),
                json!({
                    "ours": spread(&self.ours).map(|[_, middle, _]| middle),
                    "baseline": spread(&self.baseline).map(|[_, middle, _]| middle),
                    "ratio": spread(&self.ratios()).map(|[_, middle, _]| middle),
                }),
            );
        }
        value
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
    voids: Vec<String>,
}

impl Report {
    /// Adds a line, and prints it, so that a long run shows that it lives.
    pub fn add(&mut self, figure: Figure) {
        let [name, unit, ours, baseline, ratio, ..] = figure.row();
        eprintln!("  {name}: {ours} {unit}; baseline {baseline}; ratio {ratio}");
        self.figures.push(figure);
    }

    /// Marks the run as void where the baseline fell too far behind what it does on a quiet machine.
    pub fn check_baseline(&mut self, what: &str, rates: &[f64], quiet: f64) {
        let Some([_, middle, _]) = spread(rates) else { return };
        if middle < 0.7 * quiet {
            self.voids.push(format!(
                "{what}: the baseline did {middle:.0} events/s, {:.0} % of the {quiet:.0} that performance.md has for it",
                100.0 * middle / quiet
            ));
        }
    }

    /// The table.
    pub fn print(&self) {
        let head =
            ["figure", "unit", "ours (min / median / max)", "baseline", "ratio", "target", ""].map(str::to_owned);
        let rows: Vec<[String; 7]> = std::iter::once(head).chain(self.figures.iter().map(Figure::row)).collect();
        let mut widths = [0; 7];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            println!("{}", cells.join("  ").trim_end());
        }
        let missed = self.figures.iter().filter(|figure| figure.met() == Some(false)).count();
        let held = self.figures.iter().filter(|figure| figure.met().is_some()).count();
        println!("{} of {held} targets met", held - missed);
        for void in &self.voids {
            println!("VOID {void}");
        }
    }

    /// The file for machines.
    pub fn json(&self) -> Value {
        json!({
            "version": 1,
            "void": self.voids,
            "figures": self.figures.iter().map(Figure::json).collect::<Vec<_>>(),
        })
    }
}
