//! Which `holmd` runs: the installed one, or one that came over the air.
//!
//! # What it guarantees
//!
//! - The installed program is never written, and is what every start begins with.
//! - A program that came over the air is started only if it is what was signed, at most [`STARTS`] times until it is confirmed,
//!   and after that the one before runs again.
//! - Whoever installs another program is obeyed: what came over the air before that is forgotten.
//!
//! # How it works
//!
//! `agent/state.json` in the data folder says what is confirmed and what is on trial; `agent/SHA256/holmd` are programs. One
//! takes another's place by execve(2), so that the service manager sees one process. [`take_over`] is the first act of
//! `holmd run`, and its last when [`Upgrade`] was asked for another program: it counts a start of a trial, on disk, before it
//! makes it. What a trial has to show is the affair of who begins it (the reconciler of `holm-cloud-sync`).

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::Context as _;
use holm_bundle::Digest;
use holm_cloud_sync::AgentStanding;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::breadcrumb;
use crate::build::build;

/// A trial gets so many starts: a power cut is not its fault, and twice is.
const STARTS: u32 = 2;

/// In the data folder.
const FOLDER: &str = "agent";

/// A program: by its digest, or the installed one.
type Program = Option<Digest>;

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
struct Standing {
    installed: Installed,
    confirmed: Program,
    /// Confirmed before that, and kept.
    previous: Program,
    trial: Option<Trial>,
    failed: Option<Failed>,
}

/// What tells one installed program from another.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Installed {
    version: String,
    bytes: u64,
    modified: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    program: Program,
    /// Of the desired state that wants it.
    generation: u64,
    /// Those that were begun.
    starts: u32,
}

/// A trial that did not get as far as to judge for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failed {
    program: Program,
    generation: u64,
    why: String,
}

/// A running node's hand on which program runs.
pub struct Upgrade {
    folder: PathBuf,
    /// This one.
    own: Program,
    /// Of the installed program's file, if anybody asks.
    installed: OnceLock<Program>,
    standing: Mutex<Standing>,
    /// Another one is to run now.
    called: Notify,
}

/// Replaces this process by the program that shall run. Returns if that is this one, or if no other can be started.
pub fn take_over(data: &Path) -> Upgrade {
    let folder = data.join(FOLDER);
    let exe = std::env::current_exe().ok();
    let own = exe.as_deref().and_then(|exe| own(&folder, exe));
    let mut standing = read(&folder);
    if own.is_none() {
        let installed = exe.as_deref().map(Installed::of).unwrap_or_default();
        if standing.installed != installed {
            if standing.confirmed.is_some() || standing.trial.is_some() {
                tracing::warn!(
                    version = installed.version,
                    "another holmd was installed: what came over the air before runs no more"
                );
            }
            standing = Standing { installed, ..Standing::default() };
            if folder.exists() {
                keep_or_say(&folder, &standing);
            }
        }
    }
    // A trial that cannot be started leaves what was confirmed, and that may be gone as well.
    for _ in 0..3 {
        let failed = standing.failed.clone();
        let program = choose(&mut standing, own, |standing| write(&folder, standing));
        if standing.failed != failed {
            // It went down by itself, whatever function was running.
            breadcrumb::acquit(data);
        }
        if program == own {
            break;
        }
        let error = replace(&folder, program, exe.as_deref());
        let why = format!("{error:#}");
        tracing::error!(program = %shown(program), error = why, "an agent could not be started");
        match standing.trial.take() {
            Some(trial) => standing.failed = Some(trial.failed(why)),
            None => standing.confirmed = standing.previous.take().filter(|previous| Some(*previous) != program),
        }
        keep_or_say(&folder, &standing);
    }
    Upgrade { folder, own, installed: OnceLock::new(), standing: Mutex::new(standing), called: Notify::new() }
}

/// Replaces this process, whose node has ended, by the program that shall run: by itself if no other can be started. Returns if
/// not even that can be.
pub fn replace_by_next(data: &Path) -> anyhow::Error {
    take_over(data);
    match std::env::current_exe() {
        Ok(exe) => {
            let error = std::process::Command::new(&exe).args(std::env::args_os().skip(1)).exec();
            anyhow::Error::from(error).context(format!("cannot run {}", exe.display()))
        }
        Err(error) => anyhow::Error::from(error).context("cannot find the program that runs"),
    }
}

/// What is to be started. A start that cannot be counted is not made: a program that goes down would be started for ever.
fn choose(standing: &mut Standing, own: Program, keep: impl FnOnce(&Standing) -> anyhow::Result<()>) -> Program {
    let (program, changed) = next(standing, own);
    let Err(error) = (if changed { keep(standing) } else { Ok(()) }) else { return program };
    tracing::error!(error = format!("{error:#}"), "it could not be written down which agent is tried: it is not");
    if let Some(trial) = standing.trial.take() {
        standing.failed = Some(trial.failed(format!("its start could not be counted: {error:#}")));
    }
    standing.confirmed
}

/// What is to be started, and whether the standing has changed over it.
fn next(standing: &mut Standing, own: Program) -> (Program, bool) {
    match &mut standing.trial {
        // Who started it has counted that.
        Some(trial) if trial.program == own && own.is_some() => (own, false),
        Some(trial) if trial.starts < STARTS => {
            trial.starts += 1;
            (trial.program, true)
        }
        Some(trial) => {
            let why = format!("it was started {} times, and went down before it was confirmed", trial.starts);
            standing.failed = Some(trial.clone().failed(why));
            standing.trial = None;
            (standing.confirmed, true)
        }
        None => (standing.confirmed, false),
    }
}

/// Does not return unless that fails.
fn replace(folder: &Path, program: Program, exe: Option<&Path>) -> anyhow::Error {
    let path = match program {
        Some(digest) => {
            let path = file(folder, &digest);
            match digest_of(&path).with_context(|| format!("cannot read {}", path.display())) {
                Ok(found) if found == digest => path,
                Ok(_) => return anyhow::anyhow!("{} is not what was signed", path.display()),
                Err(error) => return error,
            }
        }
        // A program over the air is started by the installed one, with this name.
        None => match std::env::var_os(INSTALLED) {
            Some(path) => PathBuf::from(path),
            None => return anyhow::anyhow!("the installed agent is not known"),
        },
    };
    let mut command = std::process::Command::new(&path);
    command.args(std::env::args_os().skip(1));
    if let (Some(_), Some(exe), None) = (program, exe, std::env::var_os(INSTALLED)) {
        command.env(INSTALLED, exe);
    }
    if program.is_none() {
        command.env_remove(INSTALLED);
    }
    tracing::info!(program = %shown(program), path = %path.display(), "another agent takes over");
    anyhow::Error::from(command.exec()).context(format!("cannot run {}", path.display()))
}

/// The installed program's path, for those that came over the air.
pub(crate) const INSTALLED: &str = "HOLM_INSTALLED";

impl Trial {
    fn failed(self, why: String) -> Failed {
        Failed { program: self.program, generation: self.generation, why }
    }
}

impl Installed {
    fn of(exe: &Path) -> Self {
        let found = fs::metadata(exe).ok();
        let (bytes, modified) = found.map(|found| (found.len(), found.mtime())).unwrap_or_default();
        Self { version: build().version, bytes, modified }
    }
}

impl Upgrade {
    /// Where the program of this digest is, or is to be.
    pub fn file(&self, digest: &Digest) -> PathBuf {
        file(&self.folder, digest)
    }

    /// How the program stands that a desired state wants; without one it wants the installed.
    pub fn standing(&self, wanted: Program, generation: u64) -> AgentStanding {
        let standing = self.lock();
        let own = self.own == wanted || (self.own.is_none() && wanted.is_some() && self.installed() == wanted);
        match (&standing.trial, &standing.failed) {
            (Some(trial), _) if own && trial.program == self.own => AgentStanding::OnTrial,
            _ if own => AgentStanding::Runs,
            (_, Some(failed)) if failed.program == wanted && failed.generation == generation => {
                AgentStanding::Failed(failed.why.clone())
            }
            _ => AgentStanding::Other,
        }
    }

    /// The generation of the desired state that this program is on trial for.
    pub fn trial(&self) -> Option<u64> {
        self.lock().trial.as_ref().filter(|trial| trial.program == self.own).map(|trial| trial.generation)
    }

    /// Has another program tried: the node ends for it.
    pub fn hand_over(&self, wanted: Program, generation: u64) -> anyhow::Result<()> {
        if let Some(digest) = wanted {
            let path = self.file(&digest);
            let executable = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, executable)
                .with_context(|| format!("cannot make {} a program", path.display()))?;
        }
        let trial = Some(Trial { program: wanted, generation, starts: 0 });
        self.change(|standing| Standing { trial, failed: None, ..standing })?;
        self.called.notify_one();
        Ok(())
    }

    /// This program's trial is over, and it stays.
    pub fn confirm(&self) -> anyhow::Result<()> {
        let own = self.own;
        self.change(|standing| Standing {
            previous: standing.confirmed.filter(|before| Some(*before) != own).or(standing.previous),
            confirmed: own,
            trial: None,
            ..standing
        })?;
        self.tidy();
        Ok(())
    }

    /// This program's trial is over, and the one before runs again: the node ends for it.
    pub fn hand_back(&self) -> anyhow::Result<()> {
        self.change(|standing| Standing { trial: None, ..standing })?;
        self.called.notify_one();
        Ok(())
    }

    /// This program is on trial, and does not get as far as to judge for itself: the one before runs again, and the node ends for it.
    pub fn give_up(&self, why: &str) -> anyhow::Result<()> {
        self.change(|standing| {
            let failed = standing.trial.clone().map(|trial| trial.failed(why.to_owned()));
            Standing { trial: None, failed, ..standing }
        })?;
        self.called.notify_one();
        Ok(())
    }

    /// Resolves when another program is to run. Cancel safe.
    pub async fn called(&self) {
        self.called.notified().await;
    }

    fn change(&self, change: impl FnOnce(Standing) -> Standing) -> anyhow::Result<()> {
        let mut standing = self.lock();
        let next = change(standing.clone());
        write(&self.folder, &next)?;
        *standing = next;
        Ok(())
    }

    fn installed(&self) -> Program {
        *self.installed.get_or_init(|| digest_of(&std::env::current_exe().ok()?).ok())
    }

    /// Removes programs that nothing names.
    fn tidy(&self) {
        let standing = self.lock();
        let named = [standing.confirmed, standing.previous].map(|program| program.map(|digest| digest.to_string()));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.parse::<Digest>().is_ok() && !named.contains(&Some(name)) {
                // What cannot be removed now may be later.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn file(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(digest.to_string()).join("holmd")
}

/// Which program this is, by where its file lies.
fn own(folder: &Path, exe: &Path) -> Program {
    let folder = folder.canonicalize().ok()?;
    let mine = exe.parent()?;
    (mine.parent()? == folder).then(|| mine.file_name()?.to_str()?.parse().ok()).flatten()
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    fs::read(path).map(|bytes| Digest::of(&bytes))
}

/// What cannot be read is as if nothing had come over the air: the installed program runs.
fn read(folder: &Path) -> Standing {
    let path = folder.join("state.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Standing::default(),
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "it cannot be read which agent shall run: it is the installed one");
            return Standing::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::error!(%error, path = %path.display(), "it cannot be read which agent shall run: it is the installed one");
        Standing::default()
    })
}

/// Whole, or not at all.
fn write(folder: &Path, standing: &Standing) -> anyhow::Result<()> {
    let (path, new) = (folder.join("state.json"), folder.join("state.json.new"));
    let text = serde_json::to_vec_pretty(standing).context("cannot write down which agent shall run")?;
    let written = || {
        fs::create_dir_all(folder)?;
        let mut file = fs::File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        fs::File::open(folder)?.sync_all()
    };
    written().with_context(|| format!("cannot write {}", path.display()))
}

fn keep_or_say(folder: &Path, standing: &Standing) {
    if let Err(error) = write(folder, standing) {
        tracing::error!(error = format!("{error:#}"), "it could not be written down which agent shall run");
    }
}

fn shown(program: Program) -> String {
    program.map_or_else(|| "installed".to_owned(), |digest| digest.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(letter: char) -> Program {
        Some(letter.to_string().repeat(64).parse().unwrap())
    }

    fn trial(program: Program, starts: u32) -> Option<Trial> {
        Some(Trial { program, generation: 7, starts })
    }

    #[test]
    fn a_trial_has_two_starts_and_then_what_was_confirmed_runs() {
        let (old, new) = (program('a'), program('b'));
        for confirmed in [None, old] {
            let mut standing = Standing { confirmed, trial: trial(new, 0), ..Standing::default() };
            // Each of them is by the installed one, after a crash, or a power cut.
            assert_eq!((next(&mut standing, None), next(&mut standing, None)), ((new, true), (new, true)));
            assert_eq!(next(&mut standing, None), (confirmed, true));
            assert_eq!(standing.failed.as_ref().map(|failed| (failed.program, failed.generation)), Some((new, 7)));
            assert_eq!(next(&mut standing, None), (confirmed, false));
        }
        // The one that runs has been counted.
        let mut standing = Standing { trial: trial(new, 1), ..Standing::default() };
        assert_eq!(next(&mut standing, new), (new, false));
        // Back to the installed one is a trial as any other.
        let mut standing = Standing { confirmed: old, trial: trial(None, 0), ..Standing::default() };
        assert_eq!((next(&mut standing, old), next(&mut standing, None)), ((None, true), (None, true)));
        assert_eq!(next(&mut standing, None), (old, true));
    }

    #[test]
    fn a_start_that_cannot_be_counted_is_not_made() {
        for confirmed in [None, program('a')] {
            let mut standing = Standing { confirmed, trial: trial(program('b'), 0), ..Standing::default() };
            let full = |_: &Standing| Err(anyhow::anyhow!("no space left"));
            assert_eq!(choose(&mut standing, None, full), confirmed);
            let why = standing.failed.map(|failed| failed.why).unwrap_or_default();
            assert!(standing.trial.is_none() && why.contains("no space left"), "{why}");
        }
        let mut standing = Standing { trial: trial(program('b'), 0), ..Standing::default() };
        assert_eq!(choose(&mut standing, None, |_| Ok(())), program('b'));
    }

    #[test]
    fn what_is_written_down_comes_back_and_what_is_damaged_is_the_installed_one() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (program('a'), program('b'));
        let failed = Some(Failed { program: new, generation: 6, why: "no".to_owned() });
        let standing = Standing { confirmed: old, trial: trial(None, 1), failed, ..Standing::default() };
        write(folder.path(), &standing).unwrap();
        assert_eq!(read(folder.path()), standing);
        let text = fs::read(folder.path().join("state.json")).unwrap();
        for end in [0, 1, text.len() / 2, text.len() - 1] {
            fs::write(folder.path().join("state.json"), &text[..end]).unwrap();
            assert_eq!(read(folder.path()), Standing::default());
        }
    }

    #[test]
    fn a_program_is_known_by_where_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let new = program('b');
        assert_eq!(own(&folder, &file(&folder, &new.unwrap())), new);
        for other in ["/usr/bin/holmd".into(), folder.join("holmd"), folder.join("x/holmd"), folder.join("a/b/holmd")] {
            assert_eq!(own(&folder, &other), None, "{}", other.display());
        }
    }
}
