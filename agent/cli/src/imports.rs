//! What a component imports, held against what its manifest grants.

use std::path::Path;
use std::process::Command;

use holm_core::{ErrorCode, Manifest};

use crate::failure::Failure;
use crate::programs;
use crate::reply::Compiled;

/// The program that looks a component through.
pub(crate) const COMPILER: &str = "holm-compile";

/// One import.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Import {
    /// The interface, with its version.
    pub(crate) interface: String,
    /// The permission that it is of no use without.
    pub(crate) needs: Option<&'static str>,
    /// Whether the manifest grants any of that. Without a need, everybody has it.
    pub(crate) granted: bool,
}

/// Runs `holm-compile`, which is found beside `holm` or on the path. `None` if it is not there.
pub(crate) fn inspect(source: &Path, component: &[u8]) -> Result<Option<Compiled>, Failure> {
    let Some(compiler) = programs::find(COMPILER) else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot run {}: {error}", compiler.display()));
    let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
    // What the build has made may be a core module: this is its component.
    let input = folder.path().join("component.wasm");
    std::fs::write(&input, component).map_err(|error| failed(&error))?;
    let output = Command::new(&compiler)
        .arg(&input)
        .arg(folder.path().join("native.cwasm"))
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        let words = words.trim().trim_start_matches("holm-compile:").trim();
        return Err(Failure::new(format!("{} does not compile: {words}", source.display()))
            .next("see that the build makes a component that exports the handler: `wasm32-wasip2` in Rust, `holm cc` in C")
            .page(ErrorCode::ComponentWrong));
    }
    serde_json::from_slice(&output.stdout).map(Some).map_err(|error| failed(&error))
}

/// Holds every import against the manifest.
pub(crate) fn hold(imports: &[String], manifest: &Manifest) -> Vec<Import> {
    let held = |interface: &String| {
        let name = interface.split('@').next().unwrap_or(interface);
        let permissions = &manifest.permissions;
        let (needs, granted) = match name {
            "holm:function/publish" => (Some("permissions.publish"), !permissions.publish.is_empty()),
            "holm:function/results" => (Some("results"), !manifest.results.is_empty()),
            "holm:function/invoke" => (Some("permissions.invoke"), !permissions.invoke.is_empty()),
            "holm:function/sensors" => (Some("permissions.sensors"), !permissions.sensors.is_empty()),
            "holm:function/gpio" => (Some("permissions.gpio"), !permissions.gpio.is_empty()),
            "holm:function/i2c" => (Some("permissions.i2c"), !permissions.i2c.is_empty()),
            "holm:function/spi" => (Some("permissions.spi"), !permissions.spi.is_empty()),
            "holm:function/secrets" => (Some("permissions.secrets"), !permissions.secrets.is_empty()),
            name if name.starts_with("wasi:keyvalue/") => (Some("permissions.kv"), !permissions.kv.is_empty()),
            _ => (None, true),
        };
        Import { interface: interface.clone(), needs, granted }
    };
    imports.iter().map(held).collect()
}

/// What is granted, or not, against what is imported: for people to look at, and no failure. A component may import
/// what it calls only sometimes, and a denied call is an error that it can handle.
pub(crate) fn remarks(held: &[Import], manifest: &Manifest) -> Vec<String> {
    let mut remarks: Vec<String> = held
        .iter()
        .filter(|import| !import.granted)
        .map(|import| {
            let needs = import.needs.unwrap_or_default();
            format!("it imports {}, but [{needs}] grants nothing: every call will be denied", import.interface)
        })
        .collect();
    let permissions = &manifest.permissions;
    for (needs, granted) in [
        ("permissions.publish", !permissions.publish.is_empty()),
        ("permissions.kv", !permissions.kv.is_empty()),
        ("permissions.invoke", !permissions.invoke.is_empty()),
        ("permissions.sensors", !permissions.sensors.is_empty()),
        ("permissions.gpio", !permissions.gpio.is_empty()),
        ("permissions.i2c", !permissions.i2c.is_empty()),
        ("permissions.spi", !permissions.spi.is_empty()),
        ("permissions.secrets", !permissions.secrets.is_empty()),
        ("results", !manifest.results.is_empty()),
    ] {
        if granted && !held.iter().any(|import| import.needs == Some(needs)) {
            remarks.push(format!("[{needs}] grants what the component never uses: leave it out"));
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing_and_what_is_too_much() {
        let text =
            "manifest_version = 1\n[function]\nname = \"f\"\nversion = \"1.0.0\"\n[permissions]\nkv = [\"rw:self\"]\n";
        let manifest = Manifest::parse("holm.toml", text).ok();
        let imports = ["holm:function/publish@0.1.0".to_owned(), "wasi:io/poll@0.2.12".to_owned()];
        let (held, remarks) = match &manifest {
            Some(manifest) => {
                let held = hold(&imports, manifest);
                let remarks = remarks(&held, manifest);
                (held, remarks)
            }
            None => (Vec::new(), Vec::new()),
        };
        assert_eq!(held.iter().map(|import| import.granted).collect::<Vec<_>>(), [false, true]);
        assert_eq!(
            remarks,
            [
                "it imports holm:function/publish@0.1.0, but [permissions.publish] grants nothing: every call will be denied",
                "[permissions.kv] grants what the component never uses: leave it out",
            ]
        );
    }
}
