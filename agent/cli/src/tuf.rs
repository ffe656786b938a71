//! `holm tuf`: the client of the repository, as suites outside call it.
//!
//! The words are those of <https://github.com/theupdateframework/tuf-conformance/blob/main/CLIENT-CLI.md>, and the code is what devices
//! run (`holm_trust::tuf`), but for where metadata is kept: here in files named as the specification names them, one renamed into
//! place after another; there in one transaction.

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use holm_core::Timestamp;
use holm_trust::Moment;
use holm_trust::tuf::{Answer, Kept, Limits, Repository, RoleName, Target, Update, edit};
use tempfile::NamedTempFile;

use crate::client::escape;
use crate::failure::Failure;
use crate::http::{Got, Http, below};
use crate::screen::Screen;

/// For a file of metadata.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For a target, which may be large.
const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// See `holm tuf --help`.
#[derive(clap::Args)]
pub(crate) struct Tuf {
    /// Where believed metadata is kept
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the repository's metadata is
    #[arg(long, global = true, value_name = "URL")]
    metadata_url: Option<String>,
    /// The target to download; may be given several times
    #[arg(long = "target-name", global = true, value_name = "NAME")]
    target_names: Vec<String>,
    /// Where the repository's targets are
    #[arg(long, global = true, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where targets are put
    #[arg(long, global = true, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// A PEM file with the authorities to believe, for https
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Believe a first root
    Init {
        /// A root.json from somebody who is believed
        root: PathBuf,
    },
    /// Bring the kept metadata up to date
    Refresh,
    /// Bring it up to date, then fetch and check targets
    Download,
}

impl Tuf {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        match &self.action {
            Action::Init { root } => self.init(root, screen),
            Action::Refresh => self.refresh(screen).await.map(drop),
            Action::Download => self.download(screen).await,
        }
    }

    fn init(&self, root: &Path, screen: &mut Screen) -> Result<(), Failure> {
        if self.files().path(RoleName::Root).exists() {
            let folder = self.metadata_dir.display();
            return Err(Failure::new(format!("{folder} has a root already")).next("empty it first, to begin anew"));
        }
        let limit = Limits::default().root;
        let bytes = read(root, limit)?.ok_or_else(|| Failure::new(format!("there is no {}", root.display())))?;
        edit::accept_root(None, &bytes).map_err(|error| refused(&root.display().to_string(), &error))?;
        self.files().store(&Kept::default(), &Kept::new(bytes))?;
        screen.line(format_args!("believes {}", root.display()))
    }

    async fn refresh(&self, screen: &mut Screen) -> Result<Repository, Failure> {
        let url = needed(self.metadata_url.as_deref(), "--metadata-url")?;
        let missing = || {
            Failure::new(format!("{} has no root", self.metadata_dir.display()))
                .next("give it one with `holm tuf init`")
        };
        let before = self.files().load()?.ok_or_else(missing)?;
        let mut update = Update::new(before.clone(), now(), Limits::default())
            .map_err(|error| refused(&self.metadata_dir.display().to_string(), &error))?;
        let outcome = fetch(&self.http()?, url, &mut update).await;
        // Also after a failure: what was believed on the way stays believed.
        self.files().store(&before, update.kept())?;
        outcome?;
        for role in update.dropped() {
            screen.line(format_args!("the kept {role} could not be read and was fetched anew"))?;
        }
        let repository = update.finish().map_err(|error| refused(url, &error))?;
        let (root, targets) = (repository.root_version(), repository.version());
        screen.line(format_args!("up to date: root {root}, targets {targets}"))?;
        Ok(repository)
    }

    async fn download(&self, screen: &mut Screen) -> Result<(), Failure> {
        let base = needed(self.target_base_url.as_deref(), "--target-base-url")?;
        let folder = needed(self.target_dir.as_deref(), "--target-dir")?;
        if self.target_names.is_empty() {
            return Err(Failure::new("--target-name is missing"));
        }
        let repository = self.refresh(screen).await?;
        let http = self.http()?;
        for name in &self.target_names {
            let target = repository.target(name, now()).map_err(|error| refused(name, &error))?;
            let path = repository.path(name).map_err(|error| refused(name, &error))?;
            let file = folder.join(file_name(name)?);
            if is_same(&file, name, target) {
                screen.line(format_args!("{name} is there already: {}", file.display()))?;
                continue;
            }
            save(&http, &below(base, &path), name, target, &file).await?;
            screen.line(format_args!("{name} is {}", file.display()))?;
        }
        Ok(())
    }

    fn http(&self) -> Result<Http, Failure> {
        let authorities: Vec<&Path> = self.ca.iter().map(PathBuf::as_path).collect();
        Http::new(&authorities)
    }

    fn files(&self) -> Files<'_> {
        Files(&self.metadata_dir)
    }
}

/// Believed metadata, in files named as the specification names them.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a>(pub(crate) &'a Path);

impl Files<'_> {
    pub(crate) fn path(self, role: RoleName) -> PathBuf {
        self.0.join(role.file())
    }

    /// What was kept; `None` without a root.
    pub(crate) fn load(self) -> Result<Option<Kept>, Failure> {
        let limits = Limits::default();
        let Some(root) = read(&self.path(RoleName::Root), limits.root)? else { return Ok(None) };
        Ok(Some(Kept {
            root,
            timestamp: read(&self.path(RoleName::Timestamp), limits.timestamp)?,
            snapshot: read(&self.path(RoleName::Snapshot), limits.snapshot)?,
            targets: read(&self.path(RoleName::Targets), limits.targets)?,
        }))
    }

    /// Stores what has changed. In the order in which it is believed, so that a run that is cut off here leaves what a run that
    /// failed would.
    pub(crate) fn store(self, before: &Kept, after: &Kept) -> Result<(), Failure> {
        let failed = |path: &Path, error: &dyn std::fmt::Display| {
            Failure::new(format!("cannot write {}: {error}", path.display()))
        };
        for role in RoleName::ALL.into_iter().filter(|role| before.get(*role) != after.get(*role)) {
            let path = self.path(role);
            match after.get(role) {
                Some(bytes) => {
                    let write = || {
                        let mut file = NamedTempFile::new_in(self.0)?;
                        file.write_all(bytes)?;
                        file.as_file().sync_all()?;
                        file.persist(&path)?;
                        Ok::<(), std::io::Error>(())
                    };
                    write().map_err(|error| failed(&path, &error))?;
                }
                None => std::fs::remove_file(&path).map_err(|error| failed(&path, &error))?,
            }
        }
        Ok(())
    }
}

/// Runs an update to its end. `update` keeps what was believed, whether that goes well or not.
pub(crate) async fn fetch(http: &Http, url: &str, update: &mut Update) -> Result<(), Failure> {
    while let Some(wanted) = update.wanted() {
        let (got, bytes) = http.bytes(&below(url, &wanted.name), wanted.max_bytes, PATIENCE).await?;
        let answer = match got {
            Got::All => Answer::Found(bytes),
            Got::Missing => Answer::Missing,
            Got::TooLong => Answer::TooLong,
        };
        update.take(answer).map_err(|error| refused(url, &error))?;
    }
    Ok(())
}

/// Fetches a target into a file, which is there only if it is the one that was signed.
pub(crate) async fn save(http: &Http, url: &str, name: &str, target: &Target, file: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot write {}: {error}", file.display()));
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut part = readable(folder).map_err(|error| failed(&error))?;
    let mut check = target.check(name);
    let got = http.get(url, target.length, LONG_PATIENCE, |piece| {
        check.update(piece).map_err(|error| refused(name, &error))?;
        part.write_all(piece).map_err(|error| failed(&error))
    });
    match got.await? {
        Got::All => check.finish().map_err(|error| refused(name, &error))?,
        Got::Missing => return Err(Failure::new(format!("there is no {url}"))),
        Got::TooLong => return Err(Failure::new(format!("{name} is longer than the {} bytes signed", target.length))),
    }
    part.as_file().sync_all().map_err(|error| failed(&error))?;
    part.persist(file).map_err(|error| failed(&error))?;
    Ok(())
}

/// A file to be renamed, which others may read then: nothing of a repository is secret.
pub(crate) fn readable(folder: &Path) -> std::io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o644)).tempfile_in(folder)
}

/// Whether a file is there already and is the target.
pub(crate) fn is_same(file: &Path, name: &str, target: &Target) -> bool {
    let Ok(mut file) = std::fs::File::open(file) else { return false };
    let mut check = target.check(name);
    let mut buffer = [0; 1 << 16];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return check.finish().is_ok(),
            Ok(length) => {
                if check.update(buffer.get(..length).unwrap_or_default()).is_err() {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}

/// A target's name as the name of one file.
fn file_name(name: &str) -> Result<String, Failure> {
    match escape(name) {
        name if matches!(name.as_str(), "" | "." | "..") => Err(Failure::new(format!("`{name}` cannot name a file"))),
        name => Ok(name),
    }
}

fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {why}", path.display()));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= limit) {
        return Ok(Some(bytes));
    }
    Err(failed(&format_args!("it has more than {limit} bytes")))
}

fn needed<'a, T: ?Sized>(value: Option<&'a T>, flag: &str) -> Result<&'a T, Failure> {
    value.ok_or_else(|| Failure::new(format!("{flag} is missing")))
}

/// An error with its causes.
pub(crate) fn refused(what: &str, error: &dyn Error) -> Failure {
    let mut text = format!("{what}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    Failure::new(text)
}

/// By the clock of this machine, which is a person's and not a board's.
pub(crate) fn now() -> Moment {
    Moment::by_clock(Timestamp(jiff::Timestamp::now().as_millisecond()))
}
