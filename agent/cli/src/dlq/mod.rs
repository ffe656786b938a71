//! `holm dlq`: dead letters, of the node on this machine or of a device of the control plane.

mod afar;

use std::collections::BTreeSet;

use bytes::Bytes;
use clap::Subcommand;
use serde_json::Value;

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look::{self, Look};
use crate::reply::Letter;
use crate::screen::Screen;
use crate::table::{Table, list};
use afar::Afar;

/// See `holm dlq --help`.
#[derive(clap::Args)]
pub(crate) struct Dlq {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// List dead letters, newest first
    List {
        /// Only of this function
        #[arg(long, value_name = "NAME")]
        function: Option<String>,
        /// At most so many
        #[arg(short = 'n', long, default_value_t = 100, value_name = "N")]
        limit: usize,
        /// Of a device of the control plane, which is asked for the latest; what was in them stays there
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one whole, with its payload
    Show {
        /// The dead letter
        id: i64,
        /// Of a device of the control plane, which tells it unless `cloud.traps` is false there
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give some to their function again, with all their attempts
    Replay {
        /// The dead letters
        #[arg(value_name = "ID", required_unless_present = "function", value_parser = clap::value_parser!(i64).range(1..))]
        ids: Vec<i64>,
        /// All of this function, the oldest first
        #[arg(long, value_name = "NAME", conflicts_with = "ids")]
        function: Option<String>,
        /// Of a device of the control plane
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
    },
    /// Drop some for good
    Drop {
        /// The dead letters
        #[arg(value_name = "ID", required = true, value_parser = clap::value_parser!(i64).range(1..))]
        ids: Vec<i64>,
        /// Of a device of the control plane
        #[arg(long, value_name = "NAME")]
        device: Option<String>,
    },
}

impl Dlq {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match &self.action {
            Action::List { function, limit, device, json } => {
                let function = function.as_deref();
                match device {
                    Some(device) => Afar::open(device)?.list(function, *limit, *json, screen).await,
                    None => here(client, function, *limit, *json, screen).await,
                }
            }
            Action::Show { id, device: Some(device), json } => Afar::open(device)?.show(*id, *json, screen).await,
            Action::Show { id, device: None, json } => {
                let answer = client.get(&format!("/v1/dlq/{id}")).await?;
                if *json {
                    return screen.json(&answer);
                }
                let letter = parse(serde_json::json!({ "letter": answer }), "/v1/dlq", "letter")?;
                let text = whole(&letter, &screen.look);
                screen.text(&text)
            }
            Action::Replay { function: Some(function), device: Some(device), .. } => {
                Afar::open(device)?.replay_function(function, screen).await
            }
            Action::Replay { function: Some(function), device: None, .. } => all_of(client, function, screen).await,
            Action::Replay { ids, device: Some(device), .. } => {
                Afar::open(device)?.replay(&ids.iter().copied().collect(), screen).await
            }
            Action::Replay { ids, device: None, .. } => {
                for id in ids.iter().collect::<BTreeSet<_>>() {
                    client.post(&format!("/v1/dlq/{id}/replay"), Bytes::new()).await?;
                    screen
                        .line(format_args!("dead letter {id} is in the inbox again; watch it with `holm events -f`"))?;
                }
                Ok(())
            }
            Action::Drop { ids, device: Some(device) } => {
                Afar::open(device)?.forget(&ids.iter().copied().collect(), screen).await
            }
            Action::Drop { ids, device: None } => {
                for id in ids.iter().collect::<BTreeSet<_>>() {
                    client.delete(&format!("/v1/dlq/{id}")).await?;
                    screen.line(format_args!("dead letter {id} is dropped"))?;
                }
                Ok(())
            }
        }
    }
}

async fn here(
    client: &Client,
    function: Option<&str>,
    limit: usize,
    as_json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let only = function.map(|name| format!("&function={}", escape(name))).unwrap_or_default();
    let answer = client.get(&format!("/v1/dlq?limit={limit}{only}")).await?;
    if as_json {
        return screen.json(&answer);
    }
    let letters: Vec<Letter> = parse(answer, "/v1/dlq", "dead_letters")?;
    if letters.is_empty() {
        screen.note("no dead letters");
        return Ok(());
    }
    let text = table(&letters, &screen.look);
    screen.text(&text)
}

/// Those of a function that are there now: one that fails again meanwhile is another letter, beyond the latest of now.
async fn all_of(client: &Client, function: &str, screen: &mut Screen) -> Result<(), Failure> {
    let name = escape(function);
    let path = format!("/v1/dlq?limit=1&function={name}");
    let latest: Vec<Letter> = client.get_as(&path, "dead_letters").await?;
    let mut done = 0;
    if let Some(latest) = latest.first() {
        loop {
            let path = format!("/v1/dlq/replay?function={name}&until={}", latest.id);
            let answer = client.post(&path, Bytes::new()).await?;
            let more = answer.get("more").and_then(Value::as_bool).unwrap_or_default();
            let ids: Vec<i64> = parse(answer, &path, "replayed")?;
            done += ids.len();
            // Where none moves, there is no end to wait for.
            if !more || ids.is_empty() {
                break;
            }
        }
    }
    replayed(function, done, "in the inbox again", screen)
}

fn replayed(function: &str, count: usize, place: &str, screen: &mut Screen) -> Result<(), Failure> {
    match count {
        0 => {
            screen.note(format_args!("no dead letters of {function}"));
            Ok(())
        }
        1 => screen.line(format_args!("1 dead letter of {function} is {place}")),
        count => screen.line(format_args!("{count} dead letters of {function} are {place}")),
    }
}

fn all_were_there(gone: &[i64], device: &str) -> Result<(), Failure> {
    if gone.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = gone.iter().map(i64::to_string).collect();
    let what =
        format!("not among the dead letters of {device}: {}; replayed, dropped or expired before", ids.join(", "));
    Err(Failure::new(what).next(format!("see what there is with `holm dlq list --device {device}`")))
}

fn table(letters: &[Letter], look: &Look) -> String {
    let mut table = Table::new(&[">ID", "FUNCTION", "BURIED", "KIND", ">TRIES", ">SIZE", "SUBJECT", "FAULT"]);
    for letter in letters {
        table.row([
            letter.id.to_string().into(),
            (&*letter.function).into(),
            look.moment(letter.buried).into(),
            (&*letter.kind).into(),
            letter.attempts.to_string().into(),
            look::bytes(letter.bytes).into(),
            (&*letter.subject).into(),
            look::short(&letter.fault, 80).into(),
        ]);
    }
    table.render(look)
}

fn whole(letter: &Letter, look: &Look) -> String {
    let attributes = match &letter.attributes {
        Value::Null => String::new(),
        Value::Array(none) if none.is_empty() => String::new(),
        attributes => attributes.to_string(),
    };
    let entries = [
        ("id", letter.id.to_string()),
        ("function", letter.function.clone()),
        ("event", format!("{}, {} {}", letter.event, letter.source, letter.subject)),
        ("buried", format!("{}, after {} attempts", look.moment(letter.buried), letter.attempts)),
        ("expires", look.moment(letter.expires)),
        ("fault", format!("{}: {}", letter.kind, letter.fault)),
        ("attributes", attributes),
        ("size", look::bytes(letter.bytes)),
    ];
    let data = match &letter.data {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!("{}\n{}\n", list(look, &entries), data.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_letters_and_shows_one_whole() {
        let letter: Letter = serde_json::from_value(serde_json::json!({
            "id": 5, "function": "scale", "buried": 1_648_108_800_000_i64, "expires": 1_648_713_600_000_i64,
            "kind": "reject", "fault": "no reading", "event": "e-1", "source": "mqtt", "subject": "sensors/a/temp",
            "attempts": 1, "bytes": 5, "data": "hello",
        }))
        .unwrap_or_default();
        let expected = "\
ID  FUNCTION  BURIED               KIND    TRIES  SIZE  SUBJECT         FAULT
 5  scale     2022-03-24 08:00:00  reject      1   5 B  sensors/a/temp  no reading
";
        assert_eq!(table(std::slice::from_ref(&letter), &Look::plain()), expected);
        let expected = "\
id          5
function    scale
event       e-1, mqtt sensors/a/temp
buried      2022-03-24 08:00:00, after 1 attempts
expires     2022-03-31 08:00:00
fault       reject: no reading
size        5 B

hello
";
        assert_eq!(whole(&letter, &Look::plain()), expected);
    }
}
