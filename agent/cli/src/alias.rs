//! `holm alias`: names for versions, such as `stable` and `canary`, to deploy by.

use serde_json::{Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::remote::Remote;
use crate::screen::Screen;
use crate::table::Table;

/// See `holm alias --help`.
#[derive(clap::Args)]
pub(crate) struct Alias {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List them
    List {
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Give a published version a name, or move the name to it. Nothing that runs changes
    Set {
        /// FUNCTION@VERSION
        release: String,
        /// Such as stable
        name: String,
    },
    /// Forget a name
    Remove {
        /// Of this function
        function: String,
        /// Such as canary
        name: String,
    },
}

impl Alias {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let path = |function: &str, name: &str| format!("/v1/aliases/{}/{}", escape(function), escape(name));
        match &self.command {
            Command::List { json } => {
                let aliases: Vec<Value> = parse(Remote::open()?.get("/v1/aliases").await?, "/v1/aliases", "aliases")?;
                if *json {
                    return aliases.iter().try_for_each(|alias| screen.json(alias));
                }
                let look = screen.look.clone();
                let mut table = Table::new(&["FUNCTION", "ALIAS", "VERSION", "SINCE"]);
                for alias in &aliases {
                    let text = |name: &str| alias.get(name).and_then(Value::as_str).unwrap_or_default();
                    let made = alias.get("made").and_then(Value::as_i64).map(|time| look.moment(time));
                    let made = made.unwrap_or_default();
                    table.row([text("function").into(), text("name").into(), text("version").into(), made.into()]);
                }
                screen.text(&table.render(&look))
            }
            Command::Set { release, name } => {
                let (function, version) = release.split_once('@').ok_or_else(|| {
                    Failure::new(format!("{release} is not FUNCTION@VERSION")).next("holm alias set flow@1.2.0 stable")
                })?;
                let body = json!({ "version": version }).to_string().into_bytes();
                Remote::open()?.put(&path(function, name), body).await?;
                screen.note(format_args!("{function}@{name} is {version} for whatever is deployed from now on"));
                Ok(())
            }
            Command::Remove { function, name } => {
                Remote::open()?.delete(&path(function, name)).await?;
                screen.note(format_args!("{function}@{name} is nothing any more"));
                Ok(())
            }
        }
    }
}
