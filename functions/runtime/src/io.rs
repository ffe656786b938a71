//! wasi:io: streams that are log lines, and waiting.
//!
//! Handles carry all there is to know in their number, so that there is no table to allocate: a stream is 1 for stdout
//! or 2 for stderr, a pollable an index into the invocation's deadlines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::Resource;

use crate::bindings::wasi::io::{error, poll, streams};
use crate::fault::Stop;
use crate::recorder::Nature;
use crate::state::State;

/// stdin: a program's payload; a handler's is at its end.
pub struct InputStream;
/// stdout or stderr.
pub struct OutputStream;
/// Never handed out.
pub struct IoError;
/// Something to wait for: a moment, or nothing.
pub struct Pollable;

/// stdout's handle.
pub(crate) const STDOUT: u32 = 1;
/// stderr's handle.
pub(crate) const STDERR: u32 = 2;
/// What a stream takes or gives at once.
const AT_ONCE: u64 = 64 << 10;

/// The moments an invocation waits for; the guest's handles are indexes.
#[derive(Debug, Default)]
pub(crate) struct Pollables(Vec<Option<Instant>>);

impl State {
    /// A pollable that is ready at `when`; `None` is ready at once.
    pub(crate) fn pollable(&mut self, when: Option<Instant>) -> wasmtime::Result<Resource<Pollable>> {
        self.open_handle()?;
        // Ready ones need no slot; the others are few, as handles are.
        let slots = &mut self.pollables.0;
        let Some(when) = when else { return Ok(Resource::new_own(u32::MAX)) };
        let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
        match slots.get_mut(free) {
            Some(slot) => *slot = Some(when),
            None => slots.push(Some(when)),
        }
        Ok(Resource::new_own(u32::try_from(free)?))
    }

    /// The next bytes of stdin, at most as many as one call moves.
    fn take_stdin(&mut self, most: u64) -> Result<Bytes, streams::StreamError> {
        if self.stdin.is_empty() {
            return Err(streams::StreamError::Closed);
        }
        let length = most.min(AT_ONCE).min(self.stdin.len() as u64);
        Ok(self.stdin.split_to(usize::try_from(length).unwrap_or(0)))
    }

    /// How long until a pollable is ready.
    fn remaining(&self, pollable: &Resource<Pollable>) -> Duration {
        let slot = usize::try_from(pollable.rep()).ok().and_then(|index| self.pollables.0.get(index));
        match slot {
            Some(Some(when)) => when.saturating_duration_since(Instant::now()),
            _ => Duration::ZERO,
        }
    }
}

impl poll::Host for State {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> wasmtime::Result<Vec<u32>> {
        let waits: Vec<Duration> = pollables.iter().map(|pollable| self.remaining(pollable)).collect();
        let shortest = waits.iter().min().copied().ok_or(Stop::Misuse("poll of an empty list"))?;
        self.sleep(shortest)?;
        let ready = || (0_u32..).zip(&waits).filter(|(_, wait)| **wait <= shortest).map(|(index, _)| index).collect();
        Ok(self.recorder.answer(Nature::Plausible, "poll.poll", &(), ready)?)
    }
}

impl poll::HostPollable for State {
    fn ready(&mut self, pollable: Resource<Pollable>) -> wasmtime::Result<bool> {
        let ready = self.remaining(&pollable).is_zero();
        Ok(self.recorder.answer(Nature::Plausible, "poll.ready", &(), || ready)?)
    }

    fn block(&mut self, pollable: Resource<Pollable>) -> wasmtime::Result<()> {
        let wait = self.remaining(&pollable);
        self.sleep(wait)
    }

    fn drop(&mut self, pollable: Resource<Pollable>) -> wasmtime::Result<()> {
        if let Some(slot) = usize::try_from(pollable.rep()).ok().and_then(|index| self.pollables.0.get_mut(index)) {
            *slot = None;
        }
        self.close_handle()
    }
}

impl error::Host for State {}

impl error::HostError for State {
    fn to_debug_string(&mut self, _: Resource<IoError>) -> wasmtime::Result<String> {
        Ok(String::new())
    }

    fn drop(&mut self, _: Resource<IoError>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl streams::Host for State {}

type Written<T> = wasmtime::Result<Result<T, streams::StreamError>>;

impl streams::HostInputStream for State {
    fn read(&mut self, _: Resource<InputStream>, most: u64) -> Written<Vec<u8>> {
        // Of the event, and so the same in a replay: nothing to record.
        Ok(self.take_stdin(most).map(|bytes| bytes.to_vec()))
    }

    fn blocking_read(&mut self, stream: Resource<InputStream>, most: u64) -> Written<Vec<u8>> {
        streams::HostInputStream::read(self, stream, most)
    }

    fn skip(&mut self, _: Resource<InputStream>, most: u64) -> Written<u64> {
        Ok(self.take_stdin(most).map(|bytes| bytes.len() as u64))
    }

    fn blocking_skip(&mut self, stream: Resource<InputStream>, most: u64) -> Written<u64> {
        streams::HostInputStream::skip(self, stream, most)
    }

    fn subscribe(&mut self, _: Resource<InputStream>) -> wasmtime::Result<Resource<Pollable>> {
        self.pollable(None)
    }

    fn drop(&mut self, _: Resource<InputStream>) -> wasmtime::Result<()> {
        self.close_handle()
    }
}

impl streams::HostOutputStream for State {
    fn check_write(&mut self, _: Resource<OutputStream>) -> Written<u64> {
        Ok(Ok(AT_ONCE))
    }

    fn write(&mut self, stream: Resource<OutputStream>, contents: Vec<u8>) -> Written<()> {
        self.staging.print(&self.grants, stream.rep() == STDERR, &contents);
        Ok(Ok(()))
    }

    fn blocking_write_and_flush(&mut self, stream: Resource<OutputStream>, contents: Vec<u8>) -> Written<()> {
        streams::HostOutputStream::write(self, stream, contents)
    }

    fn flush(&mut self, _: Resource<OutputStream>) -> Written<()> {
        Ok(Ok(()))
    }

    fn blocking_flush(&mut self, _: Resource<OutputStream>) -> Written<()> {
        Ok(Ok(()))
    }

    fn subscribe(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<Resource<Pollable>> {
        self.pollable(None)
    }

    // Zeroes are no text; they are taken and dropped.
    fn write_zeroes(&mut self, _: Resource<OutputStream>, _: u64) -> Written<()> {
        Ok(Ok(()))
    }

    fn blocking_write_zeroes_and_flush(&mut self, _: Resource<OutputStream>, _: u64) -> Written<()> {
        Ok(Ok(()))
    }

    // The only input there is has ended.
    fn splice(&mut self, _: Resource<OutputStream>, _: Resource<InputStream>, _: u64) -> Written<u64> {
        Ok(Err(streams::StreamError::Closed))
    }

    fn blocking_splice(&mut self, _: Resource<OutputStream>, _: Resource<InputStream>, _: u64) -> Written<u64> {
        Ok(Err(streams::StreamError::Closed))
    }

    fn drop(&mut self, _: Resource<OutputStream>) -> wasmtime::Result<()> {
        self.close_handle()
    }
}
