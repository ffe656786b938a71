//! One request and what is made of an answer to it: what stands behind the handles of a guest that handles HTTP.
//!
//! Handles are indexes, as those of wasi:io are. A response and its body are one thing here with two handles, because the
//! body goes on after the response has been sent. Nothing leaves before the handler has returned, so that a response of
//! which half was written is none, and the client hears of the failure.

use std::sync::Arc;

use bytes::Bytes;
use holm_core::Response;

use crate::fault::Stop;
use crate::fields::{Fields, Held, MAX_HEADERS};
use crate::request::Request;

/// Everything of one invocation.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Request,
    /// What the guest has not read of the request's body.
    pub(crate) body: Bytes,
    /// Whether the guest has taken the body, and the body's stream: each once.
    pub(crate) consumed: bool,
    pub(crate) streamed: bool,
    /// Whether it has asked for the trailers, which there are none of.
    pub(crate) trailed: bool,
    /// Fields that guests hold.
    held: Vec<Option<Held>>,
    outgoing: Vec<Option<Outgoing>>,
    /// Bytes of fields that may still be made.
    room: usize,
    /// Bytes of bodies so far, of all responses.
    written: u64,
    sent: Option<Sent>,
}

/// What the guest has set.
#[derive(Debug)]
enum Sent {
    Response(u32),
    Error(Response),
}

/// A response as far as it is made.
#[derive(Debug)]
struct Outgoing {
    status: u16,
    headers: Arc<Fields>,
    body: Vec<u8>,
    part: Part,
    /// Whether the guest holds the response itself.
    held: bool,
}

/// How far a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Nobody has asked for it: it is empty.
    Untaken,
    Taken,
    /// The guest holds its stream.
    Streaming,
    Streamed,
    Finished,
    /// Given up, or not as long as the headers say.
    Broken,
}

/// Whether a body was finished.
pub(crate) enum Finished {
    Whole,
    /// It has this length, and the headers say another.
    Length(u64),
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            request: Request::default(),
            body: Bytes::new(),
            consumed: false,
            streamed: false,
            trailed: false,
            held: Vec::new(),
            outgoing: Vec::new(),
            room: MAX_HEADERS,
            written: 0,
            sent: None,
        }
    }
}

impl Exchange {
    /// Fields for the guest to hold, with the room for more.
    pub(crate) fn hold(&mut self, fields: Arc<Fields>, immutable: bool) -> Result<u32, Stop> {
        put(&mut self.held, Held { fields, immutable })
    }

    pub(crate) fn fields(&mut self, index: u32) -> Result<(&mut Held, &mut usize), Stop> {
        Ok((at(&mut self.held, index)?, &mut self.room))
    }

    /// Takes fields from the guest.
    pub(crate) fn release(&mut self, index: u32) -> Result<Arc<Fields>, Stop> {
        let slot = usize::try_from(index).ok().and_then(|index| self.held.get_mut(index));
        Ok(slot.and_then(Option::take).ok_or(GONE)?.fields)
    }

    /// A response with status 200.
    pub(crate) fn respond(&mut self, headers: Arc<Fields>) -> Result<u32, Stop> {
        let outgoing = Outgoing { status: 200, headers, body: Vec::new(), part: Part::Untaken, held: true };
        put(&mut self.outgoing, outgoing)
    }

    pub(crate) fn status(&mut self, index: u32) -> Result<u16, Stop> {
        Ok(at(&mut self.outgoing, index)?.status)
    }

    /// Sets the status, if a final response may have it.
    pub(crate) fn set_status(&mut self, index: u32, status: u16) -> Result<bool, Stop> {
        let outgoing = at(&mut self.outgoing, index)?;
        let valid = (200..=599).contains(&status);
        if valid {
            outgoing.status = status;
        }
        Ok(valid)
    }

    pub(crate) fn headers(&mut self, index: u32) -> Result<Arc<Fields>, Stop> {
        Ok(at(&mut self.outgoing, index)?.headers.clone())
    }

    /// The response's body, once.
    pub(crate) fn take_body(&mut self, index: u32) -> Result<bool, Stop> {
        self.step(index, Part::Untaken, Part::Taken)
    }

    /// The body's stream, once.
    pub(crate) fn take_stream(&mut self, index: u32) -> Result<bool, Stop> {
        self.step(index, Part::Taken, Part::Streaming)
    }

    fn step(&mut self, index: u32, from: Part, to: Part) -> Result<bool, Stop> {
        let outgoing = at(&mut self.outgoing, index)?;
        let may = outgoing.part == from;
        if may {
            outgoing.part = to;
        }
        Ok(may)
    }

    /// Counts bytes that are about to be written, against `limit`.
    pub(crate) fn charge(&mut self, bytes: u64, limit: u64) -> Result<(), Stop> {
        self.written = self.written.saturating_add(bytes);
        if self.written > limit { Err(Stop::Exhausted("output")) } else { Ok(()) }
    }

    /// Writes what was charged for.
    pub(crate) fn write(&mut self, index: u32, bytes: Vec<u8>) -> Result<(), Stop> {
        let body = &mut at(&mut self.outgoing, index)?.body;
        if body.is_empty() {
            *body = bytes;
        } else {
            body.extend_from_slice(&bytes);
        }
        Ok(())
    }

    pub(crate) fn drop_stream(&mut self, index: u32) -> Result<(), Stop> {
        self.step(index, Part::Streaming, Part::Streamed).map(drop)
    }

    /// The guest says that it has written all.
    pub(crate) fn finish(&mut self, index: u32) -> Result<Finished, Stop> {
        let outgoing = at(&mut self.outgoing, index)?;
        if outgoing.part == Part::Streaming {
            return Err(Stop::Misuse("a body was finished whose stream was not dropped"));
        }
        let length = outgoing.body.len() as u64;
        let says = |value: &Bytes| std::str::from_utf8(value).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let named = outgoing.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let whole = named.map(|(_, value)| says(value)).all(|said| said == Some(length));
        outgoing.part = if whole { Part::Finished } else { Part::Broken };
        self.tidy(index);
        Ok(if whole { Finished::Whole } else { Finished::Length(length) })
    }

    /// The guest has dropped the body without finishing it.
    pub(crate) fn drop_body(&mut self, index: u32) -> Result<(), Stop> {
        let outgoing = at(&mut self.outgoing, index)?;
        if outgoing.part == Part::Streaming {
            return Err(Stop::Misuse("a body was dropped whose stream was not dropped"));
        }
        outgoing.part = Part::Broken;
        self.tidy(index);
        Ok(())
    }

    pub(crate) fn drop_response(&mut self, index: u32) -> Result<(), Stop> {
        at(&mut self.outgoing, index)?.held = false;
        self.tidy(index);
        Ok(())
    }

    /// Frees a response that nobody holds and nobody gets.
    fn tidy(&mut self, index: u32) {
        if matches!(self.sent, Some(Sent::Response(sent)) if sent == index) {
            return;
        }
        if let Some(slot) = usize::try_from(index).ok().and_then(|index| self.outgoing.get_mut(index)) {
            let done = |one: &Outgoing| !one.held && matches!(one.part, Part::Untaken | Part::Finished | Part::Broken);
            slot.take_if(|one| done(one));
        }
    }

    /// The guest answers with a response.
    pub(crate) fn send(&mut self, index: u32) -> Result<(), Stop> {
        self.sent = Some(Sent::Response(index));
        at(&mut self.outgoing, index)?.held = false;
        Ok(())
    }

    /// The guest answers with an error code. Those that blame the request are for the client to mend.
    pub(crate) fn fail(&mut self, code: &str, words: Option<&str>) {
        let status = if code.starts_with("HTTP-request-") { 400 } else { 500 };
        let body = match words {
            Some(words) => format!("{code}: {words}"),
            None => code.to_owned(),
        };
        let headers = vec![("content-type".to_owned(), Bytes::from_static(b"text/plain"))];
        self.sent = Some(Sent::Error(Response { status, headers, body: body.into() }));
    }

    /// What was answered, once the handler has returned.
    pub(crate) fn end(&mut self) -> Result<Response, Stop> {
        let index = match self.sent.take() {
            None => return Err(Stop::Misuse("the handler ended without a response")),
            Some(Sent::Error(response)) => return Ok(response),
            Some(Sent::Response(index)) => index,
        };
        let Outgoing { status, headers, body, part, .. } = at(&mut self.outgoing, index)?;
        if !matches!(part, Part::Untaken | Part::Finished) {
            return Err(Stop::Misuse("the handler ended before the body of its response was finished"));
        }
        let headers = Arc::unwrap_or_clone(std::mem::take(headers));
        Ok(Response { status: *status, headers, body: std::mem::take(body).into() })
    }
}

/// No well-typed component has such a handle.
const GONE: Stop = Stop::Misuse("a handle of wasi:http that is not there");

fn put<T>(slots: &mut Vec<Option<T>>, value: T) -> Result<u32, Stop> {
    let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
    match slots.get_mut(free) {
        Some(slot) => *slot = Some(value),
        None => slots.push(Some(value)),
    }
    u32::try_from(free).map_err(|_| GONE)
}

fn at<T>(slots: &mut [Option<T>], index: u32) -> Result<&mut T, Stop> {
    let slot = usize::try_from(index).ok().and_then(|index| slots.get_mut(index));
    slot.and_then(Option::as_mut).ok_or(GONE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &'static str)]) -> Arc<Fields> {
        Arc::new(list.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes()))).collect())
    }

    #[test]
    fn a_body_goes_on_after_its_response_was_sent() {
        let mut exchange = Exchange::default();
        let response = exchange.respond(fields(&[("content-length", "3")])).unwrap();
        assert!(!exchange.set_status(response, 101).unwrap() && exchange.set_status(response, 201).unwrap());
        assert!(exchange.take_body(response).unwrap() && !exchange.take_body(response).unwrap());
        exchange.send(response).unwrap();
        assert!(exchange.take_stream(response).unwrap() && !exchange.take_stream(response).unwrap());
        for piece in ["a", "bc"] {
            exchange.write(response, piece.into()).unwrap();
        }
        exchange.drop_stream(response).unwrap();
        assert!(matches!(exchange.finish(response), Ok(Finished::Whole)));
        let answer = exchange.end().unwrap();
        assert_eq!((answer.status, &answer.body[..]), (201, &b"abc"[..]));
    }

    #[test]
    fn half_a_response_is_none() {
        let mut exchange = Exchange::default();
        assert!(exchange.end().unwrap_err().to_string().contains("without a response"));

        let response = exchange.respond(Arc::default()).unwrap();
        assert!(exchange.take_body(response).unwrap() && exchange.take_stream(response).unwrap());
        exchange.send(response).unwrap();
        assert!(exchange.finish(response).is_err() && exchange.drop_body(response).is_err());
        exchange.drop_stream(response).unwrap();
        exchange.drop_body(response).unwrap();
        assert!(exchange.end().unwrap_err().to_string().contains("finished"));

        let response = exchange.respond(fields(&[("Content-Length", "3")])).unwrap();
        assert!(exchange.take_body(response).unwrap());
        exchange.send(response).unwrap();
        assert!(matches!(exchange.finish(response), Ok(Finished::Length(0))));
        assert!(exchange.end().is_err());
    }

    #[test]
    fn what_nobody_holds_is_freed_but_for_what_was_sent() {
        let mut exchange = Exchange::default();
        for _ in 0..3 {
            let response = exchange.respond(Arc::default()).unwrap();
            assert!(exchange.take_body(response).unwrap());
            exchange.drop_response(response).unwrap();
            assert!(exchange.status(response).is_ok(), "its body is held");
            exchange.finish(response).unwrap();
            assert!(exchange.status(response).is_err());
        }
        let sent = exchange.respond(Arc::default()).unwrap();
        exchange.send(sent).unwrap();
        let other = exchange.respond(Arc::default()).unwrap();
        assert_ne!(sent, other);
        exchange.drop_response(other).unwrap();
        assert_eq!(exchange.outgoing.len(), 2);
        assert_eq!(exchange.end().unwrap().status, 200);
    }

    #[test]
    fn an_error_is_a_response_with_its_words() {
        let mut exchange = Exchange::default();
        exchange.fail("HTTP-request-denied", None);
        assert_eq!(exchange.end().unwrap().status, 400);
        exchange.fail("internal-error", Some("no disk"));
        let answer = exchange.end().unwrap();
        assert_eq!((answer.status, &answer.body[..]), (500, &b"internal-error: no disk"[..]));
    }
}
