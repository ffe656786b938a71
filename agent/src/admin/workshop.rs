//! What people who write functions ask a node: to publish a message, what state a function has, and the tape.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Extension, Path, Query, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use holm_core::{Message, Payload, Qos, TopicName};
use holm_mqtt::{Refusal, Settled};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::State;
use super::handlers::{Answer, Failure, Follow, blocking, name, stream, text_or_bytes};
use crate::clock;

/// Who publishes, for the deduplication of message ids.
const OWNER: &str = "holm-admin";

/// Keys of a function's state in one answer.
const MAX_KEYS: usize = 10_000;

#[derive(serde::Deserialize)]
pub(super) struct To {
    topic: String,
    #[serde(default = "at_least_once")]
    qos: u8,
    #[serde(default)]
    retain: bool,
    content_type: Option<String>,
    /// The message's id, for who publishes it once.
    id: Option<String>,
}

fn at_least_once() -> u8 {
    1
}

/// Publishes the body, as a client of the node's broker would; answers when it is settled.
pub(super) async fn publish(Extract(state): Extract<State>, Query(to): Query<To>, body: Bytes) -> Answer {
    let wrong = |words: String| Failure::new(StatusCode::BAD_REQUEST, words);
    let topic = TopicName::new(&to.topic).map_err(|error| wrong(error.to_string()))?;
    let qos = Qos::from_level(to.qos).ok_or_else(|| wrong(format!("qos is 0, 1 or 2, and not {}", to.qos)))?;
    let message = Message {
        topic,
        payload: Payload { content_type: to.content_type.map(Arc::from), data: body },
        qos,
        retain: to.retain,
        accepted: clock::now(),
        expiry_seconds: None,
        payload_format: None,
        response_topic: None,
        correlation_data: None,
        user_properties: to.id.map(|id| ("holm-id".into(), Arc::from(id))).into_iter().collect(),
        publisher: None,
    };
    let settled = state.dispatcher.publish_own(message, OWNER).ok_or_else(|| {
        let words = "this node is a client of an external broker: publish there, and it will hear it";
        Failure::new(StatusCode::CONFLICT, words.to_owned())
    })?;
    let result = match settled {
        Settled::Done => Ok(()),
        Settled::Waiting(answer) => answer.await.unwrap_or(Err(Refusal::Unavailable)),
    };
    match result {
        Ok(()) => Ok(Json(json!({ "published": to.topic }))),
        Err(_) => {
            let words = "the node could not settle the message: its store may be failing, or full";
            Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, words.to_owned()))
        }
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Which {
    /// Instead of the function's own namespace.
    namespace: Option<String>,
}

/// Everything that a function keeps, by key.
pub(super) async fn state(
    Extract(state): Extract<State>,
    Path(function): Path<String>,
    Query(which): Query<Which>,
) -> Answer {
    let function = name(&function)?;
    let namespace: Arc<str> = which.namespace.map_or_else(|| function.shared(), Arc::from);
    let store = state.dispatcher.store.clone();
    let found = blocking(move || {
        let reader = store.reader()?;
        let mut found = serde_json::Map::new();
        for key in reader.keys(&namespace, None, MAX_KEYS)? {
            if let Some(value) = reader.get(&namespace, &key)?.value {
                found.insert(key.to_string(), text_or_bytes(&value));
            }
        }
        Ok(found)
    });
    Ok(Json(json!({ "state": Value::Object(found.await?) })))
}

/// Takes as NDJSON.
pub(super) async fn tape(
    Extract(state): Extract<State>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    Query(query): Query<Follow>,
) -> Response {
    if state.dispatcher.journal.tape.is_none() {
        let words = "this node keeps no tape: it holds payloads, and so only nodes of `holm dev` and `holm test` do";
        return Failure::new(StatusCode::CONFLICT, words.to_owned()).into_response();
    }
    stream(state, stop, query, |state| state.dispatcher.journal.tape.as_ref(), |take| (take.number, &take.function))
}
