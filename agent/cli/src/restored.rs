//! `holm republish --restored`: a control plane that came out of an older backup gets back what was signed since.
//!
//! Devices and laptops refuse a repository that lists less than they have seen. Snapshot and timestamp leap forward when a backup is
//! restored; the list of releases is signed by a key that control planes do not have. The laptop that has published last has that list as it
//! was signed, and puts it back with the files that are missing. What nobody has any more is struck off the list, if that is said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::Timestamp;
use holm_trust::tuf::edit::{self, Terms};
use holm_trust::tuf::{Draft, Kept, Listing, Repository};
use serde_json::{Value, json};

use crate::build::chain;
use crate::failure::Failure;
use crate::http::Got;
use crate::keys::Keys;
use crate::native::native;
use crate::remote::Remote;
use crate::repository::{clock, refresh, upload};
use crate::screen::Screen;
use crate::tuf::refused;

/// What is put back.
pub(crate) struct Restored<'a> {
    /// Bundles of releases that the control plane has lost.
    pub(crate) bundles: &'a [PathBuf],
    /// Whether releases that nobody has any more are struck off.
    pub(crate) forget: bool,
    pub(crate) json: bool,
}

impl Restored<'_> {
    pub(crate) async fn run(&self, keys: &Keys, remote: &Remote, screen: &mut Screen) -> Result<(), Failure> {
        // It is refused, most likely: what is kept is what was seen before.
        let (kept, _) = refresh(remote, keys).await?;
        let repository = Repository::open(&kept).map_err(|error| refused("the repository", &error))?;
        let version = repository.version();
        let metadata = |name: String| format!("{}/tuf/metadata/{name}", remote.url());
        if is_there(remote, &metadata(format!("{version}.targets.json"))).await? {
            if self.json {
                return screen.json(&json!({ "targets": version, "files": [], "forgotten": [] }));
            }
            screen.note(format_args!("nothing is missing: the control plane has targets {version}, as this machine"));
            return Ok(());
        }
        let mut missing: BTreeMap<String, Digest> = BTreeMap::new();
        for (name, target) in repository.targets() {
            let path = repository.path(name).map_err(|error| refused(name, &error))?;
            if let Some(digest) = target.sha256()
                && !is_there(remote, &format!("{}/tuf/targets/{path}", remote.url())).await?
            {
                missing.insert(name.to_owned(), digest);
            }
        }
        let files = self.found(&repository, &missing, screen)?;
        let lost = lost(&repository, &missing, &files);
        let targets = match (lost.is_empty(), self.forget) {
            (true, _) => kept.targets.clone().unwrap_or_default(),
            (false, true) => without(&kept, &lost, keys, clock())?,
            (false, false) => {
                let names: Vec<&str> = lost.iter().map(String::as_str).collect();
                let what = format!(
                    "the control plane does not have files of targets {version} any more:\n  {}",
                    names.join("\n  ")
                );
                return Err(Failure::new(what).next(
                    "give their bundles, each with --bundle FILE; what nobody has is struck off the list with --forget",
                ));
            }
        };
        let root =
            Draft::read(&kept.root).and_then(|root| root.version()).map_err(|error| refused("the root", &error))?;
        let root = match is_there(remote, &metadata(format!("{root}.root.json"))).await? {
            true => None,
            false => Some(kept.root.as_slice()),
        };
        let signed = Draft::read(&targets).and_then(|draft| draft.version());
        let signed = signed.map_err(|error| refused("the targets", &error))?;
        let put: Vec<&String> = missing.keys().filter(|name| !lost.contains(*name)).collect();
        let shown = json!({ "targets": signed, "files": put, "forgotten": lost });
        upload(remote, files.into_values().collect(), root, &targets).await?;
        // As a device would: what it has seen before is in there again, or something newer.
        refresh(remote, keys).await?.1?;
        if self.json {
            return screen.json(&shown);
        }
        for (what, list) in [("put back", "files"), ("struck off", "forgotten")] {
            for name in shown.get(list).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
                screen.line(format_args!("{what}  {name}"))?;
            }
        }
        screen.line(format_args!("targets   {signed}"))?;
        screen.note("devices take new code again; deploy anew what was deployed since the backup: `holm fleet` shows what they run");
        Ok(())
    }

    /// What is missing and can be had: bundles that were named, and native code that is made of them again, the same to the byte.
    fn found(
        &self,
        repository: &Repository,
        missing: &BTreeMap<String, Digest>,
        screen: &mut Screen,
    ) -> Result<BTreeMap<Digest, Vec<u8>>, Failure> {
        let mut found = BTreeMap::new();
        for path in self.bundles {
            let bytes = std::fs::read(path)
                .map_err(|error| Failure::new(format!("cannot read the bundle {}: {error}", path.display())))?;
            let bundle = Bundle::open(&bytes, &BundleLimits::default())
                .map_err(|error| Failure::new(format!("{}: {}", path.display(), chain(&error))))?;
            if !missing.values().any(|digest| *digest == bundle.digest) {
                screen.note(format_args!("{} is no release that is missing", path.display()));
            }
            for profile in profiles(repository, missing, &bundle) {
                screen
                    .note(format_args!("compiling {} {} for {profile}", bundle.manifest.name, bundle.manifest.version));
                let file = native(&bundle, &profile)?;
                found.insert(Digest::of(&file.bytes), file.bytes);
            }
            found.insert(bundle.digest, bytes);
        }
        found.retain(|digest, _| missing.values().any(|wanted| wanted == digest));
        Ok(found)
    }
}

/// What cannot be put back; with a bundle goes the native code of its release.
fn lost(
    repository: &Repository,
    missing: &BTreeMap<String, Digest>,
    files: &BTreeMap<Digest, Vec<u8>>,
) -> BTreeSet<String> {
    let lost: BTreeSet<&str> =
        missing.iter().filter(|(_, digest)| !files.contains_key(*digest)).map(|(name, _)| name.as_str()).collect();
    let bundles = lost.iter().filter_map(|name| match Listing::of(repository.peek(name)?) {
        Ok(Some(Listing::Bundle { function, version, .. })) => Some(format!("functions/{function}/{version}/")),
        _ => None,
    });
    let folders: Vec<String> = bundles.collect();
    let with_it = |name: &str| folders.iter().any(|folder| name.starts_with(folder));
    let names = repository.targets().map(|(name, _)| name).filter(|name| lost.contains(name) || with_it(name));
    names.map(str::to_owned).collect()
}

/// The profiles of native code that is missing of a bundle.
fn profiles(repository: &Repository, missing: &BTreeMap<String, Digest>, bundle: &Bundle) -> BTreeSet<String> {
    let profile = |name: &String| match Listing::of(repository.peek(name)?) {
        Ok(Some(Listing::Native { component, profile, .. })) if component == bundle.component_digest => Some(profile),
        _ => None,
    };
    missing.keys().filter_map(profile).collect()
}

/// The list without what is lost, signed, under the next version.
fn without(kept: &Kept, lost: &BTreeSet<String>, keys: &Keys, now: Timestamp) -> Result<Vec<u8>, Failure> {
    let failed = |error| refused("the targets cannot be signed", &error);
    let (previous, add) = (kept.targets.as_deref(), BTreeMap::new());
    let mut draft = edit::targets(previous, &add, lost, now, &Terms::default()).map_err(failed)?;
    draft.sign(keys.targets()?).map_err(failed)?;
    draft.write().map_err(failed)
}

/// Whether a file is served. Not a byte of it is wanted.
async fn is_there(remote: &Remote, url: &str) -> Result<bool, Failure> {
    let (got, _) = remote.http().bytes(url, 0, crate::tuf::PATIENCE).await?;
    Ok(!matches!(got, Got::Missing))
}
