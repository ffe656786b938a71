//! Puts the control plane together, and ends it in order.
//!
//! # Order of the end
//!
//! The listeners stop taking, and what is on its way is settled and answered; then the records commit what is queued and close.
//! Whatever does not end in time is left: a crash at any point of this loses nothing that was acknowledged.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holm_mqtt::Clock;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api;
use crate::arrivals::Arrivals;
use crate::asks::Left;
use crate::authority::{Authority, Live, ServerIdentity, is_name};
use crate::blobs::Blobs;
use crate::bus::{Bus, local_address};
use crate::folder::Folder;
use crate::records::{Opened, Operator, Records, Role};
use crate::retention::Retention;
use crate::rollouts::Rollouts;
use crate::secret::Secret;
use crate::signing::Signing;
use crate::ui::Glance;
use crate::uplink::Uplink;
use crate::{CloudError, chain};

/// The longest that connections may take to end.
const DRAIN: Duration = Duration::from_secs(15);

/// How often it is looked whether the server's certificate ends.
const KEEPER_PERIOD: Duration = Duration::from_secs(3_600);

/// How the control plane is started.
pub struct Options {
    /// Its folder; made if absent.
    pub data: PathBuf,
    /// Where HTTPS is served. Port 0 takes any that is free.
    pub https: SocketAddr,
    /// Where MQTT is served. Port 0 takes any that is free.
    pub mqtt: SocketAddr,
    /// Names and addresses that devices and people know it by, beside `localhost`, the loopback addresses and the host's own
    /// name. The first one is what devices are told if they do not say how they came.
    pub names: Vec<String>,
    /// Makes another token for an operator, as the first start does.
    pub new_token: bool,
    /// The time of day.
    pub clock: Clock,
}

/// What is running now.
#[derive(Debug, Clone)]
pub struct Started {
    /// Where HTTPS is served.
    pub https: SocketAddr,
    /// Where MQTT is served.
    pub mqtt: SocketAddr,
    /// What the certificate of both is good for.
    pub names: Vec<String>,
    /// The root certificate's file.
    pub root: PathBuf,
    /// SHA-256 of the root certificate in DER, in hexadecimal.
    pub root_hash: String,
    /// A token for the API, if one was made: told here and nowhere else.
    pub token: Option<String>,
}

/// What the handlers of the API share.
pub(crate) struct Plane {
    pub(crate) records: Records,
    pub(crate) blobs: Arc<Blobs>,
    pub(crate) bus: Bus,
    pub(crate) uplink: Uplink,
    pub(crate) rollouts: Rollouts,
    pub(crate) retention: Retention,
    pub(crate) authority: Arc<Authority>,
    pub(crate) signing: Arc<Signing>,
    pub(crate) live: Arc<Live>,
    /// Who watches what comes from devices.
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) glance: Glance,
    pub(crate) left: Left,
    pub(crate) server: Arc<ServerIdentity>,
    pub(crate) clock: Clock,
    pub(crate) https_port: u16,
    pub(crate) mqtt_port: u16,
    /// Answers without an end of their own end with it.
    pub(crate) shutdown: watch::Receiver<bool>,
}

/// Runs until `shutdown` holds true or its sender is dropped. `ready` is called once when both listeners take connections.
///
/// Needs a tokio runtime with time and I/O; with several threads, handshakes run side by side.
pub async fn run(
    options: Options,
    mut shutdown: watch::Receiver<bool>,
    ready: impl FnOnce(&Started),
) -> Result<(), CloudError> {
    let now = (options.clock)();
    raise_file_limit();
    let folder = Folder::open(&options.data)?;
    let authority = Arc::new(Authority::open(&folder, now)?);
    let signing = Arc::new(Signing::open(&folder)?);
    let server = ServerIdentity::new(&authority, names(&options.names)?, now)?;
    let Opened { records, writer } = Opened::open(&folder.database())?;
    let blobs = Arc::new(Blobs::open(&folder.blobs())?);
    let writer = std::thread::Builder::new()
        .name("records".to_owned())
        .spawn(move || writer.run())
        .map_err(|error| CloudError::Broken { what: format!("cannot start the thread `records`: {error}") })?;
    let live = Arc::new(Live::default());
    for certificate in records.live_certificates().await? {
        live.add(certificate.fingerprint, &certificate.thing);
    }
    let bus = Bus::new(live.clone(), options.clock.clone())?;
    let (arrivals, rollouts) = (Arc::new(Arrivals::default()), Rollouts::default());
    let retention = Retention::default();
    let uplink = Uplink::new(records.clone(), bus.clone(), arrivals.clone(), rollouts.clone());
    let https = bind(options.https).await?;
    let mqtt = bind(options.mqtt).await?;
    let mut started = Started {
        https: local_address(&https, options.https)?,
        mqtt: local_address(&mqtt, options.mqtt)?,
        names: server.names().to_vec(),
        root: folder.authority("root.crt"),
        root_hash: authority.root_hash().hex(),
        token: None,
    };
    let plane = Arc::new(Plane {
        records: records.clone(),
        blobs,
        bus: bus.clone(),
        uplink: uplink.clone(),
        rollouts: rollouts.clone(),
        retention: retention.clone(),
        authority: authority.clone(),
        signing: signing.clone(),
        live,
        arrivals,
        glance: Glance::default(),
        left: Left::default(),
        server: server.clone(),
        clock: options.clock.clone(),
        https_port: started.https.port(),
        mqtt_port: started.mqtt.port(),
        shutdown: shutdown.clone(),
    });
    let mut tasks = JoinSet::new();
    let (https_tls, mqtt_tls) = (Arc::new(server.https()?), Arc::new(server.mqtt(&authority)?));
    tasks.spawn(api::serve(https, https_tls, plane, shutdown.clone()));
    let (clock, stop) = (options.clock.clone(), shutdown.clone());
    tasks.spawn(rollouts.run(records.clone(), signing.clone(), uplink.clone(), clock, stop));
    tasks.spawn(retention.run(records.clone(), options.clock.clone(), shutdown.clone()));
    let stop = shutdown.clone();
    tasks.spawn(async move { bus.serve(mqtt, mqtt_tls, uplink, stop).await });
    tasks.spawn(keep(server, authority, options.clock.clone(), shutdown.clone()));
    tasks.spawn(keep_repository(records.clone(), signing, options.clock, shutdown.clone()));
    if options.new_token || !records.has_operators().await? {
        let token = Secret::make()?;
        let admin = Operator { name: "admin".to_owned(), role: Role::Admin };
        match records.add_operator(token.hash(), admin, String::new(), now).await? {
            Ok(()) => {}
            Err(_) => return Err(CloudError::Broken { what: "there are too many operators' tokens".to_owned() }),
        }
        started.token = Some(token.text().to_owned());
    }
    ready(&started);
    // Biased: at the end, tasks may be over before this one is asked.
    let early = tokio::select! {
        biased;
        () = stopping(&mut shutdown) => None,
        ended = tasks.join_next() => Some(ended),
    };
    let result = match early {
        None => drain(tasks).await,
        // Tasks end only at shutdown; one that ends before has panicked, and the rest must not limp on.
        Some(ended) => {
            let why = ended.and_then(Result::err).map_or_else(|| "it returned".to_owned(), |error| error.to_string());
            tasks.shutdown().await;
            Err(CloudError::Broken { what: format!("a task ended early: {why}") })
        }
    };
    records.close();
    let joined = tokio::task::spawn_blocking(move || writer.join()).await;
    match joined {
        Ok(Ok(())) => result,
        _ => Err(CloudError::Broken { what: "the records' writer panicked".to_owned() }),
    }
}

async fn drain(mut tasks: JoinSet<()>) -> Result<(), CloudError> {
    tracing::info!("draining");
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task panicked");
            }
        }
    };
    if tokio::time::timeout(DRAIN, all).await.is_err() {
        tracing::warn!("some connections did not end in time");
        tasks.shutdown().await;
    }
    Ok(())
}

/// Without the guard that `wait_for` answers with, which must not live across an await.
pub(crate) async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Looks after what runs out. Ends at shutdown.
async fn keep(
    server: Arc<ServerIdentity>,
    authority: Arc<Authority>,
    clock: Clock,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            () = stopping(&mut shutdown) => return,
            () = tokio::time::sleep(KEEPER_PERIOD) => {}
        }
        if let Err(error) = server.renew(&authority, clock()) {
            tracing::error!(error = chain(&error), "cannot renew this server's certificate");
        }
    }
}

/// Signs the code repository's timestamp anew when it is time, by what is stored: at the start and then every so often. Ends at
/// shutdown.
async fn keep_repository(records: Records, signing: Arc<Signing>, clock: Clock, mut shutdown: watch::Receiver<bool>) {
    loop {
        match records.refresh_repository(signing.clone(), clock()).await {
            Ok(true) => tracing::info!("the code repository's timestamp is signed anew"),
            Ok(false) => {}
            Err(error) => tracing::error!(error = chain(&error), "cannot sign the code repository's timestamp"),
        }
        tokio::select! {
            () = stopping(&mut shutdown) => return,
            () = tokio::time::sleep(KEEPER_PERIOD) => {}
        }
    }
}

/// The names that were given, then those that every machine has.
fn names(given: &[String]) -> Result<Vec<String>, CloudError> {
    let bad: Vec<&str> = given.iter().map(String::as_str).filter(|name| !is_name(name)).collect();
    if !bad.is_empty() {
        let what = format!("neither names of hosts nor addresses: {}", bad.join(", "));
        return Err(CloudError::Broken { what });
    }
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let usual = [host.as_str(), "localhost", "127.0.0.1", "::1"].into_iter().filter(|name| is_name(name));
    let mut names = given.to_vec();
    for name in usual {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CloudError> {
    TcpListener::bind(address).await.map_err(|source| CloudError::Listen { address, source })
}

/// Each device is a socket, and the usual limit of 1,024 is for programs that have few.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "cannot raise the limit of open files");
    }
}
