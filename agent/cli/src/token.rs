//! `holm cloud token`: whom the control plane lets in.

use serde_json::{Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::remote::Remote;
use crate::screen::Screen;
use crate::table::Table;

/// See `holm cloud token --help`.
#[derive(clap::Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a token for somebody, and show it once
    New {
        /// Whose it is; the audit names him
        name: String,
        /// What he may do: viewers look, admins change things as well
        #[arg(long, default_value = "viewer", value_parser = ["viewer", "admin"])]
        role: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tokens, without the tokens themselves
    List {
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// End a token: it lets nobody in any more, and its sessions in browsers end
    End {
        /// Its id, as listed
        id: String,
    },
}

impl Token {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let remote = Remote::open()?;
        match &self.command {
            Command::New { name, role, json } => new(&remote, name, role, *json, screen).await,
            Command::List { json } => show(&remote, *json, screen).await,
            Command::End { id } => {
                let answer = remote.delete(&format!("/v1/operators/{}", escape(id))).await?;
                let name = answer.get("name").and_then(Value::as_str).unwrap_or_default();
                screen.note(format_args!("{name}'s token {id} lets nobody in any more"));
                Ok(())
            }
        }
    }
}

async fn new(remote: &Remote, name: &str, role: &str, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let answer = remote.post("/v1/operators", &json!({ "name": name, "role": role })).await?;
    if as_json {
        return screen.json(&answer);
    }
    screen.line(answer.get("token").and_then(Value::as_str).unwrap_or_default())?;
    screen.note(format_args!("a {role}'s token for {name}; it is shown this once, and only its hash is kept"));
    screen.note(format_args!("it signs in at {}, and is what `holm login` asks for", remote.url()));
    Ok(())
}

async fn show(remote: &Remote, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let path = "/v1/operators";
    let operators: Vec<Value> = parse(remote.get(path).await?, path, "operators")?;
    if as_json {
        return operators.iter().try_for_each(|operator| screen.json(operator));
    }
    let look = screen.look.clone();
    let mut table = Table::new(&["TOKEN", "NAME", "ROLE", "MADE"]);
    for operator in &operators {
        let text = |name: &str| operator.get(name).and_then(Value::as_str).unwrap_or_default();
        let made = operator.get("made").and_then(Value::as_i64).map(|time| look.moment(time)).unwrap_or_default();
        table.row([text("id").into(), text("name").into(), text("role").into(), made.into()]);
    }
    screen.text(&table.render(&look))
}
