//! Files: a new one in a folder that the node's configuration names, by its suffix, once it is complete.
//!
//! # When a file is complete
//!
//! When it was renamed into the folder, or closed by who wrote it (inotify(7)), and has not changed for a moment since:
//! [`RENAMED`] or [`CLOSED`]. A file that is found at a start, of which nobody can say who is still writing it, must have
//! rested for longer: [`FOUND`]. A file that is begun and not closed is not told of.
//!
//! # What is told once
//!
//! With the event of a file its change time is kept, in the transaction that settles the event or puts it into the
//! inbox, and the next file waits for that. A start looks for files that are newer than the last one that was told. So
//! none is missed while the node is down, and a crash tells one again only where two have changed in the same tick of
//! the kernel's clock. A function that is new on the node starts with the files that come after it.
//!
//! A file is never moved, changed or removed here. Links are not followed, and what is hidden is left alone.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::Read as _;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holm_core::{FileTrigger, FunctionName, Label, Source, Timestamp, TriggerKind};
use holm_store::{Settlement, Write};
use rustix::fs::OFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::dispatch::{Dispatcher, Slot, event_now};

/// How long a file must rest that was renamed into the folder: it was complete before.
const RENAMED: Duration = Duration::from_millis(20);

/// How long a file must rest that was closed: some write in several goes.
const CLOSED: Duration = Duration::from_millis(200);

/// How long a file must rest that was found at a start, or after notices were lost.
const FOUND: Duration = Duration::from_secs(1);

/// The longest without a look at what functions want and which folders there are.
const NAP: Duration = Duration::from_secs(1);

/// How long an event is held back that the node could not keep.
const AGAIN: Duration = Duration::from_secs(1);

/// Files that wait until they are complete. Beyond them the folder is searched when there is room again.
const MAX_RESTING: usize = 4096;

/// Entries of a folder that are looked at: who keeps more in one has other troubles.
const MAX_ENTRIES: usize = 100_000;

/// The buffer for notices; each takes at most 16 bytes and a name of 255.
const NOTICES: usize = 16 << 10;

/// The folders that the configuration names, and how far their files are told.
pub struct Folders {
    bound: BTreeMap<Label, PathBuf>,
    told: AtomicU64,
    watching: AtomicUsize,
}

impl Folders {
    /// With what is bound.
    pub fn new(bound: BTreeMap<Label, PathBuf>) -> Self {
        Self { bound, told: AtomicU64::new(0), watching: AtomicUsize::new(0) }
    }

    /// Where a folder is.
    pub fn path(&self, folder: &str) -> Option<&Path> {
        self.bound.iter().find(|(name, _)| name.as_str() == folder).map(|(_, path)| path.as_path())
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &Label> {
        self.bound.keys()
    }

    /// How many events of files were settled.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    /// How many triggers are watched for.
    pub fn watching(&self) -> usize {
        self.watching.load(Ordering::SeqCst)
    }
}

/// The file triggers of the active functions.
pub fn wanted(dispatcher: &Dispatcher) -> Vec<(Arc<Slot>, FileTrigger, bool)> {
    let active = dispatcher.active();
    let mut wanted = Vec::new();
    for slot in active.slots.values() {
        let Some(loaded) = slot.loaded() else { continue };
        for trigger in &loaded.manifest.triggers {
            if let TriggerKind::File(file) = &trigger.kind
                && (trigger.durable || slot.is_runnable())
            {
                wanted.push((slot.clone(), file.clone(), trigger.durable));
            }
        }
    }
    wanted
}

/// Watches until `shutdown`.
pub async fn run(dispatcher: Arc<Dispatcher>, folders: Arc<Folders>, mut shutdown: watch::Receiver<bool>) {
    let notices = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(std::io::Error::from);
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for types whose descriptor may change: an OwnedFd's does not"
    )]
    let notices = notices.and_then(AsyncFd::new);
    let notices = match notices {
        Ok(notices) => notices,
        Err(error) => {
            tracing::error!(%error, "files cannot be watched for: no function is started by one");
            let _ = shutdown.wait_for(|stop| *stop).await;
            return;
        }
    };
    let mut watcher = Watcher {
        dispatcher,
        folders,
        notices,
        watched: HashMap::new(),
        wants: Vec::new(),
        resting: BTreeMap::new(),
        search: false,
        missing: Vec::new(),
    };
    loop {
        watcher.plan();
        let wake = watcher.resting.values().map(|rest| rest.due).min().unwrap_or_else(|| Instant::now() + NAP);
        tokio::select! {
            readable = watcher.notices.readable() => {
                if let Ok(mut ready) = readable {
                    ready.clear_ready();
                }
                watcher.hear();
            }
            () = tokio::time::sleep_until(wake.min(Instant::now() + NAP)) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
        watcher.tell().await;
    }
}

/// One trigger of one function.
struct Want {
    function: FunctionName,
    trigger: FileTrigger,
    slot: Arc<Slot>,
    durable: bool,
    /// The change time of the last file that was told, in nanoseconds since 1970.
    mark: i64,
}

impl Want {
    /// Under which its mark is kept, beside the schedules of the function: no schedule has such a name.
    fn key(&self) -> Arc<str> {
        format!("file:{}/*{}", self.trigger.folder, self.trigger.suffix).into()
    }

    fn is_for(&self, folder: &Label, name: &OsString) -> bool {
        self.trigger.folder == *folder && ends_with(name, &self.trigger.suffix)
    }
}

fn ends_with(name: &OsString, suffix: &str) -> bool {
    let name = name.as_bytes();
    // What is hidden is somebody's way to write before renaming.
    name.len() > suffix.len() && name.ends_with(suffix.as_bytes()) && !name.starts_with(b".")
}

/// A file that may not be complete yet.
struct Rest {
    due: Instant,
    pause: Duration,
    looks: Option<Looks>,
}

/// What of a file changes when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    bytes: u64,
    modified: i64,
    changed: i64,
}

impl Looks {
    fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Some(Self {
            bytes: meta.len(),
            modified: nanos(meta.mtime(), meta.mtime_nsec()),
            changed: nanos(meta.ctime(), meta.ctime_nsec()),
        })
    }
}

struct Watcher {
    dispatcher: Arc<Dispatcher>,
    folders: Arc<Folders>,
    notices: AsyncFd<OwnedFd>,
    /// Folders by their watches.
    watched: HashMap<i32, Label>,
    wants: Vec<Want>,
    resting: BTreeMap<(Label, OsString), Rest>,
    /// Notices were lost, or there was no room for a file.
    search: bool,
    /// Folders that are not there, and were warned of.
    missing: Vec<Label>,
}

impl Watcher {
    /// Takes over what functions want now.
    fn plan(&mut self) {
        let wanted = wanted(&self.dispatcher);
        self.wants.retain(|want| {
            wanted.iter().any(|(slot, trigger, durable)| {
                Arc::ptr_eq(slot, &want.slot) && *trigger == want.trigger && *durable == want.durable
            })
        });
        self.watch(&wanted);
        for (slot, trigger, durable) in wanted {
            let there = self.wants.iter().any(|want| Arc::ptr_eq(&want.slot, &slot) && want.trigger == trigger);
            let watched = self.watched.values().any(|folder| *folder == trigger.folder);
            if !there && watched {
                self.begin(Want { function: slot.name.clone(), trigger, slot, durable, mark: 0 });
            }
        }
        self.folders.watching.store(self.wants.len(), Ordering::SeqCst);
        if std::mem::take(&mut self.search) {
            for index in 0..self.wants.len() {
                self.search(index);
            }
        }
    }

    /// Watches the folders that are wanted, and no others.
    fn watch(&mut self, wanted: &[(Arc<Slot>, FileTrigger, bool)]) {
        let is_wanted = |folder: &Label| wanted.iter().any(|(_, trigger, _)| trigger.folder == *folder);
        let notices = &self.notices;
        self.watched.retain(|watch, folder| {
            let keep = is_wanted(folder);
            if !keep {
                // It goes with its folder, too.
                let _ = inotify::remove_watch(notices, *watch);
            }
            keep
        });
        for (folder, path) in self.folders.bound.iter().filter(|(folder, _)| is_wanted(folder)) {
            if self.watched.values().any(|watched| watched == folder) {
                continue;
            }
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            match inotify::add_watch(&self.notices, path, flags) {
                Ok(watch) => {
                    self.watched.insert(watch, folder.clone());
                    self.missing.retain(|missing| missing != folder);
                    // It may have been away, and come back with files in it.
                    self.search = true;
                }
                Err(error) if !self.missing.contains(folder) => {
                    tracing::warn!(%folder, path = %path.display(), %error, "a folder cannot be watched; it is tried again");
                    self.missing.push(folder.clone());
                }
                Err(_) => {}
            }
        }
    }

    /// Begins with a trigger: from where it was, or from here.
    fn begin(&mut self, mut want: Want) {
        let key = want.key();
        match self.dispatcher.store.fired(&want.function, &key) {
            Ok(Some(mark)) => want.mark = mark.0,
            Ok(None) => {
                let folder = self.folders.bound.get(&want.trigger.folder);
                let files = folder.map(|path| list(path, &want.trigger.suffix)).unwrap_or_default();
                want.mark = files.iter().map(|(_, looks)| looks.changed).max().unwrap_or(0);
                let write = Write::Fired { function: want.function.clone(), name: key, at: Timestamp(want.mark) };
                // If it is not kept, the next start begins from where it finds the folder then.
                let _ =
                    self.dispatcher.store.queue(Settlement { writes: vec![write], ..Settlement::default() }, |_| {});
            }
            Err(error) => {
                tracing::error!(%error, "cannot tell which files were told; it is tried again");
                return;
            }
        }
        self.wants.push(want);
        self.search(self.wants.len() - 1);
    }

    /// Looks for files that a trigger has not been told of.
    fn search(&mut self, index: usize) {
        let Some(want) = self.wants.get(index) else { return };
        let Some(path) = self.folders.bound.get(&want.trigger.folder) else { return };
        let (folder, mark) = (want.trigger.folder.clone(), want.mark);
        for (name, looks) in list(path, &want.trigger.suffix) {
            if looks.changed > mark {
                self.rest(folder.clone(), name, FOUND);
            }
        }
    }

    /// Lets a file rest.
    fn rest(&mut self, folder: Label, name: OsString, pause: Duration) {
        let Some(path) = self.folders.bound.get(&folder) else { return };
        let looks = Looks::of(&path.join(&name));
        if self.resting.len() >= MAX_RESTING && !self.resting.contains_key(&(folder.clone(), name.clone())) {
            self.search = true;
            return;
        }
        self.resting.insert((folder, name), Rest { due: Instant::now() + pause, pause, looks });
    }

    /// Takes the notices that have come.
    fn hear(&mut self) {
        let mut buffer = [MaybeUninit::<u8>::uninit(); NOTICES];
        let mut heard = Vec::new();
        let mut reader = inotify::Reader::new(self.notices.get_ref(), &mut buffer);
        while let Ok(event) = reader.next() {
            let name = event.file_name().map(|name| OsString::from_vec(name.to_bytes().to_vec()));
            heard.push((event.wd(), event.events(), name));
        }
        for (watch, events, name) in heard {
            if events.contains(ReadFlags::QUEUE_OVERFLOW) {
                self.search = true;
            } else if events.contains(ReadFlags::IGNORED) {
                // The folder is gone: it is watched again when it is back.
                self.watched.remove(&watch);
            } else if let (Some(folder), Some(name)) = (self.watched.get(&watch).cloned(), name)
                && self.wants.iter().any(|want| want.is_for(&folder, &name))
            {
                let pause = if events.contains(ReadFlags::MOVED_TO) { RENAMED } else { CLOSED };
                self.rest(folder, name, pause);
            }
        }
    }

    /// Tells of files that are complete, in the order in which they changed.
    async fn tell(&mut self) {
        let now = Instant::now();
        let due: Vec<(Label, OsString)> =
            self.resting.iter().filter(|(_, rest)| rest.due <= now).map(|(key, _)| key.clone()).collect();
        let mut complete = Vec::new();
        for (folder, name) in due {
            let Some(rest) = self.resting.remove(&(folder.clone(), name.clone())) else { continue };
            let Some(path) = self.folders.bound.get(&folder).map(|path| path.join(&name)) else { continue };
            match Looks::of(&path) {
                // Gone again, or never a file.
                None => {}
                Some(looks) if Some(looks) == rest.looks => complete.push((looks, folder, name, path)),
                Some(_) => self.rest(folder, name, rest.pause),
            }
        }
        complete.sort_by(|a, b| (a.0.changed, &a.2).cmp(&(b.0.changed, &b.2)));
        for (position, (looks, folder, name, path)) in complete.iter().enumerate() {
            // Of files that changed in the same tick the last one moves the mark: a crash between them tells all again.
            let last = complete.get(position + 1).is_none_or(|(next, ..)| next.changed != looks.changed);
            for index in 0..self.wants.len() {
                if !self.one(index, folder, name, path, *looks, last).await {
                    self.rest(folder.clone(), name.clone(), AGAIN);
                }
            }
        }
    }

    /// Tells one function of a file. False if the node could not keep that.
    async fn one(
        &mut self,
        index: usize,
        folder: &Label,
        name: &OsString,
        path: &Path,
        looks: Looks,
        last: bool,
    ) -> bool {
        let Some(want) = self.wants.get(index).filter(|want| want.is_for(folder, name)) else { return true };
        let data = match content(&want.trigger, folder, name, path, looks).await {
            Ok(data) => data,
            Err(reason) => {
                tracing::warn!(%folder, path = %path.display(), reason, "a file starts no function");
                return true;
            }
        };
        let mut event = event_now(self.dispatcher.new_id(), Source::File, folder.shared());
        event.content_type = (!want.trigger.content).then(|| "application/json".into());
        event.data = data;
        let text = |value: String| -> Arc<str> { value.into() };
        event.attributes = vec![
            ("name".into(), text(name.to_string_lossy().into_owned())),
            ("path".into(), text(path.to_string_lossy().into_owned())),
            ("bytes".into(), text(looks.bytes.to_string())),
            ("modified".into(), text((looks.modified / 1_000_000).to_string())),
        ];
        let fired = Write::Fired { function: want.function.clone(), name: want.key(), at: Timestamp(looks.changed) };
        let base = if last { vec![fired] } else { Vec::new() };
        let settled = self.dispatcher.trigger(&want.slot, event, want.durable, base).await;
        let kept = matches!(settled, Ok(Ok(())));
        if kept {
            self.folders.told.fetch_add(1, Ordering::SeqCst);
            if let Some(want) = self.wants.get_mut(index) {
                want.mark = want.mark.max(looks.changed);
            }
        }
        kept
    }
}

/// The files of a folder with a suffix.
fn list(path: &Path, suffix: &str) -> Vec<(OsString, Looks)> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten().take(MAX_ENTRIES);
    let names = entries.map(|entry| entry.file_name()).filter(|name| ends_with(name, suffix));
    names.filter_map(|name| Some((name.clone(), Looks::of(&path.join(&name))?))).collect()
}

/// What the event of a file carries.
async fn content(
    trigger: &FileTrigger,
    folder: &Label,
    name: &OsString,
    path: &Path,
    looks: Looks,
) -> Result<Bytes, String> {
    if !trigger.content {
        let body = serde_json::json!({
            "folder": folder.as_str(), "name": name.to_string_lossy(), "path": path.to_string_lossy(),
            "bytes": looks.bytes, "modified": looks.modified / 1_000_000,
        });
        return Ok(body.to_string().into());
    }
    let most = trigger.max_bytes;
    if looks.bytes > most {
        return Err(format!("it has {} bytes, and `max_bytes` of the trigger is {most}", looks.bytes));
    }
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or_default();
        let file = std::fs::File::options().read(true).custom_flags(flags).open(&path)?;
        let mut data = Vec::new();
        file.take(most + 1).read_to_end(&mut data)?;
        std::io::Result::Ok(data)
    });
    match read.await {
        Ok(Ok(data)) if data.len() as u64 <= most => Ok(data.into()),
        Ok(Ok(_)) => Err(format!("it has grown beyond `max_bytes` of the trigger, {most}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_with_the_suffix_count() {
        for (name, expected) in [
            ("a.jpg", true),
            (".jpg", false),
            (".a.jpg", false),
            ("a.jpg.part", false),
            ("a.JPG", false),
            ("b.x.jpg", true),
        ] {
            assert_eq!(ends_with(&OsString::from(name), ".jpg"), expected, "{name}");
        }
    }
}
