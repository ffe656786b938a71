//! A function's folder: its manifest, its build command, its component.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::SystemTime;

use holm_core::{ErrorCode, Manifest};

use crate::component;
use crate::failure::Failure;
use crate::programs;
use crate::screen::Screen;
use crate::symbols;

/// The manifest's file name.
const MANIFEST: &str = "holm.toml";

/// Folders of a function that no author writes in.
const MADE: [&str; 2] = ["target", ".holm"];

/// A function's folder whose manifest is good.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// Where.
    pub(crate) folder: PathBuf,
    /// The manifest, checked.
    pub(crate) manifest: Manifest,
    /// The manifest, as it is written.
    pub(crate) text: String,
}

impl Project {
    /// Reads the manifest.
    pub(crate) fn read(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            Failure::new(format!("cannot read {}: {error}", path.display()))
                .next("name a function's folder, one with a holm.toml, or make one with `holm new NAME`")
                .page(ErrorCode::NoFunction)
        })?;
        let manifest = Manifest::parse(&path.display().to_string(), &text).map_err(|problems| {
            Failure::new(problems.to_string()).next("mend them all, and build again").page(ErrorCode::ManifestWrong)
        })?;
        Ok(Self { folder: folder.to_owned(), manifest, text })
    }

    /// Runs the build command, if there is one, to its end. What it prints goes to stderr.
    pub(crate) fn compile(&self, screen: &Screen) -> Result<(), Failure> {
        let Some(command) = &self.manifest.build.command else { return Ok(()) };
        screen.note(format_args!("{}: {command}", self.manifest.name));
        self.run_build(false)
    }

    /// The same, without a word of its own. Quietly, what it prints is in the failure, and nowhere else.
    pub(crate) fn run_build(&self, quietly: bool) -> Result<(), Failure> {
        let Some(command) = &self.manifest.build.command else { return Ok(()) };
        let mut shell = shell(command, &self.folder);
        let ran = match quietly {
            true => shell.stdout(Stdio::piped()).stderr(Stdio::piped()).output(),
            false => shell.status().map(|status| Output { status, stdout: Vec::new(), stderr: Vec::new() }),
        };
        let Output { status, stdout, stderr } =
            ran.map_err(|error| Failure::new(format!("cannot run [build].command: {error}")))?;
        if status.success() {
            return Ok(());
        }
        let (folder, path) = (self.folder.display(), self.folder.join(MANIFEST));
        let words = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        let failure = Failure::new(format!("{words}[build].command of {} failed: {status}", path.display()));
        Err(match status.code() {
            // As a shell says that there is no such program.
            Some(127) => {
                failure.next("see what this machine lacks with `holm doctor`").page(ErrorCode::ToolchainMissing)
            }
            _ => failure.next(format!("run it by hand: cd {folder} && {command}")).page(ErrorCode::BuildFailed),
        })
    }

    /// The component of what the build has made, without what no device needs, which is kept; and where it is.
    pub(crate) fn component(&self) -> Result<(PathBuf, Vec<u8>), Failure> {
        let source = self.manifest.build.source.as_ref().ok_or_else(|| {
            let path = self.folder.join(MANIFEST);
            Failure::new(format!("{} does not say where the component is", path.display()))
                .next("add `source = \"target/wasm32-wasip2/release/NAME.wasm\"` to [build]")
                .page(ErrorCode::ComponentMissing)
        })?;
        let source = self.folder.join(source);
        let built = std::fs::read(&source).map_err(|error| {
            Failure::new(format!("cannot read the component {}: {error}", source.display()))
                .next("see that [build].command makes the file that [build].source names")
                .page(ErrorCode::ComponentMissing)
        })?;
        Ok((source, symbols::split(component::of(built)?)))
    }
}

/// Everything that authors write in a function's folder, with when it was last changed. What cannot be read is left out:
/// a build will say why.
pub(crate) fn sources(folder: &Path) -> Vec<(PathBuf, SystemTime, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let made = MADE.iter().any(|made| name == *made) || name.to_string_lossy().ends_with(".holm");
            let hidden = name.to_string_lossy().starts_with(".git");
            let Ok(meta) = entry.metadata() else { continue };
            match meta.is_dir() {
                _ if made || hidden => {}
                true => folders.push(entry.path()),
                false => found.extend(meta.modified().ok().map(|time| (entry.path(), time, meta.len()))),
            }
        }
    }
    found.sort();
    found
}

/// A command line in a folder; its stdout goes to our stderr, for ours is for what we answer.
pub(crate) fn shell(command: &str, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr()));
    // A command that says `holm cc` means this `holm`.
    if let Some(path) = programs::path_with_own() {
        shell.env("PATH", path);
    }
    shell
}
