//! `holm device`: one device of the control plane.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::escape;
use crate::failure::Failure;
use crate::look::{self, Look};
use crate::remote::Remote;
use crate::screen::Screen;
use crate::table::{Table, list};

/// See `holm device --help`.
#[derive(clap::Args)]
pub(crate) struct Device {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a token that lets one device in
    EnrolToken {
        /// The group that it comes into
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
        /// How long it is good for
        #[arg(long, default_value = "24h", value_parser = holm_core::parse_duration, value_name = "TIME")]
        ttl: Duration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token for a device that takes the place of another: its name, groups and functions. The old one's certificates end
    /// when the new one comes
    Replace {
        /// The device whose place it takes
        name: String,
        /// How long it is good for
        #[arg(long, default_value = "24h", value_parser = holm_core::parse_duration, value_name = "TIME")]
        ttl: Duration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List enrolment tokens, without the tokens themselves
    Tokens {
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// List the devices, as `holm fleet`
    List(crate::fleet::Fleet),
    /// Show all that is known of a device
    Show {
        /// Its name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Write what a device shall run next to a folder, with all that belongs to it: to be carried to a device without a network. Several
    /// devices fit into one folder
    Export {
        /// Its name
        name: String,
        /// The folder, such as one on a USB stick
        folder: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Ask a device how it is, and pack that with what is known of it here, without secrets
    Diag {
        /// Its name
        name: String,
        /// The file [default: NAME-diag.tar.zst]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// As JSON, on stdout, instead of a file
        #[arg(long)]
        json: bool,
    },
    /// Show the groups that a device is in, or change them
    Groups {
        /// Its name
        name: String,
        /// Into this group; may be given several times
        #[arg(long, value_name = "GROUP")]
        add: Vec<String>,
        /// Out of this group; may be given several times
        #[arg(long, value_name = "GROUP")]
        remove: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// End a device: its certificates are worth nothing from now on, and its connection ends
    Revoke {
        /// Its name
        name: String,
    },
}

impl Device {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        if let Command::List(fleet) = &self.command {
            return fleet.run(screen).await;
        }
        let remote = Remote::open()?;
        match &self.command {
            Command::EnrolToken { group, ttl, json } => {
                let body = json!({ "group": group, "ttl": ttl.as_secs() });
                let answer = remote.post("/v1/enrolment-tokens", &body).await?;
                show_token(&remote, &answer, *json, screen)
            }
            Command::Replace { name, ttl, json } => {
                let path = format!("/v1/devices/{}/replace", escape(name));
                let answer = remote.post(&path, &json!({ "ttl": ttl.as_secs() })).await?;
                show_token(&remote, &answer, *json, screen)?;
                screen.note(format_args!("it is {name} then, and the one that is {name} now is turned away"));
                Ok(())
            }
            Command::Tokens { json } => tokens(&remote, *json, screen).await,
            Command::Show { name, json } => {
                let device = remote.get(&format!("/v1/devices/{}", escape(name))).await?;
                match json {
                    true => screen.json(&device),
                    false => {
                        let text = render(&device, jiff::Timestamp::now().as_millisecond(), &screen.look);
                        screen.text(&text)
                    }
                }
            }
            Command::Export { name, folder, json } => crate::carry::export(&remote, name, folder, *json, screen).await,
            Command::Diag { name, output, json } => {
                let diag = crate::diag::Diag::of(&remote, name, screen).await?;
                match json {
                    true => screen.json(&diag.json()),
                    false => diag.pack(output.as_deref(), screen),
                }
            }
            Command::Groups { name, add, remove, json } => {
                let path = format!("/v1/devices/{}", escape(name));
                let answer = match add.is_empty() && remove.is_empty() {
                    true => remote.get(&path).await?,
                    false => remote.post(&format!("{path}/groups"), &json!({ "add": add, "remove": remove })).await?,
                };
                let groups: Vec<String> = crate::client::parse(answer, &path, "groups")?;
                match json {
                    true => screen.json(&json!({ "thing": name, "groups": groups })),
                    false => groups.iter().try_for_each(|group| screen.line(group)),
                }
            }
            Command::Revoke { name } => {
                let answer = remote.post(&format!("/v1/devices/{}/revoke", escape(name)), &Value::Null).await?;
                let connected = answer.get("was_connected").and_then(Value::as_bool).unwrap_or_default();
                screen.note(match connected {
                    true => format!("{name} is revoked, and its connection is ended"),
                    false => format!("{name} is revoked; it was not connected"),
                });
                Ok(())
            }
            Command::List(_) => Ok(()),
        }
    }
}

fn show_token(remote: &Remote, answer: &Value, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    if as_json {
        return screen.json(answer);
    }
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (token, hash) = (text("token"), text("ca_hash"));
    let expires = answer.get("expires").and_then(Value::as_i64).unwrap_or_default();
    screen.line(&token)?;
    screen.note(format_args!("good for one device until {}; on the device, run", screen.look.moment(expires)));
    screen.note(format_args!("  holmd enrol --cloud {} --token {token} --ca-hash {hash}", remote.url()));
    Ok(())
}

async fn tokens(remote: &Remote, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
    let path = "/v1/enrolment-tokens";
    let tokens: Vec<Value> = crate::client::parse(remote.get(path).await?, path, "tokens")?;
    if as_json {
        return tokens.iter().try_for_each(|token| screen.json(token));
    }
    let look = screen.look.clone();
    let mut table = Table::new(&["TOKEN", "GROUP", "MADE", "GOOD UNTIL", "USED BY"]);
    for token in &tokens {
        let text = |name: &str| token.get(name).and_then(Value::as_str).unwrap_or_default();
        let time =
            |name: &str| token.get(name).and_then(Value::as_i64).map(|time| look.moment(time)).unwrap_or_default();
        table.row([
            text("id").into(),
            text("group").into(),
            time("made").into(),
            time("expires").into(),
            text("thing").into(),
        ]);
    }
    screen.text(&table.render(&look))
}

/// All that there is, with the report as it came.
fn render(device: &Value, now: i64, look: &Look) -> String {
    let at = |path: &str| device.pointer(path).filter(|value| !value.is_null());
    let text = |path: &str| match at(path) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let time = |path: &str| at(path).and_then(Value::as_i64).map(|time| look.moment(time)).unwrap_or_default();
    let groups: Vec<&str> =
        at("/groups").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let state = match (text("/status").as_str(), at("/connected").and_then(Value::as_bool)) {
        ("active", Some(true)) => "online".to_owned(),
        ("active", _) => format!("offline, seen {}", time("/seen")),
        (other, _) => other.to_owned(),
    };
    let job = match at("/job") {
        Some(_) => format!("{}, {}", text("/job/id"), text("/job/status")),
        None => String::new(),
    };
    let phase = match text("/reported/reason") {
        reason if reason.is_empty() => text("/reported/phase"),
        reason => format!("{} ({reason})", text("/reported/phase")),
    };
    let functions: Vec<String> = at("/reported/functions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|function| {
            let part = |name: &str| function.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{} {} {}", part("name"), part("version"), part("state"))
        })
        .collect();
    let desired: Vec<String> = at("/desired/functions")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|function| {
            let part = |name: &str| function.get(name).and_then(Value::as_str).unwrap_or_default();
            format!("{} {}", part("name"), part("version"))
        })
        .collect();
    let health = |name: &str| at(&format!("/reported/health/{name}")).and_then(Value::as_u64);
    let shown = |name: &str, as_text: fn(u64) -> String| health(name).map(as_text).unwrap_or_default();
    let of = health("invocations").map(|all| format!(" of {} invocations", look::count(all))).unwrap_or_default();
    let certificate = at("/certificate/expires").map(|_| {
        let issued = at("/certificate/issued").and_then(Value::as_i64);
        let age = issued.and_then(|issued| u64::try_from(now.saturating_sub(issued) / 1_000).ok());
        let age = age.map(|age| format!(", {} old", look::span(age))).unwrap_or_default();
        format!("until {}{age}", time("/certificate/expires"))
    });
    let entries = [
        ("device", text("/thing")),
        ("groups", groups.join(", ")),
        ("state", state),
        ("enrolled", time("/enrolled")),
        ("certificate", certificate.unwrap_or_default()),
        (
            "agent",
            format!(
                "{} on {}, engine {} {}",
                text("/agent/version"),
                text("/agent/arch"),
                text("/agent/engine"),
                text("/agent/profile")
            ),
        ),
        ("job", job),
        ("reported", time("/reported_at")),
        ("generation", text("/reported/generation")),
        ("phase", phase),
        ("functions", functions.join(", ")),
        ("shall run", desired.join(", ")),
        ("backlog", shown("backlog", look::count)),
        ("dropped", shown("dropped", look::count)),
        ("dead letters", shown("dead_letters", look::count)),
        ("faults", health("faults").map(|faults| look::count(faults) + &of).unwrap_or_default()),
        ("memory", shown("memory_bytes", look::bytes)),
        ("free disk", shown("disk_free_bytes", look::bytes)),
        (
            "held up",
            match at("/held_up").and_then(Value::as_u64) {
                None | Some(0) => String::new(),
                Some(held) => format!("{} messages, because it sends too fast", look::count(held)),
            },
        ),
    ];
    list(look, &entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_shown_by_what_is_known() {
        let device = json!({
            "thing": "pi3", "groups": ["greenhouse"], "status": "active", "connected": false, "seen": 0, "enrolled": 0,
            "agent": { "version": "0.1.0", "arch": "aarch64", "engine": "48.0.8", "profile": "generic" },
            "certificate": { "issued": 0, "expires": 31_536_000_000_i64 },
            "job": { "generation": 4, "id": "generation-4", "status": "FAILED" }, "reported_at": null,
            "desired": { "functions": [{ "name": "flow", "version": "1.2.0" }] },
            "reported": {
                "generation": 4, "phase": "rolled-back", "reason": "trapped",
                "functions": [{ "name": "flow", "version": "1.2.0", "state": "confirmed" }],
                "health": {
                    "invocations": 3_400, "faults": 12, "memory_bytes": 20_971_520, "disk_free_bytes": 3_221_225_472_u64,
                    "backlog": 1_200, "dropped": 0, "dead_letters": 1,
                },
            },
        });
        assert_eq!(
            render(&device, 40 * 86_400_000, &Look::plain()),
            "device        pi3\n\
             groups        greenhouse\n\
             state         offline, seen 1970-01-01 00:00:00\n\
             enrolled      1970-01-01 00:00:00\n\
             certificate   until 1971-01-01 00:00:00, 40d 0h old\n\
             agent         0.1.0 on aarch64, engine 48.0.8 generic\n\
             job           generation-4, FAILED\n\
             generation    4\n\
             phase         rolled-back (trapped)\n\
             functions     flow 1.2.0 confirmed\n\
             shall run     flow 1.2.0\n\
             backlog       1,200\n\
             dropped       0\n\
             dead letters  1\n\
             faults        12 of 3,400 invocations\n\
             memory        20.0 MiB\n\
             free disk     3.0 GiB\n"
        );
    }
}
