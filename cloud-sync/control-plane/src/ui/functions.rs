//! Releases in the code repository, and where they run.

use std::sync::Arc;

use axum::extract::State;
use holm_core::Timestamp;
use holm_protocol::limits::MAX_FUNCTIONS;
use holm_trust::tuf::{Listing, Repository, RoleName};
use maud::{Markup, html};

use super::device::short;
use super::failure::Failure;
use super::frame::{Place, frame};
use super::session::Session;
use super::shown::{Mood, ago, bytes, counted, moment, state};
use crate::error::trust;
use crate::plane::Plane;
use crate::records::Running;

/// A bundle that is listed.
struct Release {
    function: String,
    version: String,
    sequence: u64,
    digest: String,
    length: u64,
    permissions: Vec<String>,
    /// Engine profiles that native code is listed for.
    native: Vec<String>,
}

pub(super) async fn page(session: Session, State(plane): State<Arc<Plane>>) -> Result<Markup, Failure> {
    let now = (plane.clock)();
    let held = plane.records.repository().await?;
    let running = plane.records.running().await?;
    let repository = match held.as_ref().filter(|held| held.kept.targets.is_some()) {
        Some(held) => Some(Repository::open(&held.kept).map_err(trust("read the targets"))?),
        None => None,
    };
    let releases = repository.as_ref().map(releases).unwrap_or_default();
    let unlisted: Vec<&Running> =
        running.iter().filter(|found| !releases.iter().any(|release| is_of(release, found))).collect();
    let body = html! {
        h1 { "Functions" }
        @match &repository {
            Some(repository) => (expiry(repository, now)),
            None => p.empty {
                "Nothing is published here yet. Make your keys with " code { "holm key new --cloud" } ", then sign a bundle with "
                code { "holm publish BUNDLE" } ": code is signed on your machine, never here."
            },
        }
        @if !releases.is_empty() {
            section aria-labelledby="releases" {
                h2 #releases { "Releases" }
                div.wide { table.stack {
                    thead { tr {
                        th { "Function" } th { "Version" } th.number { "Sequence" } th { "Digest" } th.number { "Size" }
                        th { "Native code" } th { "May" } th { "Runs on" }
                    } }
                    tbody { @for release in &releases { (row(release, &running)) } }
                } }
            }
        }
        @if !unlisted.is_empty() {
            section aria-labelledby="unlisted" {
                h2 #unlisted { "Run without a release" }
                p.help { "Deployed on the device itself, or from another repository." }
                div.wide { table.stack {
                    thead { tr { th { "Function" } th { "Version" } th { "Digest" } th { "Runs on" } } }
                    tbody { @for found in unlisted.iter().take(MAX_FUNCTIONS) { tr {
                        td data-name="Function" { (found.function) }
                        td data-name="Version" { (found.version) }
                        td data-name="Digest" { code title=(found.sha256) { (short(&found.sha256)) } }
                        td data-name="Runs on" { (devices_of(found.devices, &found.thing)) }
                    } } }
                } }
            }
        }
    };
    Ok(frame(&session, Place::Functions, "Functions", body))
}

/// By function, the latest release first.
fn releases(repository: &Repository) -> Vec<Release> {
    let mut found = Vec::new();
    for (name, target) in repository.targets() {
        let Ok(Some(Listing::Bundle { function, version, sequence, permissions })) = Listing::of(target) else {
            continue;
        };
        let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let native =
            repository.targets().filter(|(other, _)| other.rsplit_once('/').map_or("", |(folder, _)| folder) == folder);
        let mut native: Vec<String> = native
            .filter_map(|(_, target)| match Listing::of(target) {
                Ok(Some(Listing::Native { profile, .. })) => Some(profile),
                _ => None,
            })
            .collect();
        native.sort();
        native.dedup();
        found.push(Release {
            function: function.to_string(),
            version,
            sequence,
            digest: target.sha256().map(|digest| digest.to_string()).unwrap_or_default(),
            length: target.length,
            permissions,
            native,
        });
    }
    found.sort_by(|a, b| a.function.cmp(&b.function).then(b.sequence.cmp(&a.sequence)));
    found
}

fn is_of(release: &Release, found: &Running) -> bool {
    release.function == found.function
        && release.digest.trim_start_matches("sha256:") == found.sha256.trim_start_matches("sha256:")
}

fn row(release: &Release, running: &[Running]) -> Markup {
    let runs = running.iter().find(|found| is_of(release, found));
    html! { tr {
        td data-name="Function" { (release.function) }
        td data-name="Version" { (release.version) }
        td.number data-name="Sequence" { (release.sequence) }
        td data-name="Digest" { code title=(release.digest) { (short(&release.digest)) } }
        td.number data-name="Size" { (bytes(release.length)) }
        td data-name="Native code" { @if release.native.is_empty() { "compiled on devices" } @else { (release.native.join(", ")) } }
        td data-name="May" {
            @if release.permissions.is_empty() { "nothing" }
            @else {
                details { summary { (counted(u64::try_from(release.permissions.len()).unwrap_or(0), "grant", "grants")) }
                    ul.plain { @for grant in &release.permissions { li { code { (grant) } } } }
                }
            }
        }
        td data-name="Runs on" { @match runs {
            Some(found) => (devices_of(found.devices, &found.thing)),
            None => span.dim { "no device" },
        } }
    } }
}

fn devices_of(devices: u64, thing: &str) -> Markup {
    html! {
        a href={ "/devices/" (thing) } { (thing) }
        @if devices > 1 { " and " (counted(devices - 1, "other", "others")) }
    }
}

/// How long what is signed is good for.
fn expiry(repository: &Repository, now: Timestamp) -> Markup {
    html! {
        dl.facts {
            @for (name, role) in [("Root", RoleName::Root), ("Targets", RoleName::Targets), ("Timestamp", RoleName::Timestamp)] {
                @if let Some(expires) = repository.expires(role) {
                    div { dt { (name) " good until" } dd {
                        (moment(expires)) " "
                        @if expires < now { (state(Mood::Bad, "expired: devices take no new code")) }
                        @else { span.dim { (ago(expires, now)) } }
                    } }
                }
            }
        }
    }
}
