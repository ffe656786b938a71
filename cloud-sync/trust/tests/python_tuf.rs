//! Repositories that python-tuf made, good and hostile: what the client makes of each.
//!
//! The folders and the script that made them are in `tests/tuf`; `make.py` says what is in a folder.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use holm_core::Timestamp;
use holm_trust::tuf::{Answer, Kept, Limits, Listing, Repository, RoleName, Update};
use holm_trust::{Moment, TrustError};
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tuf");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("case.json").exists());
    cases.sort();
    cases
}

/// The files that a run sees: those of its own folder over those of the runs before.
struct Mirror {
    folders: Vec<PathBuf>,
    run: Value,
}

impl Mirror {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        if self.run["without"].as_array().is_some_and(|names| names.iter().any(|without| without == name)) {
            return None;
        }
        let mut bytes = self.folders.iter().rev().find_map(|folder| std::fs::read(folder.join(name)).ok())?;
        let pad = self.run["pad"][name].as_u64().unwrap_or(0);
        bytes.resize(bytes.len() + usize::try_from(pad).unwrap(), b' ');
        Some(bytes)
    }

    /// As a client over HTTP does it: reads no further than it may.
    fn answer(&self, name: &str, max_bytes: u64) -> Answer {
        match self.get(name) {
            Some(bytes) if bytes.len() as u64 > max_bytes => Answer::TooLong,
            Some(bytes) => Answer::Found(bytes),
            None => Answer::Missing,
        }
    }
}

fn moment(run: &Value) -> Moment {
    let now: jiff::Timestamp = run["now"].as_str().unwrap().parse().unwrap();
    Moment::by_clock(Timestamp(now.as_millisecond()))
}

/// Runs the client to its end. The files that it kept, and the repository or the refusal.
fn refresh(kept: Kept, mirror: &Mirror) -> (Kept, Result<Repository, TrustError>) {
    let mut limits = Limits::default();
    if let Some(rotations) = mirror.run["limits"]["rotations"].as_u64() {
        limits.rotations = u32::try_from(rotations).unwrap();
    }
    let mut update = Update::new(kept, moment(&mirror.run), limits).unwrap();
    while let Some(wanted) = update.wanted() {
        if let Err(refusal) = update.take(mirror.answer(&wanted.name, wanted.max_bytes)) {
            assert_eq!(update.wanted(), None, "it is over");
            let kept = update.kept().clone();
            assert!(update.finish().is_err());
            return (kept, Err(refusal));
        }
    }
    (update.kept().clone(), update.finish())
}

fn version(bytes: Option<&[u8]>) -> Option<u64> {
    let file: Value = serde_json::from_slice(bytes?).unwrap();
    Some(file["signed"]["version"].as_u64().unwrap())
}

fn download(repository: &Repository, mirror: &Mirror, name: &str) -> Result<(), TrustError> {
    let target = repository.target(name, moment(&mirror.run))?;
    let path = format!("targets/{}", repository.path(name)?);
    let Some(bytes) = mirror.get(&path) else { return Err(TrustError::Missing { name: path }) };
    let mut check = target.check(name);
    for piece in bytes.chunks(7) {
        check.update(piece)?;
    }
    check.finish()
}

fn reason(result: Result<(), &TrustError>) -> String {
    result.map_or_else(|error| error.reason().as_str().to_owned(), |()| "ok".to_owned())
}

#[test]
fn each_repository_of_python_tuf_gets_its_verdict() {
    let mut reasons = BTreeSet::new();
    for folder in cases() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let mut kept = Kept::new(std::fs::read(folder.join("root.json")).unwrap());
        let mut folders = Vec::new();
        for (at, run) in case["runs"].as_array().unwrap().iter().enumerate() {
            folders.push(folder.join((at + 1).to_string()));
            let mirror = Mirror { folders: folders.clone(), run: run.clone() };
            let what = format!("{name}, run {}: {}", at + 1, case["about"]);
            let (after, result) = refresh(kept, &mirror);
            let verdict = reason(result.as_ref().map(drop));
            assert_eq!(verdict, run["expect"].as_str().unwrap(), "{what}: {result:?}");
            reasons.insert(verdict);
            if let (Some(role), Err(TrustError::Metadata { role: found, .. })) = (run["role"].as_str(), &result) {
                assert_eq!(found.as_str(), role, "{what}");
            }
            for role in RoleName::ALL {
                assert_eq!(version(after.get(role)), run["kept"][role.as_str()].as_u64(), "{what}: {role}");
            }
            if let Ok(repository) = &result {
                check_targets(repository, &mirror, &after, &what);
            }
            kept = after;
        }
    }
    // What the issue lists, each at least once.
    for reason in [
        "wrong-signature",
        "too-few-signatures",
        "unknown-key",
        "metadata-expired",
        "older-metadata",
        "mixed-metadata",
        "endless-data",
        "download-failed",
        "malformed-metadata",
        "unsupported-format",
        "ok",
    ] {
        assert!(reasons.contains(reason), "no case for {reason}");
    }
}

fn check_targets(repository: &Repository, mirror: &Mirror, kept: &Kept, what: &str) {
    let special: BTreeMap<String, String> = serde_json::from_value(mirror.run["download"].clone()).unwrap_or_default();
    for (target, expected) in &special {
        assert_eq!(reason(download(repository, mirror, target).as_ref().copied()), *expected, "{what}: {target}");
    }
    for (target, _) in repository.targets().filter(|(target, _)| !special.contains_key(*target)) {
        if mirror.get(&format!("targets/{}", repository.path(target).unwrap())).is_some() {
            download(repository, mirror, target).unwrap_or_else(|error| panic!("{what}: {target}: {error}"));
        }
    }
    let bundle = repository.peek("functions/water-loss/1.4.0/water-loss.holm").unwrap();
    assert!(matches!(Listing::of(bundle), Ok(Some(Listing::Bundle { sequence: 3, .. }))), "{what}");
    // What was kept is good for the same without the network.
    let again = Repository::open(kept).unwrap();
    assert!(again.targets().eq(repository.targets()), "{what}");
    assert!(again.fresh(moment(&mirror.run)).is_ok(), "{what}");
    let long_after = Moment::by_clock(Timestamp(moment(&mirror.run).at_least.0 + 400 * 86_400_000));
    assert_eq!(again.fresh(long_after).unwrap_err().reason().as_str(), "metadata-expired", "{what}");
    assert!(again.target("plain.txt", long_after).is_err(), "{what}: no new code from it");
    assert!(again.peek("functions/water-loss/1.4.0/water-loss.holm").is_some(), "{what}: what runs is known");
}
