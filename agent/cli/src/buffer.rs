//! `holm buffer`: what waits for the cloud.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use crate::card::Open;
use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look;
use crate::reply;
use crate::screen::Screen;
use crate::table::Table;

/// Rows that are asked for at once.
const PAGE: usize = 1_000;

/// See `holm buffer --help`.
#[derive(clap::Args)]
pub(crate) struct Buffer {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    #[command(flatten)]
    Look(Look),
    /// Look into the buffer of a device that does not run, on its card. The card is only read
    Open(Open),
}

/// What can be seen of a buffer.
#[derive(Subcommand)]
pub(crate) enum Look {
    /// Show how much waits, by lane, and what was given up
    Stat {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the first rows
    Peek {
        /// Only of this stream
        #[arg(long)]
        stream: Option<String>,
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 20, value_name = "N")]
        limit: usize,
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Write all rows as NDJSON. They stay in the buffer
    Export {
        /// Only of this stream
        #[arg(long)]
        stream: Option<String>,
        /// To a file instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// As JSON, one object a line, which it is anyway
        #[arg(long)]
        json: bool,
    },
}

impl Buffer {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match &self.action {
            Action::Look(look) => look.run(client, screen).await,
            Action::Open(open) => open.run(screen).await,
        }
    }
}

impl Look {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Stat { json } => {
                let answer = client.get("/v1/buffer").await?;
                if *json {
                    return screen.json(&answer);
                }
                let buffer = parse(serde_json::json!({ "buffer": answer }), "/v1/buffer", "buffer")?;
                let text = stat(&buffer, &screen.look);
                screen.text(&text)
            }
            Self::Peek { stream, limit, json } => {
                let mut left = *limit;
                rows(client, stream.as_deref(), *limit, |row| {
                    if left == 0 {
                        return Ok(false);
                    }
                    left -= 1;
                    match json {
                        true => screen.json(row)?,
                        false => screen.line(line(row, &screen.look.clone()))?,
                    }
                    Ok(left > 0)
                })
                .await?;
                if left == *limit {
                    screen.note("nothing waits");
                }
                Ok(())
            }
            Self::Export { stream, output: None, .. } => {
                let shown = |row: &Value| screen.json(row).map(|()| true);
                rows(client, stream.as_deref(), usize::MAX, shown).await.map(drop)
            }
            Self::Export { stream, output: Some(path), .. } => {
                let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
                let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(failed)?);
                let count = rows(client, stream.as_deref(), usize::MAX, |row| {
                    writeln!(file, "{row}").map_err(failed)?;
                    Ok(true)
                })
                .await?;
                // Whoever takes an export takes it to keep: it is on the disk when this says so.
                file.into_inner().map_err(|error| failed(error.into_error()))?.sync_all().map_err(failed)?;
                screen.note(format_args!("{} rows in {}", look::count(count), path.display()));
                Ok(())
            }
        }
    }
}

/// Gives the rows of the buffer to `each`, oldest first, until it says no. Answers how many there were.
async fn rows(
    client: &Client,
    stream: Option<&str>,
    most: usize,
    mut each: impl FnMut(&Value) -> Result<bool, Failure>,
) -> Result<u64, Failure> {
    let only = stream.map(|stream| format!("&stream={}", escape(stream))).unwrap_or_default();
    let (mut after, mut count) = (0, 0);
    let page = PAGE.min(most);
    loop {
        let path = format!("/v1/buffer/rows?after={after}&limit={page}{only}");
        let rows: Vec<Value> = client.get_as(&path, "rows").await?;
        for row in &rows {
            after = row.get("id").and_then(Value::as_i64).unwrap_or(after);
            count += 1;
            if !each(row)? {
                return Ok(count);
            }
        }
        if rows.len() < page {
            return Ok(count);
        }
    }
}

pub(crate) fn stat(buffer: &reply::Buffer, look: &look::Look) -> String {
    let mut table = Table::new(&["LANE", ">ROWS", ">SIZE", "OLDEST"]);
    for lane in &buffer.lanes {
        table.row([
            (&*lane.lane).into(),
            look::count(lane.rows).into(),
            look::bytes(lane.bytes).into(),
            lane.oldest.map(|oldest| look.moment(oldest)).unwrap_or_default().into(),
        ]);
    }
    let mut text = table.render(look);
    text.push_str(&format!("epoch {}\n", buffer.epoch));
    for gap in &buffer.gaps {
        let (at, rows) = (look.moment(gap.at), gap.last.abs_diff(gap.first) + 1);
        let (first, last) = (gap.first, gap.last);
        let rows = look::count(rows);
        text.push_str(&format!("{at}  {rows} rows of {} given up ({first} to {last}): {}\n", gap.stream, gap.reason));
    }
    text
}

fn line(row: &Value, look: &look::Look) -> String {
    let field = |name: &str| row.get(name).cloned().unwrap_or_default();
    let text = |name: &str| match field(name) {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let time = look.moment(field("time").as_i64().unwrap_or_default());
    format!("{time}  {}  {} #{}  {}", text("lane"), text("stream"), text("sequence"), look::short(&text("data"), 120))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_waits_and_what_was_given_up() {
        let buffer = serde_json::from_value(serde_json::json!({
            "lanes": [{"lane": "results", "rows": 2_536, "bytes": 20_000, "oldest": 1_648_108_800_000_i64},
                      {"lane": "logs", "rows": 0, "bytes": 0, "oldest": null}],
            "gaps": [{"stream": "result.f.x", "first": 1, "last": 1_000, "reason": "cap", "at": 1_648_108_800_000_i64}],
            "epoch": "5b1e",
        }))
        .unwrap_or_default();
        let expected = "\
LANE      ROWS      SIZE  OLDEST
results  2,536  19.5 KiB  2022-03-24 08:00:00
logs         0       0 B
epoch 5b1e
2022-03-24 08:00:00  1,000 rows of result.f.x given up (1 to 1000): cap
";
        assert_eq!(stat(&buffer, &look::Look::plain()), expected);
        let row = serde_json::json!({"id": 9, "lane": "results", "stream": "result.f.x", "sequence": 3, "time": 0, "data": "1.5"});
        assert_eq!(line(&row, &look::Look::plain()), "1970-01-01 00:00:00  results  result.f.x #3  1.5");
    }
}
