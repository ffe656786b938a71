//! What the admin socket answers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Path, Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use holm_core::{ErrorCode, FunctionName, Source};
use holm_store::{OutboxRow, Store};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::State;
use crate::clock;
use crate::deploy::{DeployError, Deployer, chain};
use crate::dispatch::{Street, event_now};
use crate::journal::Ring;
use crate::letters::LetterError;
pub(super) use crate::letters::text_or_bytes;

/// An answer that is not the one that was asked for.
pub(super) struct Failure {
    status: StatusCode,
    words: String,
    code: Option<ErrorCode>,
}

impl Failure {
    /// With the code that the status says by itself.
    pub(super) fn new(status: StatusCode, words: String) -> Self {
        let code = match status {
            StatusCode::NOT_FOUND => Some(ErrorCode::NotFound),
            StatusCode::SERVICE_UNAVAILABLE => Some(ErrorCode::StoreFailing),
            _ => None,
        };
        Self { status, words, code }
    }

    /// With another code.
    pub(super) fn coded(self, code: ErrorCode) -> Self {
        Self { code: Some(code), ..self }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut body = json!({ "error": self.words });
        if let (Some(code), Some(body)) = (self.code, body.as_object_mut()) {
            body.insert("code".to_owned(), code.as_str().into());
        }
        (self.status, Json(body)).into_response()
    }
}

impl From<holm_store::StoreError> for Failure {
    fn from(error: holm_store::StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error))
    }
}

impl From<LetterError> for Failure {
    fn from(error: LetterError) -> Self {
        match &error {
            LetterError::Read(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
            LetterError::Commit(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error)),
            // The store is well.
            LetterError::Full => Self { status: StatusCode::SERVICE_UNAVAILABLE, words: chain(&error), code: None },
        }
    }
}

impl From<DeployError> for Failure {
    fn from(error: DeployError) -> Self {
        let status = match &error {
            DeployError::Unsigned => StatusCode::FORBIDDEN,
            DeployError::NotFound(_) => StatusCode::NOT_FOUND,
            DeployError::File { .. } | DeployError::Registry(_) => StatusCode::INTERNAL_SERVER_ERROR,
            DeployError::Manifest(_)
            | DeployError::Bundle(_)
            | DeployError::TooMuch(_)
            | DeployError::Mismatch(_)
            | DeployError::Config(_)
            | DeployError::Missing { .. }
            | DeployError::Secret(_)
            | DeployError::Compile(_)
            | DeployError::Load(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, words: chain(&error), code: error.code() }
    }
}

pub(super) type Answer = Result<Json<Value>, Failure>;

pub(super) fn name(text: &str) -> Result<FunctionName, Failure> {
    FunctionName::new(text).map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Reads of the database happen on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, holm_store::StoreError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) async fn status(Extract(state): Extract<State>) -> Answer {
    let store = state.dispatcher.store.clone();
    let (inbox, lanes) = blocking(move || Ok((store.inbox_stat()?, store.lanes()?))).await?;
    let counters = &state.dispatcher.counters;
    let broker = state.dispatcher.street.broker_stats();
    let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Json(json!({
        "device": &*state.device,
        "version": crate::build::build().version,
        "uptime_s": state.started.elapsed().as_secs(),
        "time_plausible": clock::plausible(clock::now()),
        "events": {
            "accepted": load(&counters.events), "dropped": load(&counters.dropped), "refused": load(&counters.refused),
            "duplicates": load(&counters.duplicates), "loops": load(&counters.loops),
        },
        "store": state.dispatcher.store.stats(),
        "inbox": inbox,
        "outbox": lanes,
        "broker": {
            "connections": broker.connections, "clients": broker.clients, "sessions": broker.sessions,
            "queued_messages": broker.queued_messages, "queued_bytes": broker.queued_bytes,
            "retained": broker.retained, "messages_in": broker.messages_in, "messages_out": broker.messages_out,
            "dropped": broker.dropped,
        },
        "external": external(&state),
        "cloud": state.cloud.as_ref().map(holm_cloud_sync::Cloud::status),
    })))
}

/// The link to an external broker; null without one.
fn external(state: &State) -> Value {
    let Street::External(external) = &state.dispatcher.street else { return Value::Null };
    let link = external.status();
    json!({
        "address": external.address(), "connected": link.connected, "connections": link.connections,
        "last_error": link.last_error, "in_flight": link.in_flight, "messages_in": link.messages_in,
        "messages_out": link.messages_out, "dropped": link.dropped, "refused": link.refused,
    })
}

pub(super) async fn functions(Extract(state): Extract<State>) -> Answer {
    let status = state.deployer.status();
    let store = state.dispatcher.store.clone();
    let accounts = blocking(move || store.accounts()).await?;
    let rows: Vec<Value> = status
        .into_iter()
        .map(|function| {
            let total = accounts.iter().find(|row| row.function == function.name).map(|row| {
                let account = row.account;
                json!({
                    "invocations": account.invocations, "errors": account.errors, "wall_us": account.wall_us,
                    "cpu_us": account.cpu_us, "peak_memory": account.peak_memory,
                    "bytes_in": account.bytes_in, "bytes_out": account.bytes_out,
                })
            });
            let mut row = json!(function);
            if let Value::Object(fields) = &mut row {
                fields.insert("total".into(), total.unwrap_or(Value::Null));
            }
            row
        })
        .collect();
    Ok(Json(json!({ "functions": rows })))
}

/// Runs a change of what is active on a thread of its own: a caller that goes away must not stop it half way, and what
/// it unpacks, loads and syncs must not hold up the connections, which all live on the thread that handlers run on.
async fn change<T, F>(work: impl FnOnce(Arc<Deployer>) -> F + Send + 'static, state: State) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, DeployError>>,
{
    let runtime = tokio::runtime::Handle::current();
    match tokio::task::spawn_blocking(move || runtime.block_on(work(state.deployer))).await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}

pub(super) async fn deploy(Extract(state): Extract<State>, bundle: Bytes) -> Answer {
    let report = change(async move |deployer| deployer.deploy(&bundle).await, state).await?;
    Ok(Json(json!(report)))
}

/// What somebody has carried here.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Carried {
    folder: std::path::PathBuf,
}

/// A deployment from a folder: its generation, once it is believed. What comes of it is in the status.
pub(super) async fn carry(Extract(state): Extract<State>, Query(carried): Query<Carried>) -> Answer {
    let cloud = state.cloud.as_ref().ok_or_else(|| {
        Failure::new(StatusCode::CONFLICT, "this node takes no deployments of a control plane: cloud.enabled".into())
    })?;
    let refused = |refusal: holm_cloud_sync::Refusal| {
        let sentence = refusal.reason.explanation();
        let words = match refusal.message.starts_with(sentence) {
            true => refusal.message,
            false => format!("{sentence}: {}", refusal.message),
        };
        Failure::new(StatusCode::UNPROCESSABLE_ENTITY, words)
    };
    let generation = cloud.carry(carried.folder).await.map_err(refused)?;
    Ok(Json(json!({ "generation": generation })))
}

pub(super) async fn remove(Extract(state): Extract<State>, Path(function): Path<String>) -> Answer {
    let name = name(&function)?;
    change(async move |deployer| deployer.remove(&name).await, state).await?;
    Ok(Json(json!({ "removed": function })))
}

pub(super) async fn rollback(Extract(state): Extract<State>, Path(function): Path<String>) -> Answer {
    let name = name(&function)?;
    let version = change(async move |deployer| deployer.rollback(&name).await, state).await?;
    Ok(Json(json!({ "function": function, "version": version })))
}

pub(super) async fn release(Extract(state): Extract<State>, Path(function): Path<String>) -> Answer {
    let name = name(&function)?;
    change(async move |deployer| deployer.release(&name).await, state).await?;
    Ok(Json(json!({ "released": function })))
}

/// What an event that is handed over says of itself.
#[derive(serde::Deserialize)]
pub(super) struct Guise {
    source: Option<Source>,
    subject: Option<String>,
}

/// Hands the body to a function as an event of its own, durable; answers when it is settled.
pub(super) async fn invoke(
    Extract(state): Extract<State>,
    Path(function): Path<String>,
    Query(guise): Query<Guise>,
    body: Bytes,
) -> Answer {
    let slot = state
        .dispatcher
        .slot(&name(&function)?)
        .ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, format!("there is no function `{function}`")))?;
    let subject = guise.subject.map_or_else(|| "invoke".into(), Arc::from);
    let mut event = event_now(state.dispatcher.new_id(), guise.source.unwrap_or(Source::Admin), subject);
    event.data = body;
    let id = event.id.clone();
    match state.dispatcher.trigger(&slot, event, true, Vec::new()).await {
        Ok(Ok(())) => Ok(Json(json!({ "event": id.0 }))),
        _ => Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "the node could not settle the event".into())),
    }
}

#[derive(serde::Deserialize)]
pub(super) struct Follow {
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    after: u64,
    #[serde(default = "default_limit")]
    pub(super) limit: usize,
    pub(super) function: Option<String>,
}

fn default_limit() -> usize {
    100
}

pub(super) async fn events(
    Extract(state): Extract<State>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    Query(query): Query<Follow>,
) -> Response {
    stream(state, stop, query, |state| Some(&state.dispatcher.journal.events), |entry| (entry.number, &entry.function))
}

pub(super) async fn logs(
    Extract(state): Extract<State>,
    Extension(stop): Extension<watch::Receiver<bool>>,
    Query(query): Query<Follow>,
) -> Response {
    stream(state, stop, query, |state| Some(&state.dispatcher.journal.logs), |entry| (entry.number, &entry.function))
}

/// Entries of a ring as NDJSON, with `{"gap": n}` where the reader was too slow for it.
pub(super) fn stream<T: Clone + serde::Serialize + Send + 'static>(
    state: State,
    stop: watch::Receiver<bool>,
    query: Follow,
    ring: impl Fn(&State) -> Option<&Ring<T>> + Send + 'static,
    key: fn(&T) -> (u64, &Arc<str>),
) -> Response {
    let cursor = (state, stop, query, 0_u64, true, ring);
    let body =
        futures_util::stream::unfold(cursor, move |(state, mut stop, query, mut last, first, ring)| async move {
            loop {
                let entries = {
                    let ring = ring(&state)?;
                    let grown = ring.grown();
                    let after = if first { query.after } else { last };
                    let limit = if first { query.limit } else { 1024 };
                    let entries = ring.since(after.max(last), limit);
                    if entries.is_empty() && query.follow && !*stop.borrow() {
                        if first && last == 0 && query.after == 0 {
                            // Nothing yet: whatever comes is new.
                        }
                        tokio::select! {
                            () = grown => {}
                            _ = stop.changed() => return None,
                            () = tokio::time::sleep(std::time::Duration::from_millis(500)) => {}
                        }
                        continue;
                    }
                    entries
                };
                if entries.is_empty() || (!query.follow && !first) {
                    return None;
                }
                let mut text = String::new();
                for entry in &entries {
                    let (number, function) = key(entry);
                    if last != 0 && number > last + 1 {
                        text.push_str(&format!("{{\"gap\":{}}}\n", number - last - 1));
                    }
                    last = number;
                    if query.function.as_deref().is_none_or(|wanted| wanted == &**function) {
                        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
                        text.push('\n');
                    }
                }
                return Some((
                    Ok::<_, std::convert::Infallible>(Bytes::from(text)),
                    (state, stop, query, last, false, ring),
                ));
            }
        });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(body)).into_response()
}

#[derive(serde::Deserialize)]
pub(super) struct Rows {
    #[serde(default)]
    after: i64,
    #[serde(default = "default_limit")]
    limit: usize,
    series: Option<String>,
    stream: Option<String>,
}

pub(super) async fn results(
    Extract(state): Extract<State>,
    Path(function): Path<String>,
    Query(query): Query<Rows>,
) -> Answer {
    let function = name(&function)?;
    let declared: Vec<String> = match (query.series, state.dispatcher.slot(&function).and_then(|slot| slot.loaded())) {
        (Some(series), _) => vec![series],
        (None, Some(loaded)) => loaded.manifest.results.iter().map(|(series, _)| series.to_string()).collect(),
        (None, None) => return Err(Failure::new(StatusCode::NOT_FOUND, format!("there is no function `{function}`"))),
    };
    let store = state.dispatcher.store.clone();
    let rows = blocking(move || {
        let mut rows = Vec::new();
        for series in declared {
            let stream = crate::dispatch::series_stream(function.as_str(), &series);
            for row in store.outbox(Some(&stream), query.after, query.limit)? {
                rows.push(json!({
                    "id": row.id, "series": series, "sequence": row.sequence, "time": row.created,
                    "value": serde_json::from_slice::<Value>(&row.data).unwrap_or(Value::Null),
                }));
            }
        }
        Ok(rows)
    })
    .await?;
    Ok(Json(json!({ "results": rows })))
}

pub(super) async fn buffer(Extract(store): Extract<Store>) -> Answer {
    let (lanes, inbox, gaps, epoch) =
        blocking(move || Ok((store.lanes()?, store.inbox_stat()?, store.gaps(20)?, store.epoch()?))).await?;
    Ok(Json(json!({ "lanes": lanes, "inbox": inbox, "gaps": gaps, "epoch": epoch })))
}

pub(super) async fn buffer_rows(Extract(store): Extract<Store>, Query(query): Query<Rows>) -> Answer {
    let rows = blocking(move || store.outbox(query.stream.as_deref(), query.after, query.limit)).await?;
    let row = |row: &OutboxRow| {
        json!({
            "id": row.id, "lane": row.lane, "stream": row.stream, "sequence": row.sequence, "time": row.created,
            "content_type": row.content_type, "data": text_or_bytes(&row.data),
        })
    };
    Ok(Json(json!({ "rows": rows.iter().map(row).collect::<Vec<_>>() })))
}
