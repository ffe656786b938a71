//! Our own repositories: what the editor makes, what the client says to it, and what it says to lies about it.
//!
//! `tests/tuf/ours` is one such repository. `tests/tuf/make.py check` lets python-tuf's client read it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use holm_bundle::Digest;
use holm_core::{FunctionName, Timestamp};
use holm_trust::tuf::edit::{self, NewTarget, OnlineKeys, Published, RoleSet, Terms};
use holm_trust::tuf::{
    Answer, DEPLOYMENT_KEYS, DeploymentKeys, Draft, Kept, Limits, Listing, Repository, RoleName, Update,
};
use holm_trust::{Judge, Moment, Role, SigningKey, TrustError, TrustedTime};
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// 2026-11-21T12:00:00Z.
const START: Timestamp = Timestamp(1_795_262_400_000);

/// The same key for the same word: PKCS #8, version 2 (RFC 8410, section 7), around a seed.
fn key(word: &str) -> SigningKey {
    let seed = *Digest::of(word.as_bytes()).as_bytes();
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let head = [0x30, 0x53, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    let document = [&head[..], &seed, &[0xa1, 0x23, 3, 0x21, 0], pair.public_key().as_ref()].concat();
    SigningKey::from_pkcs8(&document).unwrap()
}

fn role(keys: &[&SigningKey], threshold: usize) -> Role {
    Role::new(keys.iter().map(|key| key.public()), threshold).unwrap()
}

fn signed(mut draft: Draft, keys: &[&SigningKey]) -> Vec<u8> {
    for key in keys {
        draft.sign(key).unwrap();
    }
    draft.write().unwrap()
}

fn at(hours: i64) -> Timestamp {
    Timestamp(START.0 + hours * HOUR)
}

fn water_loss() -> FunctionName {
    FunctionName::new("water-loss").unwrap()
}

fn bundle(version: &str, sequence: u64, bytes: &[u8]) -> (String, NewTarget) {
    let listing = Listing::Bundle {
        function: water_loss(),
        version: version.to_owned(),
        sequence,
        permissions: vec!["publish water/+/alarm".to_owned()],
    };
    (Listing::bundle_name(&water_loss(), version), new_target(bytes, listing.custom().unwrap()))
}

fn new_target(bytes: &[u8], custom: Value) -> NewTarget {
    NewTarget { length: bytes.len() as u64, sha256: Digest::of(bytes), custom }
}

/// Runs the client against files.
fn refresh(kept: &mut Kept, files: &BTreeMap<String, Vec<u8>>, now: Timestamp) -> Result<Repository, TrustError> {
    let mut update = Update::new(kept.clone(), Moment::by_clock(now), Limits::default())?;
    let mut run = || -> Result<(), TrustError> {
        while let Some(wanted) = update.wanted() {
            update.take(files.get(&wanted.name).cloned().map_or(Answer::Missing, Answer::Found))?;
        }
        Ok(())
    };
    let result = run();
    *kept = update.kept().clone();
    result.and_then(|()| update.finish())
}

fn golden(name: &str, bytes: &[u8]) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tuf/ours").join(name);
    if std::env::var_os("HOLM_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == bytes, "{name} is another; HOLM_GOLDEN=write, and `make.py check`");
}

/// A first release; a second one with new keys; and a timestamp of the next day.
#[test]
fn python_tuf_was_shown_what_we_make_today() {
    let terms = Terms::default();
    let offline = ["root a", "root b", "root c", "root d"].map(key);
    let targets_key = key("targets");
    let [online, later] = ["online", "online later"].map(key);
    let deployment = key("deployment");
    let mut roles = RoleSet {
        root: role(&[&offline[0], &offline[1], &offline[2]], 2),
        targets: role(&[&targets_key], 1),
        snapshot: role(&[&online], 1),
        timestamp: role(&[&online], 1),
    };
    let mut blobs: BTreeMap<String, (Vec<u8>, Value)> = BTreeMap::new();
    let mut story = Vec::new();
    let mut tell = |folder: &str, now: Timestamp, published: &Published, blobs: &BTreeMap<String, (Vec<u8>, Value)>| {
        for (name, bytes) in &published.files {
            golden(&format!("{folder}/{name}"), bytes);
        }
        // The client of python-tuf sees one folder, so the roots and what did not change go into each.
        for role in [RoleName::Snapshot, RoleName::Targets] {
            let bytes = published.kept.get(role).unwrap();
            let version = Draft::read(bytes).unwrap().version().unwrap();
            golden(&format!("{folder}/{version}.{role}.json"), bytes);
        }
        let repository = Repository::open(&published.kept).unwrap();
        let mut listed = BTreeMap::new();
        for (name, (bytes, custom)) in blobs {
            golden(&format!("{folder}/targets/{}", repository.path(name).unwrap()), bytes);
            listed.insert(name, json!({ "custom": custom, "sha256": Digest::of(bytes).to_string() }));
        }
        let kept = RoleName::ALL
            .map(|role| (role.to_string(), Draft::read(published.kept.get(role).unwrap()).unwrap().version().unwrap()));
        let now = jiff::Timestamp::from_millisecond(now.0).unwrap().to_string();
        story.push(json!({ "folder": folder, "now": now, "targets": listed, "kept": BTreeMap::from(kept) }));
    };

    // Two of three sign the root one after another, each from the file that the other left.
    let half = signed(edit::root(&roles, at(0), &terms).unwrap(), &[&offline[0]]);
    let refused = edit::accept_root(None, &half).unwrap_err();
    assert_eq!(refused.reason().as_str(), "too-few-signatures");
    let first = signed(Draft::read(&half).unwrap(), &[&offline[2]]);
    edit::accept_root(None, &first).unwrap();
    golden("1.root.json", &first);

    let keys = DeploymentKeys::new([deployment.public()], 1).unwrap();
    let mut add = BTreeMap::from([bundle("1.4.0", 3, b"the bundle")]);
    add.insert(DEPLOYMENT_KEYS.to_owned(), new_target(&keys.write().unwrap(), Value::Null));
    blobs.insert(
        add.keys().nth(1).unwrap().clone(),
        (b"the bundle".to_vec(), add.values().nth(1).unwrap().custom.clone()),
    );
    blobs.insert(DEPLOYMENT_KEYS.to_owned(), (keys.write().unwrap(), Value::Null));
    let draft = edit::targets(None, &add, &BTreeSet::new(), at(0), &terms).unwrap();
    let targets = signed(draft, &[&targets_key]);
    edit::accept_targets(&first, &targets).unwrap();
    let signers = OnlineKeys { snapshot: &[&online], timestamp: &[&online] };
    let one = edit::publish(&Kept::new(first.clone()), vec![], Some(targets), signers, at(0), &terms).unwrap();
    let names: Vec<&str> = one.files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"]);
    tell("1", at(0), &one, &blobs);

    // The next root replaces a root key and the online key. The old root keys and the new ones sign it.
    roles.root = role(&[&offline[1], &offline[2], &offline[3]], 2);
    (roles.snapshot, roles.timestamp) = (role(&[&later], 1), role(&[&later], 1));
    let draft = edit::next_root(&one.kept.root, &roles, at(30), &terms).unwrap();
    let second = signed(draft, &[&offline[1], &offline[3]]);
    assert!(edit::accept_root(Some(&first), &second).is_err(), "one of the old keys is not enough");
    let second = signed(Draft::read(&second).unwrap(), &[&offline[0]]);
    edit::accept_root(Some(&first), &second).unwrap();
    assert_eq!(RoleSet::of(&second).unwrap(), roles);

    let native = Listing::Native {
        component: Digest::of(b"component"),
        engine: "48.0.8".to_owned(),
        profile: "small".to_owned(),
    };
    let name = Listing::native_name(&water_loss(), "1.4.0", "48.0.8-small-aarch64");
    let custom = native.custom().unwrap();
    let add = BTreeMap::from([(name.clone(), new_target(b"native code", custom.clone()))]);
    blobs.insert(name, (b"native code".to_vec(), custom));
    let draft = edit::targets(one.kept.targets.as_deref(), &add, &BTreeSet::new(), at(30), &terms).unwrap();
    let targets = signed(draft, &[&targets_key]);
    let old = edit::publish(&one.kept, vec![second.clone()], Some(targets.clone()), signers, at(30), &terms);
    assert!(old.is_err(), "the old online key is not believed any more");
    let signers = OnlineKeys { snapshot: &[&later], timestamp: &[&later] };
    let two = edit::publish(&one.kept, vec![second], Some(targets.clone()), signers, at(30), &terms).unwrap();
    tell("2", at(30), &two, &blobs);
    let again = edit::publish(&two.kept, vec![], Some(targets), signers, at(30), &terms).unwrap_err();
    assert_eq!(again.reason().as_str(), "older-metadata");

    let three = edit::publish(&two.kept, vec![], None, signers, at(50), &terms).unwrap();
    assert_eq!(three.files.len(), 1, "the timestamp, and nothing else is old enough");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    tell("3", at(50), &three, &blobs);
    golden("story.json", format!("{:#}\n", json!(story)).as_bytes());

    // A device that has slept since the first root; and then the deployment keys judge a desired state.
    for published in [&one, &two, &three] {
        files.extend(published.files.iter().cloned());
    }
    let mut kept = Kept::new(first);
    let repository = refresh(&mut kept, &files, at(51)).unwrap();
    assert_eq!((repository.root_version(), repository.version()), (2, 2));
    let target = repository.target(DEPLOYMENT_KEYS, Moment::by_clock(at(51))).unwrap();
    let mut check = target.check(DEPLOYMENT_KEYS);
    check.update(&keys.write().unwrap()).unwrap();
    check.finish().unwrap();
    let role = DeploymentKeys::read(&keys.write().unwrap()).unwrap().role().unwrap();
    let document = holm_trust::sign(holm_protocol::DESIRED_STATE_TYPE, b"{}".to_vec(), &[&deployment]);
    role.verify(&document).unwrap();
    let device = holm_protocol::ThingName::new("pump-7").unwrap();
    let (time, targets) = (TrustedTime::new(at(0), None), repository.targets_role().unwrap());
    let monotonic = std::time::Duration::ZERO;
    let judge = Judge { device: &device, deployment: &role, targets: &targets, last: None, time: &time, monotonic };
    assert_eq!(
        judge.accept(&document.write().unwrap()).unwrap_err().reason().as_str(),
        "malformed",
        "signed, and empty"
    );
}

#[test]
fn bad_edits_are_refused_with_all_that_is_wrong() {
    let terms = Terms::default();
    let add = BTreeMap::from([bundle("1.4.0", 3, b"the bundle")]);
    let draft = edit::targets(None, &add, &BTreeSet::new(), at(0), &terms).unwrap();
    let before = draft.write().unwrap();
    let mut add = BTreeMap::from([bundle("1.4.0", 3, b"another bundle")]);
    for name in ["/absolute", "a/../b", "a//b", "", "with space", "back\\slash", "caf\u{e9}", &"long/".repeat(200)] {
        add.insert(name.to_owned(), new_target(b"x", Value::Null));
    }
    let remove = BTreeSet::from(["never-there".to_owned()]);
    let refused = edit::targets(Some(&before), &add, &remove, at(1), &terms).unwrap_err().to_string();
    assert_eq!(refused.matches("is no target's name").count(), 7, "{refused}");
    for part in ["never-there is not there", "is released already, with other contents", "is too long"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // The same again is no change.
    let same = BTreeMap::from([bundle("1.4.0", 3, b"the bundle")]);
    edit::targets(Some(&before), &same, &BTreeSet::new(), at(1), &terms).unwrap();
    for bytes in ["", "{}", r#"{"signed":[],"signatures":[]}"#, r#"{"signed":{},"signatures":[]}"#] {
        assert!(edit::targets(Some(bytes.as_bytes()), &same, &BTreeSet::new(), at(1), &terms).is_err(), "{bytes}");
    }
    for bytes in [r#"{"format":2,"keys":[],"threshold":1}"#, r#"{"format":1,"keys":[],"threshold":0}"#, "[]"] {
        assert!(DeploymentKeys::read(bytes.as_bytes()).is_err(), "{bytes}");
    }
}

/// What happens to a repository and its clients.
#[derive(Debug, Clone)]
enum Step {
    Release,
    Touch,
    Wait(i64),
    RotateRoot,
    RotateOnline,
    RotateTargets,
    /// The client looks, and nobody is in between.
    Look,
    /// Somebody in between shows the client how it was before, at this part of the past.
    Replay(prop::sample::Index),
    /// Somebody in between changes a byte of a file.
    Flip(prop::sample::Index, prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        Just(Step::Release),
        Just(Step::Touch),
        (1..12_i64).prop_map(Step::Wait),
        Just(Step::RotateRoot),
        Just(Step::RotateOnline),
        Just(Step::RotateTargets),
        Just(Step::Look),
        index().prop_map(Step::Replay),
        (index(), index(), 1..=255_u8).prop_map(|(file, at, bits)| Step::Flip(file, at, bits)),
    ]
}

struct World {
    now: Timestamp,
    counter: u64,
    root: Vec<SigningKey>,
    targets: SigningKey,
    online: SigningKey,
    kept: Kept,
    files: BTreeMap<String, Vec<u8>>,
    past: Vec<BTreeMap<String, Vec<u8>>>,
}

impl World {
    fn new() -> Self {
        let (root, targets, online) = (vec![key("r0"), key("r1")], key("t0"), key("o0"));
        let (kept, files) = (Kept::default(), BTreeMap::new());
        let mut world = Self { now: START, counter: 1, root, targets, online, kept, files, past: Vec::new() };
        let first = edit::root(&world.roles(), world.now, &Terms::default()).unwrap();
        world.kept = Kept::new(signed(first, &[&world.root[0], &world.root[1]]));
        world.publish(vec![], true);
        world
    }

    fn roles(&self) -> RoleSet {
        let online = role(&[&self.online], 1);
        let root = role(&self.root.iter().collect::<Vec<_>>(), 2);
        RoleSet { root, targets: role(&[&self.targets], 1), snapshot: online.clone(), timestamp: online }
    }

    fn publish(&mut self, roots: Vec<Vec<u8>>, release: bool) {
        let terms = Terms::default();
        let targets = release.then(|| {
            let add = BTreeMap::from([bundle(&format!("1.{}.0", self.counter), self.counter, b"bundle")]);
            let previous = self.kept.targets.as_deref();
            signed(edit::targets(previous, &add, &BTreeSet::new(), self.now, &terms).unwrap(), &[&self.targets])
        });
        self.counter += 1;
        let online = OnlineKeys { snapshot: &[&self.online], timestamp: &[&self.online] };
        let published = edit::publish(&self.kept, roots, targets, online, self.now, &terms).unwrap();
        self.past.push(self.files.clone());
        self.files.extend(published.files);
        self.kept = published.kept;
    }

    fn next_root(&mut self, change: impl FnOnce(&mut Self, String)) {
        let old: Vec<SigningKey> = std::mem::take(&mut self.root);
        let word = self.counter.to_string();
        self.root = vec![key(&format!("r{word}")), key(&format!("s{word}"))];
        change(self, word);
        let draft = edit::next_root(&self.kept.root, &self.roles(), self.now, &Terms::default()).unwrap();
        let keys: Vec<&SigningKey> = old.iter().chain(&self.root).collect();
        let root = signed(draft, &keys);
        self.publish(vec![root], true);
    }
}

fn versions(kept: &Kept) -> [u64; 4] {
    RoleName::ALL.map(|role| kept.get(role).map_or(0, |bytes| Draft::read(bytes).unwrap().version().unwrap()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the order: who looks sees the newest, and who is lied to sees that or an error, never anything older or altered.
    #[test]
    fn an_honest_repository_is_followed_and_a_lying_one_is_not(steps in prop::collection::vec(step(), 1..24)) {
        let mut world = World::new();
        let mut client = Kept::new(world.kept.root.clone());
        let mut highest = [0; 4];
        for step in steps {
            match step {
                Step::Release => world.publish(vec![], true),
                Step::Touch => world.publish(vec![], false),
                Step::Wait(hours) => world.now.0 += hours * HOUR,
                Step::RotateRoot => world.next_root(|_, _| {}),
                Step::RotateOnline => world.next_root(|world, word| world.online = key(&format!("o{word}"))),
                Step::RotateTargets => world.next_root(|world, word| world.targets = key(&format!("t{word}"))),
                Step::Look => {
                    world.publish(vec![], false);
                    let repository = refresh(&mut client, &world.files, world.now).unwrap();
                    prop_assert_eq!(versions(&client), versions(&world.kept));
                    prop_assert_eq!(&client, &world.kept);
                    prop_assert!(repository.targets().count() >= 1);
                }
                Step::Replay(when) => {
                    let before = versions(&client);
                    let files = when.get(&world.past).clone();
                    let result = refresh(&mut client, &files, world.now);
                    let after = versions(&client);
                    for (role, (seen, now)) in RoleName::ALL.into_iter().zip(highest.iter().zip(after)) {
                        // A root that takes online keys away also takes their files, and what comes then is by the new keys.
                        let taken = after[0] > before[0] && [RoleName::Timestamp, RoleName::Snapshot].contains(&role);
                        let absent = now == 0 && (taken || before[role as usize] == 0);
                        prop_assert!(now >= *seen || absent, "{highest:?}, {before:?}, {after:?}: {:?}", result.err());
                    }
                }
                Step::Flip(file, at, bits) => {
                    world.publish(vec![], false);
                    let mut files = world.files.clone();
                    let name = file.get(&files.keys().cloned().collect::<Vec<_>>()).clone();
                    let bytes = files.get_mut(&name).unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] ^= bits;
                    let mut lied_to = client.clone();
                    if let Ok(repository) = refresh(&mut lied_to, &files, world.now) {
                        let honest = Repository::open(&world.kept).unwrap();
                        prop_assert!(repository.targets().eq(honest.targets()), "{name} at {at}");
                    }
                    // It is not stuck afterwards.
                    refresh(&mut lied_to, &world.files, world.now).unwrap();
                    prop_assert_eq!(versions(&lied_to), versions(&world.kept));
                }
            }
            for (seen, now) in highest.iter_mut().zip(versions(&client)) {
                *seen = now.max(*seen);
            }
        }
    }

    /// No bytes end the process, whatever is asked for.
    #[test]
    fn nonsense_is_an_error(answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4), text in "\\PC*") {
        let world = World::new();
        let mut update = Update::new(world.kept.clone(), Moment::by_clock(START), Limits::default()).unwrap();
        for answer in answers {
            prop_assert!(update.wanted().is_none() || update.take(Answer::Found(answer)).is_err());
        }
        let _ = Draft::read(text.as_bytes());
        prop_assert!(edit::accept_root(None, text.as_bytes()).is_err());
        prop_assert!(DeploymentKeys::read(text.as_bytes()).is_err());
    }
}

#[test]
fn a_caller_that_reads_too_much_is_refused_all_the_same() {
    let world = World::new();
    let mut update = Update::new(world.kept.clone(), Moment::by_clock(START), Limits::default()).unwrap();
    update.take(Answer::Missing).unwrap();
    let mut bytes = world.files["timestamp.json"].clone();
    bytes.resize(usize::try_from(update.wanted().unwrap().max_bytes).unwrap() + 1, b' ');
    assert_eq!(update.take(Answer::Found(bytes)).unwrap_err().reason().as_str(), "endless-data");
}

#[test]
fn who_does_not_know_the_time_is_told_so_and_takes_what_is_newer() {
    let world = World::new();
    let unknown = TrustedTime::new(Timestamp(START.0 - 300 * DAY), None).moment(std::time::Duration::ZERO);
    let mut update = Update::new(Kept::new(world.kept.root.clone()), unknown, Limits::default()).unwrap();
    while let Some(wanted) = update.wanted() {
        update.take(world.files.get(&wanted.name).cloned().map_or(Answer::Missing, Answer::Found)).unwrap();
    }
    let repository = update.finish().unwrap();
    assert_eq!(repository.fresh(unknown).unwrap(), holm_trust::Freshness::Unknown);
    assert_eq!(repository.fresh(Moment::by_clock(START)).unwrap(), holm_trust::Freshness::Fresh);
}

#[test]
fn nothing_new_is_taken_from_files_that_do_not_belong_together() {
    let mut world = World::new();
    let now = Moment::by_clock(START);
    let before = world.kept.clone();
    assert!(Repository::open(&before).unwrap().fresh(now).is_ok());
    world.publish(vec![], true);
    let after = world.kept.clone();
    // The same contents and signatures, and another file than the one that was announced.
    let spaced = |bytes: &Option<Vec<u8>>| Some([bytes.as_deref().unwrap(), b" "].concat());
    for kept in [
        Kept { timestamp: None, ..after.clone() },
        Kept { snapshot: None, ..after.clone() },
        Kept { timestamp: before.timestamp.clone(), ..after.clone() },
        Kept { snapshot: before.snapshot.clone(), ..after.clone() },
        Kept { targets: before.targets.clone(), ..after.clone() },
        Kept { snapshot: spaced(&after.snapshot), ..after.clone() },
        Kept { targets: spaced(&after.targets), ..after.clone() },
    ] {
        let repository = Repository::open(&kept).unwrap();
        assert_eq!(repository.fresh(now).unwrap_err().reason().as_str(), "metadata-incomplete");
        assert!(repository.targets_role().is_ok());
    }
    let gone = Repository::open(&Kept { targets: None, ..after });
    assert_eq!(gone.unwrap_err().reason().as_str(), "metadata-incomplete");
}

#[test]
fn a_kept_file_that_cannot_be_read_is_dropped_and_named() {
    let world = World::new();
    let mut kept = world.kept.clone();
    kept.timestamp = Some(b"{".to_vec());
    let mut update = Update::new(kept, Moment::by_clock(START), Limits::default()).unwrap();
    while let Some(wanted) = update.wanted() {
        update.take(world.files.get(&wanted.name).cloned().map_or(Answer::Missing, Answer::Found)).unwrap();
    }
    assert_eq!(update.dropped(), [RoleName::Timestamp]);
    assert_eq!(update.kept(), &world.kept);
    // A root that cannot be read is the end of it: there is nothing to believe.
    let lost = Update::new(Kept::new(b"{".to_vec()), Moment::by_clock(START), Limits::default());
    assert_eq!(lost.unwrap_err().reason().as_str(), "malformed-metadata");
}
