//! A socket with its buffers: reads and writes as far as it goes, in one poll.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

/// The connection fills its output up to here, then waits for the socket to take some.
pub(crate) const FILL_TO: usize = 64 << 10;

/// What one read asks for at first, and at most. Idle connections stay small, busy ones get few large reads.
const READ_CHUNK: usize = 2 << 10;
const MAX_READ_CHUNK: usize = 64 << 10;

/// How long, and for how many bytes, we listen after the last word. Closing a socket with unread input makes the
/// kernel send a reset, and the peer may lose what we said last.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 256 << 10;

/// What happened on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Input arrived.
    Read,
    /// A full output got shorter.
    Wrote,
    /// The peer is gone.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stream<S> {
    io: S,
    pub(crate) input: BytesMut,
    chunk: usize,
    unflushed: bool,
    /// When the socket last took something.
    pub(crate) last_write: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, input: BytesMut::new(), chunk: READ_CHUNK, unflushed: false, last_write: Instant::now() }
    }

    /// Writes `output` and, if `read`, reads; returns when something happened that the connection must look at.
    /// Cancel safe: what was transferred is in the buffers.
    pub(crate) async fn progress(&mut self, output: &mut BytesMut, read: bool) -> io::Result<Progress> {
        let was_full = output.len() >= FILL_TO;
        poll_fn(|context| {
            let wrote = self.poll_write(output, context)?;
            if read && let Poll::Ready(progress) = self.poll_read(context)? {
                return Poll::Ready(Ok(progress));
            }
            if wrote && was_full { Poll::Ready(Ok(Progress::Wrote)) } else { Poll::Pending }
        })
        .await
    }

    fn poll_write(&mut self, output: &mut BytesMut, context: &mut Context<'_>) -> io::Result<bool> {
        let mut wrote = false;
        while !output.is_empty() {
            match Pin::new(&mut self.io).poll_write(context, output)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    output.advance(count);
                    (wrote, self.unflushed) = (true, true);
                }
                Poll::Pending => break,
            }
        }
        // TLS keeps records back until it is flushed.
        if self.unflushed && output.is_empty() && Pin::new(&mut self.io).poll_flush(context)?.is_ready() {
            self.unflushed = false;
        }
        if wrote {
            self.last_write = Instant::now();
            // A burst's buffer is given back.
            if output.is_empty() && output.capacity() > 2 * FILL_TO {
                *output = BytesMut::new();
            }
        }
        Ok(wrote)
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> io::Result<Poll<Progress>> {
        self.input.reserve(self.chunk);
        let before = self.input.len();
        let mut limited = (&mut self.input).limit(self.chunk);
        let read = pin!(self.io.read_buf(&mut limited)).poll(context)?;
        let Poll::Ready(count) = read else { return Ok(Poll::Pending) };
        if self.input.len() == before {
            return Ok(Poll::Ready(Progress::Closed));
        }
        if count == self.chunk {
            self.chunk = (self.chunk * 4).min(MAX_READ_CHUNK);
        }
        Ok(Poll::Ready(Progress::Read))
    }

    /// Writes the last words, ends our side, and listens for a moment.
    pub(crate) async fn close(mut self, output: &mut BytesMut) {
        let last_words = async {
            self.io.write_all_buf(output).await?;
            self.io.flush().await?;
            self.io.shutdown().await?;
            let mut left = LINGER_BYTES;
            while left > 0 {
                self.input.clear();
                match self.io.read_buf(&mut self.input).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            Ok::<(), io::Error>(())
        };
        // A peer that does not listen has lost its claim to a farewell.
        let _ = timeout(LINGER, last_words).await;
    }
}
