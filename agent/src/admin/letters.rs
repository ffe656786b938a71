//! Dead letters, for whoever is on the node.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use holm_protocol::LetterWay;
use holm_store::Store;
use serde_json::json;

use super::State;
use super::handlers::{Answer, Failure, Follow, blocking, name};
use crate::letters::{Moved, Which, shown};

pub(super) async fn list(Extract(store): Extract<Store>, Query(query): Query<Follow>) -> Answer {
    let letters = blocking(move || store.dead_letters(query.function.as_deref(), query.limit)).await?;
    Ok(Json(json!({ "dead_letters": letters.iter().map(|letter| shown(letter, false)).collect::<Vec<_>>() })))
}

pub(super) async fn one(Extract(store): Extract<Store>, Path(id): Path<i64>) -> Answer {
    let letter = blocking(move || store.dead_letter(id)).await?.ok_or_else(|| gone(id))?;
    Ok(Json(shown(&letter, true)))
}

pub(super) async fn forget(Extract(state): Extract<State>, Path(id): Path<i64>) -> Answer {
    one_out(&state, id, LetterWay::Drop).await?;
    Ok(Json(json!({ "dropped": id })))
}

pub(super) async fn replay(Extract(state): Extract<State>, Path(id): Path<i64>) -> Answer {
    one_out(&state, id, LetterWay::Replay).await?;
    Ok(Json(json!({ "replayed": id })))
}

/// `?function=&until=`: those of a function up to a number.
#[derive(serde::Deserialize)]
pub(super) struct Lot {
    function: String,
    until: i64,
}

/// As many as are moved at a time, and whether there are more.
pub(super) async fn replay_lot(Extract(state): Extract<State>, Query(lot): Query<Lot>) -> Answer {
    let moved = out(&state, Which::Of(name(&lot.function)?, lot.until), LetterWay::Replay).await?;
    Ok(Json(json!({ "replayed": moved.done, "more": moved.more })))
}

async fn one_out(state: &State, id: i64, way: LetterWay) -> Result<(), Failure> {
    match out(state, Which::These(BTreeSet::from([id])), way).await?.gone.is_empty() {
        true => Ok(()),
        false => Err(gone(id)),
    }
}

async fn out(state: &State, which: Which, way: LetterWay) -> Result<Moved, Failure> {
    let letters = state.letters.clone();
    match tokio::task::spawn_blocking(move || letters.take_out(which, way, |_| None)).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

fn gone(id: i64) -> Failure {
    Failure::new(StatusCode::NOT_FOUND, format!("there is no dead letter {id}"))
}
