//! A socket that counts its bytes: what a metered link is charged for, but for the headers of TCP and IP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes since start.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    fetched: AtomicU64,
}

impl Traffic {
    /// Bytes that the socket took.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes that it gave.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes, among both, of streams that only fetch files.
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }
}

/// A stream whose bytes are counted.
#[derive(Debug)]
pub struct Counted<S> {
    socket: S,
    traffic: Arc<Traffic>,
    fetches: bool,
}

impl<S> Counted<S> {
    /// Counts what goes through `socket` in `traffic`.
    pub fn new(socket: S, traffic: Arc<Traffic>) -> Self {
        Self { socket, traffic, fetches: false }
    }

    /// The same for a stream that only fetches files.
    pub fn fetching(socket: S, traffic: Arc<Traffic>) -> Self {
        Self { socket, traffic, fetches: true }
    }

    fn count(&self, of: &AtomicU64, bytes: usize) {
        of.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.fetches {
            self.traffic.fetched.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        let count = buffer.filled().len().saturating_sub(before);
        self.count(&self.traffic.received, count);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.count(&self.traffic.sent, count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
