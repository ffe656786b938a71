//! From an open socket to CONNACK: who is it, may it, and which session does it get.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holm_core::ClientId;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use crate::access::{Admission, Permissions};
use crate::attach::Attachment;
use crate::broker::Shared;
use crate::connection::Connection;
use crate::decode;
use crate::encode::{self, Welcome};
use crate::outbound::Wire;
use crate::packet::{Connect, Packet, Version, reason};
use crate::publish::{TOPIC_ALIASES, publish_will};
use crate::session::Link;
use crate::settlements::Settlements;
use crate::state::{Attached, Unattached};
use crate::stream::{Progress, Stream};
use crate::{Backend, Settled};

/// How long a new connection waits for the old one of the same client to settle and leave.
const TAKE_OVER_DEADLINE: Duration = Duration::from_secs(5);

/// Reads CONNECT and answers it. `None` when the connection came to nothing; the socket is closed then. The caller
/// bounds the time; cancelled at any point, the session is let go.
pub(crate) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Arc<Shared>,
    backend: &Arc<dyn Backend>,
    mut stream: Stream<S>,
    certificate: Option<&[u8]>,
) -> Option<(Connection, Stream<S>)> {
    let mut out = BytesMut::new();
    let connect = match read_connect(shared, &mut stream).await {
        Ok(connect) => connect?,
        Err(fault) => {
            debug!(reason = fault.reason, "not a CONNECT");
            if fault.reason == reason::UNSUPPORTED_VERSION {
                // In the form of the version that every client knows (MQTT 5.0, 3.1.2.2).
                encode::refusal(&mut out, Version::V3, fault.reason);
            }
            stream.close(&mut out).await;
            return None;
        }
    };
    let version = connect.version;
    match accept(shared, backend, *connect, certificate, &mut out).await {
        Ok(mut connection) => {
            connection.out = out;
            Some((connection, stream))
        }
        Err(code) => {
            debug!(code, "CONNECT refused");
            encode::refusal(&mut out, version, code);
            stream.close(&mut out).await;
            None
        }
    }
}

async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    shared: &Shared,
    stream: &mut Stream<S>,
) -> Result<Option<Box<Connect>>, decode::Fault> {
    let mut nothing = BytesMut::new();
    loop {
        match stream.progress(&mut nothing, true).await {
            Ok(Progress::Closed) | Err(_) => return Ok(None),
            Ok(Progress::Read | Progress::Wrote) => {}
        }
        match decode::next(&mut stream.input, None, shared.config.limits.max_packet_bytes)? {
            Some(Packet::Connect(connect)) => return Ok(Some(connect)),
            Some(_) => return Err(decode::Fault::PROTOCOL),
            None => {}
        }
    }
}

/// Everything between CONNECT and CONNACK, which is written to `out`; or the reason code of a refusal.
async fn accept(
    shared: &Arc<Shared>,
    backend: &Arc<dyn Backend>,
    connect: Connect,
    certificate: Option<&[u8]>,
    out: &mut BytesMut,
) -> Result<Connection, u8> {
    let limits = &shared.config.limits;
    let version = connect.version;
    let (client, assigned) = client_id(&connect)?;
    shared.gate.identify(&client, certificate)?;
    let user = match shared.gate.admit(connect.user.as_deref(), connect.password.as_deref()).await {
        Admission::Admitted(user) => user,
        Admission::BadCredentials => return Err(reason::BAD_CREDENTIALS),
        Admission::NotAuthorized => return Err(reason::NOT_AUTHORIZED),
    };
    let permissions = Permissions::new(&shared.config, &client, user.as_deref());
    if connect.will.as_ref().is_some_and(|will| !permissions.may_publish(&will.topic)) {
        // A will speaks for its client when that can no longer be asked, so its right is checked now.
        return Err(reason::NOT_AUTHORIZED);
    }
    let expiry = connect.expiry.min(limits.max_session_expiry.unwrap_or(u32::MAX));
    let (mut attached, attachment) = attach(shared, &client, connect.clean_start, expiry).await?;
    if attached.present {
        // A session goes by the name of its client alone, and another user may give the same one.
        let writes = shared.lock().confine(attachment.session, &permissions);
        if attachment.durable {
            attached.writes.extend(writes);
        }
    }
    // Again: from here on a kick finds the connection, and one that came before has found nothing.
    shared.gate.identify(&client, certificate)?;
    if let Some(ended) = attached.will.take() {
        publish_will(shared, backend, &client, ended.user, ended.will);
    }
    // CONNACK says "I have your session", so the store must have it first.
    if !attached.writes.is_empty()
        && let Settled::Waiting(committed) = backend.persist(attached.writes)
    {
        committed.await.ok().and_then(Result::ok).ok_or(reason::UNAVAILABLE)?;
    }
    let keep_alive = match version {
        Version::V5 if connect.keep_alive == 0 || connect.keep_alive > limits.max_keep_alive => limits.max_keep_alive,
        _ => connect.keep_alive,
    };
    let welcome = Welcome {
        session_present: attached.present,
        receive_maximum: limits.max_inflight_in,
        max_packet: limits.max_packet_bytes,
        topic_alias_maximum: TOPIC_ALIASES,
        assigned_client: assigned.then_some(&*client.0),
        keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        expiry: (expiry != connect.expiry).then_some(expiry),
    };
    encode::welcome(out, version, &welcome);
    backend.presence(&client);
    Ok(Connection {
        shared: shared.clone(),
        backend: backend.clone(),
        client,
        user,
        permissions,
        wire: Wire { version, max_packet: connect.max_packet, receive_maximum: connect.receive_maximum },
        attachment,
        settlements: Settlements::default(),
        settling: HashMap::new(),
        aliases: HashMap::new(),
        out: BytesMut::new(),
        ended: Vec::new(),
        will: connect.will,
        closed: false,
        // MQTT 5.0, 3.1.2.10: one and a half times.
        silence: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
    })
}

/// The client's identifier, and whether we made it up.
fn client_id(connect: &Connect) -> Result<(ClientId, bool), u8> {
    if !connect.client.is_empty() {
        return Ok((ClientId(connect.client.as_str().into()), false));
    }
    if connect.version == Version::V3 && !connect.clean_start {
        // A session that nobody can name again (MQTT 3.1.1, 3.1.3.1).
        return Err(reason::CLIENT_ID_INVALID);
    }
    let mut random = [0_u8; 12];
    SystemRandom::new().fill(&mut random).map_err(|_| reason::UNAVAILABLE)?;
    let mut name = String::from("auto-");
    for byte in random {
        let _ = write!(name, "{byte:02x}");
    }
    Ok((ClientId(name.into()), true))
}

/// Gets the session, from another connection if need be.
async fn attach(
    shared: &Arc<Shared>,
    client: &ClientId,
    clean_start: bool,
    expiry: u32,
) -> Result<(Attached, Attachment), u8> {
    let deadline = Instant::now() + TAKE_OVER_DEADLINE;
    let (gone, is_gone) = watch::channel(());
    let link = Arc::new(Link::new(is_gone));
    loop {
        let result = {
            let mut state = shared.lock();
            // Or the session would have expired by a time that was set a moment ago.
            shared.catch_jump(&mut state);
            state.attach(client, clean_start, expiry, &link, shared.now())
        };
        let other = match result {
            Ok(mut attached) => {
                let attachment = Attachment::new(shared.clone(), &mut attached, link, gone);
                return Ok((attached, attachment));
            }
            Err(Unattached::Full) => return Err(reason::QUOTA),
            Err(Unattached::Taken(other)) => other,
        };
        let mut is_gone = other.gone.clone();
        // The channel never carries a value; it closes. Until the old connection has settled what it was sent, a
        // resend could not be told from a new message, so a client that is too quick is told to come back.
        if timeout_at(deadline, is_gone.changed()).await.is_err() {
            return Err(reason::BUSY);
        }
    }
}
