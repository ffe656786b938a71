//! `holm dlq`: dead letters.

use clap::Subcommand;
use serde_json::Value;

use crate::client::{Client, escape, parse};
use crate::failure::Failure;
use crate::look::{self, Look};
use crate::remote::Remote;
use crate::reply::Letter;
use crate::screen::Screen;
use crate::table::{Table, list};

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
        /// Of a device of the control plane, which is asked for them; what was in them stays there
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
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Give it to its function again, with all its attempts
    Replay {
        /// The dead letter
        id: i64,
    },
    /// Drop it for good
    Drop {
        /// The dead letter
        id: i64,
    },
}

impl Dlq {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        match &self.action {
            Action::List { function, limit, device: Some(device), json } => {
                of_device(device, function.as_deref(), *limit, *json, screen).await
            }
            Action::List { function, limit, device: None, json } => {
                let only = function.as_ref().map(|name| format!("&function={}", escape(name))).unwrap_or_default();
                let answer = client.get(&format!("/v1/dlq?limit={limit}{only}")).await?;
                if *json {
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
            Action::Show { id, json } => {
                let answer = client.get(&format!("/v1/dlq/{id}")).await?;
                if *json {
                    return screen.json(&answer);
                }
                let letter = parse(serde_json::json!({ "letter": answer }), "/v1/dlq", "letter")?;
                let text = whole(&letter, &screen.look);
                screen.text(&text)
            }
            Action::Replay { id } => {
                client.post(&format!("/v1/dlq/{id}/replay"), bytes::Bytes::new()).await?;
                screen.line(format_args!("dead letter {id} is in the inbox again; watch it with `holm events -f`"))
            }
            Action::Drop { id } => {
                client.delete(&format!("/v1/dlq/{id}")).await?;
                screen.line(format_args!("dead letter {id} is dropped"))
            }
        }
    }
}

/// What a device says of its own.
async fn of_device(
    device: &str,
    function: Option<&str>,
    limit: usize,
    as_json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let path = format!("/v1/devices/{}/dead-letters", escape(device));
    let answer: Value = parse(Remote::open()?.post(&path, &Value::Null).await?, &path, "answer")?;
    let mut letters: Vec<Value> = parse(answer, &path, "letters")?;
    letters.retain(|letter| function.is_none_or(|name| letter.get("function").and_then(Value::as_str) == Some(name)));
    letters.truncate(limit);
    // On the node it is called `id`, which the answer has for the question.
    for fields in letters.iter_mut().filter_map(Value::as_object_mut) {
        let id = fields.remove("letter").unwrap_or_default();
        fields.insert("id".to_owned(), id);
    }
    if as_json {
        return screen.json(&serde_json::json!({ "dead_letters": letters }));
    }
    if letters.is_empty() {
        screen.note(format_args!("{device} has no dead letters"));
        return Ok(());
    }
    let letters: Vec<Letter> = parse(serde_json::json!({ "letters": letters }), &path, "letters")?;
    let text = table(&letters, &screen.look);
    screen.text(&text)?;
    screen.note("what was in them, and `holm dlq replay ID`, are on the device");
    Ok(())
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
