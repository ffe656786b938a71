//! The listener: one task for each connection, and a keeper for what no connection does.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, warn};

use crate::broker::Shared;
use crate::connect::handshake;
use crate::publish::publish_will;
use crate::retained::Correction;
use crate::stream::Stream;
use crate::{Backend, Broker};

/// Sessions, wills and retained messages end within this time of their due time.
const KEEPER_PERIOD: Duration = Duration::from_secs(1);

/// Accept fails when file descriptors run out; trying again at once would only burn the processor.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What connections get to settle and say goodbye when the node stops: their own deadlines, and a little more. Those
/// that still wait for a commit then are ended; what is committed later is in the store, with its packet id.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(12);

impl Broker {
    /// Serves MQTT on `listener` until `shutdown` holds true or its sender is dropped, with TLS if there is a
    /// configuration for it. Several listeners may serve one broker.
    ///
    /// On shutdown it stops reading, acknowledges what is settled within a deadline, tells MQTT 5 clients that the
    /// server is shutting down, and returns when every connection has ended. Every task is owned by this future:
    /// dropping it aborts them, which is safe but says goodbye to nobody.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        backend: Arc<dyn Backend>,
        mut shutdown: watch::Receiver<bool>,
    ) {
        let tls = tls.map(TlsAcceptor::from);
        let mut connections = JoinSet::new();
        let mut period = interval(KEEPER_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let limit = self.shared.config.limits.max_connections;
        let mut listening = true;
        loop {
            tokio::select! {
                () = stopping(&mut shutdown) => break,
                Some(ended) = connections.join_next() => report(&self.shared, ended),
                _ = period.tick() => {
                    self.keep(&backend);
                    listening = true;
                }
                () = self.shared.keeper.notified() => self.keep(&backend),
                accepted = accept(&listener, listening) => match accepted {
                    Ok(_) if connections.len() >= limit => {
                        // Closing is all the answer there is before CONNECT.
                        debug!(limit, "too many connections");
                    }
                    Ok(socket) => {
                        let (shared, backend, tls) = (self.shared.clone(), backend.clone(), tls.clone());
                        connections.spawn(connection(shared, backend, tls, socket, shutdown.clone()));
                    }
                    Err(error) => {
                        warn!(%error, "accepting a connection failed");
                        listening = false;
                    }
                },
            }
        }
        drop(listener);
        let all = async {
            while let Some(ended) = connections.join_next().await {
                report(&self.shared, ended);
            }
        };
        if timeout(SHUTDOWN_DEADLINE, all).await.is_err() {
            warn!(left = connections.len(), "connections did not end in time");
            connections.shutdown().await;
        }
        self.keep(&backend);
    }

    /// Ends what is past its time, publishes the wills that are due, and writes what nobody waits for.
    fn keep(&self, backend: &Arc<dyn Backend>) {
        let (wills, mut loose, corrections) = {
            let mut state = self.shared.lock();
            self.shared.catch_jump(&mut state);
            let now = self.shared.now();
            (state.expire(now), std::mem::take(&mut state.loose), state.retained.corrections())
        };
        loose.extend(corrections.iter().map(Correction::write));
        if !loose.is_empty() {
            // If this is lost the store has rows too many, which the next run delivers or expires.
            let _ = backend.persist(loose);
        }
        if !corrections.is_empty() {
            self.shared.lock().retained.corrected(corrections);
        }
        for (client, delayed) in wills {
            publish_will(&self.shared, backend, &client, delayed.user, delayed.will);
        }
    }
}

async fn accept(listener: &TcpListener, listening: bool) -> io::Result<TcpStream> {
    if !listening {
        sleep(ACCEPT_BACKOFF).await;
    }
    Ok(listener.accept().await?.0)
}

/// A panic in a connection ends that connection alone; its session was let go while it unwound.
fn report(shared: &Shared, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        shared.panics.fetch_add(1, Ordering::Relaxed);
        error!(%error, "a connection's task panicked");
    }
}

/// Counts open sockets, however their tasks end.
struct Socket(Arc<Shared>);

impl Socket {
    fn open(shared: Arc<Shared>) -> Self {
        shared.sockets.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(
    shared: Arc<Shared>,
    backend: Arc<dyn Backend>,
    tls: Option<TlsAcceptor>,
    socket: TcpStream,
    shutdown: watch::Receiver<bool>,
) {
    let _open = Socket::open(shared.clone());
    // Without it, an acknowledgement behind a message waits 40 ms for the peer's delayed ACK.
    if let Err(error) = socket.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let deadline = Instant::now() + shared.config.limits.connect_timeout;
    match tls {
        None => converse(&shared, &backend, socket, None, deadline, shutdown).await,
        Some(acceptor) => match timeout_at(deadline, acceptor.accept(socket)).await {
            Ok(Ok(socket)) => {
                let certificate = shared.gate.wants_certificates().then(|| peer_certificate(&socket)).flatten();
                converse(&shared, &backend, socket, certificate, deadline, shutdown).await;
            }
            Ok(Err(error)) => debug!(%error, "TLS handshake failed"),
            Err(_) => debug!("TLS handshake timed out"),
        },
    }
}

/// The client's own certificate, without those that vouch for it.
fn peer_certificate(socket: &TlsStream<TcpStream>) -> Option<Box<[u8]>> {
    Some(socket.get_ref().1.peer_certificates()?.first()?.as_ref().into())
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    backend: &Arc<dyn Backend>,
    socket: S,
    certificate: Option<Box<[u8]>>,
    deadline: Instant,
    mut shutdown: watch::Receiver<bool>,
) {
    let handshake = timeout_at(deadline, handshake(shared, backend, Stream::new(socket), certificate.as_deref()));
    let shaken = tokio::select! {
        shaken = handshake => shaken,
        () = stopping(&mut shutdown) => return,
    };
    drop(certificate);
    match shaken {
        Ok(Some((connection, stream))) => connection.run(stream, shutdown).await,
        Ok(None) => {}
        Err(_) => debug!("no CONNECT in time"),
    }
}

/// Without the guard that `wait_for` answers with, which must not live across an await.
pub(crate) async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}
