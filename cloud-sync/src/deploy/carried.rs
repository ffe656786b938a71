//! A deployment that somebody carries to the device: the same job, the same metadata and the same files, from a folder.
//!
//! # The folder
//!
//! | path | what |
//! | --- | --- |
//! | `devices/{thing}.json` | what the control plane would answer this device if it asked for its next job |
//! | `metadata/` | the repository's metadata, by the names under which it is asked for |
//! | `targets/` | its files, by theirs |
//!
//! `holm device export` makes it. Who made it does not matter: all of it is judged by the same signatures as what comes over the
//! network, and against what this device has accepted before. The job has the name that it has over there, so the control plane is told
//! how it went once there is a connection.

use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use holm_protocol::{NextJob, ReasonCode, ThingName};
use tokio::sync::{oneshot, watch};

use super::task::{Ended, Reconciler};
use super::{Order, Refusal, key_of};
use crate::http;
use crate::jobs::document;

/// A job's file: its document is at most what a message can carry.
const MAX_JOB: u64 = 256 << 10;

/// A deployment to be judged now.
pub(crate) struct Carried {
    pub(crate) order: Order,
    /// Whether it is believed: its generation.
    pub(crate) answer: oneshot::Sender<Result<u64, Refusal>>,
}

impl Reconciler {
    /// What somebody has carried here. They wait for an answer, so it is looked at once; when they come again, again.
    pub(super) async fn look_into(&mut self, shutdown: &mut watch::Receiver<bool>) -> Ended<Result<(), Refusal>> {
        let Some(Carried { order, .. }) = &self.carried else { return Ended::Disturbed };
        let order = order.clone();
        let ended = match self.record.is_about(&order.key) {
            // It came over the network first, and may be finished from here.
            true => Ended::Done(self.bring(order.folder).await),
            false => self.judge(order.clone(), shutdown).await,
        };
        if let Ended::Done(done) = &ended
            && let Some(carried) = self.carried.take()
        {
            let answer = match (done, self.record.refusal(&order.key), &self.record.work) {
                (Err(refusal), _, _) => Err(refusal.clone()),
                (Ok(()), Some(refusal), _) => Err(refusal),
                (Ok(()), None, work) => Ok(work.as_ref().map_or(0, |work| work.generation)),
            };
            // Who has gone away has nothing to be told.
            let _ = carried.answer.send(answer);
        }
        ended
    }

    async fn bring(&mut self, folder: Option<PathBuf>) -> Result<(), Refusal> {
        let before = self.record.clone();
        if let Some(work) = &mut self.record.work {
            work.folder = folder;
        }
        let kept = self.keep().await;
        if kept.is_err() {
            self.record = before;
        }
        kept
    }
}

/// The order for a device that is in a folder. Blocks.
pub(crate) fn order(folder: &Path, thing: &ThingName) -> Result<Order, Refusal> {
    // What is written down has to lead there from anywhere.
    let folder = fs::canonicalize(folder).map_err(|error| unreadable(folder, &error))?;
    let path = folder.join("devices").join(format!("{thing}.json"));
    let bytes = match file(&path, MAX_JOB)? {
        http::File::Found(bytes) => bytes,
        http::File::Missing => {
            let what = format!("{} has no deployment for {thing}: there is no {}", folder.display(), path.display());
            return Err(Refusal::new(ReasonCode::DownloadFailed, what));
        }
        http::File::TooLong => return Err(wrong(&path, "it is longer than a deployment can be")),
    };
    let next = NextJob::read(&bytes).map_err(|error| wrong(&path, &error.to_string()))?;
    let job = next.execution.ok_or_else(|| wrong(&path, "there is no job in it"))?;
    Ok(Order { key: key_of(&job), document: document(&job), folder: Some(folder) })
}

/// A file that is small enough for memory. Blocks.
pub(super) fn file(path: &Path, most: u64) -> Result<http::File, Refusal> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(http::File::Missing),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| unreadable(path, &error))?;
    Ok(if bytes.len() as u64 > most { http::File::TooLong } else { http::File::Found(bytes) })
}

/// A target from a byte on; `None` if the folder has none of this name. Blocks.
pub(super) fn target(path: &Path, from: u64) -> Result<Option<fs::File>, Refusal> {
    match fs::File::open(path) {
        Ok(mut file) => match file.seek(SeekFrom::Start(from)) {
            Ok(_) => Ok(Some(file)),
            Err(error) => Err(unreadable(path, &error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Where a name leads below a folder. Names come from signed metadata, and still must not lead out of it.
pub(super) fn below(folder: &Path, name: &str) -> Result<PathBuf, Refusal> {
    let path = Path::new(name);
    match !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_))) {
        true => Ok(folder.join(path)),
        false => Err(Refusal::new(ReasonCode::UnknownTarget, format!("`{name}` is not a file's name"))),
    }
}

/// What may pass, as a download that failed: the stick may come back.
pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(ReasonCode::DownloadFailed, format!("cannot read {}: {error}", path.display()))
}

fn wrong(path: &Path, problem: &str) -> Refusal {
    Refusal::new(ReasonCode::Malformed, format!("{} is not a deployment: {problem}", path.display()))
}
