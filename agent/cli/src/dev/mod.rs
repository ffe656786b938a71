//! `holm dev`: functions on a node of our own, built and swapped whenever a file changes.
//!
//! The node is a real `holmd` with a running clock and a simulated board ([ADR 11](../../../docs/adr/0011-rehearsals.md)).
//! Its data is in `.holm/data` of the first function's folder, so that `holm logs`, `holm top` and all the others find it
//! from there. A build that fails, or a version that cannot be loaded, leaves the last good one running.

mod board;
mod draw;
mod follow;
mod replay;
mod show;
mod sim;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holm_bundle::Bundle;
use holm_core::{ErrorCode, Manifest};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

use self::replay::{Recorded, Recording, Speed};
use self::show::{Show, Wish};
use self::sim::{Publisher, Sim};
use crate::build::chain;
use crate::client::{Client, escape};
use crate::failure::Failure;
use crate::own_node::{self, NODE, OwnNode, Start};
use crate::project::Project;
use crate::screen::Screen;
use crate::watch::Watch;

/// Where the node's data is, in the first function's folder.
const DATA: &str = ".holm/data";

/// The longest path of a data folder: the admin socket's, with its name, must fit into 108 bytes (unix(7)).
const LONGEST: usize = 90;

/// Between two looks whether the node is still there, and between two pictures of a screen: quick enough to look alive.
const PULSE: Duration = Duration::from_millis(100);

/// See `holm dev --help`.
#[derive(clap::Args)]
pub(crate) struct Dev {
    /// Functions' folders, each with its holm.toml
    #[arg(default_value = ".")]
    dirs: Vec<PathBuf>,
    /// Where MQTT is served; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1883")]
    listen: String,
    /// What a sensor or a topic does: greenhouse.temperature=sine:20..35@1Hz,noise=0.3 or
    /// sensors/a/temperature#celsius=walk:20..35,every=1s
    #[arg(long, value_name = "TARGET=WAVE")]
    sim: Vec<Sim>,
    /// Publish the messages of a recording, or of a CSV file with seconds, topic and payload
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
    /// How fast, such as 100x
    #[arg(long, value_name = "SPEED", requires = "replay", default_value = "1x")]
    speed: Speed,
    /// Record the messages that start functions
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Begin without what the last run has kept
    #[arg(long)]
    fresh: bool,
    /// Lines, one after the other, on a terminal too
    #[arg(long)]
    plain: bool,
    /// One JSON object a line for each invocation
    #[arg(long)]
    json: bool,
}

/// A build and a swap under way, and whose.
type Turn = Pin<Box<dyn Future<Output = (usize, Result<Swap, Failure>)>>>;

/// A new version that runs.
struct Swap {
    name: String,
    version: String,
    bytes: u64,
    compiled: Duration,
    swapped: Duration,
    /// What it keeps from before.
    state: serde_json::Map<String, Value>,
}

/// What happens next.
enum News {
    Stop,
    Wish(Wish),
    Take(Option<Value>),
    Changed(usize),
    Turned(usize, Result<Swap, Failure>),
    Publish(usize),
    Replay,
    Pulse,
}

impl Dev {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let projects = self.dirs.iter().map(|dir| Project::read(dir)).collect::<Result<Vec<_>, _>>()?;
        let first = projects.first().ok_or_else(|| Failure::new("name a function's folder"))?;
        let manifests: Vec<&Manifest> = projects.iter().map(|project| &project.manifest).collect();
        let scripts = self.sim.iter().map(|sim| sim.config(&manifests)).collect::<Result<String, _>>();
        let scripts = scripts.map_err(|words| Failure::new(format!("--sim: {words}")))?;
        let replay = self.replay.as_ref().map(|path| replay::read(path, self.speed)).transpose()?;
        let recording = self.record.as_deref().map(Recording::new).transpose()?;
        let (data, _temporary) = self.data(&first.folder)?;
        let node = Some(first.folder.join(NODE)).filter(|path| path.is_file());
        let more = [scripts, own_node::outside(&manifests, node.as_deref())?].concat();
        let node =
            Start { data: &data, node: node.as_deref(), more: &more, listen: &self.listen, clock: None }.run()?;
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let live = screen.tty && std::io::stderr().is_terminal() && !(self.json || self.plain || dumb);
        let mut head = vec![format!("mqtt://{}", node.mqtt)];
        head.extend(Some(format!("http://{}", node.http)).filter(|_| !node.http.is_empty()));
        let show = match live {
            true => Show::live(&self.dirs, head, screen)?,
            false => {
                screen.note(format_args!("mqtt://{}  {}", node.mqtt, data.display()));
                head.iter().skip(1).for_each(|address| screen.note(address));
                screen.note(format_args!("see more with: holm --data {} logs -f", data.display()));
                Show::Lines { json: self.json }
            }
        };
        let made: Vec<&Path> = self.record.as_deref().into_iter().collect();
        let publishers = self.sim.iter().filter_map(Sim::publisher).collect();
        let mut session = Session {
            watches: self.dirs.iter().map(|dir| Watch::new(dir, &made)).collect(),
            dirs: self.dirs.clone(),
            dirty: (0..self.dirs.len()).collect(),
            running: vec![false; self.dirs.len()],
            turn: None,
            publishers,
            due: Vec::new(),
            replay: replay.unwrap_or_default().into_iter().collect(),
            recording,
            begun: None,
            show,
        };
        let ended = session.run(node, screen).await;
        ended.map(|()| ExitCode::SUCCESS)
    }

    /// The data folder; a temporary one where the function's own has too long a path.
    fn data(&self, folder: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>), Failure> {
        let cannot = |error: std::io::Error| Failure::new(format!("cannot make a data folder: {error}"));
        std::fs::create_dir_all(folder.join(DATA)).map_err(cannot)?;
        let data = folder.join(DATA).canonicalize().map_err(cannot)?;
        if data.as_os_str().len() > LONGEST {
            let temporary = tempfile::Builder::new().prefix("holm-").tempdir().map_err(cannot)?;
            return Ok((temporary.path().to_owned(), Some(temporary)));
        }
        if self.fresh {
            std::fs::remove_dir_all(&data).and_then(|()| std::fs::create_dir_all(&data)).map_err(cannot)?;
        }
        Ok((data, None))
    }
}

/// A run of `holm dev`.
struct Session {
    dirs: Vec<PathBuf>,
    watches: Vec<Watch>,
    /// Functions that have changed since their last build began.
    dirty: Vec<usize>,
    /// Functions of which a version runs.
    running: Vec<bool>,
    turn: Option<Turn>,
    publishers: Vec<Publisher>,
    /// When each of them publishes next.
    due: Vec<tokio::time::Instant>,
    replay: std::collections::VecDeque<Recorded>,
    recording: Option<Recording>,
    /// Since when the world moves: when all functions run for the first time.
    begun: Option<tokio::time::Instant>,
    show: Show,
}

impl Session {
    async fn run(&mut self, mut node: OwnNode, screen: &mut Screen) -> Result<(), Failure> {
        let cannot = |error: std::io::Error| Failure::new(format!("cannot await signals: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
        let mut tape = node.client.stream("/v1/tape?follow=true&after=0&limit=1").await?;
        let mut pulse = tokio::time::interval(PULSE);
        loop {
            if self.turn.is_none() && !self.dirty.is_empty() {
                self.turn = self.begin(&node.client, screen);
            }
            let news = tokio::select! {
                biased;
                _ = interrupt.recv() => News::Stop,
                _ = terminate.recv() => News::Stop,
                wish = self.show.wish() => News::Wish(wish),
                take = tape.next() => News::Take(take?),
                (index, result) = turned(&mut self.turn) => News::Turned(index, result),
                index = changed(&mut self.watches) => News::Changed(index),
                index = due(&self.due) => News::Publish(index),
                () = until(self.begun, self.replay.front()) => News::Replay,
                _ = pulse.tick() => News::Pulse,
            };
            match news {
                News::Stop | News::Wish(Wish::End) => break,
                News::Wish(Wish::Nothing) => {}
                News::Wish(Wish::Build) => {
                    let more = (0..self.dirs.len()).filter(|index| !self.dirty.contains(index));
                    let more: Vec<usize> = more.collect();
                    self.dirty.extend(more);
                }
                News::Take(Some(take)) => self.show(&take, screen)?,
                // The stream ends with the node.
                News::Take(None) | News::Pulse => {
                    if let Some(why) = node.ended() {
                        return Err(why);
                    }
                    self.show.draw()?;
                }
                News::Changed(index) if !self.dirty.contains(&index) => self.dirty.push(index),
                News::Changed(_) => {}
                News::Turned(index, result) => {
                    self.turn = None;
                    self.turned(index, result, screen);
                }
                News::Publish(index) => self.publish(index, &node.client, screen).await,
                News::Replay => self.replay(&node.client, screen).await,
            }
        }
        // The terminal is given back first.
        self.show = Show::Lines { json: false };
        screen.note("the node ends; what it has is kept");
        node.stop();
        Ok(())
    }

    /// Begins to build the function that has changed first.
    fn begin(&mut self, client: &Client, screen: &Screen) -> Option<Turn> {
        let index = self.dirty.remove(0);
        let dir = self.dirs.get(index)?;
        // Read anew: the manifest may be what has changed.
        let project = Project::read(dir);
        if let (Ok(project), Some(watch)) = (&project, self.watches.get_mut(index)) {
            watch.spare(project);
        }
        let command = project.as_ref().ok().and_then(|project| project.manifest.build.command.as_deref());
        self.show.begins(screen, index, dir, command);
        let (client, quietly) = (client.clone(), self.show.is_live());
        Some(Box::pin(async move { (index, swap(project, &client, quietly).await) }))
    }

    fn turned(&mut self, index: usize, result: Result<Swap, Failure>, screen: &mut Screen) {
        match result {
            Ok(swap) => {
                if let Some(running) = self.running.get_mut(index) {
                    *running = true;
                }
                self.show.runs(screen, index, swap);
            }
            Err(failure) => {
                let over = self.running.get(index) == Some(&true);
                self.show.failed(screen, index, &failure, over);
            }
        }
        if self.begun.is_none() && self.running.iter().all(|running| *running) {
            let now = tokio::time::Instant::now();
            self.begun = Some(now);
            self.due = vec![now; self.publishers.len()];
        }
    }

    fn show(&mut self, take: &Value, screen: &mut Screen) -> Result<(), Failure> {
        if let Some(recording) = &mut self.recording {
            recording.take(take)?;
        }
        self.show.take(screen, take)
    }

    async fn publish(&mut self, index: usize, client: &Client, screen: &Screen) {
        let (Some(publisher), Some(due), Some(begun)) =
            (self.publishers.get_mut(index), self.due.get_mut(index), self.begun)
        else {
            return;
        };
        let payload = publisher.payload(due.duration_since(begun));
        // One that fell behind is not made up for.
        *due = (*due + publisher.every).max(tokio::time::Instant::now());
        if let Err(failure) = send(client, publisher.topic.as_str(), payload).await {
            self.show.complain(screen, &failure);
        }
    }

    async fn replay(&mut self, client: &Client, screen: &Screen) {
        let Some(message) = self.replay.pop_front() else { return };
        if let Err(failure) = send(client, message.topic.as_str(), message.payload).await {
            self.show.complain(screen, &failure);
        }
        if self.replay.is_empty() {
            self.show.note(screen, "the replay is over");
        }
    }
}

async fn send(client: &Client, topic: &str, payload: String) -> Result<(), Failure> {
    let path = format!("/v1/publish?topic={}", escape(topic));
    client.post(&path, Bytes::from(payload)).await.map(drop)
}

/// Builds a function and puts it in place of the one that runs.
async fn swap(project: Result<Project, Failure>, client: &Client, quietly: bool) -> Result<Swap, Failure> {
    let project = project?;
    let begun = Instant::now();
    // A compiler takes its time, and events go on meanwhile.
    let built = tokio::task::spawn_blocking(move || {
        project.run_build(quietly)?;
        let (_, component) = project.component()?;
        Ok::<_, Failure>((project, component))
    });
    let built = built.await.map_err(|error| Failure::new(format!("the build broke off: {error}")))?;
    let (project, component) = built?;
    let (compiled, begun) = (begun.elapsed(), Instant::now());
    let packed = Bundle::pack(&project.text, &component).map_err(|error| Failure::new(chain(&error)))?;
    let answer = client.deploy(packed.bytes.into()).await?;
    if answer.get("outcome").and_then(Value::as_str) == Some("rolled-back") {
        let reason = answer.get("reason").and_then(Value::as_str).unwrap_or("it did not say why");
        return Err(Failure::new(format!("{} was rolled back: {reason}", packed.name)).page(ErrorCode::RolledBack));
    }
    let swapped = begun.elapsed();
    let (name, version) = (packed.name.to_string(), packed.version.to_string());
    let kept = match quietly {
        true => client.get_as(&format!("/v1/state/{}", escape(&name)), "state").await.unwrap_or_default(),
        // Nobody would see it.
        false => serde_json::Map::new(),
    };
    Ok(Swap { name, version, bytes: component.len() as u64, compiled, swapped, state: kept })
}

/// The end of the turn; never, where there is none.
async fn turned(turn: &mut Option<Turn>) -> (usize, Result<Swap, Failure>) {
    match turn {
        Some(turn) => turn.await,
        None => std::future::pending().await,
    }
}

/// The first function that changes.
async fn changed(watches: &mut [Watch]) -> usize {
    let waits: Vec<_> = watches.iter_mut().map(|watch| Box::pin(watch.changed())).collect();
    first(waits).await
}

/// The index of the first to be done. Cancel safe where all of them are.
async fn first<F: Future<Output = ()> + Unpin>(mut waits: Vec<F>) -> usize {
    std::future::poll_fn(move |context| {
        let ready = waits.iter_mut().position(|wait| Pin::new(wait).poll(context).is_ready());
        ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
    })
    .await
}

/// The publisher whose turn it is next; never, where there is none.
async fn due(due: &[tokio::time::Instant]) -> usize {
    match due.iter().enumerate().min_by_key(|(_, at)| **at) {
        Some((index, at)) => {
            tokio::time::sleep_until(*at).await;
            index
        }
        None => std::future::pending().await,
    }
}

/// When the next message of a replay comes; never, where there is none or nothing runs yet.
async fn until(begun: Option<tokio::time::Instant>, next: Option<&Recorded>) {
    match (begun, next) {
        (Some(begun), Some(message)) => tokio::time::sleep_until(begun + message.at).await,
        _ => std::future::pending().await,
    }
}
