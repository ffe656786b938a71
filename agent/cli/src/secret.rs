//! `holm secret`: values that only devices can open.
//!
//! A value is sealed here, to the key of each device, and what leaves this machine is of no use to anybody else. Which key a device has, the
//! control plane says; so the keys are remembered (`sealing-keys.json` beside `cloud.toml`), and one that has changed is not sealed to
//! before somebody says that it is right.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Label;
use holm_protocol::limits;
use holm_trust::{Purpose, SealingKey};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::client::{escape, parse};
use crate::failure::Failure;
use crate::fleet;
use crate::look::{Look, Tone};
use crate::remote::{Profile, Remote, query};
use crate::screen::Screen;
use crate::table::{Cell, Table};

/// Devices of one request: what is sealed for them is far below what a request may have.
const AT_ONCE: usize = 16;

/// See `holm secret --help`.
#[derive(clap::Args)]
pub(crate) struct Secret {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Set one, from stdin. A line end at its end is not a part of it
    Set {
        /// As manifests name it in `permissions.secrets`
        #[arg(value_parser = label)]
        name: String,
        #[command(flatten)]
        whose: Whose,
        /// Only where it is missing, or sealed to a key that the device has no more
        #[arg(long)]
        missing: bool,
        /// Believe that devices have other keys than before: a new card has one
        #[arg(long)]
        accept_new_keys: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// List them, and which devices lack one
    List {
        /// As JSON, one object a line
        #[arg(long)]
        json: bool,
    },
    /// Remove one: functions that read it get their next start without
    Remove {
        /// Its name
        #[arg(value_parser = label)]
        name: String,
        #[command(flatten)]
        whose: Whose,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// Of all devices of this group. Who comes into it later is listed as lacking it
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Of this device
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

fn label(text: &str) -> Result<String, String> {
    Label::new(text).map(|label| label.to_string()).map_err(|error| error.to_string())
}

/// A device, and the key that it reports.
#[derive(Deserialize)]
struct Shown {
    thing: String,
    #[serde(default)]
    reported: Option<Reported>,
}

#[derive(Deserialize)]
struct Reported {
    #[serde(default)]
    sealing_key: Option<String>,
}

impl Secret {
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let remote = Remote::open()?;
        match &self.command {
            Command::Set { name, whose, missing, accept_new_keys, json } => {
                let set = Set { remote: &remote, name, whose, missing: *missing, accept_new_keys: *accept_new_keys };
                set.run(*json, screen).await
            }
            Command::List { json } => {
                let secrets: Vec<Value> = parse(remote.get("/v1/secrets").await?, "/v1/secrets", "secrets")?;
                if *json {
                    return secrets.iter().try_for_each(|secret| screen.json(secret));
                }
                if secrets.is_empty() {
                    screen.note("no secrets yet: holm secret set NAME --group GROUP < FILE");
                    return Ok(());
                }
                let text = render(&secrets, &screen.look);
                screen.text(&text)
            }
            Command::Remove { name, whose, json } => {
                let values = [("group", whose.group.clone()), ("device", whose.device.clone())];
                let answer = remote.delete(&query(&format!("/v1/secrets/{}", escape(name)), &values)).await?;
                match json {
                    true => screen.json(&answer),
                    false => told(&answer, "removed", screen),
                }
            }
        }
    }
}

struct Set<'a> {
    remote: &'a Remote,
    name: &'a str,
    whose: &'a Whose,
    missing: bool,
    accept_new_keys: bool,
}

impl Set<'_> {
    async fn run(&self, as_json: bool, screen: &mut Screen) -> Result<(), Failure> {
        let devices = self.keys().await?;
        let mut pins = Pins::read(self.remote.url())?;
        pins.check(&devices, self.accept_new_keys)?;
        for (thing, key) in devices.iter().filter(|(thing, _)| !pins.has(thing)) {
            screen
                .note(format_args!("{thing} for the first time; its key is said to be {key}: see `holm status` on it"));
        }
        let value = value(screen)?;
        let mut answers = Vec::new();
        let chunks: Vec<&[(String, SealingKey)]> = match devices.is_empty() {
            true => Vec::new(),
            false => devices.chunks(AT_ONCE).collect(),
        };
        for chunk in chunks {
            let sealed: Vec<Value> =
                chunk.iter().map(|(thing, key)| self.sealed(thing, key, &value)).collect::<Result<_, _>>()?;
            let body = json!({ "group": self.whose.group, "sealed": sealed });
            let answer = self.remote.post(&format!("/v1/secrets/{}", escape(self.name)), &body).await?;
            // After it was taken: what was refused need not be remembered.
            pins.keep(chunk)?;
            answers.extend(parse::<Vec<Value>>(answer, "/v1/secrets", "devices")?);
        }
        let answer = json!({ "devices": answers });
        match as_json {
            true => screen.json(&answer),
            false => told(&answer, "set", screen),
        }
    }

    fn sealed(&self, thing: &str, key: &SealingKey, value: &[u8]) -> Result<Value, Failure> {
        let sealed = key
            .seal(Purpose { thing, name: self.name }, value)
            .map_err(|error| Failure::new(format!("cannot seal it to the key of {thing}: {error}")))?;
        Ok(json!({ "thing": thing, "key": key.to_string(), "value": STANDARD.encode(sealed) }))
    }

    /// The devices that it is for, with their keys.
    async fn keys(&self) -> Result<Vec<(String, SealingKey)>, Failure> {
        let path = match (&self.whose.group, &self.whose.device) {
            (_, Some(device)) => format!("/v1/devices/{}", escape(device)),
            _ => "/v1/devices".to_owned(),
        };
        let devices = match &self.whose.device {
            Some(_) => vec![self.remote.get(&path).await?],
            None => fleet::of_group(self.remote, self.whose.group.as_deref()).await?,
        };
        let mut shown: Vec<Shown> = parse(json!({ "devices": devices }), &path, "devices")?;
        if let (Some(group), true) = (&self.whose.group, shown.is_empty()) {
            return Err(Failure::new(format!("there is no active device in {group}")).next("see `holm fleet`"));
        }
        if self.missing {
            let lacking = self.lacking().await?;
            shown.retain(|device| lacking.contains(&device.thing));
        }
        let (mut keys, mut without) = (Vec::new(), Vec::new());
        for Shown { thing, reported } in shown {
            match reported.and_then(|reported| reported.sealing_key).map(|key| SealingKey::parse(&key)) {
                Some(Ok(key)) => keys.push((thing, key)),
                _ => without.push(thing),
            }
        }
        if without.is_empty() {
            return Ok(keys);
        }
        Err(Failure::new(format!("no key is known of {}", without.join(", "))).next(
            "a device reports its key when it is connected, with an agent that knows of secrets: start it once, or name the others one by one",
        ))
    }

    async fn lacking(&self) -> Result<Vec<String>, Failure> {
        let secrets: Vec<Value> = parse(self.remote.get("/v1/secrets").await?, "/v1/secrets", "secrets")?;
        let own = secrets.iter().find(|secret| secret.get("name").and_then(Value::as_str) == Some(self.name));
        let own = own.ok_or_else(|| {
            Failure::new(format!("no device has a secret `{}` yet", self.name)).next("set it without --missing")
        })?;
        let devices = own.get("devices").and_then(Value::as_array).into_iter().flatten();
        let text = |device: &Value, name: &str| device.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lacking = devices.filter(|device| text(device, "state") != "sealed").map(|device| text(device, "thing"));
        Ok(lacking.collect())
    }
}

/// All of stdin; on a terminal one line, without showing it.
fn value(screen: &Screen) -> Result<Vec<u8>, Failure> {
    let stdin = std::io::stdin();
    let mut value = Vec::new();
    if stdin.is_terminal() {
        value = crate::password::read(screen, "The secret")?.into_bytes();
    } else {
        let read = stdin.lock().take(limits::MAX_SECRET as u64 + 3).read_to_end(&mut value);
        read.map_err(|error| Failure::new(format!("cannot read from stdin: {error}")))?;
        for end in [b'\n', b'\r'] {
            if value.last() == Some(&end) {
                value.pop();
            }
        }
    }
    if value.is_empty() {
        return Err(Failure::new("the secret is empty").next("give it on stdin: `holm secret set NAME ... < FILE`"));
    }
    if value.len() > limits::MAX_SECRET {
        return Err(Failure::new(format!("the secret is longer than {} bytes", limits::MAX_SECRET)));
    }
    Ok(value)
}

fn told(answer: &Value, verb: &str, screen: &mut Screen) -> Result<(), Failure> {
    let devices = answer.get("devices").and_then(Value::as_array).cloned().unwrap_or_default();
    if devices.is_empty() {
        screen.note("no device lacks it");
    }
    for device in &devices {
        let thing = device.get("thing").and_then(Value::as_str).unwrap_or_default();
        let connected = device.get("connected").and_then(Value::as_bool).unwrap_or_default();
        let how = match device.get("generation").and_then(Value::as_u64) {
            Some(generation) if connected => format!("generation {generation}"),
            Some(generation) => format!("generation {generation}, when it comes"),
            None => "nothing that it runs reads it yet".to_owned(),
        };
        screen.line(format_args!("{verb:<8} {thing}: {how}"))?;
    }
    Ok(())
}

fn render(secrets: &[Value], look: &Look) -> String {
    let mut table = Table::new(&["SECRET", "GROUPS", "DEVICE", "STATE", "SET"]);
    for secret in secrets {
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |name: &str| secret.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let groups: Vec<String> = list("groups").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let devices = list("devices");
        if devices.is_empty() {
            table.row([text(secret, "name").into(), groups.join(",").into(), "".into(), "".into(), "".into()]);
        }
        for device in &devices {
            let state = text(device, "state");
            let state = match state.as_str() {
                "sealed" => Cell::toned(Tone::Good, "sealed"),
                "lacking" => Cell::toned(Tone::Warn, "lacking"),
                "other-key" => Cell::toned(Tone::Warn, "lacking: it has another key now"),
                _ => Cell::toned(Tone::Warn, "lacking: no key is known"),
            };
            let made = device.get("made").and_then(Value::as_i64).map(|time| look.moment(time)).unwrap_or_default();
            let groups = groups.join(",");
            table.row([text(secret, "name").into(), groups.into(), text(device, "thing").into(), state, made.into()]);
        }
    }
    table.render(look)
}

/// The keys that were sealed to before, by control plane and device.
#[derive(Default, Serialize, Deserialize)]
struct Known(BTreeMap<String, BTreeMap<String, String>>);

struct Pins {
    path: Option<PathBuf>,
    url: String,
    known: Known,
}

impl Pins {
    fn read(url: &str) -> Result<Self, Failure> {
        let path = Profile::path().map(|path| path.with_file_name("sealing-keys.json"));
        let text = path.as_ref().map(std::fs::read_to_string);
        let known = match (text, &path) {
            (Some(Ok(text)), Some(path)) => serde_json::from_str(&text).map_err(|error| {
                Failure::new(format!("{} is not understood: {error}", path.display()))
                    .next("mend it, or move it away: keys are then believed as if for the first time")
            })?,
            (Some(Err(error)), Some(path)) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("cannot read {}: {error}", path.display())));
            }
            _ => Known::default(),
        };
        Ok(Self { path, url: url.to_owned(), known })
    }

    /// Whether something was sealed to it before.
    fn has(&self, thing: &str) -> bool {
        self.known.0.get(&self.url).is_some_and(|known| known.contains_key(thing))
    }

    /// Refuses keys that are not what they were.
    fn check(&self, devices: &[(String, SealingKey)], accept: bool) -> Result<(), Failure> {
        let known = self.known.0.get(&self.url);
        let changed = |(thing, key): &&(String, SealingKey)| {
            known.and_then(|known| known.get(thing)).is_some_and(|before| *before != key.to_string())
        };
        let changed: Vec<String> =
            devices.iter().filter(changed).map(|(thing, key)| format!("\n  - {thing}: {key}")).collect();
        if changed.is_empty() || accept {
            return Ok(());
        }
        let words = "another key than when something was last sealed to them. A new card has another one; so has somebody \
                     who wants to read along";
        Err(Failure::new(format!("these devices have {words}:{}", changed.concat()))
            .next("compare with `holm status` on the device; if that is right, add --accept-new-keys"))
    }

    fn keep(&mut self, devices: &[(String, SealingKey)]) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        let known = self.known.0.entry(self.url.clone()).or_default();
        known.extend(devices.iter().map(|(thing, key)| (thing.clone(), key.to_string())));
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("cannot write {}: {error}", path.display()));
        let text = serde_json::to_string_pretty(&self.known).map_err(|error| failed(&error))?;
        let new = path.with_extension("json.new");
        let folder = path.parent().unwrap_or(path);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, path))
            .map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_key_that_has_changed_is_not_sealed_to_unasked() {
        let key = |digit: &str| SealingKey::parse(&digit.repeat(64)).unwrap();
        let known = BTreeMap::from([("pi3".to_owned(), "1".repeat(64))]);
        let pins = Pins { path: None, url: "u".to_owned(), known: Known(BTreeMap::from([("u".to_owned(), known)])) };
        let device = |thing: &str, digit: &str| (thing.to_owned(), key(digit));
        assert!(pins.check(&[device("pi3", "1"), device("pi4", "2")], false).is_ok());
        let refused = pins.check(&[device("pi3", "2")], false).unwrap_err().render(&Look::plain());
        assert!(refused.contains("pi3") && refused.contains("--accept-new-keys"), "{refused}");
        assert!(pins.check(&[device("pi3", "2")], true).is_ok());
        let elsewhere = Pins { url: "v".to_owned(), ..pins };
        assert!(elsewhere.check(&[device("pi3", "2")], false).is_ok());
    }

    #[test]
    fn who_lacks_a_secret_is_shown() {
        let secrets = [json!({ "name": "api-key", "groups": ["a", "b"], "devices": [
            { "thing": "pi3", "state": "sealed", "made": 0 }, { "thing": "pi4", "state": "lacking", "made": null },
        ] })];
        assert_eq!(
            render(&secrets, &Look::plain()),
            "SECRET   GROUPS  DEVICE  STATE    SET\n\
             api-key  a,b     pi3     sealed   1970-01-01 00:00:00\n\
             api-key  a,b     pi4     lacking\n"
        );
    }
}
