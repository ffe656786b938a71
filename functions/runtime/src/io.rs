//! wasi:io: streams that are log lines or the bodies of HTTP, and waiting.
//!
//! Handles carry all there is to know in their number, so that there is no table to allocate: a stream is 0 for stdin, 1
//! for stdout, 2 for stderr, from 3 the body of a response, a pollable an index into the invocation's deadlines.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wasmtime::component::Resource;

use crate::bindings::wasi::io::{error, poll, streams};
use crate::fault::Stop;
use crate::recorder::Nature;
use crate::state::State;

/// stdin, which is a program's payload and at its end for handlers, or the body of the request.
pub struct InputStream;
/// stdout, stderr or the body of a response.
pub struct OutputStream;
/// Never handed out.
pub struct IoError;
/// Something to wait for: a moment, or nothing.
pub struct Pollable;

/// stdin's handle.
pub(crate) const STDIN: u32 = 0;
/// The handle of the request's body.
pub(crate) const BODY: u32 = 1;
/// stdout's handle.
pub(crate) const STDOUT: u32 = 1;
/// stderr's handle.
pub(crate) const STDERR: u32 = 2;
/// The handle of the first response's body.
pub(crate) const RESPONSES: u32 = 3;
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

    /// The next bytes of a stream, at most as many as one call moves.
    fn take(&mut self, stream: &Resource<InputStream>, most: u64) -> Result<Bytes, streams::StreamError> {
        let rest = match (stream.rep(), &mut self.exchange) {
            (BODY, Some(exchange)) => &mut exchange.body,
            _ => &mut self.stdin,
        };
        if rest.is_empty() {
            return Err(streams::StreamError::Closed);
        }
        let length = most.min(AT_ONCE).min(rest.len() as u64);
        Ok(rest.split_to(usize::try_from(length).unwrap_or(0)))
    }

    /// Writes to a response's body. What is too much for it is the guest's end.
    fn write_body(&mut self, index: u32, contents: Vec<u8>) -> wasmtime::Result<()> {
        self.charge_body(contents.len() as u64)?;
        Ok(self.exchange().write(index, contents)?)
    }

    fn charge_body(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let limit = self.grants.output.saturating_sub(self.staging.bytes_out());
        Ok(self.exchange().charge(bytes, limit)?)
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
    fn read(&mut self, stream: Resource<InputStream>, most: u64) -> Written<Vec<u8>> {
        // Of the event, and so the same in a replay: nothing to record.
        Ok(self.take(&stream, most).map(|bytes| bytes.to_vec()))
    }

    fn blocking_read(&mut self, stream: Resource<InputStream>, most: u64) -> Written<Vec<u8>> {
        streams::HostInputStream::read(self, stream, most)
    }

    fn skip(&mut self, stream: Resource<InputStream>, most: u64) -> Written<u64> {
        Ok(self.take(&stream, most).map(|bytes| bytes.len() as u64))
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
        match stream.rep().checked_sub(RESPONSES) {
            Some(index) => self.write_body(index, contents)?,
            None => self.staging.print(&self.grants, stream.rep() == STDERR, &contents),
        }
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

    // Zeroes are no text: in the log they are dropped.
    fn write_zeroes(&mut self, stream: Resource<OutputStream>, length: u64) -> Written<()> {
        if let Some(index) = stream.rep().checked_sub(RESPONSES) {
            // Before there is memory for them.
            self.charge_body(length)?;
            self.exchange().write(index, vec![0; usize::try_from(length)?])?;
        }
        Ok(Ok(()))
    }

    fn blocking_write_zeroes_and_flush(&mut self, stream: Resource<OutputStream>, length: u64) -> Written<()> {
        streams::HostOutputStream::write_zeroes(self, stream, length)
    }

    fn splice(&mut self, stream: Resource<OutputStream>, from: Resource<InputStream>, most: u64) -> Written<u64> {
        let bytes = match self.take(&from, most) {
            Ok(bytes) => bytes,
            Err(end) => return Ok(Err(end)),
        };
        let length = bytes.len() as u64;
        let written = streams::HostOutputStream::write(self, stream, bytes.to_vec())?;
        Ok(written.map(|()| length))
    }

    fn blocking_splice(
        &mut self,
        stream: Resource<OutputStream>,
        from: Resource<InputStream>,
        most: u64,
    ) -> Written<u64> {
        streams::HostOutputStream::splice(self, stream, from, most)
    }

    fn drop(&mut self, stream: Resource<OutputStream>) -> wasmtime::Result<()> {
        if let Some(index) = stream.rep().checked_sub(RESPONSES) {
            self.exchange().drop_stream(index)?;
        }
        self.close_handle()
    }
}
