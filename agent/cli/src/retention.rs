//! `holm retention`: how long the control plane keeps what devices sent.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::remote::Remote;
use crate::screen::Screen;
use crate::table::Table;

const PATH: &str = "/v1/retention";

/// See `holm retention --help`.
#[derive(clap::Args)]
pub(crate) struct Retention {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the rules. Where none fits, records are kept for ever
    List {
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Keep records of these streams for so long from their arrival on, and drop them then
    Set {
        #[command(flatten)]
        which: Which,
        /// Such as 90d
        #[arg(value_parser = holm_core::parse_duration)]
        time: Duration,
    },
    /// Forget a rule: from then on the next shorter one that fits counts
    Remove {
        #[command(flatten)]
        which: Which,
    },
}

/// Which streams.
#[derive(clap::Args)]
struct Which {
    /// FUNCTION.SERIES, or its begin and `*`, such as 'flow.*' or '*'; the longest rule that fits counts
    #[arg(value_name = "SERIES")]
    name: String,
    /// SERIES is a function's name: its logs
    #[arg(long, conflicts_with_all = ["traps", "published"])]
    logs: bool,
    /// SERIES is a function's name: its records of traps
    #[arg(long, conflicts_with = "published")]
    traps: bool,
    /// SERIES is a topic: what was published to the control plane
    #[arg(long)]
    published: bool,
}

impl Which {
    fn path(&self) -> String {
        let kind = match (self.logs, self.traps, self.published) {
            // Also what is of no function.
            (true, ..) if self.name == "*" => "log",
            (true, ..) => "log.",
            (_, true, _) => "trap.",
            (_, _, true) => "publish.",
            _ => "result.",
        };
        format!("{PATH}/{}", escape(&format!("{kind}{}", self.name)))
    }
}

impl Retention {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        match &self.command {
            Command::List { json } => {
                let rules: Vec<Value> = parse(Remote::open()?.get(PATH).await?, PATH, "retention")?;
                if *json {
                    return rules.iter().try_for_each(|rule| screen.json(rule));
                }
                let look = screen.look.clone();
                let mut table = Table::new(&["STREAMS", "KEPT FOR", "SINCE"]);
                for rule in &rules {
                    let number = |name: &str| rule.get(name).and_then(Value::as_i64).unwrap_or_default();
                    let streams = rule.get("streams").and_then(Value::as_str).unwrap_or_default();
                    let kept = as_set(number("keep_s").unsigned_abs());
                    table.row([streams.into(), kept.into(), look.moment(number("made")).into()]);
                }
                screen.text(&table.render(&look))
            }
            Command::Set { which, time } => {
                let body = json!({ "keep_s": time.as_secs() }).to_string().into_bytes();
                Remote::open()?.put(&which.path(), body).await?;
                screen.note("records that have been kept for longer are dropped now; the others when their time comes");
                Ok(())
            }
            Command::Remove { which } => {
                Remote::open()?.delete(&which.path()).await?;
                screen.note("the rule is gone");
                Ok(())
            }
        }
    }
}

/// As people say it.
fn as_set(seconds: u64) -> String {
    for (unit, word) in [(86_400, "d"), (3_600, "h"), (60, "m")] {
        if seconds >= unit && seconds.is_multiple_of(unit) {
            return format!("{}{word}", seconds / unit);
        }
    }
    format!("{seconds}s")
}
