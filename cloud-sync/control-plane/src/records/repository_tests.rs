use std::collections::{BTreeMap, BTreeSet};

use holm_trust::tuf::edit::NewTarget;
use holm_trust::{Moment, Role, SigningKey};
use serde_json::Value;

use super::*;
use crate::folder::Folder;
use crate::records::Opened;

const HOUR: i64 = 3_600_000;
const BEGIN: Timestamp = Timestamp(1_795_000_000_000);
const NAME: &str = "functions/flow/1.0.0/flow.holm";

/// A control plane's end, and who publishes there.
struct Scene {
    _folder: tempfile::TempDir,
    records: Records,
    signing: Arc<Signing>,
    blobs: Arc<Blobs>,
    writer: Option<std::thread::JoinHandle<()>>,
    offline: SigningKey,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = Folder::open(folder.path()).unwrap();
        let Opened { records, writer } = Opened::open(&data.database()).unwrap();
        Self {
            records,
            signing: Arc::new(Signing::open(&data).unwrap()),
            blobs: Arc::new(Blobs::open(&data.blobs()).unwrap()),
            writer: Some(std::thread::spawn(move || writer.run())),
            offline: SigningKey::generate().unwrap().0,
            _folder: folder,
        }
    }

    fn root(&self, timestamp: &SigningKey) -> Vec<u8> {
        let role = |key: &SigningKey| Role::new([key.public()], 1).unwrap();
        let roles = RoleSet {
            root: role(&self.offline),
            targets: role(&self.offline),
            snapshot: role(&self.signing.snapshot),
            timestamp: role(timestamp),
        };
        self.signed(edit::root(&roles, BEGIN, &Terms::default()).unwrap())
    }

    fn signed(&self, mut draft: Draft) -> Vec<u8> {
        draft.sign(&self.offline).unwrap();
        draft.write().unwrap()
    }

    fn targets(&self, previous: Option<&[u8]>, add: &[(&str, &[u8])], remove: &[&str]) -> Vec<u8> {
        let target =
            |bytes: &[u8]| NewTarget { length: bytes.len() as u64, sha256: Digest::of(bytes), custom: Value::Null };
        let add: BTreeMap<String, NewTarget> =
            add.iter().map(|(name, bytes)| ((*name).to_owned(), target(bytes))).collect();
        let remove: BTreeSet<String> = remove.iter().map(|name| (*name).to_owned()).collect();
        self.signed(edit::targets(previous, &add, &remove, BEGIN, &Terms::default()).unwrap())
    }

    fn put(&self, bytes: &[u8]) {
        self.blobs.put(&Digest::of(bytes), bytes).unwrap();
    }

    async fn publish(&self, roots: Vec<Vec<u8>>, targets: Option<Vec<u8>>) -> Result<Held, Refused> {
        let publication = Publication { roots, targets, operator: "admin".to_owned(), now: BEGIN };
        self.records.publish(publication, self.signing.clone(), self.blobs.clone()).await.unwrap()
    }

    async fn refresh(&self, now: Timestamp) -> bool {
        self.records.refresh_repository(self.signing.clone(), now).await.unwrap()
    }

    async fn version(&self, name: &str) -> Option<u64> {
        let bytes = self.records.metadata(name.to_owned()).await.unwrap()?;
        Some(Draft::read(&bytes).unwrap().version().unwrap())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.records.close();
        self.writer.take().unwrap().join().unwrap();
    }
}

#[tokio::test]
async fn a_timestamp_is_signed_anew_by_what_is_stored() {
    let scene = Scene::new();
    assert!(!scene.refresh(BEGIN).await, "there is nothing to sign");
    scene.put(b"one");
    let root = scene.root(&scene.signing.timestamp);
    scene.publish(vec![root], None).await.unwrap();
    assert!(!scene.refresh(BEGIN).await, "there is nothing to sign yet");
    scene.publish(Vec::new(), Some(scene.targets(None, &[(NAME, b"one")], &[]))).await.unwrap();
    assert_eq!(scene.version("timestamp.json").await, Some(1));
    let after = |hours: i64| Timestamp(BEGIN.0 + hours * HOUR);
    assert!(!scene.refresh(after(11)).await);
    assert!(scene.refresh(after(12)).await);
    assert!(!scene.refresh(after(12)).await);
    assert_eq!((scene.version("timestamp.json").await, scene.version("1.snapshot.json").await), (Some(2), Some(1)));
    // However long it was down, one look puts it right.
    assert!(scene.refresh(after(24 * 30)).await);
    assert_eq!((scene.version("timestamp.json").await, scene.version("2.snapshot.json").await), (Some(3), Some(2)));
    let kept = scene.records.repository().await.unwrap().unwrap().kept;
    Repository::open(&kept).unwrap().fresh(Moment::by_clock(after(24 * 30 + 23))).unwrap();
    for day in 31..80 {
        assert!(scene.refresh(after(24 * day)).await);
    }
    assert!(scene.version("2.snapshot.json").await.is_none(), "old ones go");
    assert_eq!(scene.version("1.root.json").await, Some(1), "roots stay");
    assert_eq!(scene.version("1.targets.json").await, Some(1), "and what is listed now");
}

#[tokio::test]
async fn what_clients_could_not_use_is_refused_whole() {
    let scene = Scene::new();
    let stranger = SigningKey::generate().unwrap().0;
    let refused = scene.publish(vec![scene.root(&stranger)], None).await.unwrap_err();
    assert!(matches!(&refused, Refused::NotBelieved(why) if why[0].contains("timestamp key")), "{refused:?}");
    assert!(scene.records.repository().await.unwrap().is_none());
    let first = scene.targets(None, &[(NAME, b"one"), ("a", b"two")], &[]);
    let refused = scene.publish(Vec::new(), Some(first.clone())).await.unwrap_err();
    assert!(matches!(&refused, Refused::NotBelieved(why) if why[0].contains("no root")), "{refused:?}");
    let root = scene.root(&scene.signing.timestamp);
    let refused = scene.publish(vec![root.clone()], Some(first.clone())).await.unwrap_err();
    assert!(matches!(&refused, Refused::NotBelieved(why) if why.len() == 2), "all that is missing: {refused:?}");
    assert!(scene.version("1.root.json").await.is_none());
    scene.put(b"one");
    scene.put(b"two");
    scene.publish(vec![root], Some(first.clone())).await.unwrap();
    let path = format!("functions/flow/1.0.0/{}.flow.holm", Digest::of(b"one"));
    assert_eq!(scene.records.target(path.clone()).await.unwrap(), Some(Digest::of(b"one")));
    assert!(matches!(scene.publish(Vec::new(), Some(first.clone())).await, Err(Refused::Conflict(_))));

    // Taken off the list and put on it again, a release has still one content.
    scene.put(b"other");
    let second = scene.targets(Some(&first), &[], &[NAME]);
    scene.publish(Vec::new(), Some(second.clone())).await.unwrap();
    assert!(scene.records.target(path).await.unwrap().is_some(), "somebody may be fetching it");
    let third = scene.targets(Some(&second), &[(NAME, b"other"), ("a", b"other")], &[]);
    let refused = scene.publish(Vec::new(), Some(third)).await.unwrap_err();
    assert!(matches!(&refused, Refused::NotBelieved(why) if why.len() == 1 && why[0].contains(NAME)), "{refused:?}");
    scene.publish(Vec::new(), Some(scene.targets(Some(&second), &[(NAME, b"one")], &[]))).await.unwrap();
    assert_eq!(scene.version("3.targets.json").await, Some(3));
}
