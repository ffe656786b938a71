//! What belongs to one instance: its grants, what it staged, and the host of its call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_core::Effects;

use crate::ConfigValues;
use crate::capability::Grants;
use crate::exchange::Exchange;
use crate::fault::Stop;
use crate::host::Host;
use crate::io::Pollables;
use crate::limiter::Limiter;
use crate::recorder::{Nature, Recorder};
use crate::secret::SecretValues;
use crate::staging::Staging;

/// Handles a guest may hold at a time. Each costs the node a little memory that the guest's own limit does not count.
const MAX_HANDLES: u32 = 256;

/// The data of a store.
pub(crate) struct State {
    pub(crate) grants: Arc<Grants>,
    pub(crate) config: Arc<ConfigValues>,
    pub(crate) secrets: Arc<SecretValues>,
    pub(crate) recorder: Recorder,
    pub(crate) staging: Staging,
    pub(crate) limiter: Limiter,
    pub(crate) pollables: Pollables,
    /// What is left of stdin: a program's payload. A handler has its own in the event.
    pub(crate) stdin: Bytes,
    /// HTTP's request and response. A function that has nothing to do with it has none.
    pub(crate) exchange: Option<Box<Exchange>>,
    /// Absent while the instance is made: its start functions may not ask for the world.
    pub(crate) host: Option<Box<dyn Host>>,
    /// The zero of the guest's monotonic clock.
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// What was handed over to functions that a replay does not run: nobody else has it.
    pub(crate) handed: Vec<Effects>,
    handles: u32,
}

impl State {
    pub(crate) fn new(
        grants: Arc<Grants>,
        config: Arc<ConfigValues>,
        secrets: Arc<SecretValues>,
        recorder: Recorder,
    ) -> Self {
        let started = Instant::now();
        Self {
            limiter: Limiter::new(grants.memory),
            deadline: started + grants.timeout,
            grants,
            config,
            secrets,
            recorder,
            staging: Staging::default(),
            pollables: Pollables::default(),
            stdin: Bytes::new(),
            exchange: None,
            host: None,
            started,
            handed: Vec::new(),
            handles: 0,
        }
    }

    /// Begins the call: from here on there is a host, and the time counts.
    pub(crate) fn begin(&mut self, host: Box<dyn Host>, now: Instant) {
        self.host = Some(host);
        self.deadline = now + self.grants.timeout;
    }

    /// HTTP's part of the invocation.
    pub(crate) fn exchange(&mut self) -> &mut Exchange {
        self.exchange.get_or_insert_default()
    }

    /// Asks the host, past the recorder.
    pub(crate) fn ask<Q, T>(
        &mut self,
        nature: Nature,
        call: &'static str,
        asked: &Q,
        ask: impl FnOnce(&mut dyn Host) -> T,
    ) -> wasmtime::Result<T>
    where
        Q: serde::Serialize,
        T: serde::Serialize + serde::de::DeserializeOwned,
    {
        // Checked for a replay too, so that a guest which asks too early fails there as it did before.
        let host = self.host.as_deref_mut().ok_or(Stop::TooEarly(call))?;
        Ok(self.recorder.answer(nature, call, asked, || ask(host))?)
    }

    /// Tells the host, if there is one yet, that this takes longer.
    pub(crate) fn linger(&mut self) {
        if let Some(host) = &mut self.host {
            host.linger();
        }
    }

    /// Sleeps, but never past the deadline: a host call is not interrupted by the epoch.
    pub(crate) fn sleep(&mut self, time: Duration) -> wasmtime::Result<()> {
        let Self { recorder, host, deadline, .. } = self;
        // Recorded also when there is nothing to sleep for, which depends on the clock.
        let over = recorder.answer(Nature::Plausible, "poll.sleep", &(), || {
            if time.is_zero() {
                return false;
            }
            if let Some(host) = host {
                host.linger();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            std::thread::sleep(time.min(left));
            time >= left
        })?;
        if over { Err(Stop::Timeout.into()) } else { Ok(()) }
    }

    /// Counts a handle that the guest gets.
    pub(crate) fn open_handle(&mut self) -> wasmtime::Result<()> {
        if self.handles >= MAX_HANDLES {
            return Err(Stop::Exhausted("handle").into());
        }
        self.handles += 1;
        Ok(())
    }

    /// Counts a handle that the guest dropped.
    pub(crate) fn close_handle(&mut self) -> wasmtime::Result<()> {
        self.handles = self.handles.saturating_sub(1);
        Ok(())
    }
}
