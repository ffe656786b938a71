//! A stream that writes when its reader has nothing left to read.
//!
//! The client library flushes after every acknowledgement of ours, which would be a system call and a packet each. What it
//! flushes waits here until it asks for input and there is none, which it does whenever it has done all it can.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What waits at most, in bytes, before it is written all the same.
const LIMIT: usize = 16 << 10;

/// See the module.
pub(super) struct Cork<S> {
    stream: S,
    waiting: BytesMut,
    /// Nobody will ask for input any more: a flush is a flush.
    pulled: Arc<AtomicBool>,
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    pub(super) fn new(stream: S, pulled: Arc<AtomicBool>) -> Self {
        Self { stream, waiting: BytesMut::new(), pulled }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    /// Ready when there is room for more.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.len() < LIMIT { Poll::Ready(Ok(())) } else { self.poll_drain(context) }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Cork<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(context, buffer);
        if read.is_pending()
            && let Poll::Ready(Err(error)) = this.poll_drain(context)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Cork<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_room(context))?;
        this.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_room(context))?;
        for slice in slices {
            this.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.pulled.load(Ordering::Relaxed) {
            ready!(this.poll_drain(context))?;
            return Pin::new(&mut this.stream).poll_flush(context);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    /// What has come through.
    fn arrived(peer: &mut DuplexStream) -> Vec<u8> {
        let mut all = vec![0; 64 << 10];
        let read = peer.read(&mut all).now_or_never().map_or(0, Result::unwrap);
        all.truncate(read);
        all
    }

    fn corked(capacity: usize) -> (Cork<DuplexStream>, DuplexStream, Arc<AtomicBool>) {
        let pulled = Arc::new(AtomicBool::new(false));
        let (stream, peer) = duplex(capacity);
        (Cork::new(stream, pulled.clone()), peer, pulled)
    }

    #[tokio::test]
    async fn what_is_flushed_leaves_when_there_is_nothing_to_read() {
        let (mut cork, mut peer, _) = corked(1 << 20);
        let mut byte = [0; 1];
        peer.write_all(b"x").await.unwrap();
        for part in [b"one", b"two"] {
            cork.write_all(part).await.unwrap();
            cork.flush().await.unwrap();
        }
        cork.read_exact(&mut byte).await.unwrap();
        assert_eq!(arrived(&mut peer), b"");
        assert!(cork.read_exact(&mut byte).now_or_never().is_none());
        assert_eq!(arrived(&mut peer), b"onetwo");
    }

    #[tokio::test]
    async fn what_is_much_leaves_at_once_and_in_order() {
        let (mut cork, mut peer, _) = corked(1 << 20);
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * LIMIT).collect();
        for part in bytes.chunks(1000) {
            cork.write_all(part).await.unwrap();
        }
        let first = arrived(&mut peer);
        assert!(first.len() >= LIMIT);
        cork.shutdown().await.unwrap();
        let rest = arrived(&mut peer);
        assert_eq!([first, rest].concat(), bytes);
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_the_writer_up() {
        let (mut cork, _peer, _) = corked(1);
        let written = (0..1000).take_while(|_| cork.write_all(&[0; 1000]).now_or_never().is_some()).count();
        assert!(written <= LIMIT / 1000 + 2, "{written} kB");
    }

    #[tokio::test]
    async fn without_the_cork_a_flush_is_a_flush() {
        let (mut cork, mut peer, pulled) = corked(1 << 20);
        pulled.store(true, Ordering::Relaxed);
        cork.write_all(b"bye").await.unwrap();
        cork.flush().await.unwrap();
        assert_eq!(arrived(&mut peer), b"bye");
    }
}
