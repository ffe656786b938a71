//! `holm dlq --device D`: dead letters of a device of the control plane, which has the device do it.
//!
//! An answer may be lost on the way, and then nobody knows whether it was done. Asked again nothing is done twice: a letter leaves once,
//! and one that fails again is another letter, beyond the number up to which a function's were asked for.

use std::collections::BTreeSet;

use holm_protocol::MovedLetters;
use serde_json::{Value, json};

use super::{Letter, table, whole};
use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::remote::Remote;
use crate::screen::Screen;

/// A device.
pub(super) struct Afar<'a> {
    device: &'a str,
    path: String,
    remote: Remote,
}

impl<'a> Afar<'a> {
    pub(super) fn open(device: &'a str) -> Result<Self, Failure> {
        let path = format!("/v1/devices/{}/dead-letters", escape(device));
        Ok(Self { device, path, remote: Remote::open()? })
    }

    /// What it says of its own, the latest first.
    async fn letters(&self) -> Result<Vec<Value>, Failure> {
        let answer: Value = parse(self.remote.post(&self.path, &Value::Null).await?, &self.path, "answer")?;
        if let Some(error) = answer.get("error").and_then(Value::as_str) {
            return Err(Failure::new(format!("{} cannot read its dead letters: {error}", self.device)));
        }
        let mut letters: Vec<Value> = parse(answer, &self.path, "letters")?;
        // On the node it is called `id`, which the answer has for the question.
        for fields in letters.iter_mut().filter_map(Value::as_object_mut) {
            let id = fields.remove("letter").unwrap_or_default();
            fields.insert("id".to_owned(), id);
        }
        Ok(letters)
    }

    pub(super) async fn list(
        &self,
        function: Option<&str>,
        limit: usize,
        as_json: bool,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        let mut letters = self.letters().await?;
        letters
            .retain(|letter| function.is_none_or(|name| letter.get("function").and_then(Value::as_str) == Some(name)));
        letters.truncate(limit);
        if as_json {
            return screen.json(&json!({ "dead_letters": letters }));
        }
        if letters.is_empty() {
            screen.note(format_args!("{} has no dead letters", self.device));
            return Ok(());
        }
        let letters: Vec<Letter> = parse(json!({ "letters": letters }), &self.path, "letters")?;
        let text = table(&letters, &screen.look);
        screen.text(&text)?;
        screen.note(format_args!(
            "what was in one: `holm dlq show ID --device {device}`; again: `holm dlq replay ID --device {device}`",
            device = self.device
        ));
        Ok(())
    }

    pub(super) async fn show(&self, id: i64, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
        let path = format!("{}/{id}", self.path);
        let mut answer: Value = parse(self.remote.post(&path, &Value::Null).await?, &path, "answer")?;
        let is = |answer: &Value, name: &str| answer.get(name).and_then(Value::as_bool).unwrap_or_default();
        let (withheld, cut) = (is(&answer, "withheld"), is(&answer, "cut"));
        if as_json {
            let mut letter = answer.get_mut("letter").map(Value::take).unwrap_or_default();
            if let Some(fields) = letter.as_object_mut() {
                fields.insert("withheld".to_owned(), withheld.into());
                fields.insert("cut".to_owned(), cut.into());
            }
            return screen.json(&letter);
        }
        let letter: Letter = parse(answer, &path, "letter")?;
        let text = whole(&letter, &screen.look);
        screen.text(&text)?;
        if withheld {
            screen.note(format_args!("{} keeps what was in it to itself (`cloud.traps`)", self.device));
        }
        if cut {
            screen.note("this is the begin of what was in it; all of it is on the device");
        }
        Ok(())
    }

    pub(super) async fn replay(&self, ids: &BTreeSet<i64>, screen: &mut Screen) -> Result<(), Failure> {
        self.all("replay", ids, &self.inbox(), screen).await
    }

    pub(super) async fn forget(&self, ids: &BTreeSet<i64>, screen: &mut Screen) -> Result<(), Failure> {
        self.all("drop", ids, "dropped", screen).await
    }

    /// Those of a function that are there now.
    pub(super) async fn replay_function(&self, function: &str, screen: &mut Screen) -> Result<(), Failure> {
        // The latest of all: what fails again from here on is beyond it.
        let letters = self.letters().await?;
        let until = letters.iter().filter_map(|letter| letter.get("id")?.as_i64()).max();
        let mut replayed = 0;
        if let Some(until) = until {
            loop {
                let moved = self.tell("replay", &json!({ "function": function, "until": until })).await?;
                replayed += moved.done.len();
                // Where none moves, there is no end to wait for.
                if !moved.more || moved.done.is_empty() {
                    break;
                }
            }
        }
        super::replayed(function, replayed, &self.inbox(), screen)
    }

    fn inbox(&self) -> String {
        format!("in the inbox of {} again", self.device)
    }

    async fn all(&self, verb: &str, ids: &BTreeSet<i64>, words: &str, screen: &mut Screen) -> Result<(), Failure> {
        let mut left = ids.clone();
        let mut gone = Vec::new();
        while !left.is_empty() {
            let lot: Vec<i64> = left.iter().take(holm_protocol::limits::MAX_LETTERS).copied().collect();
            let moved = self.tell(verb, &json!({ "letters": lot })).await?;
            if moved.done.is_empty() && moved.gone.is_empty() {
                return Err(Failure::new(format!("{} has moved none of {lot:?}", self.device)));
            }
            for id in moved.done {
                left.remove(&id);
                screen.line(format_args!("dead letter {id} is {words}"))?;
            }
            for id in moved.gone {
                left.remove(&id);
                gone.push(id);
            }
        }
        super::all_were_there(&gone, self.device)
    }

    async fn tell(&self, verb: &str, body: &Value) -> Result<MovedLetters, Failure> {
        let path = format!("{}/{verb}", self.path);
        parse(self.remote.post(&path, body).await?, &path, "answer")
    }
}
