//! `holm key`: the offline keys, and what they have signed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holm_bundle::Digest;
use holm_core::Timestamp;
use holm_trust::tuf::edit::{self, NewTarget, RoleSet};
use holm_trust::tuf::{DEPLOYMENT_KEYS, DeploymentKeys, Kept, Repository, RoleName};
use holm_trust::{Role, SigningKey};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::keys::{self, Keys, MAX_ROOTS};
use crate::look::{Look, Tone};
use crate::remote::Remote;
use crate::repository::{Online, clock, refresh, sign_root, sign_targets, upload};
use crate::screen::Screen;
use crate::table::list;
use crate::tuf::{Files, refused};

/// Days before its end that a file is warned about, by role: for those that people sign.
const WARN: [(RoleName, i64); 2] = [(RoleName::Root, 60), (RoleName::Targets, 21)];

const DAY: i64 = 86_400_000;

/// See `holm key --help`.
#[derive(clap::Args)]
pub(crate) struct Key {
    /// The folder of the keys [default: ~/.config/holm/keys]
    #[arg(long, global = true, value_name = "DIR")]
    keys: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make keys, and begin the control plane's repository with them
    New {
        /// Also sign the first root, with the control plane's online keys, and upload it
        #[arg(long)]
        cloud: bool,
        /// Root keys to make
        #[arg(long, default_value = "1", value_name = "N")]
        root_keys: usize,
        /// Root keys that have to sign
        #[arg(long, default_value = "1", value_name = "N")]
        root_threshold: usize,
    },
    /// Show what was signed, and until when it holds
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make another targets key, with the root keys, when the one that there is was lost or stolen
    Recover {
        /// A root of this repository that is believed, such as 1.root.json from a backup, if this folder has seen none
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Make other root keys, and have the ones that there are hand over to them: when one was lost or stolen, or more shall sign together
    Rotate {
        /// Root keys to make [default: as many as there are]
        #[arg(long, value_name = "N")]
        root_keys: Option<usize>,
        /// Root keys that have to sign from then on [default: as many as now]
        #[arg(long, value_name = "N")]
        root_threshold: Option<usize>,
    },
    /// Sign root and targets anew, so that they hold for another term, and for the online keys that the control plane has now
    Renew,
}

impl Key {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let folder = keys::folder(self.keys.as_deref())?;
        match &self.command {
            Command::New { cloud, root_keys, root_threshold } => {
                new(folder, *cloud, (*root_keys, *root_threshold), screen).await
            }
            Command::Status { json } => status(folder, *json, screen).await,
            Command::Recover { root } => recover(folder, root.as_deref(), screen).await,
            Command::Rotate { root_keys, root_threshold } => rotate(folder, *root_keys, *root_threshold, screen).await,
            Command::Renew => renew(folder, screen).await,
        }
    }
}

async fn new(
    folder: PathBuf,
    cloud: bool,
    (count, threshold): (usize, usize),
    screen: &mut Screen,
) -> Result<(), Failure> {
    can_be(count, threshold)?;
    // Before anything is made: a control plane that cannot be asked is no reason to have keys lying around.
    let asked = match cloud {
        true => {
            let remote = Remote::open()?;
            let online = Online::of(&remote).await?;
            Some((remote, online))
        }
        false => None,
    };
    let there = Keys::open(folder.clone())?;
    let keys = match (there.targets.is_some(), cloud) {
        // Made before, or by a run that was cut off.
        (true, true) => there,
        _ => {
            let keys = Keys::make(folder, count)?;
            let made = keys.folder.display();
            screen.line(format_args!("made {count} root key(s) and a targets key in {made}"))?;
            screen.note(
                "keep a copy of the folder where this machine is not: without it, nothing can be published again",
            );
            keys
        }
    };
    let Some((remote, online)) = asked else {
        screen.note("next: holm key new --cloud");
        return Ok(());
    };
    let root = begin(&keys, &online, threshold)?;
    let (deployment, add) = deployment_keys(&online)?;
    let targets = sign_targets(None, &add, keys.targets()?)?;
    upload(&remote, vec![deployment], Some(&root), &targets).await?;
    let (_, outcome) = refresh(&remote, &keys).await?;
    outcome?;
    screen.line(format_args!("signed root 1, {threshold} of {} root keys; targets 1", keys.roots.len()))?;
    screen.line(format_args!("{} may sign what devices run, with key {}", remote.url(), online.deployment))?;
    screen.note("next: holm publish BUNDLE");
    Ok(())
}

fn can_be(count: usize, threshold: usize) -> Result<(), Failure> {
    match count == 0 || count > MAX_ROOTS || threshold == 0 || threshold > count {
        true => Err(Failure::new(format!(
            "{threshold} of {count} root keys cannot be: at most {MAX_ROOTS}, and at least one signs"
        ))),
        false => Ok(()),
    }
}

/// The file that says who signs what devices run, and how it is listed.
fn deployment_keys(online: &Online) -> Result<(Vec<u8>, BTreeMap<String, NewTarget>), Failure> {
    let file = DeploymentKeys::new([online.deployment], 1).and_then(|keys| keys.write());
    let file = file.map_err(|error| refused("the deployment key", &error))?;
    let length = u64::try_from(file.len()).unwrap_or(u64::MAX);
    let target = NewTarget { length, sha256: Digest::of(&file), custom: Value::Null };
    Ok((file, BTreeMap::from([(DEPLOYMENT_KEYS.to_owned(), target)])))
}

/// The first root, which is kept before it is uploaded: it is what all others follow from.
fn begin(keys: &Keys, online: &Online, threshold: usize) -> Result<Vec<u8>, Failure> {
    let folder = keys.trusted();
    if let Some(Kept { root, .. }) = Files(&folder).load()? {
        let roles = RoleSet::of(&root).map_err(|error| refused("the root that is kept", &error))?;
        let same = roles.snapshot.keys().any(|key| *key == online.snapshot)
            && roles.timestamp.keys().any(|key| *key == online.timestamp);
        return match (same, online.begun) {
            // A run that was cut off before the upload.
            (true, false) => Ok(root),
            (true, true) => Err(Failure::new("the repository has begun already").next("holm key status")),
            (false, _) => Err(Failure::new("these keys are for another control plane")
                .next("make others in another folder: `holm key new --cloud --keys DIR`")),
        };
    }
    if online.begun {
        return Err(Failure::new("the control plane has a root already, by other keys")
            .next("name the folder of those keys with --keys DIR"));
    }
    let bad = |error| refused("the keys cannot be used", &error);
    let role = |key| Role::new([key], 1).map_err(bad);
    let roles = RoleSet {
        root: Role::new(keys.roots.iter().map(SigningKey::public), threshold).map_err(bad)?,
        targets: role(keys.targets()?.public())?,
        snapshot: role(online.snapshot)?,
        timestamp: role(online.timestamp)?,
    };
    let root = sign_root(None, &roles, &keys.roots)?;
    Files(&folder).store(&Kept::default(), &Kept::new(root.clone()))?;
    Ok(root)
}

async fn status(folder: PathBuf, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let keys = Keys::open(folder)?;
    let (kept, outcome) = match Remote::open() {
        Ok(remote) => refresh(&remote, &keys).await?,
        Err(failure) => {
            let kept = Files(&keys.trusted()).load()?;
            (kept.ok_or_else(|| Failure::new("no repository has begun with these keys"))?, Err(failure))
        }
    };
    if let Err(failure) = &outcome {
        screen.complain(failure);
        screen.note("what follows is what was last seen here");
    }
    let repository = Repository::open(&kept).map_err(|error| refused("what was last seen", &error))?;
    let roles = RoleSet::of(&kept.root).map_err(|error| refused("the root", &error))?;
    let here = keys.roots.iter().filter(|key| roles.root.keys().any(|known| *known == key.public())).count();
    let shown = Shown { repository, roles, roots_here: here, targets_here: keys.targets.is_some() };
    if as_json {
        return screen.json(&shown.json());
    }
    let text = shown.render(clock(), &screen.look);
    screen.text(&text)
}

/// What `holm key status` shows.
struct Shown {
    repository: Repository,
    roles: RoleSet,
    roots_here: usize,
    targets_here: bool,
}

impl Shown {
    fn json(&self) -> Value {
        let expires = |role| self.repository.expires(role);
        json!({
            "root": { "version": self.repository.root_version(), "expires": expires(RoleName::Root),
                "keys": self.roles.root.keys().count(), "threshold": self.roles.root.threshold(), "here": self.roots_here },
            "targets": { "version": self.repository.version(), "expires": expires(RoleName::Targets), "here": self.targets_here },
            "snapshot": { "expires": expires(RoleName::Snapshot) },
            "timestamp": { "expires": expires(RoleName::Timestamp) },
            "warnings": self.warnings(clock()),
        })
    }

    fn warnings(&self, now: Timestamp) -> Vec<String> {
        let warn = |(role, days): (RoleName, i64)| {
            let left = self.repository.expires(role)?.0.saturating_sub(now.0);
            match left {
                left if left <= 0 => {
                    Some(format!("{role} has expired: devices take no new code until it is signed anew"))
                }
                left if left < days * DAY => Some(format!("{role} expires in {} days", left / DAY)),
                _ => None,
            }
        };
        WARN.into_iter().filter_map(warn).collect()
    }

    fn render(&self, now: Timestamp, look: &Look) -> String {
        let until = |role| self.repository.expires(role).map(|at| look.moment(at.0)).unwrap_or_default();
        let (roots, threshold) = (self.roles.root.keys().count(), self.roles.root.threshold());
        let here = if self.targets_here { "its key is here" } else { "its key is not here" };
        let online = |role| match until(role) {
            until if until.is_empty() => String::new(),
            until => format!("until {until}, by the control plane"),
        };
        let mut text = list(
            look,
            &[
                (
                    "root",
                    format!(
                        "{}, until {}; {threshold} of {roots} keys sign, {} here",
                        self.repository.root_version(),
                        until(RoleName::Root),
                        self.roots_here
                    ),
                ),
                ("targets", format!("{}, until {}; {here}", self.repository.version(), until(RoleName::Targets))),
                ("snapshot", online(RoleName::Snapshot)),
                ("timestamp", online(RoleName::Timestamp)),
            ],
        );
        let warnings = self.warnings(now);
        for warning in &warnings {
            text.push_str(&format!("{} {warning}\n", look.paint(Tone::Warn, "warning:")));
        }
        if !warnings.is_empty() {
            text.push_str(&format!("{} holm key renew\n", look.paint(Tone::Strong, "next:")));
        }
        text
    }
}

async fn renew(folder: PathBuf, screen: &mut Screen) -> Result<(), Failure> {
    let keys = Keys::open(folder)?;
    let remote = Remote::open()?;
    let online = Online::of(&remote).await?;
    let (kept, outcome) = refresh(&remote, &keys).await?;
    if let Err(failure) = outcome {
        // Something has expired, which is why we are here. If it is anything else, the control plane refuses what follows.
        screen.complain(&failure);
    }
    let roles = roles(&kept, &online)?;
    let root = match keys.roots.is_empty() {
        true => None,
        false => Some(sign_root(Some(&kept.root), &roles, &keys.roots)?),
    };
    let (deployment, add) = deployment_keys(&online)?;
    let targets = sign_targets(kept.targets.as_deref(), &add, keys.targets()?)?;
    upload(&remote, vec![deployment], root.as_deref(), &targets).await?;
    let (_, outcome) = refresh(&remote, &keys).await?;
    outcome?;
    if root.is_none() {
        screen.note("the root was not renewed: its keys are not here");
    }
    status(keys.folder, false, screen).await
}

/// The roles as they are, with the online keys that the control plane has now.
fn roles(kept: &Kept, online: &Online) -> Result<RoleSet, Failure> {
    let old = RoleSet::of(&kept.root).map_err(|error| refused("the root", &error))?;
    let role = |key| Role::new([key], 1).map_err(|error| refused("an online key", &error));
    Ok(RoleSet { snapshot: role(online.snapshot)?, timestamp: role(online.timestamp)?, ..old })
}

/// Both the keys before and those after sign the root between them: who believes the one before believes it, and so everybody comes along.
/// The new keys are kept before they count, and count from the upload on.
async fn rotate(
    folder: PathBuf,
    count: Option<usize>,
    threshold: Option<usize>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let keys = Keys::open(folder)?;
    let remote = Remote::open()?;
    let online = Online::of(&remote).await?;
    let (kept, outcome) = refresh(&remote, &keys).await?;
    if let Err(failure) = outcome {
        screen.complain(&failure);
    }
    let old = roles(&kept, &online)?;
    let count = count.unwrap_or_else(|| old.root.keys().count());
    let threshold = threshold.unwrap_or_else(|| old.root.threshold());
    can_be(count, threshold)?;
    let next = keys.next_roots(count)?;
    let root = Role::new(next.iter().map(SigningKey::public), threshold);
    let roles = RoleSet { root: root.map_err(|error| refused("the new keys", &error))?, ..old };
    // A run that was cut off after the upload has nothing left to upload.
    if RoleSet::of(&kept.root).is_ok_and(|old| old.root != roles.root) {
        let signers: Vec<SigningKey> = keys.roots.into_iter().chain(next).collect();
        let root = sign_root(Some(&kept.root), &roles, &signers)?;
        let keys = Keys::open(keys.folder.clone())?;
        let targets = sign_targets(kept.targets.as_deref(), &BTreeMap::new(), keys.targets()?)?;
        upload(&remote, Vec::new(), Some(&root), &targets).await?;
        refresh(&remote, &keys).await?.1?;
    }
    let folder = keys.folder;
    let keys = Keys::open(folder)?;
    keys.replace_roots()?;
    screen.line(format_args!(
        "{count} other root key(s) sign from now on, {threshold} together; {}",
        keys.folder.display()
    ))?;
    screen.note("keep a copy of the folder where this machine is not; root-N.key.old are worth nothing any more");
    status(keys.folder, false, screen).await
}

/// The new key is kept before it counts, and counts from the upload on.
async fn recover(folder: PathBuf, root: Option<&Path>, screen: &mut Screen) -> Result<(), Failure> {
    let keys = Keys::open(folder)?;
    if keys.roots.is_empty() {
        return Err(Failure::new(format!("there is no root key in {}", keys.folder.display()))
            .next(
                "bring the root keys there. Without them, begin anew with `holm key new`, and enrol every device again",
            )
            .page(holm_core::ErrorCode::KeyMissing));
    }
    let trusted = keys.trusted();
    let cannot = |what: &Path, error: std::io::Error| Failure::new(format!("cannot use {}: {error}", what.display()));
    std::fs::create_dir_all(&trusted).map_err(|error| cannot(&trusted, error))?;
    if let (None, Some(path)) = (Files(&trusted).load()?, root) {
        let bytes = std::fs::read(path).map_err(|error| cannot(path, error))?;
        edit::accept_root(None, &bytes).map_err(|error| refused(&path.display().to_string(), &error))?;
        Files(&trusted).store(&Kept::default(), &Kept::new(bytes))?;
    }
    let remote = Remote::open()?;
    let online = Online::of(&remote).await?;
    let (kept, outcome) = refresh(&remote, &keys).await?;
    if let Err(failure) = outcome {
        screen.complain(&failure);
    }
    let before = kept.targets.as_deref().ok_or_else(|| Failure::new("there are no targets to sign anew"))?;
    let key = keys.next_targets()?;
    let targets = Role::new([key.public()], 1).map_err(|error| refused("the new key", &error))?;
    let roles = RoleSet { targets, ..roles(&kept, &online)? };
    // A run that was cut off after the upload has nothing left to upload.
    let done = RoleSet::of(&kept.root).is_ok_and(|old| old.targets == roles.targets);
    if !done {
        let root = sign_root(Some(&kept.root), &roles, &keys.roots)?;
        upload(&remote, Vec::new(), Some(&root), &sign_targets(Some(before), &BTreeMap::new(), &key)?).await?;
        refresh(&remote, &keys).await?.1?;
    }
    keys.replace_targets()?;
    screen.line(format_args!("another targets key signs from now on; {}", keys.folder.display()))?;
    screen.note("keep a copy of the folder where this machine is not");
    screen.note("if the old one was stolen, look through what is published: all of it is signed anew");
    status(keys.folder, false, screen).await
}
