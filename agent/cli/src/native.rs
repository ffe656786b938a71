//! Native code of a release: for which engine profiles, and made by `holm-compile`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use holm_bundle::{Bundle, Digest};
use holm_core::ErrorCode;
use holm_trust::tuf::Listing;
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::imports::COMPILER;
use crate::programs;
use crate::publish::File;
use crate::screen::Screen;

/// What `holm-compile` says of a profile that it does not know, as a device of another release may have it.
const UNKNOWN: &str = "is not an engine profile";

/// Engine profiles that native code is made for.
pub(crate) struct Profiles {
    names: BTreeSet<String>,
    /// Somebody named them, rather than devices.
    named: bool,
}

/// What `holm-compile` says of its work.
#[derive(Deserialize)]
struct Report {
    digest: String,
    native_digest: String,
    profile: String,
    wasmtime: String,
}

impl Profiles {
    /// These.
    pub(crate) fn named(names: &[String]) -> Self {
        Self { names: names.iter().cloned().collect(), named: true }
    }

    /// Those that devices said they have.
    pub(crate) fn of_fleet(devices: &[Value]) -> Self {
        let profile = |device: &Value| device.pointer("/agent/profile")?.as_str().map(str::to_owned);
        let names = devices.iter().filter_map(profile).filter(|profile| !profile.is_empty()).collect();
        Self { names, named: false }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether it is a failure if nothing can be compiled.
    pub(crate) fn are_asked_for(&self) -> bool {
        self.named
    }

    /// Native code for each, but for those of devices that this compiler does not know.
    pub(crate) fn compile(&self, bundle: &Bundle, screen: &mut Screen) -> Result<Vec<File>, Failure> {
        let (name, version) = (&bundle.manifest.name, &bundle.manifest.version);
        let mut files = Vec::new();
        for profile in &self.names {
            screen.note(format_args!("compiling {name} {version} for {profile}"));
            match native(bundle, profile) {
                Ok(file) => files.push(file),
                Err(failure) if !self.named && failure.mentions(UNKNOWN) => screen.note(format_args!(
                    "none for {profile}: this {COMPILER} does not know it; devices that have it compile for themselves"
                )),
                Err(failure) => return Err(failure),
            }
        }
        Ok(files)
    }
}

/// Whether there is a compiler on this machine.
pub(crate) fn can_compile() -> bool {
    programs::find(COMPILER).is_some()
}

/// Native code of the bundle's component, made by `holm-compile`.
pub(crate) fn native(bundle: &Bundle, profile: &str) -> Result<File, Failure> {
    let compiler = programs::find(COMPILER).ok_or_else(|| {
        Failure::new("holm-compile is neither beside holm nor on the PATH")
            .next("publish with `--profile none`, or install it")
            .page(ErrorCode::ProgramMissing)
    })?;
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot run {}: {error}", compiler.display()));
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    let (input, output) = (folder.path().join("component.wasm"), folder.path().join("native.cwasm"));
    std::fs::write(&input, &bundle.component).map_err(|error| failed(&error))?;
    let ran = run(&compiler, profile, &input, &output).map_err(|error| failed(&error))?;
    if !ran.status.success() {
        let words = String::from_utf8_lossy(&ran.stderr);
        let words = words.trim().trim_start_matches("holm-compile:").trim();
        return Err(Failure::new(format!("{} does not compile for {profile}: {words}", bundle.manifest.name))
            .next("see that the build makes a component for `wasm32-wasip2` that exports the handler")
            .page(ErrorCode::ComponentWrong));
    }
    let report: Report = serde_json::from_slice(&ran.stdout).map_err(|error| failed(&error))?;
    let bytes = std::fs::read(&output).map_err(|error| failed(&error))?;
    if report.digest != bundle.component_digest.to_string() || report.native_digest != Digest::of(&bytes).to_string() {
        return Err(failed(&"what it made is not what it says it made"));
    }
    let Report { profile, wasmtime, .. } = report;
    // As it is written into native code.
    let engine_key = format!("wasmtime-{wasmtime}-{profile}");
    let manifest = &bundle.manifest;
    let name = Listing::native_name(&manifest.name, &manifest.version, &engine_key);
    let listing = Listing::Native { component: bundle.component_digest, engine: wasmtime, profile };
    Ok(File { name, listing, bytes })
}

fn run(compiler: &Path, profile: &str, input: &Path, output: &Path) -> std::io::Result<std::process::Output> {
    Command::new(compiler).args(["--profile", profile]).arg(input).arg(output).output()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fleet_says_for_what_is_compiled() {
        let device = |profile: &str| json!({ "agent": { "profile": profile } });
        let devices = [device("x64-v1"), device("generic-v8"), device("x64-v1"), device(""), json!({ "agent": null })];
        let profiles = Profiles::of_fleet(&devices);
        assert_eq!(profiles.names.into_iter().collect::<Vec<_>>(), ["generic-v8", "x64-v1"]);
    }
}
