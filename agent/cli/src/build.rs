//! `holm build`: from a function's folder to its bundle. Needs no network, no account and no node.

use std::path::{Path, PathBuf};

use holm_bundle::Bundle;

use crate::failure::Failure;
use crate::imports::{self, Import};
use crate::look::{self, Look, Tone};
use crate::project::Project;
use crate::screen::Screen;
use crate::symbols;
use crate::table::list;

/// What a component may have in bytes where its manifest says nothing: a function in Rust with JSON takes 170 to 210 KiB.
const BUDGET: u64 = 256 << 10;

/// See `holm build --help`.
#[derive(clap::Args)]
pub(crate) struct Build {
    /// The function's folder, with its holm.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The bundle, or an existing folder for it [default: NAME-VERSION.holm in DIR]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// A bundle that was made.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Built {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The file.
    pub(crate) bundle: PathBuf,
    pub(crate) digest: String,
    pub(crate) component_digest: String,
    pub(crate) component_bytes: u64,
    /// Bytes that the component may have before somebody looks into it.
    pub(crate) budget_bytes: u64,
    pub(crate) over_budget: bool,
    pub(crate) bundle_bytes: u64,
    /// Bytes of native code for this machine; `None` where there is no `holm-compile`.
    pub(crate) native_bytes: Option<u64>,
    /// The engine profile of those.
    pub(crate) profile: Option<String>,
    /// `None` where there is no `holm-compile`.
    pub(crate) imports: Option<Vec<Import>>,
    /// What is worth a look.
    pub(crate) remarks: Vec<String>,
}

impl Build {
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let built = build(&self.dir, self.output.as_deref(), screen)?;
        if self.json {
            return screen.json(&serde_json::json!(built));
        }
        let text = render(&built, &screen.look);
        screen.text(&text)
    }
}

/// Builds the function in `folder`. What the build command prints goes to stderr.
pub(crate) fn build(folder: &Path, output: Option<&Path>, screen: &Screen) -> Result<Built, Failure> {
    let project = Project::read(folder)?;
    project.compile(screen)?;
    let (source, component) = project.component()?;
    let Project { manifest, text, .. } = project;
    let packed = Bundle::pack(&text, &component).map_err(|error| Failure::new(chain(&error)))?;
    let file = format!("{}-{}.holm", packed.name, packed.version);
    let bundle = match output {
        Some(output) if output.is_dir() => output.join(file),
        Some(output) => output.to_owned(),
        None => folder.join(file),
    };
    let compiled = imports::inspect(&source, &component)?;
    write_whole(&bundle, &packed.bytes)?;
    let held = compiled.as_ref().map(|compiled| imports::hold(&compiled.imports, &manifest));
    let mut remarks = match &held {
        Some(held) => imports::remarks(held, &manifest),
        None => vec!["holm-compile is neither beside holm nor on the PATH: the component was not looked into".into()],
    };
    if symbols::find(&packed.component_digest.to_string()).is_none() {
        remarks.push("its symbols could not be kept (`HOLM_SYMBOLS` says where): traps will have no lines".into());
    }
    let budget_bytes = manifest.build.budget.unwrap_or(BUDGET);
    let over_budget = component.len() as u64 > budget_bytes;
    if over_budget {
        let (bytes, budget) = (look::bytes(component.len() as u64), look::bytes(budget_bytes));
        remarks.push(format!(
            "the component has {bytes}, over its budget of {budget}: see what it brings, or raise [build] budget"
        ));
    }
    Ok(Built {
        name: packed.name.to_string(),
        version: packed.version.to_string(),
        bundle,
        digest: packed.digest.to_string(),
        component_digest: packed.component_digest.to_string(),
        component_bytes: component.len() as u64,
        budget_bytes,
        over_budget,
        bundle_bytes: packed.bytes.len() as u64,
        native_bytes: compiled.as_ref().map(|compiled| compiled.bytes),
        profile: compiled.map(|compiled| format!("{}, in {} ms", compiled.profile, compiled.ms)),
        imports: held,
        remarks,
    })
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
    let temporary = path.with_extension(format!("part{}", std::process::id()));
    std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path)).map_err(|error| {
        // Best effort: what matters is the first error.
        let _ = std::fs::remove_file(&temporary);
        failed(error)
    })
}

/// What people see of a bundle that was made.
pub(crate) fn render(built: &Built, look: &Look) -> String {
    let (bytes, budget) = (look::bytes(built.component_bytes), look::bytes(built.budget_bytes));
    let tone = if built.over_budget { Tone::Warn } else { Tone::Plain };
    let size = format!("{} of a budget of {budget}", look.paint(tone, &bytes));
    let native = match (built.native_bytes, &built.profile) {
        (Some(bytes), Some(profile)) => format!("{} ({profile})", look::bytes(bytes)),
        _ => String::new(),
    };
    let imports = built.imports.as_ref().map(|held| {
        let mut words: Vec<String> = held
            .iter()
            .filter(|import| import.needs.is_some())
            .map(|import| {
                let name = import.interface.split('@').next().unwrap_or_default();
                match import.granted {
                    true => look.paint(Tone::Good, name),
                    false => look.paint(Tone::Bad, &format!("{name} (denied)")),
                }
            })
            .collect();
        let standard = held.iter().filter(|import| import.needs.is_none()).count();
        words.push(format!("{standard} that need no permission"));
        words.join(", ")
    });
    let mut text = list(
        look,
        &[
            ("function", format!("{} {}", look.paint(Tone::Strong, &built.name), built.version)),
            ("component", size),
            ("native", native),
            ("imports", imports.unwrap_or_default()),
            ("digest", built.digest.clone()),
            ("bundle", format!("{} ({})", built.bundle.display(), look::bytes(built.bundle_bytes))),
        ],
    );
    for remark in &built.remarks {
        text.push_str(&format!("{} {remark}\n", look.paint(Tone::Warn, "note:")));
    }
    text
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_sizes_imports_and_remarks() {
        let import = |interface: &str, needs, granted| Import { interface: interface.into(), needs, granted };
        let built = Built {
            name: "scale".into(),
            version: "0.1.0".into(),
            bundle: "scale-0.1.0.holm".into(),
            digest: "d1".into(),
            component_digest: "d2".into(),
            component_bytes: 84_000,
            budget_bytes: 256 << 10,
            over_budget: false,
            bundle_bytes: 31_000,
            native_bytes: Some(200_000),
            profile: Some("x64-v1, in 90 ms".into()),
            imports: Some(vec![
                import("holm:function/publish@0.1.0", Some("permissions.publish"), true),
                import("wasi:keyvalue/store@0.2.0-draft", Some("permissions.kv"), false),
                import("wasi:io/poll@0.2.12", None, true),
            ]),
            remarks: vec!["look".into()],
        };
        let expected = "\
function   scale 0.1.0
component  82.0 KiB of a budget of 256.0 KiB
native     195.3 KiB (x64-v1, in 90 ms)
imports    holm:function/publish, wasi:keyvalue/store (denied), 1 that need no permission
digest     d1
bundle     scale-0.1.0.holm (30.3 KiB)
note: look
";
        assert_eq!(render(&built, &Look::plain()), expected);
    }
}
