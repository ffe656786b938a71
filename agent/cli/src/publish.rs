//! `holm publish`: a release, signed on this machine.
//!
//! Everything that devices will run is made here: the control plane stores it and cannot change it. Uploads come first and the
//! metadata last, so one that is cut off has published nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::{ErrorCode, FunctionName, Manifest, TopicFilter};
use holm_protocol::AGENT;
use holm_trust::tuf::edit::NewTarget;
use holm_trust::tuf::{Draft, Kept, Listing, Repository, RoleName};
use serde_json::{Value, json};

use crate::build::chain;
use crate::failure::Failure;
use crate::fleet;
use crate::imports::COMPILER;
use crate::keys::{self, Keys};
use crate::look::{self, Look, Tone};
use crate::native::{self, Profiles};
use crate::publish_agent;
use crate::remote::Remote;
use crate::repository::{refresh, sign_targets, upload};
use crate::screen::Screen;
use crate::table::list;
use crate::tuf::refused;

/// In the place of a profile.
const NO_PROFILE: &str = "none";

/// See `holm publish --help`.
#[derive(clap::Args)]
pub(crate) struct Publish {
    /// A bundle, as `holm build` makes it; or a holmd, to be sent over the air
    bundle: PathBuf,
    /// Sign native code for this engine profile; may be given several times; `none`: none is signed [default: those of the fleet].
    /// Other devices compile for themselves
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// The new version may do more than the one before
    #[arg(long)]
    approve_permissions: bool,
    /// The folder of the keys [default: ~/.config/holm/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A file of the release.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) listing: Listing,
    pub(crate) bytes: Vec<u8>,
}

/// The release before.
struct Before {
    version: String,
    sequence: u64,
    permissions: Vec<String>,
}

impl Publish {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let bytes = std::fs::read(&self.bundle).map_err(|error| {
            Failure::new(format!("cannot read the bundle {}: {error}", self.bundle.display()))
                .next("make one with `holm build DIR`")
        })?;
        let keys = Keys::open(keys::folder(self.keys.as_deref())?)?;
        if publish_agent::is_program(&bytes) {
            let (named, remote) = (self.bundle.display().to_string(), Remote::open()?);
            return publish_agent::run(&named, bytes, &keys, &remote, self.json, screen).await;
        }
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(|error| {
            Failure::new(format!("{}: {}", self.bundle.display(), chain(&error)))
                .next("make it anew with `holm build DIR`")
                .page(ErrorCode::BundleRefused)
        })?;
        let key = keys.targets()?;
        let remote = Remote::open()?;
        let (kept, outcome) = refresh(&remote, &keys).await?;
        outcome?;
        let (name, version) = (&bundle.manifest.name, &*bundle.manifest.version);
        if name.as_str() == AGENT {
            return Err(Failure::new(format!("a function cannot be called {AGENT}: that is the agent"))
                .next("give it another name in holm.toml, and build it again")
                .page(ErrorCode::BundleRefused));
        }
        let before = latest(&kept, name, version)?;
        let permissions = permissions(&bundle.manifest);
        let widened = before.as_ref().map(|before| widened(&before.permissions, &permissions)).unwrap_or_default();
        if !widened.is_empty() && !self.approve_permissions {
            let was = before.map(|before| before.version).unwrap_or_default();
            let more = widened.join("\n  + ");
            return Err(Failure::new(format!("{name} {version} wants to do more than {was}:\n  + {more}"))
                .next("if that is right, publish with --approve-permissions")
                .page(ErrorCode::PermissionsGrow));
        }
        let sequence = before.as_ref().map_or(1, |before| before.sequence.saturating_add(1));
        let listing = Listing::Bundle {
            function: name.clone(),
            version: version.to_owned(),
            sequence,
            permissions: permissions.clone(),
        };
        let mut files = vec![File { name: Listing::bundle_name(name, version), listing, bytes }];
        files.extend(self.native(&remote, &bundle, screen).await?);
        let add = files.iter().map(File::target).collect::<Result<BTreeMap<String, NewTarget>, Failure>>()?;
        let targets = sign_targets(kept.targets.as_deref(), &add, key)?;
        let signed = Draft::read(&targets).and_then(|draft| draft.version());
        let signed = signed.map_err(|error| refused("the targets", &error))?;
        let shown = shown(&files, name, version, sequence, &permissions, &widened, signed);
        upload(&remote, files.into_iter().map(|file| file.bytes).collect(), None, &targets).await?;
        // So that the next publication builds on this one, whatever the control plane says then.
        refresh(&remote, &keys).await?.1?;
        match self.json {
            true => screen.json(&shown),
            false => {
                let text = render(&shown, &screen.look);
                screen.text(&text)?;
                screen.note(format_args!("next: holm deploy {name}@{version} --device NAME --watch"));
                Ok(())
            }
        }
    }
}

impl Publish {
    /// Native code for those profiles that were named, or else for those of the fleet. What nobody has asked for and cannot be made is told,
    /// and left out.
    async fn native(&self, remote: &Remote, bundle: &Bundle, screen: &mut Screen) -> Result<Vec<File>, Failure> {
        let profiles = match self.profiles.as_slice() {
            [] => Profiles::of_fleet(&fleet::all(remote).await?),
            [none] if none == NO_PROFILE => return Ok(Vec::new()),
            named => Profiles::named(named),
        };
        let later = "`holm republish` signs it later";
        if profiles.is_empty() {
            screen.note(format_args!("no native code is signed: no device has come yet; {later}"));
            return Ok(Vec::new());
        }
        if profiles.are_asked_for() || native::can_compile() {
            return profiles.compile(bundle, screen);
        }
        screen.note(format_args!(
            "no native code is signed: {COMPILER} is neither beside holm nor on the PATH; devices compile for themselves, \
             and {later}"
        ));
        Ok(Vec::new())
    }
}

impl File {
    pub(crate) fn target(&self) -> Result<(String, NewTarget), Failure> {
        let custom = self.listing.custom().map_err(|error| refused(&self.name, &error))?;
        let length = u64::try_from(self.bytes.len()).unwrap_or(u64::MAX);
        Ok((self.name.clone(), NewTarget { length, sha256: Digest::of(&self.bytes), custom }))
    }
}

/// The release before this one. Fails if this one is there already.
fn latest(kept: &Kept, function: &FunctionName, version: &str) -> Result<Option<Before>, Failure> {
    let repository = Repository::open(kept).map_err(|error| refused("the repository", &error))?;
    if repository.peek(&Listing::bundle_name(function, version)).is_some() {
        return Err(Failure::new(format!("{function} {version} is published already, and versions do not change"))
            .next("give it another version in holm.toml, and build it again")
            .page(ErrorCode::VersionTaken));
    }
    let mut latest: Option<Before> = None;
    for (name, target) in repository.targets() {
        let listing = Listing::of(target).map_err(|error| refused(name, &error))?;
        if let Some(Listing::Bundle { function: named, version, sequence, permissions }) = listing
            && named == *function
            && latest.as_ref().is_none_or(|latest| latest.sequence < sequence)
        {
            latest = Some(Before { version, sequence, permissions });
        }
    }
    Ok(latest)
}

/// What a manifest asks for, one line each, in the manifest's own words.
fn permissions(manifest: &Manifest) -> Vec<String> {
    let permissions = &manifest.permissions;
    let publish = permissions.publish.iter().map(|filter| format!("publish {filter}"));
    let kv = permissions.kv.iter().map(|(name, write)| format!("kv {}:{name}", if *write { "rw" } else { "ro" }));
    let invoke = permissions.invoke.iter().map(|name| format!("invoke {name}"));
    let sensors = permissions.sensors.iter().map(|name| format!("sensor {name}"));
    let lines =
        permissions.gpio.iter().map(|(name, drive)| format!("gpio {}:{name}", if *drive { "out" } else { "in" }));
    let i2c = permissions.i2c.iter().map(|(bus, one)| match one {
        Some(address) => format!("i2c {bus}:{address:#04x}"),
        None => format!("i2c {bus}:*"),
    });
    let spi = permissions.spi.iter().map(|name| format!("spi {name}"));
    // Control planes go by this line when they choose which functions get a secret.
    let secrets = permissions.secrets.iter().map(|name| format!("secret {name}"));
    publish.chain(kv).chain(invoke).chain(sensors).chain(lines).chain(i2c).chain(spi).chain(secrets).collect()
}

/// What is wanted now and was not granted before.
fn widened(before: &[String], now: &[String]) -> Vec<String> {
    now.iter().filter(|wanted| !before.iter().any(|granted| covers(granted, wanted))).cloned().collect()
}

fn covers(granted: &str, wanted: &str) -> bool {
    if granted == wanted {
        return true;
    }
    match (granted.split_once(' '), wanted.split_once(' ')) {
        (Some(("publish", granted)), Some(("publish", wanted))) => {
            matches!((TopicFilter::new(granted), TopicFilter::new(wanted)), (Ok(granted), Ok(wanted)) if granted.covers(&wanted))
        }
        (Some(("kv", granted)), Some(("kv", wanted))) => match (granted.split_once(':'), wanted.split_once(':')) {
            (Some(("rw", granted)), Some(("ro", wanted))) => granted == wanted,
            _ => false,
        },
        (Some(("gpio", granted)), Some(("gpio", wanted))) => {
            matches!((granted.strip_prefix("out:"), wanted.strip_prefix("in:")), (Some(granted), Some(wanted)) if granted == wanted)
        }
        // A whole bus, and one address on it.
        (Some(("i2c", granted)), Some(("i2c", wanted))) => {
            let bus = |text: &str| text.split_once(':').map(|(bus, _)| bus.to_owned());
            granted.ends_with(":*") && bus(granted) == bus(wanted)
        }
        _ => false,
    }
}

/// What was signed.
fn shown(
    files: &[File],
    function: &FunctionName,
    version: &str,
    sequence: u64,
    permissions: &[String],
    widened: &[String],
    signed: u64,
) -> Value {
    let file = |file: &File| {
        let (engine, profile) = match &file.listing {
            Listing::Native { engine, profile, .. } => (Some(engine), Some(profile)),
            _ => (None, None),
        };
        json!({
            "name": file.name,
            "length": file.bytes.len(),
            "sha256": Digest::of(&file.bytes).to_string(),
            "engine": engine,
            "profile": profile,
        })
    };
    json!({
        "function": function.to_string(),
        "version": version,
        "sequence": sequence,
        "permissions": permissions,
        "widened": widened,
        "files": files.iter().map(file).collect::<Vec<Value>>(),
        "targets": signed,
    })
}

fn render(shown: &Value, look: &Look) -> String {
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or_default();
    let texts = |name: &str| -> Vec<String> {
        let values = shown.get(name).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let widened = texts("widened");
    let permissions: Vec<String> = texts("permissions")
        .into_iter()
        .map(|line| match widened.contains(&line) {
            true => look.paint(Tone::Warn, &format!("{line} (new)")),
            false => line,
        })
        .collect();
    let name = look.paint(Tone::Strong, &text(shown, "function"));
    let mut entries = vec![
        ("published", format!("{name} {}, release {}", text(shown, "version"), number(shown, "sequence"))),
        ("may", if permissions.is_empty() { "nothing".to_owned() } else { permissions.join(", ") }),
    ];
    for file in shown.get("files").and_then(Value::as_array).into_iter().flatten() {
        let (size, digest) = (look::bytes(number(file, "length")), text(file, "sha256"));
        entries.push(match text(file, "profile") {
            profile if profile.is_empty() => ("bundle", format!("{size}, sha256 {digest}")),
            profile => ("native", format!("{size}, sha256 {digest}, {profile}, wasmtime {}", text(file, "engine"))),
        });
    }
    let role = RoleName::Targets;
    entries.push(("signed", format!("{role} {}", number(shown, "targets"))));
    list(look, &entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_granted_is_more() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        for (before, now, expected) in [
            (&["publish a/#", "kv rw:self"][..], &["publish a/b", "kv ro:self"][..], &[][..]),
            (&["publish a/b"], &["publish a/#"], &["publish a/#"]),
            (&["kv ro:shared/x"], &["kv rw:shared/x"], &["kv rw:shared/x"]),
            (&["invoke a"], &["invoke a", "invoke b"], &["invoke b"]),
            (&["publish a"], &["kv rw:self"], &["kv rw:self"]),
            (&["something newer"], &[], &[]),
        ] {
            assert_eq!(widened(&lines(before), &lines(now)), lines(expected), "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_was_signed_is_shown() {
        let shown = json!({
            "function": "flow", "version": "1.1.0", "sequence": 2, "permissions": ["publish a", "kv rw:self"],
            "widened": ["kv rw:self"], "targets": 4, "files": [
                { "name": "f", "length": 2048, "sha256": "d1", "engine": null, "profile": null },
                { "name": "n", "length": 4096, "sha256": "d2", "engine": "48.0.8", "profile": "x64-v1" },
            ],
        });
        assert_eq!(
            render(&shown, &Look::plain()),
            "published  flow 1.1.0, release 2\n\
             may        publish a, kv rw:self (new)\n\
             bundle     2.0 KiB, sha256 d1\n\
             native     4.0 KiB, sha256 d2, x64-v1, wasmtime 48.0.8\n\
             signed     targets 4\n"
        );
    }
}
