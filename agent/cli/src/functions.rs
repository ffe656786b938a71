//! `holm functions`: what is deployed, and what may be done to it.

use clap::Subcommand;

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::reply::Function;
use crate::screen::Screen;
use crate::table::{Cell, Table};

/// See `holm functions --help`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Functions {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    change: Option<Change>,
}

#[derive(Subcommand)]
enum Change {
    /// Let a quarantined function run again
    Release {
        /// The function
        name: String,
    },
    /// Go back to the version before; the function's state stays as it is
    Rollback {
        /// The function
        name: String,
    },
    /// Take a function away; its state and its events in the inbox stay
    Remove {
        /// The function
        name: String,
    },
}

impl Functions {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let path = |name: &str| format!("/v1/functions/{}", escape(name));
        match &self.change {
            None => self.list(client, screen).await,
            Some(Change::Release { name }) => {
                client.post(&format!("{}/release", path(name)), bytes::Bytes::new()).await?;
                screen.line(format_args!("{name} runs again; what waited for it is handled now"))
            }
            Some(Change::Rollback { name }) => {
                let answer = client.post(&format!("{}/rollback", path(name)), bytes::Bytes::new()).await?;
                let version = answer.get("version").and_then(serde_json::Value::as_str).unwrap_or("?");
                screen.line(format_args!("{name} is at {version} again; its state is kept"))
            }
            Some(Change::Remove { name }) => {
                client.delete(&path(name)).await?;
                screen.line(format_args!("{name} is removed; its state, and its events in the inbox, are kept"))
            }
        }
    }

    async fn list(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let answer = client.get("/v1/functions").await?;
        if self.json {
            return screen.json(&answer);
        }
        let functions: Vec<Function> = parse(answer, "/v1/functions", "functions")?;
        if functions.is_empty() {
            screen.note("no functions are deployed; deploy one with `holm deploy --local DIR`");
        } else {
            let text = render(&functions, &screen.look);
            screen.text(&text)?;
        }
        Ok(())
    }
}

/// How a state is to be read.
pub(crate) fn tone(state: &str) -> Tone {
    match state {
        "confirmed" => Tone::Good,
        "trial" | "confirmed-unexercised" => Tone::Warn,
        "quarantined" | "not-loaded" | "rolled-back" => Tone::Bad,
        _ => Tone::Plain,
    }
}

fn render(functions: &[Function], look: &Look) -> String {
    let headings = ["FUNCTION", "VERSION", "STATE", ">OK", ">FAILED", ">MEAN", ">WAITING", "TRIGGERS"];
    let mut table = Table::new(&headings);
    for function in functions {
        let failed = if function.failed > 0 { Tone::Warn } else { Tone::Plain };
        table.row([
            Cell::toned(Tone::Strong, &*function.name),
            (&*function.version).into(),
            Cell::toned(tone(&function.state), &*function.state),
            look::count(function.succeeded).into(),
            Cell::toned(failed, look::count(function.failed)),
            look::micros(function.mean_us as f64).into(),
            look::count(function.waiting).into(),
            function.triggers.join("; ").into(),
        ]);
    }
    let mut text = table.render(look);
    for function in functions {
        if let Some(fault) = &function.last_fault {
            let words = look::short(fault, 200);
            text.push_str(&format!("{} {}: {words}\n", look.paint(Tone::Warn, "last fault of"), function.name));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_functions_and_their_last_faults() {
        let functions: Vec<Function> = serde_json::from_value(serde_json::json!([
            {"name": "scale", "version": "0.1.0", "state": "confirmed", "triggers": ["mqtt sensors/+/temp"],
             "succeeded": 12_345, "failed": 0, "mean_us": 210, "waiting": 0},
            {"name": "water-loss", "version": "1.2.0", "state": "quarantined", "triggers": ["mqtt water/flow"],
             "succeeded": 1, "failed": 2, "mean_us": 1_500, "waiting": 7, "last_fault": "trap: unreachable\nat main"},
        ]))
        .unwrap_or_default();
        let expected = "\
FUNCTION    VERSION  STATE            OK  FAILED    MEAN  WAITING  TRIGGERS
scale       0.1.0    confirmed    12,345       0  210 µs        0  mqtt sensors/+/temp
water-loss  1.2.0    quarantined       1       2  1.5 ms        7  mqtt water/flow
last fault of water-loss: trap: unreachable…
";
        assert_eq!(render(&functions, &Look::plain()), expected);
    }
}
