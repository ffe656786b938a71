//! Keeps `holmd` running: starts it, listens to how it is, restarts it when it ends or falls silent.
//!
//! It speaks systemd's protocol (sd_notify(3)), which `holmd` knows anyway. The board's watchdog is fed from here, and only
//! while there is reason to: a node that does not come to life for long resets the board, which is the last thing that may
//! help.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

use crate::InitError;
use crate::console::{complain, pass_on, say, warn};
use crate::led::{Led, Pattern};
use crate::mounts::HOLM;
use crate::network::Addresses;
use crate::watchdog::{FEED_EVERY, Watchdog};

/// The program.
const HOLMD: &str = "/usr/bin/holmd";

/// Where it tells how it is.
const SOCKET: &str = "/run/holm-init.sock";

/// Its configuration.
const CONFIG: &str = "/etc/holm/agent.toml";

/// The configuration without what the card was seeded with, for when that is wrong.
const PLAIN_CONFIG: &str = "/etc/holm/plain/agent.toml";

/// `holmd` is expected to say that it is alive this often, twice.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);

/// A start that takes longer has failed: migrations and a long queue are within.
const READY_WITHIN: Duration = Duration::from_secs(180);

/// A drain that takes longer is cut off.
const END_WITHIN: Duration = Duration::from_secs(30);

/// The longest pause between two starts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One that ran for so long did not fail at its start.
const WELL_AFTER: Duration = Duration::from_secs(300);

/// A node that has not lived for so long has the board reset.
const RESET_AFTER: Duration = Duration::from_secs(900);

/// Starts that fail before the node was ever ready, until it is tried without what the card was given.
const FAILURES_WITH_CARD: u32 = 5;

/// Ends in a row, until the LED shows that the node does not stay alive.
const FAILURES_SHOWN: u32 = 3;

/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Why the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Asked for.
    Restart,
    /// Asked for.
    PowerOff,
    /// The system that is on trial did not become healthy.
    TrialFailed,
}

/// A trial that is being watched.
pub struct Trial<'a> {
    /// How long the node must be alive in one piece.
    pub healthy_for: Duration,
    /// When it must have been.
    pub within: Duration,
    /// What to do then.
    pub confirm: &'a mut dyn FnMut(),
}

/// A process and what is known of it.
struct Process {
    pid: Pid,
    started: Instant,
    ready: bool,
    /// When it became ready.
    since: Instant,
    alive: Instant,
}

impl Process {
    fn new(pid: Pid, now: Instant) -> Self {
        Self { pid, started: now, ready: false, since: now, alive: now }
    }

    fn became_ready(&mut self, now: Instant) {
        if !self.ready {
            self.since = now;
        }
        (self.ready, self.alive) = (true, now);
    }

    /// Looks whether it has been silent for too long, and for how long if so: it is to be killed then. Until it is gone, or says anything new, it counts as one that
    /// is not ready: the kernel may be unable to end it.
    fn lose(&mut self, now: Instant) -> Option<Duration> {
        let patience = if self.ready { ALIVE_WITHIN } else { READY_WITHIN };
        if now - self.alive <= patience {
            return None;
        }
        (self.ready, self.alive) = (false, now);
        Some(patience)
    }

    /// Whether it has been ready for that long. One that is silent by now may never speak again.
    fn is_healthy(&self, now: Instant, healthy_for: Duration) -> bool {
        self.ready && now - self.since > healthy_for && now - self.alive < ALIVE_WITHIN / 2
    }
}

/// Keeps the node running until the machine is to end.
pub struct Supervisor {
    socket: UnixDatagram,
    watchdog: Option<File>,
    terminate: Arc<AtomicBool>,
    restart: Arc<AtomicBool>,
    config: &'static str,
    was_ready: bool,
    led: Led,
    addresses: Addresses,
}

impl Supervisor {
    /// Gets ready: the socket, the signals, and the watchdog if there is one.
    pub fn new(led: Led, addresses: Addresses, watchdog: Option<Watchdog>) -> Result<Self, InitError> {
        let path = Path::new(SOCKET);
        let socket = UnixDatagram::bind(path).map_err(InitError::file("listen on", path))?;
        // `holmd` is not root.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
            .map_err(InitError::file("open up", path))?;
        socket.set_read_timeout(Some(TICK)).map_err(InitError::file("listen on", path))?;
        let flag = |signal| {
            let flag = Arc::new(AtomicBool::new(false));
            match signal_hook::flag::register(signal, flag.clone()) {
                Ok(_) => Ok(flag),
                Err(source) => Err(InitError::Kernel { action: "pass signals on".to_owned(), source }),
            }
        };
        // The kernel sends SIGINT for Ctrl-Alt-Del once it is told to.
        let (terminate, restart) = (flag(signal_hook::consts::SIGTERM)?, flag(signal_hook::consts::SIGINT)?);
        let _ = rustix::system::reboot(rustix::system::RebootCommand::CadOff);
        let watchdog = watchdog.map(Watchdog::take);
        Ok(Self { socket, watchdog, terminate, restart, config: CONFIG, was_ready: false, led, addresses })
    }

    /// Runs until the end.
    pub fn run(mut self, mut trial: Option<Trial<'_>>) -> End {
        self.choose_config();
        let began = Instant::now();
        let (mut lived, mut failures) = (Instant::now(), 0_u32);
        let mut process = self.start();
        let (mut pause_until, mut feed) = (Instant::now(), Instant::now());
        let end = loop {
            self.listen(process.as_mut());
            let now = Instant::now();
            for ended in reap() {
                if process.as_ref().is_some_and(|process| process.pid == ended) {
                    let ran = process.take().map_or(Duration::ZERO, |process| now - process.started);
                    failures = if ran > WELL_AFTER { 0 } else { failures.saturating_add(1) };
                    let pause = pause(failures);
                    warn(format_args!(
                        "holmd ended after {} s; it is started again in {} s",
                        ran.as_secs(),
                        pause.as_secs()
                    ));
                    self.make_safe();
                    if failures >= FAILURES_WITH_CARD && !self.was_ready && self.config == CONFIG {
                        complain("the node is tried without the configuration that the card was given");
                        self.config = PLAIN_CONFIG;
                    }
                    pause_until = now + pause;
                }
            }
            match &mut process {
                None if now >= pause_until => process = self.start(),
                None => {}
                Some(process) => {
                    if let Some(silent) = process.lose(now) {
                        complain(format_args!("holmd has been silent for {} s and is killed", silent.as_secs()));
                        let _ = kill_process(process.pid, Signal::KILL);
                    } else if process.ready {
                        (lived, self.was_ready) = (now, true);
                    }
                }
            }
            if let Some(watched) = &mut trial {
                if process.as_ref().is_some_and(|process| process.is_healthy(now, watched.healthy_for)) {
                    (watched.confirm)();
                    trial = None;
                } else if now - began > watched.within {
                    break End::TrialFailed;
                }
            }
            if now >= feed {
                if now - lived < RESET_AFTER {
                    self.feed();
                }
                let ready = process.as_ref().is_some_and(|process| process.ready);
                self.led.show(pattern(ready, failures, trial.is_some(), self.addresses.any()));
                feed = now + FEED_EVERY;
            }
            if self.restart.load(Ordering::Relaxed) {
                break End::Restart;
            }
            if self.terminate.load(Ordering::Relaxed) {
                break End::PowerOff;
            }
        };
        if let Some(process) = process {
            self.stop(process.pid);
        }
        if let Some(mut watchdog) = self.watchdog.take() {
            if end == End::PowerOff {
                // The magic letter: it may stop.
                let _ = watchdog.write_all(b"V");
            } else {
                // It goes on, and resets a board that does not come to its restart.
                let _ = watchdog.write_all(&[0]);
                std::mem::forget(watchdog);
            }
        }
        end
    }

    /// What a card was seeded with must not keep its node from running.
    fn choose_config(&mut self) {
        match self.finish(command(&["check-config", "--config", CONFIG]).stderr(Stdio::piped())) {
            Some(true) | None => {}
            Some(false) => {
                complain("the node runs without the configuration that the card was given");
                self.config = PLAIN_CONFIG;
            }
        }
    }

    /// Runs something short to its end, and feeds the watchdog meanwhile. Whether it ended well; `None` if it did not start.
    fn finish(&mut self, command: &mut Command) -> Option<bool> {
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                complain(format_args!("cannot start {HOLMD}: {error}"));
                return None;
            }
        };
        if let Some(log) = child.stderr.take() {
            pass_on("holmd", log);
        }
        let deadline = Instant::now() + END_WITHIN;
        loop {
            self.feed();
            match child.try_wait() {
                Ok(Some(status)) => return Some(status.success()),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(TICK),
                Ok(None) => {
                    complain(format_args!("{command:?} takes longer than {} s and is killed", END_WITHIN.as_secs()));
                    let _ = child.kill();
                    let _ = child.wait();
                    return Some(false);
                }
                Err(_) => return Some(false),
            }
        }
    }

    fn feed(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            let _ = watchdog.write_all(&[0]);
        }
    }

    fn start(&self) -> Option<Process> {
        let mut command = command(&["run", "--config", self.config]);
        command.env("NOTIFY_SOCKET", SOCKET).env("WATCHDOG_USEC", (ALIVE_WITHIN / 2).as_micros().to_string());
        match command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(mut child) => {
                if let Some(out) = child.stdout.take() {
                    pass_on("holmd", out);
                }
                if let Some(log) = child.stderr.take() {
                    pass_on("holmd", log);
                }
                let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
                Some(Process::new(pid, Instant::now()))
            }
            Err(error) => {
                complain(format_args!("cannot start {HOLMD}: {error}"));
                None
            }
        }
    }

    /// Takes in what is said, and waits for it for a tick.
    fn listen(&self, process: Option<&mut Process>) {
        let mut message = [0; 1024];
        let said = match self.socket.recv(&mut message) {
            Ok(length) => String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned(),
            Err(error) => {
                if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
                    std::thread::sleep(TICK);
                }
                return;
            }
        };
        let Some(process) = process else { return };
        for line in said.lines() {
            match line {
                "READY=1" => {
                    process.became_ready(Instant::now());
                    say(format_args!(
                        "the node is ready, {} ms after it was started",
                        process.started.elapsed().as_millis()
                    ));
                }
                "WATCHDOG=1" => process.alive = Instant::now(),
                _ => {}
            }
        }
    }

    /// Outputs of a node that died go to their safe levels.
    fn make_safe(&mut self) {
        if self.finish(&mut command(&["safe-outputs", "--config", self.config])) != Some(true) {
            warn("outputs may not be safe");
        }
    }

    fn stop(&mut self, pid: Pid) {
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Instant::now() + END_WITHIN;
        while Instant::now() < deadline {
            self.feed();
            if reap().contains(&pid) {
                return;
            }
            std::thread::sleep(TICK);
        }
        warn("holmd does not end and is killed");
        let _ = kill_process(pid, Signal::KILL);
        self.make_safe();
    }
}

/// `holmd`, as somebody who may little.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(HOLMD);
    command
        .args(arguments)
        .env_clear()
        .env("HOLM_LOG", "info")
        .stdin(Stdio::null())
        .current_dir("/")
        .uid(HOLM)
        .gid(HOLM);
    command
}

/// What the LED shows of a node: whether it is ready, how often in a row it has ended, whether its system is on trial, and
/// whether it has an address.
fn pattern(ready: bool, failures: u32, trial: bool, address: bool) -> Pattern {
    match (ready, trial, address) {
        (false, ..) if failures >= FAILURES_SHOWN => Pattern::Failed,
        (false, ..) => Pattern::Starting,
        (true, true, _) => Pattern::Trial,
        (true, false, true) => Pattern::Healthy,
        (true, false, false) => Pattern::NoNetwork,
    }
}

/// Doubled with each failure, up to the longest.
fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(LONGEST_PAUSE)
}

/// All children that have ended, also those that somebody else left to us.
fn reap() -> Vec<Pid> {
    std::iter::from_fn(|| wait(WaitOptions::NOHANG).ok().flatten()).map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_led_shows_what_somebody_could_do_something_about() {
        assert_eq!(pattern(false, 0, true, true), Pattern::Starting);
        assert_eq!(pattern(false, 3, false, true), Pattern::Failed);
        assert_eq!(pattern(true, 3, true, false), Pattern::Trial);
        assert_eq!(pattern(true, 0, false, false), Pattern::NoNetwork);
        assert_eq!(pattern(true, 0, false, true), Pattern::Healthy);
    }

    #[test]
    fn one_that_falls_silent_is_neither_healthy_nor_alive_even_if_it_cannot_be_killed() {
        let (began, second) = (Instant::now(), Duration::from_secs(1));
        let healthy_for = ALIVE_WITHIN;
        let mut process = Process::new(Pid::INIT, began);
        process.became_ready(began + second);
        let mut kills = 0;
        for seconds in 2..1_000 {
            let now = began + second * seconds;
            kills += u32::from(process.lose(now).is_some());
            assert!(!process.is_healthy(now, healthy_for), "after {seconds} s");
            // What feeds the board's watchdog.
            assert_eq!(process.ready, now - began <= ALIVE_WITHIN + second, "after {seconds} s");
        }
        assert!(kills > 1);
        process.became_ready(began + second * 1_000);
        assert!(!process.is_healthy(began + second * 1_001, healthy_for));
        process.alive = began + second * 1_100;
        assert!(process.is_healthy(began + second * 1_101, healthy_for));
    }

    #[test]
    fn pauses_grow_and_have_an_end() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 6, 100, u32::MAX].map(|failures| pause(failures).as_secs()).into();
        assert_eq!(pauses, [1, 1, 2, 4, 30, 30, 30]);
    }
}
