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
//! Each trigger is told of the files of its folder in the order in which they changed: none passes an older one that
//! still rests or was refused. So one number says how far it is: with the event of a file its change time is kept, in the
//! transaction that settles the event or puts it into the inbox, and the next file waits for that. Files of one tick of
//! the kernel's clock are told together, and the last one moves the mark: a crash between them tells some again. A start
//! looks for files that are newer than the mark. A function that is new on the node starts with the files that come after
//! it.
//!
//! A file that was heard of is told whatever the mark says: the clock may have been set back, and a file may have been
//! written long before it was closed.
//!
//! A file is never moved, changed or removed here. Links are not followed, and what is hidden is left alone.

mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use holm_core::{FileTrigger, FunctionName, Label, Source, Timestamp, TriggerKind};
use holm_store::{Settlement, Write};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::Instant;

use self::looks::{Looks, content, ends_with, fitting, list, ready, real_time};
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

/// Files of one trigger that wait until they are complete, or for older ones. Beyond them the folder is searched when
/// there is room again.
const MAX_RESTING: usize = 4096;

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

    /// How many files were settled, by an event or because none can be made of them.
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
        watched: BTreeMap::new(),
        checked: None,
        wants: Vec::new(),
        begun: 0,
        resting: BTreeMap::new(),
        missing: Vec::new(),
    };
    loop {
        // All notices before any file: one that was not heard of would be passed.
        watcher.hear();
        watcher.plan();
        let wake = watcher.tell().await;
        tokio::select! {
            readable = watcher.notices.readable() => {
                if let Ok(mut ready) = readable {
                    ready.clear_ready();
                }
            }
            () = tokio::time::sleep_until(wake.min(Instant::now() + NAP)) => {}
            _ = shutdown.wait_for(|stop| *stop) => return,
        }
    }
}

/// One trigger of one function.
struct Want {
    id: u64,
    function: FunctionName,
    trigger: FileTrigger,
    slot: Arc<Slot>,
    durable: bool,
    /// The change time of the last file that was told, in nanoseconds since 1970.
    mark: i64,
    /// There may be files that do not rest: no new one may, until the folder was searched. It would pass them.
    behind: bool,
    /// Until when nothing is told, as the node could not keep an event.
    again: Option<Instant>,
}

impl Want {
    /// Under which its mark is kept, beside the schedules of the function: no schedule has such a name.
    fn key(&self) -> Arc<str> {
        let FileTrigger { folder, suffix, content, .. } = &self.trigger;
        let what = if *content { "file" } else { "path" };
        format!("{what}:{folder}/*{suffix}").into()
    }

    fn is_for(&self, folder: &Label, name: &OsString) -> bool {
        self.trigger.folder == *folder && ends_with(name, &self.trigger.suffix)
    }

    /// The mark once a file is told that changed at `changed`. One that the clock has not reached is not kept.
    fn moved(&self, changed: i64) -> i64 {
        self.mark.min(real_time()).max(changed)
    }

    /// The write that keeps a mark.
    fn fired(&self, mark: i64) -> Write {
        Write::Fired { function: self.function.clone(), name: self.key(), at: Timestamp(mark) }
    }
}

/// A file's folder and name.
type Key = (Label, OsString);

/// A file that may not be complete yet, or that waits for older ones.
struct Rest {
    due: Instant,
    pause: Duration,
    looks: Looks,
    /// Who is to be told of it.
    wants: BTreeSet<u64>,
}

struct Watcher {
    dispatcher: Arc<Dispatcher>,
    folders: Arc<Folders>,
    notices: AsyncFd<OwnedFd>,
    /// The watches of folders: two that are one have the same.
    watched: BTreeMap<Label, i32>,
    /// When it was last seen whether they are still the same folders.
    checked: Option<Instant>,
    wants: Vec<Want>,
    /// Wants so far.
    begun: u64,
    resting: BTreeMap<Key, Rest>,
    /// Folders that are not there, and were warned of.
    missing: Vec<Label>,
}

impl Watcher {
    /// Takes over what functions want now.
    fn plan(&mut self) {
        let wanted = wanted(&self.dispatcher);
        let is = |want: &Want, (slot, trigger, durable): &(Arc<Slot>, FileTrigger, bool)| {
            Arc::ptr_eq(slot, &want.slot) && *trigger == want.trigger && *durable == want.durable
        };
        let before = self.wants.len();
        self.wants.retain(|want| wanted.iter().any(|wanted| is(want, wanted)));
        if self.wants.len() < before {
            let wants = &self.wants;
            self.resting.retain(|_, rest| {
                rest.wants.retain(|id| wants.iter().any(|want| want.id == *id));
                !rest.wants.is_empty()
            });
        }
        self.watch(&wanted);
        for wanted in wanted {
            if !self.wants.iter().any(|want| is(want, &wanted)) && self.watched.contains_key(&wanted.1.folder) {
                let (slot, trigger, durable) = wanted;
                self.begun += 1;
                let function = slot.name.clone();
                self.begin(Want {
                    id: self.begun,
                    function,
                    trigger,
                    slot,
                    durable,
                    mark: 0,
                    behind: false,
                    again: None,
                });
            }
        }
        for index in 0..self.wants.len() {
            if self.wants.get(index).is_some_and(|want| want.behind && self.count(want.id) <= MAX_RESTING / 2) {
                self.search(index);
            }
        }
        self.folders.watching.store(self.wants.len(), Ordering::SeqCst);
    }

    /// Watches the folders that are wanted, and no others.
    fn watch(&mut self, wanted: &[(Arc<Slot>, FileTrigger, bool)]) {
        let is_wanted = |folder: &Label| wanted.iter().any(|(_, trigger, _)| trigger.folder == *folder);
        let unwanted: Vec<Label> = self.watched.keys().filter(|folder| !is_wanted(folder)).cloned().collect();
        for folder in unwanted {
            self.unwatch(&folder);
        }
        let check = self.checked.is_none_or(|checked| checked.elapsed() >= NAP);
        if check {
            self.checked = Some(Instant::now());
        }
        let folders = self.folders.clone();
        for (folder, path) in folders.bound.iter().filter(|(folder, _)| is_wanted(folder)) {
            let before = self.watched.get(folder).copied();
            if before.is_some() && !check {
                continue;
            }
            let flags = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
            // One that is watched already keeps its number: another is that of a folder that was put in its place.
            match inotify::add_watch(&self.notices, path, flags) {
                Ok(watch) if before == Some(watch) => {}
                Ok(watch) => {
                    self.unwatch(folder);
                    self.watched.insert(folder.clone(), watch);
                    self.missing.retain(|missing| missing != folder);
                    // It may have been away, and come back with files in it.
                    self.lose(|want| want.trigger.folder == *folder, i64::MIN);
                }
                Err(error) => {
                    self.unwatch(folder);
                    if !self.missing.contains(folder) {
                        tracing::warn!(%folder, path = %path.display(), %error, "a folder cannot be watched; it is tried again");
                        self.missing.push(folder.clone());
                    }
                }
            }
        }
    }

    fn unwatch(&mut self, folder: &Label) {
        if let Some(watch) = self.watched.remove(folder)
            && !self.watched.values().any(|other| *other == watch)
        {
            // It goes with its folder, too.
            let _ = inotify::remove_watch(&self.notices, watch);
        }
    }

    /// Begins with a trigger: from where it was, or from here.
    fn begin(&mut self, mut want: Want) {
        match self.dispatcher.store.fired(&want.function, &want.key()) {
            Ok(Some(mark)) => want.mark = mark.0,
            Ok(None) => {
                let folder = self.folders.bound.get(&want.trigger.folder);
                let files = folder.map(|path| list(path, &want.trigger.suffix)).unwrap_or_default();
                want.mark = files.last().map_or(0, |(_, looks)| looks.changed);
                // If it is not kept, the next start begins from where it finds the folder then.
                self.note(want.fired(want.mark));
            }
            Err(error) => {
                tracing::error!(%error, "cannot tell which files were told; it is tried again");
                return;
            }
        }
        self.wants.push(want);
        self.search(self.wants.len() - 1);
        // A mark that the clock has not reached yet was made while it was wrong, or it was set back: what is here and not
        // newer was told, and what comes is new all the same.
        if let Some(want) = self.wants.last_mut() {
            want.mark = want.mark.min(real_time());
        }
    }

    /// How many files rest for a trigger.
    fn count(&self, id: u64) -> usize {
        self.resting.values().filter(|rest| rest.wants.contains(&id)).count()
    }

    /// Looks for files that a trigger has not been told of, the oldest first.
    fn search(&mut self, index: usize) {
        let Some((id, folder, suffix, mark)) =
            self.wants.get(index).map(|want| (want.id, &want.trigger.folder, &want.trigger.suffix, want.mark))
        else {
            return;
        };
        let Some(path) = self.folders.bound.get(folder) else { return };
        let (folder, mut found) = (folder.clone(), list(path, suffix));
        found.retain(|(name, looks)| {
            let rests = self.resting.get(&(folder.clone(), name.clone()));
            looks.changed > mark && !rests.is_some_and(|rest| rest.wants.contains(&id))
        });
        let fitting = fitting(&found, MAX_RESTING.saturating_sub(self.count(id)));
        if let Some(want) = self.wants.get_mut(index) {
            want.behind = fitting < found.len();
        }
        for (name, looks) in found.into_iter().take(fitting) {
            let due = Instant::now() + FOUND;
            let new = Rest { due, pause: FOUND, looks, wants: BTreeSet::new() };
            self.resting.entry((folder.clone(), name)).or_insert(new).wants.insert(id);
        }
    }

    /// Has the folders of some triggers searched, as notices were lost, or as there was no room for a file. What rests and
    /// is not older is found then.
    fn lose(&mut self, whose: impl Fn(&Want) -> bool, from: i64) {
        for want in self.wants.iter_mut().filter(|want| whose(want)) {
            want.behind = true;
            self.resting.retain(|_, rest| {
                if rest.looks.changed >= from {
                    rest.wants.remove(&want.id);
                }
                !rest.wants.is_empty()
            });
        }
    }

    /// Lets a file rest that was heard of.
    fn rest(&mut self, folder: Label, name: OsString, pause: Duration) {
        let Some(looks) = self.folders.bound.get(&folder).and_then(|path| Looks::of(&path.join(&name))) else { return };
        let key = (folder, name);
        let before = self.resting.remove(&key).map(|rest| rest.wants).unwrap_or_default();
        let mut wants = BTreeSet::new();
        let mut full = BTreeSet::new();
        for want in self.wants.iter().filter(|want| want.is_for(&key.0, &key.1) && !want.behind) {
            if before.contains(&want.id) || self.resting.len() < MAX_RESTING || self.count(want.id) < MAX_RESTING {
                wants.insert(want.id);
            } else {
                full.insert(want.id);
            }
        }
        if !full.is_empty() {
            self.lose(|want| full.contains(&want.id), looks.changed);
        }
        // A trigger that is behind still gets what rested for it: the file is newer now, but may be behind its mark.
        wants.extend(before.difference(&full));
        if !wants.is_empty() {
            self.resting.insert(key, Rest { due: Instant::now() + pause, pause, looks, wants });
        }
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
                self.lose(|_| true, i64::MIN);
            } else if events.contains(ReadFlags::IGNORED) {
                // The folder is gone: it is watched again when it is back.
                self.watched.retain(|_, watched| *watched != watch);
            } else if let Some(name) = name {
                let folders = self.watched.iter().filter(|(_, watched)| **watched == watch);
                let folders: Vec<Label> = folders.map(|(folder, _)| folder.clone()).collect();
                let pause = if events.contains(ReadFlags::MOVED_TO) { RENAMED } else { CLOSED };
                for folder in folders {
                    if self.wants.iter().any(|want| want.is_for(&folder, &name)) {
                        self.rest(folder, name.clone(), pause);
                    }
                }
            }
        }
    }

    /// Tells of files that are complete. When to look again.
    async fn tell(&mut self) -> Instant {
        let now = Instant::now();
        for index in 0..self.wants.len() {
            self.tell_one(index, now).await;
        }
        // What is due and still here waits for an older one, or until its trigger is tried again.
        let due = self.resting.values().map(|rest| rest.due);
        let due = due.chain(self.wants.iter().filter_map(|want| want.again)).filter(|due| *due > now);
        due.min().unwrap_or_else(|| Instant::now() + NAP)
    }

    /// Tells one trigger, in the order in which the files changed: none passes an older one.
    async fn tell_one(&mut self, index: usize, now: Instant) {
        let ready_to_try = |want: &&Want| want.again.is_none_or(|again| again <= now);
        let Some(id) = self.wants.get(index).filter(ready_to_try).map(|want| want.id) else { return };
        let resting = self.resting.iter().filter(|(_, rest)| rest.wants.contains(&id));
        let mut files: Vec<(i64, bool, Key)> =
            resting.map(|(key, rest)| (rest.looks.changed, rest.due <= now, key.clone())).collect();
        files.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        let order: Vec<(i64, bool)> = files.iter().map(|(changed, ready, _)| (*changed, *ready)).collect();
        for (position, (changed, _, key)) in files.into_iter().enumerate().take(ready(&order)) {
            let Some(looks) = self.resting.get(&key).map(|rest| rest.looks) else { continue };
            let Some(path) = self.folders.bound.get(&key.0).map(|path| path.join(&key.1)) else { continue };
            // Of files that changed in the same tick the last one moves the mark.
            let last = order.get(position + 1).is_none_or(|(next, _)| *next != changed);
            match Looks::of(&path) {
                Some(now) if now == looks => {}
                Some(now) => {
                    // It is not complete, and no longer the oldest.
                    if let Some(rest) = self.resting.get_mut(&key) {
                        rest.looks = now;
                        rest.due = Instant::now() + rest.pause;
                    }
                    return;
                }
                // Gone again.
                None => {
                    self.pass(index, changed, last);
                    self.told(&key, id);
                    continue;
                }
            }
            if !self.one(index, &key.0, &key.1, &path, looks, last).await {
                if let Some(want) = self.wants.get_mut(index) {
                    want.again = Some(Instant::now() + AGAIN);
                }
                return;
            }
            self.told(&key, id);
        }
    }

    /// A file rests no longer for this trigger.
    fn told(&mut self, key: &Key, id: u64) {
        if let Some(rest) = self.resting.get_mut(key) {
            rest.wants.remove(&id);
            if rest.wants.is_empty() {
                self.resting.remove(key);
            }
        }
    }

    /// Moves the mark past a file without an event.
    fn pass(&mut self, index: usize, changed: i64, last: bool) {
        if last && let Some(want) = self.wants.get_mut(index) {
            want.mark = want.moved(changed);
            let write = want.fired(want.mark);
            self.note(write);
        }
    }

    /// Keeps a mark, or not: what it passes is looked at again at the next start.
    fn note(&self, write: Write) {
        let _ = self.dispatcher.store.queue(Settlement { writes: vec![write], ..Settlement::default() }, |_| {});
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
        let Some(want) = self.wants.get(index) else { return true };
        let data = match content(&want.trigger, folder, name, path, looks).await {
            Ok(data) => data,
            Err(reason) => {
                tracing::warn!(%folder, path = %path.display(), reason, "a file starts no function");
                self.pass(index, looks.changed, last);
                self.folders.told.fetch_add(1, Ordering::SeqCst);
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
        let mark = want.moved(looks.changed);
        let base = if last { vec![want.fired(mark)] } else { Vec::new() };
        let settled = self.dispatcher.trigger(&want.slot, event, want.durable, base).await;
        let kept = matches!(settled, Ok(Ok(())));
        if kept {
            self.folders.told.fetch_add(1, Ordering::SeqCst);
            if last && let Some(want) = self.wants.get_mut(index) {
                want.mark = mark;
            }
        }
        kept
    }
}
