//! `holm publish` of an agent: a `holmd`, for one kind of processor, that devices shall run.
//!
//! What it is stands in the program itself: it need not run where it is published.

use std::collections::BTreeMap;

use holm_bundle::Digest;
use holm_core::ErrorCode;
use holm_protocol::{AGENT, AgentBuild};
use holm_trust::tuf::{Draft, Kept, Listing, Repository};
use serde_json::json;

use crate::failure::Failure;
use crate::keys::Keys;
use crate::look::{self, Tone};
use crate::publish::File;
use crate::remote::Remote;
use crate::repository::{refresh, sign_targets, upload};
use crate::screen::Screen;
use crate::table::list;
use crate::tuf::refused;

/// What a program for Linux begins with.
const PROGRAM: &[u8] = b"\x7fELF";

/// Whether this is a program, and no bundle.
pub(crate) fn is_program(bytes: &[u8]) -> bool {
    bytes.starts_with(PROGRAM)
}

/// Signs and uploads it.
pub(crate) async fn run(
    named: &str,
    program: Vec<u8>,
    keys: &Keys,
    remote: &Remote,
    as_json: bool,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let build = AgentBuild::in_program(&program).ok_or_else(|| {
        Failure::new(format!("{named} is a program, and does not say that it is a holmd"))
            .next("name a bundle, or the holmd of a release that can be sent over the air")
            .page(ErrorCode::BundleRefused)
    })?;
    let key = keys.targets()?;
    let (kept, outcome) = refresh(remote, keys).await?;
    outcome
        .map_err(|failure| failure.next("see `holm key status`; what has expired is renewed with `holm key renew`"))?;
    let (sequence, engines) = place(&kept, &build)?;
    let AgentBuild { version, arch, engine, profile } = build;
    let listing = Listing::Agent {
        version: version.clone(),
        arch: arch.clone(),
        engine: engine.clone(),
        profile: profile.clone(),
        sequence,
    };
    let file = File { name: Listing::agent_name(&version, &arch), listing, bytes: program };
    let targets = sign_targets(kept.targets.as_deref(), &BTreeMap::from([file.target()?]), key)?;
    let signed = Draft::read(&targets).and_then(|draft| draft.version());
    let signed = signed.map_err(|error| refused("the targets", &error))?;
    let (length, digest) = (file.bytes.len(), Digest::of(&file.bytes));
    upload(remote, vec![file.bytes], None, &targets).await?;
    // So that the next publication builds on this one, whatever the control plane says then.
    refresh(remote, keys).await?.1?;
    if as_json {
        return screen.json(&json!({
            "agent": version, "arch": arch, "engine": engine, "profile": profile, "sequence": sequence,
            "length": length, "sha256": digest.to_string(), "targets": signed,
        }));
    }
    let size = look::bytes(u64::try_from(length).unwrap_or(u64::MAX));
    let text = list(
        &screen.look,
        &[
            (
                "published",
                format!("{} {version} for {arch}, release {sequence}", screen.look.paint(Tone::Strong, AGENT)),
            ),
            ("program", format!("{size}, sha256 {digest}")),
            ("engine", format!("wasmtime {engine}, {profile}")),
            ("signed", format!("targets {signed}")),
        ],
    );
    screen.text(&text)?;
    if !engines.is_empty() && !engines.contains(&engine) {
        screen.note(format_args!(
            "functions have native code for other engines only: `holm republish`, with the holm-compile of this release, makes it"
        ));
    }
    screen.note(format_args!("next: holm deploy {AGENT}@{version} --group NAME --canary 10% --watch"));
    Ok(())
}

/// The release's place in the order of agents, and the engines that functions have native code for, of this profile.
fn place(kept: &Kept, build: &AgentBuild) -> Result<(u64, Vec<String>), Failure> {
    let repository = Repository::open(kept).map_err(|error| refused("the repository", &error))?;
    let AgentBuild { version, arch, profile, .. } = build;
    if repository.peek(&Listing::agent_name(version, arch)).is_some() {
        return Err(Failure::new(format!(
            "{AGENT} {version} for {arch} is published already, and versions do not change"
        ))
        .next("build it with another version")
        .page(ErrorCode::VersionTaken));
    }
    let (mut highest, mut same, mut engines) = (0, None, Vec::new());
    for (name, target) in repository.targets() {
        match Listing::of(target).map_err(|error| refused(name, &error))? {
            Some(Listing::Agent { version: other, sequence, .. }) => {
                highest = highest.max(sequence);
                if other == *version {
                    same = Some(sequence);
                }
            }
            Some(Listing::Native { engine, profile: of, .. }) if of == *profile => engines.push(engine),
            _ => {}
        }
    }
    Ok((same.unwrap_or(highest + 1), engines))
}
