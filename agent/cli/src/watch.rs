//! Noticing that somebody has changed a function's files: by looking at them, which works on every file system, also on
//! those that are shared with a virtual machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::project::{self, Project};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// What goes on changing is told of after so long, and again.
const LONGEST: Duration = Duration::from_secs(1);

/// What was seen at the last look.
pub(crate) struct Watch {
    folder: PathBuf,
    /// What is made here, and not written by people.
    made: Vec<PathBuf>,
    seen: Vec<(PathBuf, SystemTime, u64)>,
    /// Since when something has changed.
    news: Option<Instant>,
    next: Instant,
}

impl Watch {
    /// From now on, but for files that are made: the component, and those in `made`.
    pub(crate) fn new(folder: &Path, made: &[&Path]) -> Self {
        let made = made.iter().filter_map(|path| std::path::absolute(path).ok()).collect();
        let mut watch =
            Self { folder: folder.to_owned(), made, seen: Vec::new(), news: None, next: Instant::now() + LOOK };
        if let Ok(project) = Project::read(folder) {
            watch.spare(&project);
        }
        watch.seen = watch.look();
        watch
    }

    /// Leaves the component alone that a function's build makes.
    pub(crate) fn spare(&mut self, project: &Project) {
        let component = project.manifest.build.source.as_ref().map(|source| project.folder.join(source));
        if let Some(path) = component.and_then(|path| std::path::absolute(path).ok())
            && !self.made.contains(&path)
        {
            self.seen.retain(|(seen, ..)| std::path::absolute(seen).ok().as_ref() != Some(&path));
            self.made.push(path);
        }
    }

    fn look(&self) -> Vec<(PathBuf, SystemTime, u64)> {
        let mut found = project::sources(&self.folder);
        found.retain(|(path, ..)| std::path::absolute(path).is_ok_and(|path| !self.made.contains(&path)));
        found
    }

    /// Waits until something has changed, and then until nothing does any more: editors write in several steps. Cancel
    /// safe: what was noticed is told by the next call.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::time::sleep_until(self.next).await;
            let now = Instant::now();
            self.next = now + LOOK;
            let found = self.look();
            let same = found == self.seen;
            self.seen = found;
            match self.news {
                Some(since) if same || now >= since + LONGEST => {
                    self.news = None;
                    return;
                }
                None if !same => self.news = Some(now),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_made_is_no_change_and_what_is_written_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "holm.toml",
            "manifest_version = 1\n[function]\nname = \"f\"\nversion = \"1.0.0\"\n[build]\nsource = \"f.wasm\"\n",
        );
        let report = folder.path().join("report.xml");
        let mut watch = Watch::new(folder.path(), &[&report]);
        std::fs::create_dir(folder.path().join("target")).unwrap();
        for name in ["f.wasm", "report.xml", "f-1.0.0.holm", "target/x"] {
            write(name, "made");
        }
        assert!(tokio::time::timeout(Duration::from_secs(1), watch.changed()).await.is_err());
        write("lib.rs", "written");
        assert!(tokio::time::timeout(Duration::from_secs(20), watch.changed()).await.is_ok());
    }
}
