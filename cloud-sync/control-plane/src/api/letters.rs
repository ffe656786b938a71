//! Dead letters of a device: one whole, and the two ways out of them.
//!
//! The device keeps them and moves them; here it is only asked, and written down who asked. That is written first: an errand whose answer
//! is lost may have been done. Sent again it does nothing twice (see [`holm_protocol::Ask`]).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use holm_core::FunctionName;
use holm_protocol::limits::MAX_LETTERS;
use holm_protocol::{ApiErrorCode, Ask, ClientToken, LETTER_STREAM, MOVED_STREAM, MovedLetters};
use serde_json::{Value, json};

use super::asks::{PATIENCE, there};
use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::asks;
use crate::plane::Plane;

/// Numbers that the audit has of one errand.
const WRITTEN: usize = 20;

/// What a device is to do.
#[derive(Debug, Clone)]
pub(crate) enum Errand {
    /// These go to their functions again.
    Replay(Vec<i64>),
    /// Those of a function up to a number do.
    ReplayFunction(FunctionName, i64),
    /// These are forgotten.
    Drop(Vec<i64>),
}

impl Errand {
    fn ask(self, id: ClientToken) -> Ask {
        match self {
            Self::Replay(letters) => Ask::ReplayDeadLetters { id, letters },
            Self::ReplayFunction(function, until) => Ask::ReplayFunction { id, function, until },
            Self::Drop(letters) => Ask::DropDeadLetters { id, letters },
        }
    }

    /// For the audit.
    fn words(&self) -> (&'static str, String) {
        let listed = |letters: &[i64]| {
            let mut words: Vec<String> = letters.iter().take(WRITTEN).map(i64::to_string).collect();
            if letters.len() > WRITTEN {
                words.push(format!("and {} more", letters.len() - WRITTEN));
            }
            words.join(" ")
        };
        match self {
            Self::Replay(letters) => ("replay dead letters", listed(letters)),
            Self::ReplayFunction(function, until) => ("replay dead letters", format!("of {function} up to {until}")),
            Self::Drop(letters) => ("drop dead letters", listed(letters)),
        }
    }
}

/// Has a device do it, and waits for its word.
pub(crate) async fn run(
    plane: &Plane,
    thing: &str,
    operator: Operator,
    errand: Errand,
) -> Result<MovedLetters, Problem> {
    let conflict = |sentence: String| Problem::new(ApiErrorCode::Conflict, sentence);
    let thing = there(plane, thing).await?;
    let (action, what) = errand.words();
    plane.records.note_deed(operator.name, action, format!("{thing}: {what}"), (plane.clock)()).await?;
    let Some(answer) = asks::answer(plane, &thing, MOVED_STREAM, |id| errand.ask(id), PATIENCE).await? else {
        let seconds = PATIENCE.as_secs();
        return Err(conflict(format!(
            "{thing} has not answered within {seconds} s: its agent may be too old to be asked, its configuration may say no (`cloud.logs`), \
             or the line is slow. It may still do it; asked again it does nothing twice"
        )));
    };
    let moved: MovedLetters = serde_json::from_value(answer)
        .map_err(|error| conflict(format!("what {thing} answers is not understood: {error}")))?;
    match moved.declined {
        Some(why) => Err(conflict(format!("{thing} has moved no dead letter: {why}"))),
        None => Ok(moved),
    }
}

/// One with what was in it, if the device tells that.
pub(crate) async fn look(plane: &Plane, thing: &str, letter: i64) -> Result<Value, Problem> {
    let thing = there(plane, thing).await?;
    let ask = |id| Ask::DeadLetter { id, letter };
    let Some(answer) = asks::answer(plane, &thing, LETTER_STREAM, ask, PATIENCE).await? else {
        let sentence = format!(
            "{thing} has not answered within {} s: its agent may be too old to be asked, or its configuration says no (`cloud.logs`)",
            PATIENCE.as_secs()
        );
        return Err(Problem::new(ApiErrorCode::Conflict, sentence));
    };
    if answer.get("letter").is_some_and(Value::is_object) {
        return Ok(answer);
    }
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Problem::new(ApiErrorCode::Conflict, format!("{thing} cannot read it: {error}"))),
        None => {
            let sentence =
                format!("{thing} has no dead letter {letter}: it was replayed, dropped or has expired, or never was");
            Err(Problem::new(ApiErrorCode::NotFound, sentence))
        }
    }
}

pub(super) async fn show(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path((thing, letter)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let letter = letter.parse().ok().filter(|letter| *letter >= 1);
    let letter = letter.ok_or_else(|| Problem::new(ApiErrorCode::NotFound, "a dead letter is named by its number"))?;
    let answer = look(&plane, &thing, letter).await?;
    Ok(Json(json!({ "thing": thing, "answer": answer })).into_response())
}

/// `{"letters": [3, 4]}`, or `{"function": "scale", "until": 9}`: those up to that number.
pub(super) async fn replay(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let letters = numbers(&mut fields);
    let function: Option<FunctionName> = fields.parse("function");
    let until = fields.number("until", 1, i64::MAX);
    let errand = match (letters, function, until) {
        (Some(letters), None, None) => Some(Errand::Replay(letters)),
        (None, Some(function), Some(until)) => Some(Errand::ReplayFunction(function, until)),
        _ => {
            fields.problem("`letters`, or `function` with `until`, says which".to_owned());
            None
        }
    };
    answer(&plane, thing, operator, fields, errand).await
}

/// `{"letters": [3, 4]}`.
pub(super) async fn forget(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let errand = numbers(&mut fields).map(Errand::Drop);
    if errand.is_none() {
        fields.problem("`letters` says which".to_owned());
    }
    answer(&plane, thing, operator, fields, errand).await
}

async fn answer(
    plane: &Plane,
    thing: String,
    operator: Operator,
    fields: Fields,
    errand: Option<Errand>,
) -> Result<Response, Problem> {
    fields.finish()?;
    let errand = errand.ok_or_else(|| Problem::bad_request(Vec::new()))?;
    let moved = run(plane, &thing, operator, errand).await?;
    Ok(Json(json!({ "thing": thing, "answer": moved })).into_response())
}

fn numbers(fields: &mut Fields) -> Option<Vec<i64>> {
    let texts = fields.texts("letters")?;
    if texts.is_empty() || texts.len() > MAX_LETTERS {
        fields.problem(format!("`letters`: {} are not between 1 and {MAX_LETTERS}", texts.len()));
    }
    let mut letters = Vec::new();
    for text in texts.iter().take(MAX_LETTERS) {
        match text.parse() {
            Ok(letter @ 1..) => letters.push(letter),
            _ => fields.problem(format!(
                "`letters`: `{}` is no number of a dead letter",
                text.chars().take(80).collect::<String>()
            )),
        }
    }
    Some(letters)
}
