//! `holm test`: a function against its cases, with the dispatcher, the sandbox and the store that devices have.
//!
//! Each case has a real `holmd` of its own, whose clock stands still until a step sets it forward, whose board is
//! simulated, and which keeps what every invocation did ([ADR 11](../../../docs/adr/0011-rehearsals.md)).

mod case;
mod differ;
mod json;
mod report;
mod run;
mod sense;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use holm_core::ErrorCode;

use crate::failure::Failure;
use crate::project::Project;
use crate::screen::Screen;
use crate::watch::Watch;
use case::{Case, File};
use report::Ran;
use run::{Bench, Passed};

/// Where cases are, in the function's folder.
const FOLDER: &str = "tests";

/// The exit code of case files that are wrong.
const USAGE: u8 = 2;

/// Cases that run side by side: each has a node with threads of its own.
const SIDE_BY_SIDE: usize = 4;

/// See `holm test --help`.
#[derive(clap::Args)]
pub(crate) struct Test {
    /// The function's folder, with its holm.toml and tests/*.toml
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Only cases with this in their name
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Take the component as it is, and do not build
    #[arg(long)]
    no_build: bool,
    /// Run again whenever a file changes
    #[arg(long)]
    watch: bool,
    /// Write a report in JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// As JSON
    #[arg(long, conflicts_with = "watch")]
    json: bool,
}

impl Test {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        if !self.watch {
            return self.once(screen);
        }
        loop {
            let made: Vec<&Path> = self.junit.as_deref().into_iter().collect();
            let mut watch = Watch::new(&self.dir, &made);
            if let Err(failure) = self.once(screen) {
                screen.complain(&failure);
            }
            screen.note("waiting for a change; Ctrl-C ends this");
            watch.changed().await;
        }
    }

    fn once(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let project = Project::read(&self.dir)?;
        // Before anything is built: that takes longer than to be told.
        let files = match self.files(&project) {
            Ok(files) => files,
            Err(failure) => {
                screen.complain(&failure);
                return Ok(ExitCode::from(USAGE));
            }
        };
        let cases: Vec<(&File, &Case)> = files
            .iter()
            .flat_map(|file| file.cases.iter().map(move |case| (file, case)))
            .filter(|(_, case)| self.filter.as_ref().is_none_or(|text| case.name.contains(text.as_str())))
            .collect();
        if cases.is_empty() {
            let text = self.filter.as_deref().unwrap_or_default();
            return Err(Failure::new(format!("no case has `{text}` in its name")).next("leave --filter out"));
        }
        if !self.no_build {
            project.compile(screen)?;
        }
        let begun = Instant::now();
        let bench = Bench::new(&project)?;
        // On a thread of its own: cases wait for their nodes there, and this one must not wait within a wait.
        let ended = std::thread::scope(|scope| scope.spawn(|| run(&bench, &cases)).join());
        let results = ended.map_err(|_| Failure::new("a thread that ran cases panicked"))??;
        let ran: Vec<Ran<'_>> = cases
            .iter()
            .zip(results)
            .map(|((file, case), result)| {
                let result = result.map_err(|failure| failure.words());
                Ran { file, case, result }
            })
            .collect();
        let took = begun.elapsed();
        if let Some(path) = &self.junit {
            let text = report::junit(project.manifest.name.as_str(), &ran, took);
            std::fs::write(path, text)
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
        self.tell(screen, &project, &ran, took)?;
        Ok(if ran.iter().all(Ran::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn tell(&self, screen: &mut Screen, project: &Project, ran: &[Ran<'_>], took: Duration) -> Result<(), Failure> {
        if self.json {
            let cases: Vec<_> = ran.iter().map(Ran::json).collect();
            let failed = ran.iter().filter(|ran| !ran.is_good()).count();
            return screen.json(&serde_json::json!({
                "function": project.manifest.name.as_str(), "cases": cases, "passed": ran.len() - failed, "failed": failed,
                "ms": took.as_millis() as u64,
            }));
        }
        let mut text: String = ran.iter().map(|ran| ran.render(&screen.look)).collect();
        text.push_str(&report::summary(ran, took, &screen.look));
        screen.text(&text)
    }

    /// All case files, or everything that is wrong with any of them.
    fn files(&self, project: &Project) -> Result<Vec<File>, Failure> {
        let folder = project.folder.join(FOLDER);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
            .collect();
        paths.sort();
        if paths.is_empty() {
            return Err(Failure::new(format!("there are no cases: no .toml file is in {}", folder.display()))
                .next("see how one is written in a new function: `holm new NAME`, tests/cases.toml")
                .page(ErrorCode::CasesMissing));
        }
        let (mut files, mut problems) = (Vec::new(), Vec::new());
        for path in &paths {
            // As people name them.
            let path = path.strip_prefix(".").unwrap_or(path);
            match read(path, project) {
                Ok(file) => files.push(file),
                Err(found) => problems.push(found.to_string()),
            }
        }
        if problems.is_empty() {
            return Ok(files);
        }
        Err(Failure::new(problems.join("\n")).next("mend them all, and run it again").page(ErrorCode::CasesWrong))
    }
}

fn read(path: &Path, project: &Project) -> Result<File, holm_core::Problems> {
    let file = File::read(path)?;
    sense::check(&file, &project.manifest)?;
    Ok(file)
}

/// Runs all cases, some of them side by side; the results are in the order of the cases.
fn run(bench: &Bench, cases: &[(&File, &Case)]) -> Result<Vec<Result<Passed, Failure>>, Failure> {
    // Those with the same parameters begin alike, so this is quick for all but the first of them.
    let beginnings = cases.iter().map(|(_, case)| bench.prepare(case)).collect::<Result<Vec<_>, _>>()?;
    let work: Vec<(&Case, &PathBuf)> = cases.iter().map(|(_, case)| *case).zip(&beginnings).collect();
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Passed, Failure>)>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(SIDE_BY_SIDE).min(work.len());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((case, beginning)) = work.get(index) else { return };
                    let result = bench.run(case, beginning);
                    results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, result));
                }
            });
        }
    });
    bench.tidy();
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
