//! The tape: what each invocation was given and did, whole, for whoever writes functions. Only nodes that are started
//! with `--tape`, or that rehearse, keep one: it holds payloads, which no other log of the node does.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::{Effects, Event, Outcome, Payload, Route, Timestamp};
use serde_json::{Value, json};

/// Bytes of takes that are kept; then the oldest go.
pub const TAPE_BYTES: usize = 16 << 20;

/// What a take costs beside its payloads.
const OVERHEAD: usize = 512;

/// One invocation, in JSON. A payload is a text where it is UTF-8, else an array of numbers.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Take {
    /// Ascending; a hole means that takes were dropped before they were read.
    pub number: u64,
    /// Who handled it.
    pub function: Arc<str>,
    /// The time of the node, in milliseconds since 1970.
    pub time: Timestamp,
    /// What it was given.
    pub event: Value,
    /// `ok`, or the kind of fault.
    pub outcome: &'static str,
    /// The fault's words.
    pub fault: Option<String>,
    /// What the handler answered.
    pub answer: Option<Value>,
    /// Messages.
    pub publishes: Vec<Value>,
    /// Writes of state; the value is null where a key was deleted.
    pub state: Vec<Value>,
    /// Rows of result series.
    pub results: Vec<Value>,
    /// Messages to other functions.
    pub enqueued: Vec<Value>,
    /// What it wrote to its log.
    pub logs: Vec<Value>,
    /// Wall time in microseconds.
    pub wall_us: u64,
    /// Largest linear memory, in bytes.
    pub peak_memory: u64,
}

impl Take {
    /// Of an outcome, with the effects of the functions that it invoked. Its number comes later. The second is what it
    /// costs to keep.
    pub(crate) fn of<'a>(
        function: Arc<str>,
        time: Timestamp,
        event: &Event,
        outcome: &'a Outcome,
        below: impl Iterator<Item = &'a Effects>,
    ) -> (Self, usize) {
        let mut cost = OVERHEAD + event.data.len();
        let mut take = Self {
            number: 0,
            function,
            time,
            event: json!({
                "id": event.id, "source": event.source, "subject": &*event.subject, "content_type": event.content_type,
                "time": event.time, "attempt": event.attempt, "attributes": event.attributes, "data": bytes(&event.data),
            }),
            outcome: outcome.result.as_ref().err().map_or("ok", |fault| fault.kind()),
            fault: outcome.result.as_ref().err().map(|fault| fault.message()),
            answer: outcome.result.as_ref().ok().and_then(Option::as_ref).map(payload),
            publishes: Vec::new(),
            state: Vec::new(),
            results: Vec::new(),
            enqueued: Vec::new(),
            logs: Vec::new(),
            wall_us: u64::try_from(outcome.usage.wall.as_micros()).unwrap_or(u64::MAX),
            peak_memory: outcome.usage.peak_memory,
        };
        // A failed invocation leaves nothing, and nor do those that it invoked.
        let all = below.chain(std::iter::once(&outcome.effects)).filter(|_| outcome.result.is_ok());
        for effects in all {
            cost += take.add(effects);
        }
        for line in &outcome.logs {
            cost += OVERHEAD + line.message.len();
            take.logs.push(json!({ "level": line.level, "context": line.context, "message": line.message }));
        }
        (take, cost)
    }

    fn add(&mut self, effects: &Effects) -> usize {
        let mut cost = 0;
        for publish in &effects.publishes {
            cost += OVERHEAD + publish.payload.data.len();
            self.publishes.push(json!({
                "topic": publish.topic.as_str(), "qos": publish.qos.level(), "retain": publish.retain,
                "route": route(publish.route), "payload": bytes(&publish.payload.data),
            }));
        }
        for write in &effects.writes {
            cost += OVERHEAD + write.value.as_ref().map_or(0, Bytes::len);
            let value = write.value.as_ref().map(bytes);
            self.state.push(json!({ "namespace": &*write.namespace, "key": &*write.key, "value": value }));
        }
        for row in &effects.results {
            cost += OVERHEAD + row.json.len();
            let value: Value = serde_json::from_slice(&row.json).unwrap_or_default();
            self.results.push(json!({ "series": &*row.series, "value": value }));
        }
        for enqueue in &effects.enqueues {
            cost += OVERHEAD + enqueue.input.data.len();
            let delay = enqueue.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
            self.enqueued.push(json!({
                "function": enqueue.function.as_str(), "delay_ms": delay, "payload": bytes(&enqueue.input.data),
            }));
        }
        cost
    }
}

fn route(route: Route) -> &'static str {
    match route {
        Route::Local => "local",
        Route::Cloud => "cloud",
        Route::Both => "both",
    }
}

fn payload(payload: &Payload) -> Value {
    bytes(&payload.data)
}

fn bytes(data: &Bytes) -> Value {
    std::str::from_utf8(data).map_or_else(|_| json!(&data[..]), Value::from)
}
