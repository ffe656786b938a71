//! The link to the control plane, as the node has it: what it is made from, and what the node tells about itself.

mod asked;
mod installer;
mod report;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holm_bundle::Digest;
use holm_cloud_sync::{
    Clocks, Cloud, CloudLink, Identity, IdentityFolder, Invitation, LinkConfig, Requester, Settings, SyncError, Time,
};
use holm_core::{FunctionName, LogLevel, Section};
use holm_mqtt::Traffic;
use holm_protocol::{Ask, FunctionState, Health, ReportedFunction};
use tokio::sync::{mpsc, watch};

use crate::build::build;
use crate::clock;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::dispatch::Dispatcher;
use crate::letters::Letters;
use crate::upgrade::Upgrade;
pub(crate) use asked::Answerer;

/// Asks that wait: those of a few people who look at the same time.
const ASKS: usize = 8;

/// The day's bytes on a metered link if nothing else is said. Alarms go up beyond it.
const METERED: u64 = 5 << 20;

/// `[cloud]` of agent.toml.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Whether there is a link at all. Without an identity it only waits for one.
    pub enabled: bool,
    /// Whether each byte costs: then there is a daily allowance.
    pub metered: bool,
    /// Whether the records of traps go up, and what was in a dead letter that somebody looks at. They hold payloads, parameters and state.
    pub traps: bool,
    /// Whether the control plane may replay and drop dead letters.
    pub letters: bool,
    /// Bytes a day beyond which only alarms go up.
    pub daily_bytes: Option<u64>,
    /// A ping is sent after this much silence.
    pub keep_alive: Duration,
    /// Records that were not acknowledged for this long are sent again, and a server that does not answer is gone.
    pub ack_timeout: Duration,
    /// Whether functions' logs go up.
    pub logs: Logs,
    /// Bytes of them a minute, at most.
    pub log_bytes: u64,
    /// How long functions may have an update wait, all together.
    pub defer: Duration,
}

/// Whether functions' logs go up, and what else is told to who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// Never, and no report either.
    Off,
    /// While somebody looks.
    Asked,
    /// Always what is at least so loud, and the rest while somebody looks.
    From(LogLevel),
}

impl Default for CloudConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            metered: false,
            traps: true,
            letters: true,
            daily_bytes: None,
            keep_alive: Duration::from_secs(360),
            ack_timeout: Duration::from_secs(30),
            logs: Logs::Asked,
            log_bytes: 64 << 10,
            defer: Duration::from_secs(3_600),
        }
    }
}

impl CloudConfig {
    /// Takes what a section says.
    pub(crate) fn apply(&mut self, section: &mut Section<'_>) {
        let second = Duration::from_secs(1);
        self.enabled = section.boolean("enabled").unwrap_or(self.enabled);
        self.metered = section.boolean("metered").unwrap_or(self.metered);
        self.traps = section.boolean("traps").unwrap_or(self.traps);
        self.letters = section.boolean("letters").unwrap_or(self.letters);
        self.daily_bytes = section.bytes("daily_bytes", 64 << 10..=1 << 40).or(self.daily_bytes);
        // AWS IoT Core takes 30 s to 20 minutes.
        self.keep_alive = section.duration_in("keep_alive", second..=1_200 * second).unwrap_or(self.keep_alive);
        let from = |level| Logs::From(level);
        let logs = [
            ("off", Logs::Off),
            ("asked", Logs::Asked),
            ("debug", from(LogLevel::Debug)),
            ("info", from(LogLevel::Info)),
            ("warn", from(LogLevel::Warn)),
            ("error", from(LogLevel::Error)),
        ];
        self.logs = section.choice("logs", &logs).unwrap_or(self.logs);
        self.log_bytes = section.bytes("log_bytes", 1 << 10..=16 << 20).unwrap_or(self.log_bytes);
        self.defer = section.duration_in("defer", Duration::ZERO..=86_400 * second).unwrap_or(self.defer);
        self.ack_timeout = section.duration_in("ack_timeout", second..=600 * second).unwrap_or(self.ack_timeout);
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            daily_bytes: self.daily_bytes.or(self.metered.then_some(METERED)),
            keep_alive: self.keep_alive,
            ack_timeout: self.ack_timeout,
            defer: self.defer,
        }
    }
}

/// The link of a node.
pub(crate) fn link(
    config: &Config,
    dispatcher: &Arc<Dispatcher>,
    deployer: &Arc<Deployer>,
    letters: &Arc<Letters>,
    upgrade: &Arc<Upgrade>,
) -> (Cloud, CloudLink, Answerer) {
    let store = &dispatcher.store;
    let (asks, asked) = mpsc::channel(ASKS);
    let (cloud, link) = CloudLink::new(LinkConfig {
        data: config.data.clone(),
        outbox: store.cloud(),
        notes: store.cloud_notes(),
        node: Arc::new(Node {
            dispatcher: dispatcher.clone(),
            deployer: deployer.clone(),
            data: config.data.clone(),
            started: std::time::Instant::now(),
            asks,
        }),
        installer: Arc::new(installer::Installer {
            deployer: deployer.clone(),
            upgrade: upgrade.clone(),
            data: config.data.clone(),
            runtime: tokio::runtime::Handle::current(),
        }),
        agent: build(),
        settings: config.cloud.settings(),
        clocks: clocks(),
    });
    let answerer = Answerer::new(config, dispatcher.clone(), deployer.clone(), letters.clone(), cloud.clone(), asked);
    (cloud, link, answerer)
}

/// Runs a link until `shutdown`: a task that ends before the node does counts as a panic.
pub(crate) async fn run(link: CloudLink, mut shutdown: watch::Receiver<bool>) {
    link.run(shutdown.clone()).await;
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// `holmd enrol`: by arguments, or by the seed in the data folder.
pub async fn enrol(data: &Path, invitation: Option<Invitation>, anew: bool) -> Result<Identity, SyncError> {
    let seeded = invitation.is_none();
    let invitation = match invitation {
        Some(invitation) => invitation,
        None => Invitation::seed(data)?.ok_or_else(|| SyncError::Given {
            what: "the invitation",
            problem: format!(
                "there is no {} in {}: name --cloud, --token and --ca-hash",
                holm_cloud_sync::SEED,
                data.display()
            ),
        })?,
    };
    let requester = Requester {
        folder: IdentityFolder::of(data),
        agent: build(),
        time: Arc::new(Time::new(clocks(), None)),
        traffic: Arc::new(Traffic::default()),
    };
    let identity = requester.enrol(&invitation, anew).await?;
    if seeded {
        Invitation::remove_seed(data);
    }
    Ok(identity)
}

fn clocks() -> Clocks {
    Clocks { wall: clock::now, uptime: clock::uptime, built: clock::BUILT }
}

/// What the node tells about itself.
struct Node {
    dispatcher: Arc<Dispatcher>,
    deployer: Arc<Deployer>,
    data: std::path::PathBuf,
    started: std::time::Instant,
    asks: mpsc::Sender<Ask>,
}

impl holm_cloud_sync::Node for Node {
    fn functions(&self) -> Vec<ReportedFunction> {
        let reported = |status: crate::deploy::FunctionStatus| {
            Some(ReportedFunction {
                name: FunctionName::new(&status.name).ok()?,
                version: status.version,
                sha256: status.digest.parse::<Digest>().ok()?,
                state: FunctionState::parse(status.state),
                invocations: status.invocations,
                faults: status.faults,
            })
        };
        self.deployer.status().into_iter().filter_map(reported).collect()
    }

    fn health(&self) -> Health {
        let store = &self.dispatcher.store;
        let inbox = store.inbox_stat().unwrap_or_default();
        let backlog: i64 = store.lanes().unwrap_or_default().iter().map(|lane| lane.rows).sum();
        let dropped: i64 = store.gaps(1_000).unwrap_or_default().iter().map(|gap| gap.last - gap.first + 1).sum();
        let number = |number: i64| u64::try_from(number).unwrap_or_default();
        let (mut invocations, mut faults) = (0, 0);
        for slot in self.dispatcher.active().slots.values() {
            let counts = slot.stats.tally.read();
            invocations += counts.invocations();
            faults += counts.failed;
        }
        Health {
            uptime_s: self.started.elapsed().as_secs(),
            memory_bytes: resident().unwrap_or_default(),
            disk_free_bytes: rustix::fs::statvfs(&self.data).map_or(0, |fs| fs.f_bavail.saturating_mul(fs.f_frsize)),
            invocations,
            faults,
            inbox: number(inbox.parked),
            dead_letters: number(inbox.dead),
            backlog: number(backlog),
            dropped: number(dropped),
            clock_synced: clock::plausible(clock::now()),
            certificate_expires: None,
        }
    }

    fn asked(&self, ask: Ask) {
        // Whoever asks faster than is answered asks again.
        let _ = self.asks.try_send(ask);
    }

    fn faults(&self) -> u64 {
        let active = self.dispatcher.active();
        active.slots.values().map(|slot| slot.stats.tally.read().failed).sum()
    }

    fn connected(&self) {
        crate::triggers::lifecycle(&self.dispatcher, "cloud-connected", None);
    }
}

/// Resident memory, in bytes (proc(5), `statm`).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
