//! `holm invoke`: one event for one function.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::journal;
use crate::reply::Event;
use crate::screen::Screen;

/// See `holm invoke --help`.
#[derive(clap::Args)]
pub(crate) struct Invoke {
    /// The function
    name: String,
    /// The payload: a file, or `-` for stdin. Without it, stdin where that is no terminal
    file: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Invoke {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let body = self.payload()?;
        let name = escape(&self.name);
        let answer = client.post(&format!("/v1/functions/{name}/invoke"), body.into()).await?;
        let id = answer.get("event").and_then(serde_json::Value::as_str).unwrap_or_default();
        // Settled means done, or safe in the inbox: the journal tells which.
        let mut lines = client.stream(&format!("/v1/events?limit=1000000&function={name}")).await?;
        let mut found = None;
        while let Some(value) = lines.next().await? {
            if value.get("id").and_then(serde_json::Value::as_str) == Some(id) {
                found = Some(value);
            }
        }
        let Some(value) = found else {
            screen.note(format_args!(
                "event {id} is safe in the inbox and has not run yet; watch it with `holm events -f`"
            ));
            return if self.json { screen.json(&answer) } else { Ok(()) };
        };
        let event: Event = serde_json::from_value(value.clone()).unwrap_or_default();
        match self.json {
            true => screen.json(&value)?,
            false => screen.line(journal::event(&event, &screen.look.clone()))?,
        }
        match &*event.outcome {
            "ok" => Ok(()),
            kind => Err(Failure::new(format!("{} did not succeed: {kind}", self.name))
                .next("see `holm logs` for what it wrote; after its last attempt it is in `holm dlq list`")),
        }
    }

    fn payload(&self) -> Result<Vec<u8>, Failure> {
        let stdin = || {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
            Ok(bytes)
        };
        match &self.file {
            Some(path) if path.as_os_str() == "-" => stdin(),
            Some(path) => {
                std::fs::read(path).map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display())))
            }
            None if std::io::stdin().is_terminal() => Ok(Vec::new()),
            None => stdin(),
        }
    }
}
