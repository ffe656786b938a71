//! A loaded function, a prepared instance of it, and the call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_core::{Effects, Event, Fault, FunctionName, Outcome, Payload, Recording, Response, Timestamp, Usage};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::component::{ComponentExportIndex, ComponentType, Func, InstancePre, Lift, Lower, TypedFunc};
use wasmtime::{PoolConcurrencyLimitError, Store, UpdateDeadline, WasmBacktrace};

use crate::activity::Activity;
use crate::bindings::wasi::clocks::wall_clock::Datetime;
use crate::capability::Grants;
use crate::clocks::datetime;
use crate::fault::{Stop, classify, shorten};
use crate::host::Host;
use crate::recorder::{Diverged, Order, Recorder};
use crate::state::State;
use crate::{ConfigValues, RuntimeError, SecretValues, http};

/// What a guest may move to the host in one call beyond its own memory: the records around the bytes.
const HOSTCALL_SLACK: usize = 1 << 20;

/// A component, loaded and linked for one manifest. Cheap to clone; safe to use from many threads.
#[derive(Clone)]
pub struct Function(Arc<Loaded>);

struct Loaded {
    name: FunctionName,
    pre: InstancePre<State>,
    /// The entry's place among the exports, looked up once.
    entry: Entry<ComponentExportIndex>,
    grants: Arc<Grants>,
    config: Arc<ConfigValues>,
    secrets: Arc<SecretValues>,
    activity: Arc<Activity>,
}

/// An instance that waits for its event. It holds a slot of the engine.
pub struct Prepared {
    store: Store<State>,
    entry: Entry<Handler, Program, Func>,
    loaded: Arc<Loaded>,
}

/// What an event calls.
#[derive(Clone, Copy)]
enum Entry<H, P = H, X = H> {
    /// `holm:function/handler`.
    Handler(H),
    /// `wasi:http/incoming-handler`: the event is a request.
    Proxy(X),
    /// `wasi:cli/run`: a program as it is. The payload is its stdin; it has done its work when it ends with status 0.
    Program(P),
}

type Handler = TypedFunc<(WireEvent,), (Result<Option<WirePayload>, WireFailure>,)>;
type Program = TypedFunc<(), (Result<(), ()>,)>;

/// The interface of those that answer HTTP requests, of any patch release.
const INCOMING: &str = "wasi:http/incoming-handler@0.2.";
/// That of programs.
const RUN: &str = "wasi:cli/run@0.2.";

/// `types.event` with shared parts, so that lowering it copies straight into the guest.
#[derive(ComponentType, Lower)]
#[component(record)]
struct WireEvent {
    id: Arc<str>,
    source: &'static str,
    subject: Arc<str>,
    #[component(name = "content-type")]
    content_type: Option<Arc<str>>,
    data: Bytes,
    time: Datetime,
    #[component(name = "time-synced")]
    time_synced: bool,
    attempt: u32,
    attributes: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct WirePayload {
    #[component(name = "content-type")]
    content_type: Option<Arc<str>>,
    data: Bytes,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum WireFailure {
    #[component(name = "retry")]
    Retry((String, Option<u32>)),
    #[component(name = "reject")]
    Reject(String),
}

impl Function {
    pub(crate) fn new(
        name: FunctionName,
        pre: InstancePre<State>,
        grants: Arc<Grants>,
        config: Arc<ConfigValues>,
        activity: Arc<Activity>,
    ) -> Result<Self, RuntimeError> {
        let component = pre.component();
        let ty = component.component_type();
        let of = |interface: &str, function| {
            component.get_export_index(Some(&component.get_export_index(None, interface)?), function)
        };
        let any = |prefix: &str, function| {
            let (interface, _) = ty.exports(component.engine()).find(|(name, _)| name.starts_with(prefix))?;
            of(interface, function)
        };
        let entry = of("holm:function/handler@0.1.0", "handle")
            .map(Entry::Handler)
            .or_else(|| any(INCOMING, "handle").map(Entry::Proxy))
            .or_else(|| any(RUN, "run").map(Entry::Program))
            .ok_or(RuntimeError::NoHandler)?;
        Ok(Self(Arc::new(Loaded { name, pre, entry, grants, config, secrets: Arc::default(), activity })))
    }

    /// The same with the secrets that its node has for it. It reads those that its manifest grants.
    pub fn with_secrets(&self, secrets: Arc<SecretValues>) -> Self {
        let Loaded { name, pre, entry, grants, config, activity, .. } = &*self.0;
        Self(Arc::new(Loaded {
            name: name.clone(),
            pre: pre.clone(),
            entry: *entry,
            grants: grants.clone(),
            config: config.clone(),
            secrets,
            activity: activity.clone(),
        }))
    }

    /// The manifest's name of it.
    pub fn name(&self) -> &FunctionName {
        &self.0.name
    }

    /// Makes a fresh instance. Do it off the critical path, after the previous answer has gone out.
    pub fn prepare(&self) -> Result<Prepared, RuntimeError> {
        self.prepare_with(Recorder::Off)
    }

    /// Makes a fresh instance whose answers are kept, or replayed.
    pub fn prepare_with(&self, recorder: Recorder) -> Result<Prepared, RuntimeError> {
        let loaded = self.0.clone();
        let state = State::new(loaded.grants.clone(), loaded.config.clone(), loaded.secrets.clone(), recorder);
        let mut store = Store::new(loaded.pre.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_hostcall_fuel(loaded.grants.memory.saturating_add(HOSTCALL_SLACK));
        // One tick, whatever the limit: the callback goes by the clock, so that a late or a fast ticker is harmless.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            if Instant::now() >= store.data().deadline {
                return Err(Stop::Timeout.into());
            }
            store.data_mut().linger();
            Ok(UpdateDeadline::Continue(1))
        });
        // Start functions are guest code: they too have a deadline.
        let running = loaded.activity.start();
        let entry = loaded.pre.instantiate(&mut store).and_then(|instance| {
            let (Entry::Handler(index) | Entry::Proxy(index) | Entry::Program(index)) = loaded.entry;
            let function = instance.get_func(&mut store, index);
            let function = function.ok_or_else(|| wasmtime::Error::msg("the handler is not a function"))?;
            Ok(match loaded.entry {
                Entry::Handler(_) => Entry::Handler(function.typed(&store)?),
                Entry::Proxy(_) => Entry::Proxy(function),
                Entry::Program(_) => Entry::Program(function.typed(&store)?),
            })
        });
        drop(running);
        match entry {
            Ok(entry) => Ok(Prepared { store, entry, loaded }),
            Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(RuntimeError::NoSlot),
            Err(error) => {
                let detail = match classify(&error, store.data()) {
                    Fault::Trap { .. } => format!("{error:#}"),
                    fault => fault.message(),
                };
                Err(RuntimeError::Instantiate { detail })
            }
        }
    }

    /// Runs a recorded invocation again: the same component, event and manifest give the same outcome, with nothing
    /// asked of anybody.
    pub fn replay(&self, event: &Event, recording: &Recording, order: Order) -> Result<Replayed, RuntimeError> {
        let prepared = self.prepare_with(Recorder::replay(recording, order))?;
        let mut replayed = Replayed::default();
        let outcome = prepared.run(event, Box::new(Nobody { time: event.time, ids: 0 }), Some(&mut replayed));
        replayed.outcome = Some(outcome);
        Ok(replayed)
    }
}

/// What a replay came to.
#[derive(Debug, Default)]
pub struct Replayed {
    /// As of any invocation, but that effects from before it invoked other functions are in it as well.
    pub outcome: Option<Outcome>,
    /// Where it ended, the innermost first, if it trapped. Offsets only from an engine that has addresses.
    pub frames: Vec<Frame>,
    /// The call that the recording could not answer.
    pub diverged: Option<Diverged>,
    /// Calls that were recorded and not made.
    pub unasked: usize,
    /// Calls that were answered by anything plausible.
    pub made_up: Vec<&'static str>,
}

/// A guest's function that was running.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frame {
    /// Its name, where the component has it.
    pub function: Option<String>,
    /// Its number in its core module.
    pub index: u32,
    /// Where it was, in bytes from the begin of its core module.
    pub offset: Option<u64>,
}

/// The host of a replay: what is of the world comes from the recording before it is asked.
struct Nobody {
    time: Timestamp,
    ids: u32,
}

impl Host for Nobody {
    fn get(&mut self, _: &str, _: &str) -> Result<(Option<Bytes>, u64), crate::HostError> {
        Ok((None, 0))
    }

    fn keys(&mut self, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Arc<str>>, crate::HostError> {
        Ok(Vec::new())
    }

    fn invoke(&mut self, _: &FunctionName, _: Payload, _: Effects) -> Result<Option<Payload>, crate::InvokeError> {
        Ok(None)
    }

    fn now(&self) -> Timestamp {
        self.time
    }

    fn new_id(&mut self) -> Arc<str> {
        self.ids += 1;
        Arc::from(format!("replay-{}", self.ids))
    }
}

impl Prepared {
    /// Runs the handler on this thread, and ends the instance. Blocks at most for the manifest's time limit, a tick, and
    /// whatever a host call takes.
    pub fn call(self, event: &Event, host: Box<dyn Host>) -> Outcome {
        self.run(event, host, None)
    }

    fn run(self, event: &Event, host: Box<dyn Host>, mut replayed: Option<&mut Replayed>) -> Outcome {
        let Self { mut store, entry, loaded } = self;
        let running = loaded.activity.start();
        let wall = Instant::now();
        store.data_mut().begin(host, wall);
        store.set_epoch_deadline(1);
        let mut response = None;
        let result = match entry {
            Entry::Handler(handler) => handler.call(&mut store, (wire(event),)),
            Entry::Proxy(handler) => http::call(&mut store, handler, event).map(|answered| {
                let result = said(&answered);
                response = Some(Box::new(answered));
                (result,)
            }),
            Entry::Program(program) => {
                store.data_mut().stdin = event.data.clone();
                ended(program.call(&mut store, ()))
            }
        };
        let wall = wall.elapsed();
        drop(running);

        let grants = &*loaded.grants;
        let result = match result {
            Ok((Ok(None),)) => Ok(None),
            Ok((Ok(Some(answer)),)) if store.data_mut().staging.answer(grants, wire_size(&answer)) => {
                Ok(Some(Payload { content_type: answer.content_type, data: answer.data }))
            }
            Ok((Ok(Some(_)),)) => Err(Fault::Exhausted { resource: "output".to_owned() }),
            Ok((Err(WireFailure::Retry((reason, after))),)) => Err(Fault::Retry {
                reason: shorten(reason),
                after: after.map(|milliseconds| Duration::from_millis(milliseconds.into())),
            }),
            Ok((Err(WireFailure::Reject(reason)),)) => Err(Fault::Reject { reason: shorten(reason) }),
            Err(error) => {
                if let (Some(replayed), Some(trace)) = (&mut replayed, error.downcast_ref::<WasmBacktrace>()) {
                    let frame = |frame: &wasmtime::FrameInfo| Frame {
                        function: frame.func_name().map(str::to_owned),
                        index: frame.func_index(),
                        offset: frame.module_offset().map(|offset| offset as u64),
                    };
                    replayed.frames = trace.frames().iter().map(frame).collect();
                }
                Err(classify(&error, store.data()))
            }
        };
        let result = result.map_err(|fault| hidden(fault, store.data()));
        // The instance ends here, and gives its slot back before anything is made of the outcome.
        let State { staging, recorder, limiter, handed, .. } = store.into_data();
        let usage = Usage { wall, peak_memory: limiter.peak_memory(), bytes_out: staging.bytes_out() };
        if let (Some(replayed), Recorder::Replay(replay)) = (replayed, &recorder) {
            replayed.diverged = replay.diverged.clone();
            replayed.unasked = replay.unasked();
            replayed.made_up.clone_from(&replay.made_up);
        }
        let recording = recorder.into_recording().map(|recording| staging.revealed.keep_out(recording));
        let (effects, reads, logs) = staging.finish(grants);
        let effects = if result.is_ok() { together(handed, effects) } else { Effects::default() };
        // An answer that was too much is none.
        let response = response.filter(|_| matches!(result, Ok(_) | Err(Fault::Retry { .. })));
        Outcome { result, response, effects, reads, logs, usage, recording }
    }
}

/// A guest's last words are shown and kept: not with secrets in them.
fn hidden(fault: Fault, state: &State) -> Fault {
    let hide = |text| state.staging.revealed.hide(text);
    match fault {
        Fault::Retry { reason, after } => Fault::Retry { reason: hide(reason), after },
        Fault::Reject { reason } => Fault::Reject { reason: hide(reason) },
        Fault::Trap { message } => Fault::Trap { message: hide(message) },
        fault => fault,
    }
}

/// The end of a program as that of a handler. One that fails would fail with the same payload again.
fn ended(result: wasmtime::Result<(Result<(), ()>,)>) -> wasmtime::Result<(Result<Option<WirePayload>, WireFailure>,)> {
    let status = match result {
        Ok((Ok(()),)) => 0,
        Ok((Err(()),)) => 1,
        Err(error) => match error.downcast_ref::<Stop>() {
            Some(Stop::Exit(status)) => *status,
            _ => return Err(error),
        },
    };
    Ok((match status {
        0 => Ok(None),
        _ => Err(WireFailure::Reject(format!("the program ended with status {status}"))),
    },))
}

/// A response as the answer of a handler. One with a status of the server's errors is a failure that may pass; whether one
/// that blames the request is a failure depends on who asked.
fn said(response: &Response) -> Result<Option<WirePayload>, WireFailure> {
    let header = |name: &str| {
        let value = response.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        value.and_then(|value| std::str::from_utf8(value).ok())
    };
    if response.status >= 500 {
        let seconds = header("retry-after").and_then(|seconds| seconds.parse::<u32>().ok());
        return Err(WireFailure::Retry((response.words(), seconds.map(|seconds| seconds.saturating_mul(1000)))));
    }
    let content_type = header("content-type").map(Arc::from);
    let nothing = response.body.is_empty() && content_type.is_none();
    Ok((!nothing).then(|| WirePayload { content_type, data: response.body.clone() }))
}

/// What an answer counts; its type is as long as the guest makes it.
fn wire_size(answer: &WirePayload) -> usize {
    answer.data.len() + answer.content_type.as_ref().map_or(0, |text| text.len())
}

/// What was staged, in its order.
fn together(before: Vec<Effects>, last: Effects) -> Effects {
    if before.is_empty() {
        return last;
    }
    let mut all = Effects::default();
    for effects in before.into_iter().chain(std::iter::once(last)) {
        all.publishes.extend(effects.publishes);
        all.results.extend(effects.results);
        all.enqueues.extend(effects.enqueues);
        for write in effects.writes {
            all.writes.retain(|one| (&one.namespace, &one.key) != (&write.namespace, &write.key));
            all.writes.push(write);
        }
    }
    all
}

fn wire(event: &Event) -> WireEvent {
    WireEvent {
        id: event.id.0.clone(),
        source: event.source.as_str(),
        subject: event.subject.clone(),
        content_type: event.content_type.clone(),
        data: event.data.clone(),
        time: datetime(event.time),
        time_synced: event.time_synced,
        attempt: event.attempt,
        attributes: event.attributes.clone(),
    }
}

/// CPU time of the calling thread since it began. A system call: what guests cost is taken once for many of them.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Function").field(&self.0.name).finish()
    }
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Prepared").field(&self.loaded.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_shared_by_threads_and_instances_move_between_them() {
        fn shared<T: Clone + Send + Sync>() {}
        fn moves<T: Send>() {}
        shared::<Function>();
        moves::<Prepared>();
    }
}
