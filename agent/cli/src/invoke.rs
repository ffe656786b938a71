//! `holm invoke`: one event for one function.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::journal;
use crate::reply::Event;
use crate::screen::Screen;

/// How long an event that is safe is waited for: one of a function that was stopped ends when somebody releases it.
const PATIENCE: Duration = Duration::from_secs(30);

/// See `holm invoke --help`.
#[derive(clap::Args)]
pub(crate) struct Invoke {
    /// The function
    name: String,
    /// The payload: a file, or `-` for stdin. Without it, stdin where that is no terminal
    file: Option<PathBuf>,
    /// Every line is an event of its own: a payload, or `[topic] payload`
    #[arg(long)]
    lines: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Invoke {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let body = self.payload()?;
        if !self.lines {
            return self.one(None, body, client, screen).await;
        }
        let text = String::from_utf8(body).map_err(|error| Failure::new(format!("the lines are no text: {error}")))?;
        let mut failed = None;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (topic, payload) = split(line);
            // What comes after one that fails is as good as it was.
            if let Err(failure) = self.one(topic, payload.as_bytes().to_vec(), client, screen).await {
                failed.get_or_insert(failure);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Hands over one event, and says how it ended.
    async fn one(
        &self,
        topic: Option<&str>,
        body: Vec<u8>,
        client: &Client,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        let name = escape(&self.name);
        let guise = topic.map(|topic| format!("?source=mqtt&subject={}", escape(topic))).unwrap_or_default();
        let answer = client.post(&format!("/v1/functions/{name}/invoke{guise}"), body.into()).await?;
        let id = answer.get("event").and_then(serde_json::Value::as_str).unwrap_or_default();
        // What was handed over is done, or safe in the inbox and runs soon: the journal tells.
        let mut lines = client.stream(&format!("/v1/events?follow=true&limit=1000000&function={name}")).await?;
        let ended = async {
            while let Some(value) = lines.next().await? {
                if value.get("id").and_then(serde_json::Value::as_str) == Some(id) {
                    return Ok(Some(value));
                }
            }
            Ok(None)
        };
        let Some(value) = tokio::time::timeout(PATIENCE, ended).await.unwrap_or(Ok(None))? else {
            screen.note(format_args!(
                "event {id} is safe in the inbox and has not ended yet; watch it with `holm events -f`"
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
                .next("see `holm logs` for what it wrote; after its last attempt it is in `holm dlq list`")
                .page(holm_core::ErrorCode::InvocationFailed)),
        }
    }

    /// What there is to hand over.
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

/// `[topic] payload`, or a payload alone.
fn split(line: &str) -> (Option<&str>, &str) {
    match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        // JSON may begin with a bracket, too: a topic is no JSON.
        Some((topic, payload)) if !topic.is_empty() && !topic.contains(['"', '[', '{', ',']) => (Some(topic), payload),
        _ => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_topic_if_it_begins_with_one() {
        for (line, expected) in [
            ("[a/b] {\"x\":1}", (Some("a/b"), "{\"x\":1}")),
            ("{\"x\":1}", (None, "{\"x\":1}")),
            ("[1, 2] 3", (None, "[1, 2] 3")),
            ("[\"a\"] x", (None, "[\"a\"] x")),
            ("[] x", (None, "[] x")),
            ("[a]", (None, "[a]")),
        ] {
            assert_eq!(split(line), expected);
        }
    }
}
