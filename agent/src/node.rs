//! The supervisor: starts every task and thread, says when the node is ready, and ends everything in order.
//!
//! # Order of the end
//!
//! The broker stops reading and acknowledges what settles meanwhile; then the workers run dry and the feeder parks what
//! is left; then the board's outputs are made safe and its threads end; then the store commits what is queued and closes; then the exit is marked clean. Whatever does not end in
//! time is left: a crash at any point of this loses nothing that was acknowledged.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use holm_boards::Health;
use holm_cloud_sync::Cloud;
use holm_mqtt::{Broker, BrokerConfig, ExternalClient, ExternalConfig};
use holm_runtime::{Engine, EngineOptions, Profile, WASM_STACK};
use holm_store::{OpenOptions, Opened, OutboxCaps, Reading, Store};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::board::Attached;
use crate::breadcrumb::Blame;
use crate::config::{Config, External, ExternalTls, Http, Mode, Tls};
use crate::controls::{Controls, Outside};
use crate::deploy::{Deployer, chain};
use crate::dispatch::{Dispatcher, LocalLane, MAX_DEPTH, Node, Settings, Street, Worker};
use crate::letters::Letters;
use crate::rehearsal::Rehearsal;
use crate::traps::Traps;
use crate::triggers::file::{self, Folders};
use crate::triggers::http::{self, Door};
use crate::upgrade::Upgrade;
use crate::{admin, board, clock, notify, triggers};

/// After this long without a crash, whatever was running at the last ones is not to blame.
const FORGIVE_AFTER: Duration = Duration::from_secs(60);

/// How often the node looks whether all of it still runs, at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The longest a drain may take; then the inbox has what is left.
const DRAIN: Duration = Duration::from_secs(15);

/// An agent on trial that has heard nothing of the control plane for so many times of what counts as gone is given up: its reconciler
/// does that earlier, where it gets as far as to run.
const UNHEARD: u32 = 6;

/// The stacks of threads that run guests, who invoke each other on them. Address space: what is not used costs nothing.
const WORKER_STACK: usize = 3 << 20;

/// What the host's own calls need of such a stack, below the first guest, between two, and above the last.
const HOST_STACK: usize = 1 << 20;

// A guest that recurses must meet its own limit, which is a trap, and never the end of the thread's stack, which is the
// end of the node.
const _: () = assert!((MAX_DEPTH + 1) * WASM_STACK + HOST_STACK <= WORKER_STACK);

/// Why a node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Another agent is to take over.
    Replaced,
}

/// Runs the node until SIGTERM or SIGINT, or until another agent is to take over.
pub async fn run(config: Config, upgrade: Arc<Upgrade>) -> anyhow::Result<Ended> {
    let (shutdown, stopped) = watch::channel(false);
    // Before anybody is told that the node is ready: who stops it at once must get a clean end.
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let mut cut = config.stage.tether.then(tether).transpose()?;
    let mut node = Running::start(&config, &upgrade, stopped).await?;
    if let Some(board) = &mut node.board {
        board.guard.watch().context("the board's watchdog cannot be used")?;
    }
    node.announce(&config);
    let watchdog = [notify::watchdog_period(), node.board.as_ref().and_then(|board| board.guard.period())];
    let watchdog = watchdog.into_iter().flatten().min();
    let look = watchdog.map_or(LOOK_EVERY, |watchdog| watchdog.min(LOOK_EVERY));
    let forgive = tokio::time::sleep(FORGIVE_AFTER);
    tokio::pin!(forgive);
    let mut forgiven = false;
    let hears_by = Instant::now() + config.cloud.settings().ack_timeout * UNHEARD;
    let ended = loop {
        let look = tokio::time::sleep(look);
        tokio::select! {
            _ = terminate.recv() => break Ended::Stopped,
            _ = interrupt.recv() => break Ended::Stopped,
            Some(_) = async { Some(cut.as_mut()?.await) } => break Ended::Stopped,
            () = upgrade.called() => break Ended::Replaced,
            () = look => {
                // Threads end only at the end; one that ends before has panicked, and what it did nobody does any more.
                if let Some(name) = node.ended_thread() {
                    anyhow::bail!("the thread `{name}` of the node ended early");
                }
                notify::watchdog();
                if let Some(board) = &mut node.board {
                    board.guard.feed();
                }
                if Instant::now() > hears_by && upgrade.trial().is_some() && !node.is_heard() {
                    let why = "it runs, and its link to the control plane does not";
                    tracing::error!(why, "this agent is on trial: the one before takes over");
                    if let Err(error) = upgrade.give_up(why) {
                        tracing::error!(error = format!("{error:#}"), "the agent before this one cannot be called");
                    }
                }
            }
            () = &mut forgive, if !forgiven => {
                forgiven = true;
                if let Err(error) = node.blame.forgive() {
                    tracing::warn!(%error, "cannot clear the record of unclean exits");
                }
            }
            Some(ended) = node.tasks.join_next() => {
                // Tasks end only at shutdown; one that ends before has panicked, and the node must not limp on.
                let cause = ended.err().map_or_else(|| "it returned".to_owned(), |error| error.to_string());
                anyhow::bail!("a task of the node ended early: {cause}");
            }
        }
    };
    if ended == Ended::Stopped {
        // Else it goes on, for the service manager.
        notify::stopping();
    }
    tracing::info!("draining");
    let _ = shutdown.send(true);
    node.drain().await?;
    Ok(ended)
}

/// Told when stdin ends. The thread that waits for it has nothing to clean up, and is left at the end.
pub(crate) fn tether() -> anyhow::Result<oneshot::Receiver<()>> {
    let (cut, told) = oneshot::channel();
    thread("tether", 64 << 10, move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = cut.send(());
    })?;
    Ok(told)
}

/// Everything that runs.
struct Running {
    tasks: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Of the records of traps.
    keeper: Option<std::thread::JoinHandle<()>>,
    writer: std::thread::JoinHandle<()>,
    ticker: (holm_runtime::TickerHandle, std::thread::JoinHandle<()>),
    dispatcher: Arc<Dispatcher>,
    store: Store,
    blame: Blame,
    addresses: Addresses,
    board: Option<Attached>,
    cloud: Option<Cloud>,
    _lock: std::fs::File,
}

#[derive(Debug, Clone, Default)]
struct Addresses {
    mqtt: Option<SocketAddr>,
    mqtts: Option<SocketAddr>,
    external: Option<String>,
    http: Option<SocketAddr>,
}

impl Running {
    async fn start(config: &Config, upgrade: &Arc<Upgrade>, stopped: watch::Receiver<bool>) -> anyhow::Result<Self> {
        let rehearses = config.stage.clock.is_some();
        if let Some(at) = config.stage.clock {
            // Before anybody has asked what time it is.
            clock::stand_still(at);
        }
        // First of all, so that outputs are safe while the rest starts.
        let board = board::attach(config)?;
        let mut options = OpenOptions::new(&config.data);
        options.caps = OutboxCaps { bytes: config.store.outbox, ..OutboxCaps::default() };
        options.dedupe_window = config.store.dedupe_window;
        options.max_bytes(config.store.database);
        let Opened { store, writer, recovery, lock } = options.open().context("cannot open the store")?;
        if let Some(recovery) = recovery {
            tracing::error!(
                reason = recovery.reason, kept = %recovery.quarantined.display(), rows_saved = recovery.rows_saved,
                incomplete = recovery.incomplete.join(", "),
                "the database was damaged; it was set aside and what could be read was carried over"
            );
        }
        let blame = Blame::open(&config.data).context("cannot keep the record of exits")?;
        if blame.unclean {
            tracing::warn!(strikes = ?blame.strikes, "the last exit was not clean");
        }
        let writer = match rehearses {
            // Or what is written would be as old as the clocks are apart.
            true => writer.with_clock(|| Reading { wall: clock::now().0, uptime: clock::steady() }),
            false => writer,
        };
        let writer = thread("store", 512 << 10, move || writer.run())?;
        let (street, client) = street(config, &store)?;
        let settings = Settings {
            park_after: config.functions.park_after,
            max_hops: config.functions.max_hops,
            inbox_rows: config.store.inbox_rows,
            memory: config.functions.memory,
            tape: config.stage.tape,
            record: config.functions.record,
        };
        let (traps, keeper) = Traps::new(&config.data, &config.device, config.functions.traps);
        let controls = Controls::new(board.as_ref().map(|board| board.hardware.clone()), config.board.clone());
        let outside = Outside { folders: config.folders.keys().cloned().collect(), http: config.http.is_some() };
        let controls = controls.with(outside);
        let controls = Arc::new(if rehearses { controls.rehearse() } else { controls });
        let dispatcher = Arc::new(Dispatcher::new(store.clone(), street.clone(), controls.clone(), traps, settings)?);
        // Before there are functions, so that none misses the first reading.
        controls.listen(&dispatcher);
        let workers = config.functions.workers;
        // A slot reserves 64 MiB of address space, of which a 32-bit machine has 3 GiB.
        let most = if cfg!(target_pointer_width = "32") { 16 } else { u32::MAX };
        let slots = u32::try_from(workers * 8).unwrap_or(u32::MAX).min(most);
        let engine_options = EngineOptions { device: config.device.clone(), slots, ..EngineOptions::default() };
        let engine = Engine::new(Profile::host(), &engine_options).context("cannot start the function engine")?;
        let ticker = engine.ticker();
        let handle = ticker.handle();
        let ticker = (handle, thread("epoch", 128 << 10, move || ticker.run())?);
        let quarantine: Vec<String> = blame
            .strikes
            .iter()
            .filter(|(_, strikes)| {
                config.functions.quarantine_after > 0 && **strikes >= config.functions.quarantine_after
            })
            .map(|(name, _)| name.clone())
            .collect();
        let deployer =
            Deployer::restore(&config.data, engine, dispatcher.clone(), config.functions.clone(), &quarantine)
                .await
                .context("cannot restore the deployed functions")?;
        let deployer = Arc::new(deployer);
        let mut threads = Vec::new();
        for index in 0..workers {
            let worker = Worker::new(dispatcher.clone(), blame.breadcrumb(index))?;
            threads.push(thread(&format!("guest-{index}"), WORKER_STACK, move || worker.run())?);
        }
        let feeder = dispatcher.clone();
        threads.push(thread("feeder", 512 << 10, move || feeder.feed())?);
        let mut tasks = JoinSet::new();
        let mut addresses = Addresses::default();
        let backend = Arc::new(Node(dispatcher.clone()));
        if let Street::Embedded(broker) = &street {
            if let Some(listen) = config.mqtt.listen {
                let listener = bind(listen).await?;
                addresses.mqtt = Some(listener.local_addr()?);
                let (broker, backend, stopped) = (broker.clone(), backend.clone(), stopped.clone());
                tasks.spawn(async move { broker.serve(listener, None, backend, stopped).await });
            }
            if let Some(tls) = &config.mqtt.tls {
                let acceptor = tls_config(tls)?;
                let listener = bind(tls.listen).await?;
                addresses.mqtts = Some(listener.local_addr()?);
                let (broker, backend, stopped) = (broker.clone(), backend.clone(), stopped.clone());
                tasks.spawn(async move { broker.serve(listener, Some(acceptor), backend, stopped).await });
            }
        }
        if let (Street::External(external), Some(client)) = (&street, client) {
            addresses.external = Some(external.address());
            // Nobody waits for the connection: a node without a network is a node.
            tasks.spawn(client.run(backend, Arc::new(LocalLane(store.clone())), stopped.clone()));
        }
        let socket = admin::bind(&config.data).context("cannot open the admin socket")?;
        let (check, mut stop) = (deployer.clone(), stopped.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = check.check() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            // A task that ends before the node does counts as a panic.
            let _ = stop.wait_for(|stop| *stop).await;
        });
        let letters = Arc::new(Letters::new(dispatcher.clone()));
        let cloud = config.cloud.enabled.then(|| {
            let (handle, link, answerer) = crate::cloud::link(config, &dispatcher, &deployer, &letters, upgrade);
            tasks.spawn(answerer.run(stopped.clone()));
            tasks.spawn(crate::cloud::run(link, stopped.clone()));
            handle
        });
        let keeper = keeper.map(|keeper| {
            let (store, cloud) = (store.clone(), cloud.clone().filter(|_| config.cloud.traps));
            thread("traps", 512 << 10, move || keeper.run(&store, cloud.as_ref()))
        });
        let keeper = keeper.transpose()?;
        let folders = Arc::new(Folders::new(config.folders.clone()));
        for (folder, path) in &config.folders {
            if path.starts_with(&config.data) {
                std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder `{folder}`"))?;
            }
        }
        if !config.folders.is_empty() {
            tasks.spawn(file::run(dispatcher.clone(), folders.clone(), stopped.clone()));
        }
        let door = config.http.as_ref().map(|http| door(http, &dispatcher)).transpose()?;
        if let (Some(http), Some(door)) = (&config.http, &door) {
            let listener = bind(http.listen).await?;
            addresses.http = Some(listener.local_addr()?);
            tasks.spawn(http::serve(listener, door.clone(), stopped.clone()));
        }
        let rehearsal = rehearses.then(|| {
            let sim = board.as_ref().and_then(|board| board.sim.clone());
            Arc::new(Rehearsal::new(dispatcher.clone(), sim, folders, door, workers))
        });
        let state = admin::State::new(deployer, dispatcher.clone(), letters, config.device.clone(), cloud.clone());
        tasks.spawn(admin::serve(socket, state.rehearse(rehearsal), stopped.clone()));
        if !rehearses {
            tasks.spawn(triggers::schedule::run(dispatcher.clone(), stopped));
        }
        triggers::lifecycle(&dispatcher, "start", None);
        Ok(Self {
            tasks,
            threads,
            keeper,
            writer,
            ticker,
            dispatcher,
            store,
            blame,
            addresses,
            board,
            cloud,
            _lock: lock,
        })
    }

    /// Whether the control plane has answered.
    fn is_heard(&self) -> bool {
        self.cloud.as_ref().is_some_and(Cloud::has_answered)
    }

    /// A thread that has ended.
    fn ended_thread(&self) -> Option<String> {
        let others = [&self.writer, &self.ticker.1];
        let ended = self.threads.iter().chain(others).find(|thread| thread.is_finished())?;
        Some(ended.thread().name().unwrap_or_default().to_owned())
    }

    /// One JSON line on stdout, and systemd's READY=1.
    fn announce(&self, config: &Config) {
        let line = serde_json::json!({
            "event": "ready",
            "mqtt": self.addresses.mqtt.map(|address| address.to_string()),
            "mqtts": self.addresses.mqtts.map(|address| address.to_string()),
            "external": self.addresses.external,
            "http": self.addresses.http.map(|address| address.to_string()),
            "admin": config.data.join(admin::SOCKET),
            "functions": self.dispatcher.active().slots.len(),
            "pid": std::process::id(),
        });
        // Whoever started us may have closed the pipe.
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
        notify::ready();
        if let Some(board) = &self.board {
            board.guard.show(Health::Running);
        }
        tracing::info!(mqtt = ?self.addresses.mqtt, data = %config.data.display(), "ready");
    }

    async fn drain(mut self) -> anyhow::Result<()> {
        // It takes longer than a watchdog may wait.
        if let Some(board) = &mut self.board {
            board.guard.rest();
        }
        // Or a sensor that is read often would keep the workers from running dry.
        self.dispatcher.controls.hush();
        let tasks = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    tracing::error!(%error, "a task panicked");
                }
            }
        };
        if tokio::time::timeout(DRAIN, tasks).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        self.dispatcher.drain();
        let threads = std::mem::take(&mut self.threads);
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread panicked");
                }
            }
        });
        if tokio::time::timeout(DRAIN, ended).await.is_err() {
            tracing::warn!("some functions did not end in time; their events are in the inbox");
        }
        // After the functions, which may use it until then; whatever became of them.
        if let Some(mut board) = self.board.take() {
            let ended = tokio::task::spawn_blocking(move || board.detach());
            if tokio::time::timeout(DRAIN, ended).await.is_err() {
                tracing::warn!("a bus of the board did not answer in time");
            }
        }
        // After the functions, whose traps it keeps, and before the store, which it hands them to.
        if let Some(keeper) = self.keeper.take() {
            let dispatcher = self.dispatcher.clone();
            let ended = tokio::task::spawn_blocking(move || {
                dispatcher.traps.close();
                keeper.join().is_ok()
            });
            if !matches!(tokio::time::timeout(DRAIN, ended).await, Ok(Ok(true))) {
                tracing::warn!("the records of the last traps may be lost");
            }
        }
        self.store.close();
        if self.writer.join().is_err() {
            anyhow::bail!("the store's writer panicked");
        }
        let (handle, thread) = self.ticker;
        handle.stop();
        if thread.join().is_err() {
            tracing::error!("the epoch thread panicked");
        }
        self.blame.clean_exit().context("cannot mark the exit as clean")?;
        let counters = &self.dispatcher.counters;
        tracing::info!(events = counters.events.load(Ordering::Relaxed), "ended");
        Ok(())
    }
}

/// The way in for requests.
fn door(http: &Http, dispatcher: &Arc<Dispatcher>) -> anyhow::Result<Arc<Door>> {
    let token = match &http.token_file {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let token = text.trim_ascii_end().to_vec();
            anyhow::ensure!(!token.is_empty(), "{} holds no token", path.display());
            Some(token)
        }
        None => None,
    };
    Ok(Arc::new(Door::new(dispatcher.clone(), http.clone(), token)))
}

/// The way to local clients, and the task behind it if it needs one.
fn street(config: &Config, store: &Store) -> anyhow::Result<(Street, Option<ExternalClient>)> {
    let mqtt = &config.mqtt;
    let mut restored = store.broker().context("cannot restore the broker")?;
    if let (Mode::External, Some(external)) = (mqtt.mode, &mqtt.external) {
        let client_config = external_config(external, config)?;
        let (handle, client) = ExternalClient::new(client_config, &restored, Arc::new(clock::now));
        return Ok((Street::External(handle), Some(client)));
    }
    holm_mqtt::leave_out(&mut restored);
    let broker_config = BrokerConfig {
        anonymous: mqtt.users.is_empty(),
        users: mqtt.users.clone(),
        acl: mqtt.acl.clone(),
        limits: mqtt.limits.clone(),
        // A clock that is set by hand goes forward as time does.
        uptime: config.stage.clock.is_none().then_some(clock::uptime),
        ..BrokerConfig::default()
    };
    Ok((Street::Embedded(Broker::new(broker_config, restored, Arc::new(clock::now))), None))
}

fn external_config(external: &External, config: &Config) -> anyhow::Result<ExternalConfig> {
    let password = match &external.password_file {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.trim_ascii_end().to_vec()
        }
        None => Vec::new(),
    };
    Ok(ExternalConfig {
        host: external.host.clone(),
        port: external.port,
        client_id: external.client_id.clone().unwrap_or_else(|| format!("holm-{}", config.device)),
        credentials: external.user.clone().map(|user| (user, password.into())),
        tls: external.tls.as_ref().map(external_tls).transpose()?,
        max_inflight: external.max_inflight,
        keep_alive: external.keep_alive,
        session_expiry: external.session_expiry,
        max_packet: config.mqtt.limits.max_packet_bytes,
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn thread(
    name: &str,
    stack: usize,
    body: impl FnOnce() + Send + 'static,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(stack)
        .spawn(body)
        .with_context(|| format!("cannot start the thread `{name}`"))
}

fn tls_config(tls: &Tls) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let (chain, key) = (certificates(&tls.certificate)?, private_key(&tls.key)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("the certificate and key of [mqtt.tls] do not fit")?;
    Ok(Arc::new(config))
}

fn external_tls(tls: &ExternalTls) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(&tls.ca)? {
        roots.add(certificate).with_context(|| format!("{} holds no authority", tls.ca.display()))?;
    }
    anyhow::ensure!(!roots.is_empty(), "{} holds no certificate", tls.ca.display());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match &tls.identity {
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .context("the certificate and key of [mqtt.external.tls] do not fit")?,
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", path.display()))
}

fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("cannot read {}", path.display()))
}

/// For `main`: an error with its causes.
pub fn describe(error: &anyhow::Error) -> String {
    chain(error.as_ref())
}
