//! `holm deploy`: a new version, watched until it is confirmed or rolled back. To the node on this machine here; to devices of
//! the control plane by [`crate::release`].

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use holm_core::ErrorCode;
use serde_json::json;

use crate::build;
use crate::client::{Client, parse};
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::release::Release;
use crate::remote::Remote;
use crate::reply::Report;
use crate::rollout::{Staging, begin};
use crate::screen::Screen;

/// The exit code of a command that was called wrongly.
const USAGE: u8 = 2;

/// The exit code of a deployment that was rolled back.
pub(crate) const ROLLED_BACK: u8 = 4;

/// See `holm deploy --help`.
#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// A release as FUNCTION@VERSION; with --local a bundle, or a function's folder, which is built first
    #[arg(value_name = "WHAT", required_unless_present = "from")]
    what: Option<PathBuf>,
    /// To the node on this machine, what `holm device export` has put into this folder: without a network, signed all the same
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["what", "cloud", "local"])]
    from: Option<PathBuf>,
    /// To this device of the control plane
    #[arg(long, value_name = "NAME", conflicts_with = "local", group = "cloud")]
    device: Option<String>,
    /// To the devices of this group, in stages: a rollout
    #[arg(long, value_name = "NAME", conflicts_with = "local", group = "cloud")]
    group: Option<String>,
    #[command(flatten)]
    staging: Staging,
    /// Why, for those who look at the rollout later
    #[arg(short, long = "message", value_name = "TEXT", requires = "group")]
    message: Option<String>,
    /// Follow it until it is confirmed, refused or rolled back
    #[arg(long, requires = "cloud")]
    watch: bool,
    /// Stop following after this time; the deployment goes on
    #[arg(long, requires = "watch", default_value = "15m", value_parser = holm_core::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// How long the device watches the new version before it is confirmed
    #[arg(long, requires = "cloud", value_parser = holm_core::parse_duration, value_name = "TIME")]
    health_window: Option<Duration>,
    /// To the node on this machine
    #[arg(long)]
    local: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Deploy {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<ExitCode, Failure> {
        if let Some(folder) = &self.from {
            return crate::carry::deploy(client, folder, self.json, screen).await;
        }
        if let Some(group) = &self.group {
            return self.rollout(group, screen).await;
        }
        if self.staging.is_given() {
            screen.complain(&Failure::new("stages are of a rollout to a group").next("name one with --group NAME"));
            return Ok(ExitCode::from(USAGE));
        }
        if let Some(device) = &self.device {
            return self.release(device, screen).await;
        }
        if !self.local {
            let failure =
                Failure::new("say to whom: --group NAME, --device NAME, or --local for the node on this machine");
            screen.complain(&failure.next("holm deploy FUNCTION@VERSION --group NAME --canary 5% --watch"));
            return Ok(ExitCode::from(USAGE));
        }
        let what = self.what();
        let path = match what.is_dir() {
            true => {
                let built = build::build(what, None, screen)?;
                screen.note(build::render(&built, &screen.look).trim_end());
                built.bundle
            }
            false => what.to_owned(),
        };
        let bytes = std::fs::read(&path).map_err(|error| {
            Failure::new(format!("cannot read the bundle {}: {error}", path.display()))
                .next("make one with `holm build DIR`, or name the function's folder")
        })?;
        let (size, folder) = (look::bytes(bytes.len() as u64), client.folder().display());
        screen.note(format_args!("sent {} ({size}) to {folder}; it is compiled, loaded and tried", path.display()));
        let answer = client.deploy(bytes.into()).await?;
        let report: Report = parse(serde_json::json!({ "report": answer.clone() }), "/v1/deploy", "report")?;
        match self.json {
            true => screen.json(&answer)?,
            false => {
                let text = render(&report, &screen.look);
                screen.text(&text)?;
            }
        }
        if report.outcome != "rolled-back" {
            return Ok(ExitCode::SUCCESS);
        }
        screen.note(format_args!("more: holm explain {}", ErrorCode::RolledBack));
        Ok(ExitCode::from(ROLLED_BACK))
    }
}

impl Deploy {
    fn what(&self) -> &Path {
        // Not there with `--from` only.
        self.what.as_deref().unwrap_or(Path::new(""))
    }

    /// What is to be deployed by way of a control plane.
    fn named(&self, screen: &Screen) -> Option<(&str, &str)> {
        let named = self.what().to_str().and_then(|what| what.split_once('@'));
        if named.is_none() {
            let failure = Failure::new(format!("{} is not FUNCTION@VERSION", self.what().display()));
            screen.complain(&failure.next("publish a bundle with `holm publish BUNDLE`, and deploy what that says"));
        }
        named
    }

    async fn rollout(&self, group: &str, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let Some((function, version)) = self.named(screen) else { return Ok(ExitCode::from(USAGE)) };
        let mut fields = self.staging.fields();
        let window = self.health_window.map(|window| window.as_secs());
        for (name, value) in [
            ("group", json!(group)),
            ("function", json!(function)),
            ("version", json!(version)),
            ("why", json!(self.message)),
            ("health_window_s", json!(window)),
        ] {
            fields.insert(name.to_owned(), value);
        }
        let begun = begin(&Remote::open()?, fields, self.watch.then_some(self.timeout), self.json, screen).await;
        begun.map_err(|failure| match failure.mentions("needs a permit") {
            true => failure.next(format!("holm rollback {function} --to {version} --group {group} -m WHY")),
            false => failure,
        })
    }

    async fn release(&self, device: &str, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let Some((function, version)) = self.named(screen) else { return Ok(ExitCode::from(USAGE)) };
        let watch = self.watch.then_some(self.timeout);
        let health_window = self.health_window;
        Release { function, version, device, health_window, watch, json: self.json }.run(screen).await
    }
}

/// The phases, as the node reported them.
fn render(report: &Report, look: &Look) -> String {
    let name = look.paint(Tone::Strong, &report.function);
    let from = match &report.previous {
        Some(previous) if *previous == report.version => " (again)".to_owned(),
        Some(previous) => format!(" (was {previous})"),
        None => " (new)".to_owned(),
    };
    let digest: String = report.digest.chars().take(12).collect();
    let size = look::bytes(report.native_bytes);
    let mut text = format!(
        "staged     {name} {}, {digest}, {size} of native code\nactivated  {}{from}\ntried      {} invocations\n",
        report.version,
        report.version,
        look::count(report.invocations)
    );
    let now = report.previous.as_ref().map_or_else(|| "it is gone again".to_owned(), |it| format!("{it} runs again"));
    let end = match &*report.outcome {
        "confirmed" => look.paint(Tone::Good, "confirmed"),
        "confirmed-unexercised" => {
            format!("{}  no event came while it was watched", look.paint(Tone::Warn, "confirmed"))
        }
        "rolled-back" => {
            let reason = report.reason.as_deref().unwrap_or("it did not say why");
            format!("{}  {now}: {reason}", look.paint(Tone::Bad, "rolled back"))
        }
        other => other.to_owned(),
    };
    text.push_str(&end);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_phases_and_how_it_ended() {
        let mut report = Report {
            function: "scale".into(),
            version: "0.2.0".into(),
            digest: "0123456789abcdef".into(),
            previous: Some("0.1.0".into()),
            outcome: "rolled-back".into(),
            reason: Some("3 of 3 invocations faulted, the last: trap".into()),
            invocations: 3,
            native_bytes: 200_000,
        };
        let phases = "staged     scale 0.2.0, 0123456789ab, 195.3 KiB of native code\nactivated  0.2.0 (was 0.1.0)\ntried      3 invocations\n";
        let end = "rolled back  0.1.0 runs again: 3 of 3 invocations faulted, the last: trap\n";
        assert_eq!(render(&report, &Look::plain()), format!("{phases}{end}"));
        report.outcome = "confirmed".into();
        assert_eq!(render(&report, &Look::plain()), format!("{phases}confirmed\n"));
    }
}
