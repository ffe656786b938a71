//! `holm doctor`: what on this machine keeps people from working, with a fix per line.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::client::Client;
use crate::failure::Failure;
use crate::imports::COMPILER;
use crate::look::{self, Tone};
use crate::programs;
use crate::screen::Screen;
use crate::toolchain::{self, Finding};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A disk with less room than this will soon refuse commits, in bytes.
const ROOM: u64 = 200 << 20;

/// Certificates, tokens and schedules go wrong with a clock that is before this: 2026-01-01.
const PLAUSIBLE: i64 = 1_767_225_600_000;

/// Devices of a board that need a group.
const DEVICES: [(&str, &str); 3] = [("gpiochip", "gpio"), ("i2c-", "i2c"), ("spidev", "spi")];

/// See `holm doctor --help`.
#[derive(clap::Args)]
pub(crate) struct Doctor {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let mut findings = toolchain::rust();
        findings.push(toolchain::c_if_wanted());
        findings.extend(["holmd", COMPILER].map(release));
        findings.push(clock());
        findings.push(disk(client.folder()));
        findings.extend(devices());
        findings.extend(node(client).await);
        let ill = findings.iter().any(|finding| finding.fix.is_some());
        if self.json {
            screen.json(&serde_json::json!({ "findings": findings, "well": !ill }))?;
        } else {
            let width = findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or(0);
            let mut text = String::new();
            for Finding { what, found, fix } in &findings {
                let (mark, tone) = if fix.is_some() { ("!", Tone::Bad) } else { ("ok", Tone::Good) };
                let mark = screen.look.paint(tone, &format!("{mark:<2}"));
                text.push_str(&format!("{mark}  {what:<width$}  {found}\n"));
                if let Some(fix) = fix {
                    text.push_str(&format!("    {} {fix}\n", screen.look.paint(Tone::Strong, "next:")));
                }
            }
            screen.text(&text)?;
        }
        Ok(if ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// A program of ours: whether it is there, and of this release.
fn release(name: &str) -> Finding {
    let Some(path) = programs::find(name) else {
        return Finding::bad(name, "neither beside holm nor on the PATH", "install the whole release, not holm alone");
    };
    let shown = path.display().to_string();
    // The compiler is called with files, and has no version of its own to tell.
    if name == COMPILER {
        return Finding::good(name, shown);
    }
    let output = Command::new(&path).arg("--version").stdin(Stdio::null()).output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let ours = env!("CARGO_PKG_VERSION");
    match said.rsplit(' ').next() {
        Some(version) if version == ours => Finding::good(name, format!("{ours}, {shown}")),
        _ => Finding::bad(name, format!("{shown} says `{said}`, and holm is {ours}"), "bring both to the same release"),
    }
}

fn clock() -> Finding {
    let now = jiff::Timestamp::now();
    let found = now.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
    if now.as_millisecond() < PLAUSIBLE {
        let fix = "set the clock, or let it be set: timedatectl set-ntp true";
        return Finding::bad("clock", format!("{found}, which is before this release"), fix);
    }
    Finding::good("clock", found)
}

/// Room where the node's data is, or will be.
fn disk(folder: &Path) -> Finding {
    let there = folder.ancestors().find(|path| path.is_dir() || path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    match rustix::fs::statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} free for {}", look::bytes(free), folder.display());
            match free {
                free if free < ROOM => {
                    Finding::bad("disk", found, "make room: a node that cannot commit acknowledges nothing")
                }
                _ => Finding::good("disk", found),
            }
        }
        Err(error) => Finding::bad("disk", format!("{}: {error}", there.display()), "name the data folder with --data"),
    }
}

/// Devices of a board that are there, and that we may not open.
fn devices() -> Vec<Finding> {
    let mut findings = Vec::new();
    let names: Vec<String> = std::fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    for (prefix, group) in DEVICES {
        let Some(name) = names.iter().find(|name| name.starts_with(prefix)) else { continue };
        let path = format!("/dev/{name}");
        findings.push(match rustix::fs::access(&path, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK) {
            Ok(()) => Finding::good(group, path),
            Err(error) => {
                let fix = format!("sudo usermod -aG {group} $USER, and log in anew");
                Finding::bad(group, format!("{path}: {error}"), fix)
            }
        });
    }
    findings
}

/// The node, its broker and its store, if one is there.
async fn node(client: &Client) -> Vec<Finding> {
    let socket = client.folder().join("admin.sock");
    if !socket.exists() {
        // Who builds and tests functions needs none.
        return vec![Finding::good(
            "node",
            format!("none in {}; `holm dev` brings its own", client.folder().display()),
        )];
    }
    let status = match client.get_within(PATIENCE, "/v1/status").await {
        Ok(status) => status,
        Err(failure) => {
            let words = failure.words();
            let (what, fix) = words.split_once("\nnext: ").unwrap_or((&words, "see its log: journalctl -u holmd"));
            return vec![Finding::bad("node", what, fix)];
        }
    };
    let at = |path: &str| status.pointer(path).cloned().unwrap_or_default();
    let text = |path: &str| at(path).as_str().unwrap_or_default().to_owned();
    let mut findings = Vec::new();
    let (version, ours) = (text("/version"), env!("CARGO_PKG_VERSION"));
    findings.push(match version == ours {
        true => Finding::good("node", format!("{} runs holmd {version}", text("/device"))),
        false => Finding::bad(
            "node",
            format!("it runs holmd {version}, and holm is {ours}"),
            "bring both to the same release",
        ),
    });
    if at("/time_plausible") == false {
        findings.push(Finding::bad(
            "node clock",
            "the node does not believe its clock",
            "let it be set: timedatectl set-ntp true",
        ));
    }
    findings.push(match at("/store/failing") == true {
        true => Finding::bad(
            "store",
            "the last commit failed",
            "make room on its disk, and see its log: journalctl -u holmd",
        ),
        false => Finding::good("store", format!("{} commits", at("/store/commits"))),
    });
    findings.push(broker(&at("/external"), &at("/broker")));
    findings
}

fn broker(external: &Value, own: &Value) -> Finding {
    if external.is_null() {
        return Finding::good(
            "broker",
            format!("its own, {} clients", own.get("clients").cloned().unwrap_or_default()),
        );
    }
    let address = external.get("address").and_then(Value::as_str).unwrap_or_default();
    if external.get("connected") == Some(&Value::Bool(true)) {
        return Finding::good("broker", format!("connected to {address}"));
    }
    let why = external.get("last_error").and_then(Value::as_str).unwrap_or("it has not been reached yet");
    Finding::bad(
        "broker",
        format!("{address}: {why}"),
        "see [mqtt.external] in the node's agent.toml, and whether that broker runs",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_that_cannot_be_reached_is_told_with_its_reason() {
        let external = serde_json::json!({"address": "b:1883", "connected": false, "last_error": "refused"});
        let finding = broker(&external, &Value::Null);
        assert_eq!((finding.found.as_str(), finding.fix.is_some()), ("b:1883: refused", true));
        assert!(broker(&Value::Null, &serde_json::json!({"clients": 2})).fix.is_none());
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_on_a_disk_all_the_same() {
        let finding = disk(Path::new("/nowhere/at/all"));
        assert!(finding.found.contains("free for /nowhere/at/all"), "{finding:?}");
    }
}
