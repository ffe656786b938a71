//! `holm republish`: native code for releases that are there already, for an engine that they were not compiled for.
//!
//! A device loads native code for its own wasmtime and profile only. With a patch of wasmtime all of that is stale, and devices
//! without a compiler have nothing to run until there is more. So the bundles of the repository are compiled again here, and what comes of
//! it is signed as further targets beside them: the same versions, release sequences and components. No version changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::FunctionName;
use holm_trust::tuf::edit::NewTarget;
use holm_trust::tuf::{Listing, Repository};
use serde_json::{Value, json};

use crate::build::chain;
use crate::failure::Failure;
use crate::fleet;
use crate::keys::{self, Keys};
use crate::native::Profiles;
use crate::publish::File;
use crate::remote::Remote;
use crate::repository::{refresh, sign_targets, upload};
use crate::restored::Restored;
use crate::screen::Screen;
use crate::tuf::refused;

/// See `holm republish --help`.
#[derive(clap::Args)]
pub(crate) struct Republish {
    /// Only this function [default: all]
    function: Option<FunctionName>,
    /// For this engine profile; may be given several times [default: those of the fleet]
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// All versions that were ever published, and not only the latest ones and what devices run
    #[arg(long)]
    all: bool,
    /// Put back what was published since the backup that the control plane was restored from
    #[arg(long, conflicts_with_all = ["function", "profiles", "all"])]
    restored: bool,
    /// A bundle of a release that the control plane has lost; may be given several times
    #[arg(long = "bundle", value_name = "FILE", requires = "restored")]
    bundles: Vec<PathBuf>,
    /// Strike releases off that nobody has any more
    #[arg(long, requires = "restored")]
    forget: bool,
    /// The folder of the keys [default: ~/.config/holm/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A release that is listed.
struct Release {
    function: FunctionName,
    version: String,
    sequence: u64,
    target: String,
    digest: Digest,
}

impl Republish {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let keys = Keys::open(keys::folder(self.keys.as_deref())?)?;
        let remote = Remote::open()?;
        if self.restored {
            let restored = Restored { bundles: &self.bundles, forget: self.forget, json: self.json };
            return restored.run(&keys, &remote, screen).await;
        }
        let key = keys.targets()?;
        let (kept, outcome) = refresh(&remote, &keys).await?;
        outcome?;
        let repository = Repository::open(&kept).map_err(|error| refused("the repository", &error))?;
        let devices = fleet::all(&remote).await?;
        let profiles = match self.profiles.is_empty() {
            true => Profiles::of_fleet(&devices),
            false => Profiles::named(&self.profiles),
        };
        if profiles.is_empty() {
            return Err(Failure::new("there is no device whose engine profile is known")
                .next("name one, such as `--profile generic-v8`"));
        }
        let releases = self.wanted(&repository, &devices)?;
        let mut files: Vec<File> = Vec::new();
        for release in &releases {
            let bundle = fetch(&remote, &repository, release).await?;
            // What is listed stays as it was signed: a compiler that makes other bytes today is no reason to change it.
            let made = profiles.compile(&bundle, screen)?;
            files.extend(made.into_iter().filter(|file| repository.peek(&file.name).is_none()));
        }
        let shown: Vec<Value> = files
            .iter()
            .map(|file| json!({ "name": file.name, "length": file.bytes.len(), "sha256": Digest::of(&file.bytes).to_string() }))
            .collect();
        if !files.is_empty() {
            let add = files.iter().map(File::target).collect::<Result<BTreeMap<String, NewTarget>, Failure>>()?;
            let targets = sign_targets(kept.targets.as_deref(), &add, key)?;
            upload(&remote, files.into_iter().map(|file| file.bytes).collect(), None, &targets).await?;
            // So that the next publication builds on this one, whatever the control plane says then.
            refresh(&remote, &keys).await?.1?;
        }
        if self.json {
            return screen.json(&json!({ "files": shown }));
        }
        for file in &shown {
            screen.line(format_args!("signed   {}", file.get("name").and_then(Value::as_str).unwrap_or_default()))?;
        }
        screen.note(match shown.is_empty() {
            true => "all of it is there already",
            false => "devices that need it take it with their next deployment, of the same version too",
        });
        Ok(())
    }

    fn wanted(&self, repository: &Repository, devices: &[Value]) -> Result<Vec<Release>, Failure> {
        let mut all = Vec::new();
        for (name, target) in repository.targets() {
            let listing = Listing::of(target).map_err(|error| refused(name, &error))?;
            let (Some(Listing::Bundle { function, version, sequence, .. }), Some(digest)) = (listing, target.sha256())
            else {
                continue;
            };
            if self.function.as_ref().is_none_or(|wanted| *wanted == function) {
                all.push(Release { function, version, sequence, target: name.to_owned(), digest });
            }
        }
        if let (Some(function), true) = (&self.function, all.is_empty()) {
            return Err(
                Failure::new(format!("{function} was never published")).next("publish it with `holm publish BUNDLE`")
            );
        }
        let mut latest: BTreeMap<String, u64> = BTreeMap::new();
        for release in &all {
            let sequence = latest.entry(release.function.to_string()).or_default();
            *sequence = release.sequence.max(*sequence);
        }
        let run = running(devices);
        all.retain(|release| {
            let is_latest = latest.get(release.function.as_str()) == Some(&release.sequence);
            self.all || is_latest || run.contains(&release.digest.to_string())
        });
        Ok(all)
    }
}

/// The bundle, which is the one that was signed.
async fn fetch(remote: &Remote, repository: &Repository, release: &Release) -> Result<Bundle, Failure> {
    let bytes = remote.bytes(&format!("/v1/blobs/{}", release.digest)).await?;
    let what = format!("{} {}", release.function, release.version);
    let target =
        repository.peek(&release.target).ok_or_else(|| Failure::new(format!("{what} is not listed any more")))?;
    let mut check = target.check(&release.target);
    check.update(&bytes).and_then(|()| check.finish()).map_err(|error| refused(&what, &error))?;
    Bundle::open(&bytes, &BundleLimits::default()).map_err(|error| Failure::new(format!("{what}: {}", chain(&error))))
}

/// The digests of what devices run.
fn running(devices: &[Value]) -> BTreeSet<String> {
    let functions = devices.iter().filter_map(|device| device.pointer("/reported/functions")?.as_array());
    functions.flatten().filter_map(|function| function.get("sha256")?.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_says_what_it_runs() {
        let device = |digest: &str| json!({ "reported": { "functions": [{ "sha256": digest }] } });
        let devices = [device("a"), device("b"), device("b"), json!({ "reported": null })];
        assert_eq!(running(&devices).len(), 2);
    }
}
