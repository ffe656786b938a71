//! A program that runs beside us, and is ended in order.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// For those who are left behind by an error.
const HURRY: Duration = Duration::from_secs(10);

/// See the module's text. Dropping it ends the program.
pub struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it in a process group of its own: Ctrl-C is for us, and we end it when it is its turn.
    pub fn start(name: &'static str, mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let child = command.process_group(0).spawn().with_context(|| format!("cannot run {name}"))?;
        Ok(Self { name, child, log })
    }

    /// Its stdout, once, where that is a pipe.
    pub fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// An error if it has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself: {status}: {}", self.name, self.told()),
        }
    }

    /// The end of its log.
    pub fn told(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
        format!("{} says\n{}", self.log.display(), last.join("\n"))
    }

    /// Ends it, by SIGTERM and then, after `limit`, by force, which is an error.
    pub fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        let status = end(&mut self.child, limit).with_context(|| self.name)?;
        if status.success() { Ok(()) } else { bail!("{} ended with {status}: {}", self.name, self.told()) }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Whatever went wrong is being told already.
        let _ = end(&mut self.child, HURRY);
    }
}

/// SIGTERM, and after `limit` SIGKILL. A program that has ended is not sent anything.
pub fn end(child: &mut Child, limit: Duration) -> anyhow::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    // The shell's own kill: the standard library knows SIGKILL only, and a machine may have no program of that name. The
    // child was not waited for, so its number is still its own.
    Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().context("cannot send SIGTERM")?;
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    bail!("did not end within {} seconds of SIGTERM and was killed", limit.as_secs())
}
