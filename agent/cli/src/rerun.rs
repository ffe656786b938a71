//! Recorded invocations, run again on this machine: the component is compiled with addresses, and `holmd replay` runs it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use holm_bundle::{Bundle, BundleLimits, Digest};
use holm_core::ErrorCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::chain;
use crate::failure::Failure;
use crate::imports::COMPILER;
use crate::programs;
use crate::{strip, symbols};

/// What a record says, as far as it matters here. The rest goes through as it is.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) id: String,
    pub(crate) time: i64,
    pub(crate) device: String,
    /// Its name in the fleet, from the control plane.
    pub(crate) thing: Option<String>,
    pub(crate) function: String,
    pub(crate) version: String,
    pub(crate) bundle: String,
    pub(crate) component: String,
    pub(crate) outcome: String,
    pub(crate) fault: Option<String>,
    pub(crate) event: Given,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) manifest: String,
    pub(crate) logs: Vec<Line>,
    pub(crate) calls: Vec<Told>,
    pub(crate) recorded: u64,
    pub(crate) missing: u64,
    pub(crate) did: Value,
    pub(crate) cut: Vec<String>,
    pub(crate) wall_us: u64,
}

/// An event.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Given {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) subject: String,
    pub(crate) attempt: u32,
    pub(crate) bytes: u64,
    pub(crate) data: Option<String>,
    pub(crate) base64: Option<String>,
}

/// A line of a log.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Line {
    pub(crate) level: String,
    pub(crate) context: String,
    pub(crate) message: String,
}

/// A call in words.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Told {
    pub(crate) asked: String,
    pub(crate) told: String,
}

/// What came of running it again.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Again {
    pub(crate) outcome: String,
    pub(crate) fault: Option<String>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) diverged: Option<String>,
    pub(crate) unasked: u64,
    pub(crate) made_up: Vec<String>,
    pub(crate) did: Value,
    pub(crate) logs: Vec<Line>,
    pub(crate) error: Option<String>,
}

/// A guest's function that was running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Frame {
    pub(crate) function: Option<String>,
    pub(crate) index: u32,
    pub(crate) offset: Option<u64>,
    /// Where that is in the source; several where the compiler made one function of several.
    pub(crate) lines: Vec<Source>,
}

/// A place in the source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Source {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Place {
    offset: u64,
    lines: Vec<Source>,
}

/// A component that is here, in a file.
pub(crate) struct Component {
    path: PathBuf,
    /// Of what was taken out of a bundle.
    _folder: Option<tempfile::TempDir>,
}

impl Component {
    /// The one with this digest: from the file that was named, from the symbols, or from a bundle that somebody has.
    pub(crate) fn find(
        digest: &str,
        given: Option<&Path>,
        bundle: Option<PathBuf>,
        what: &str,
    ) -> Result<Self, Failure> {
        if let Some(given) = given {
            let found = Self::open(given)?;
            let bytes = found.read()?;
            let stripped = strip::strip(&bytes).unwrap_or_default();
            if Digest::of(&bytes).to_string() != digest && Digest::of(&stripped).to_string() != digest {
                return Err(Failure::new(format!(
                    "{} is not the component of {what}, which has the digest {digest}",
                    given.display()
                ))
                .next("name the file of exactly that version; `holm build` of the same sources makes it again")
                .page(ErrorCode::ComponentUnknown));
            }
            return Ok(found);
        }
        if let Some(path) = symbols::find(digest) {
            return Ok(Self { path, _folder: None });
        }
        match bundle.filter(|bundle| bundle.is_file()) {
            Some(bundle) => Self::open(&bundle),
            None => Err(Failure::new(format!("the component of {what} is not on this machine: {digest}"))
                .next("build that version here with `holm build`, which keeps it, or name its bundle or .wasm with --component")
                .page(ErrorCode::ComponentUnknown)),
        }
    }

    /// A bundle's component, or a component.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot read {}: {error}", path.display()));
        if path.extension().is_some_and(|extension| extension == "wasm") {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
        let bundle = Bundle::open(&bytes, &BundleLimits::default()).map_err(|error| failed(&chain(&error)))?;
        // With lines, if they are here.
        if let Some(path) = symbols::find(&bundle.component_digest.to_string()) {
            return Ok(Self { path, _folder: None });
        }
        let folder = tempfile::tempdir().map_err(|error| failed(&error))?;
        let path = folder.path().join("component.wasm");
        std::fs::write(&path, &bundle.component).map_err(|error| failed(&error))?;
        Ok(Self { path, _folder: Some(folder) })
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        std::fs::read(&self.path).map_err(|error| Failure::new(format!("cannot read {}: {error}", self.path.display())))
    }

    /// Whether it leads back to lines.
    pub(crate) fn has_lines(&self) -> Result<bool, Failure> {
        let bytes = self.read()?;
        Ok(strip::has_lines(&bytes))
    }

    /// Fills in the lines of frames, where there are any.
    pub(crate) fn locate(&self, frames: &mut [Frame]) -> Result<(), Failure> {
        let offsets: Vec<String> = frames.iter().filter_map(|frame| frame.offset).map(|at| at.to_string()).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let out = compiler(&["--lines", &offsets.join(","), &self.path.display().to_string()])?;
        let places: Vec<Place> = serde_json::from_slice(&out)
            .map_err(|error| Failure::new(format!("the answer of {COMPILER} is not understood: {error}")))?;
        for frame in frames {
            let place = places.iter().find(|place| Some(place.offset) == frame.offset);
            frame.lines = place.map(|place| place.lines.clone()).unwrap_or_default();
        }
        Ok(())
    }
}

/// Runs the compiler, which is found beside `holm` or on the path, and answers with what it said.
fn compiler(arguments: &[&str]) -> Result<Vec<u8>, Failure> {
    let compiler = programs::find(COMPILER).ok_or_else(|| {
        Failure::new("holm-compile is neither beside holm nor on the PATH: nothing can be run again without it")
            .next("install the whole release, or see what else is missing with `holm doctor`")
            .page(ErrorCode::ProgramMissing)
    })?;
    let failed = |words: &dyn std::fmt::Display| Failure::new(format!("{}: {words}", compiler.display()));
    let output = Command::new(&compiler).args(arguments).output().map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(failed(&words.trim().trim_start_matches("holm-compile:").trim()))
}

/// A process that runs invocations of one component again.
pub(crate) struct Rerun {
    child: Child,
    jobs: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

impl Rerun {
    /// Compiles the component, and starts the process.
    pub(crate) fn start(component: &Component) -> Result<Self, Failure> {
        let holmd = programs::holmd()?;
        let failed = |error: std::io::Error| Failure::new(format!("cannot run {}: {error}", holmd.display()));
        let folder = tempfile::tempdir().map_err(failed)?;
        let native = folder.path().join("native.cwasm");
        let (input, output) = (component.path.display().to_string(), native.display().to_string());
        compiler(&["--addresses", &input, &output])?;
        let mut command = Command::new(&holmd);
        command.arg("replay").arg("--native").arg(&native).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let jobs = child.stdin.take();
        let answers = child.stdout.take().ok_or_else(|| Failure::new("holmd replay has no stdout"))?;
        Ok(Self { child, jobs, answers: BufReader::new(answers), _folder: folder })
    }

    /// Runs one: as it was, or by another version's manifest.
    pub(crate) fn again(&mut self, record: &Value, manifest: Option<&str>) -> Result<Again, Failure> {
        let broken = |error: &dyn std::fmt::Display| Failure::new(format!("holmd replay ended: {error}"));
        let jobs = self.jobs.as_mut().ok_or_else(|| broken(&"it takes no jobs"))?;
        let job = serde_json::json!({ "record": record, "manifest": manifest });
        writeln!(jobs, "{job}").and_then(|()| jobs.flush()).map_err(|error| broken(&error))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| broken(&error))?;
        if line.is_empty() {
            return Err(broken(&"it said no more, see above").next("bring `holm` and `holmd` to the same release"));
        }
        serde_json::from_str(&line).map_err(|error| broken(&error))
    }
}

impl Drop for Rerun {
    fn drop(&mut self) {
        // It ends when it gets no more jobs, or is in the middle of one that nobody waits for.
        drop(self.jobs.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
