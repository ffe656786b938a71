//! The seed: what a card is told when it is flashed, in `holm-seed.toml` on its FAT partition.
//!
//! The first boot moves it to the data partition and deletes it, so that the token and the keys in it do not stay where
//! every laptop can read them. Moving comes first and is synced: a cut in between applies it again, which does no harm.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use holm_core::{Document, Problems, Section};

use crate::{InitError, radio};

/// The seed's name on the FAT partition.
pub const FILE: &str = "holm-seed.toml";

/// Where `holmd` finds what comes of it, once the system is the root.
const CONFIG: &str = "/data/config";

/// No seed is longer.
pub const MOST_BYTES: u64 = 256 * 1024;

/// What a card is told.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Seed {
    /// The name of the host.
    pub hostname: Option<String>,
    /// The network without a wire.
    pub wifi: Option<Wifi>,
    /// Where to enrol.
    pub enrol: Option<Enrol>,
    /// Who may reach the broker from outside.
    pub mqtt: Option<Mqtt>,
    /// More of the node's configuration: TOML, as in `agent.toml`.
    pub config: Option<String>,
}

/// A wireless network.
#[derive(Clone, PartialEq, Eq)]
pub struct Wifi {
    /// Its name.
    pub ssid: String,
    /// The pre-shared key, 64 hexadecimal digits: the password itself is on no card. `None` is an open network.
    pub psk: Option<String>,
    /// Where its rules come from: `DE`.
    pub country: String,
}

/// An enrolment, as `holmd` takes it from `enrol.toml`.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrol {
    /// The control plane.
    pub cloud: String,
    /// Lets one device in, once.
    pub token: String,
    /// SHA-256 of the control plane's root certificate.
    pub ca_hash: String,
    /// The name that the device would like.
    pub thing: Option<String>,
}

/// The broker's door to other hosts: TLS with a certificate of its own, and one user.
#[derive(Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// The user.
    pub user: String,
    /// The hash of the password.
    pub password_hash: String,
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}

// Tokens and keys must not get into a log.
impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Seed");
        shown.field("hostname", &self.hostname).field("ssid", &self.wifi.as_ref().map(|wifi| &wifi.ssid));
        shown.field("cloud", &self.enrol.as_ref().map(|enrol| &enrol.cloud));
        shown.field("user", &self.mqtt.as_ref().map(|mqtt| &mqtt.user)).finish_non_exhaustive()
    }
}

impl Seed {
    /// Reads a seed, or lists all that is wrong with it.
    pub fn parse(origin: &str, text: &str) -> Result<Self, Problems> {
        let (document, mut root) = Document::parse(origin, text)?;
        if root.integer("seed_version", 1..=1).is_none() {
            root.problem("seed_version", "must be given as 1");
        }
        let seed = Self {
            hostname: root.parse("hostname", |text| hostname(text).map(str::to_owned)),
            wifi: root.section("wifi").and_then(|mut section| Wifi::read(&mut section)),
            enrol: root.section("enrol").and_then(|mut section| Enrol::read(&mut section)),
            mqtt: root.section("mqtt").and_then(|mut section| Mqtt::read(&mut section)),
            config: root.text("config"),
        };
        drop(root);
        document.finish()?;
        Ok(seed)
    }

    /// As [`Seed::parse`] reads it.
    pub fn render(&self) -> String {
        let mut text =
            String::from("# Written by `holm flash`. The first boot takes it in and deletes it.\nseed_version = 1\n");
        let mut put = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                text.push_str(&format!("{key} = {}\n", quoted(value)));
            }
        };
        put("hostname", self.hostname.as_deref());
        put("config", self.config.as_deref());
        let mut section = |name: &str, pairs: &[(&str, Option<&str>)]| {
            text.push_str(&format!("[{name}]\n"));
            for (key, value) in pairs {
                if let Some(value) = value {
                    text.push_str(&format!("{key} = {}\n", quoted(value)));
                }
            }
        };
        if let Some(Wifi { ssid, psk, country }) = &self.wifi {
            section("wifi", &[("ssid", Some(ssid)), ("psk", psk.as_deref()), ("country", Some(country))]);
        }
        if let Some(enrol) = &self.enrol {
            section("enrol", &enrol.pairs());
        }
        if let Some(Mqtt { user, password_hash, certificate, key }) = &self.mqtt {
            let pairs = [("user", user), ("password_hash", password_hash), ("certificate", certificate), ("key", key)];
            section("mqtt", &pairs.map(|(key, value)| (key, Some(&**value))));
        }
        text
    }

    /// Puts everything where the node finds it: `config` for init and `agent.d`, `holm` for `holmd`, both in the data
    /// partition. Every file is synced.
    pub fn apply(&self, data: &Path) -> Result<(), InitError> {
        let config = data.join("config");
        let layers = config.join("agent.d");
        let node = data.join("holm");
        for folder in [&config, &layers, &node] {
            make(folder)?;
        }
        if let Some(hostname) = &self.hostname {
            write(&config.join("hostname"), format!("{hostname}\n").as_bytes())?;
        }
        if let Some(mqtt) = &self.mqtt {
            write(&config.join("mqtt.crt"), mqtt.certificate.as_bytes())?;
            write(&config.join("mqtt.key"), mqtt.key.as_bytes())?;
            write(&layers.join("50-mqtt.toml"), mqtt.layer(CONFIG).as_bytes())?;
        }
        if let Some(text) = &self.config {
            write(&layers.join("60-card.toml"), text.as_bytes())?;
        }
        if let Some(wifi) = &self.wifi {
            let path = data.join(radio::CONFIG);
            path.parent().map_or(Ok(()), make)?;
            write(&path, wifi.supplicant().as_bytes())?;
        }
        if let Some(enrol) = &self.enrol {
            write(&node.join("enrol.toml"), enrol.document().as_bytes())?;
        }
        Ok(())
    }
}

impl Wifi {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let ssid = section.require("ssid", |text| ssid(text).map(str::to_owned));
        let psk = section.parse("psk", |text| match text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(text.to_owned()),
            false => Err("is not 64 hexadecimal digits"),
        });
        let country = section.require("country", |text| country(text).map(str::to_owned));
        Some(Self { ssid: ssid?, psk, country: country? })
    }

    /// The file that wpa_supplicant reads. The name goes in as hexadecimal: nothing in it can end a line. It is asked for by
    /// name, too: a network that hides itself answers to nothing else.
    fn supplicant(&self) -> String {
        let ssid: String = self.ssid.bytes().map(|byte| format!("{byte:02x}")).collect();
        let key = self.psk.as_ref().map_or_else(|| "key_mgmt=NONE".to_owned(), |psk| format!("psk={psk}"));
        format!("country={}\nnetwork={{\n\tssid={ssid}\n\tscan_ssid=1\n\t{key}\n}}\n", self.country)
    }
}

impl Enrol {
    fn read(section: &mut Section<'_>) -> Option<Self> {
        let cloud = section.require("cloud", |text| match text.starts_with("https://") {
            true => Ok(text.to_owned()),
            false => Err("does not begin with https://"),
        });
        let token = section.require("token", |text| line(text).map(str::to_owned));
        let ca_hash = section.require("ca_hash", |text| line(text).map(str::to_owned));
        let thing = section.parse("thing", |text| line(text).map(str::to_owned));
        Some(Self { cloud: cloud?, token: token?, ca_hash: ca_hash?, thing })
    }

    /// `enrol.toml`, as `holmd` reads it.
    pub fn document(&self) -> String {
        let lines = self.pairs().into_iter();
        lines.filter_map(|(key, value)| Some(format!("{key} = {}\n", quoted(value?)))).collect()
    }

    fn pairs(&self) -> [(&'static str, Option<&str>); 4] {
        [
            ("cloud", Some(&self.cloud)),
            ("token", Some(&self.token)),
            ("ca_hash", Some(&self.ca_hash)),
            ("thing", self.thing.as_deref()),
        ]
    }
}

impl Mqtt {
    /// The part of `agent.toml` that opens the door, with `mqtt.crt` and `mqtt.key` in a folder.
    pub fn layer(&self, folder: &str) -> String {
        let (user, hash) = (quoted(&self.user), quoted(&self.password_hash));
        format!(
            "[mqtt.tls]\nlisten = \"0.0.0.0:8883\"\ncertificate = \"{folder}/mqtt.crt\"\nkey = \"{folder}/mqtt.key\"\n\
             [[mqtt.user]]\nname = {user}\npassword_hash = {hash}\n"
        )
    }

    fn read(section: &mut Section<'_>) -> Option<Self> {
        let text = |text: &str| Ok::<_, String>(text.to_owned());
        let user = section.require("user", |text| line(text).map(str::to_owned));
        let password_hash = section.require("password_hash", text);
        let certificate = section.require("certificate", text);
        let key = section.require("key", text);
        Some(Self { user: user?, password_hash: password_hash?, certificate: certificate?, key: key? })
    }
}

/// A name for a host: one label of RFC 1123.
pub fn hostname(text: &str) -> Result<&str, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=63).contains(&text.len()) && text.chars().all(inner);
    match fits && !text.starts_with('-') && !text.ends_with('-') {
        true => Ok(text),
        false => Err(format!("`{text}` is no host name: a-z, 0-9 and `-` within, at most 63")),
    }
}

/// The name of a wireless network: 1 to 32 bytes (IEEE 802.11), and nothing that no one can type.
pub fn ssid(text: &str) -> Result<&str, String> {
    match (1..=32).contains(&text.len()) && !text.chars().any(char::is_control) {
        true => Ok(text),
        false => {
            Err(format!("`{}` is no name of a network: 1 to 32 bytes, no control characters", text.escape_debug()))
        }
    }
}

/// A country, two capital letters (ISO 3166-1).
pub fn country(text: &str) -> Result<&str, String> {
    match text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_uppercase()) {
        true => Ok(text),
        false => Err(format!("`{text}` is no country: two capital letters, such as DE")),
    }
}

/// Something, on one line.
fn line(text: &str) -> Result<&str, &'static str> {
    match text.is_empty() || text.chars().any(char::is_control) {
        true => Err("is empty, or has control characters"),
        false => Ok(text),
    }
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn make(folder: &Path) -> Result<(), InitError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(InitError::file("make the folder", folder))
}

/// A file that is there whole or not at all, for its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), InitError> {
    let part = path.with_extension("part");
    let mut open = fs::File::options();
    let mut file = open
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&part)
        .map_err(InitError::file("create", &part))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(InitError::file("write", &part))?;
    fs::rename(&part, path).map_err(InitError::file("rename", &part))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(InitError::file("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        let text = str::to_owned;
        Seed {
            hostname: Some(text("pi3")),
            wifi: Some(Wifi { ssid: text("Fa\"rm\\é"), psk: Some("ab".repeat(32)), country: text("DE") }),
            enrol: Some(Enrol {
                cloud: text("https://10.0.2.2:8443"),
                token: text("secret"),
                ca_hash: "0".repeat(64),
                thing: Some(text("pi3")),
            }),
            mqtt: Some(Mqtt {
                user: text("field"),
                password_hash: text("$pbkdf2$x"),
                certificate: text("-----BEGIN\nabc\n-----END\n"),
                key: text("k\n"),
            }),
            config: Some(text("[board]\nled = true\n")),
        }
    }

    #[test]
    fn a_seed_is_read_as_it_was_written() {
        for seed in [seed(), Seed::default()] {
            assert_eq!(Seed::parse("seed", &seed.render()).unwrap(), seed);
        }
        assert!(!format!("{:?}", seed()).contains("secret"));
    }

    #[test]
    fn all_that_is_wrong_with_a_seed_is_told() {
        for (text, problems) in [
            ("", 1),
            ("seed_version = 2\nhost = \"a\"\n", 3),
            ("seed_version = 1\nhostname = \"A_b\"\n[wifi]\nssid = \"\"\npsk = \"ab\"\ncountry = \"germany\"\n", 4),
            ("seed_version = 1\n[enrol]\ncloud = \"http://x\"\ntoken = \"a\\nb\"\n", 3),
            ("seed_version = 1\n[mqtt]\nuser = \"\"\n", 4),
            ("seed_version = \n", 1),
        ] {
            let found = Seed::parse("seed", text).unwrap_err();
            assert_eq!(found.problems.len(), problems, "{text}: {found}");
        }
    }

    #[test]
    fn applying_it_twice_leaves_what_applying_it_once_does() {
        let data = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            seed().apply(data.path()).unwrap();
            let read = |name: &str| fs::read_to_string(data.path().join(name)).unwrap();
            assert_eq!(read("config/hostname"), "pi3\n");
            assert!(read("holm/enrol.toml").contains("token = \"secret\"\n"));
            let layer = read("config/agent.d/50-mqtt.toml");
            assert!(layer.contains("name = \"field\"") && layer.contains("\"/data/config/mqtt.key\""), "{layer}");
            assert_eq!(read("config/agent.d/60-card.toml"), "[board]\nled = true\n");
            assert!(read("network/wpa_supplicant.conf").contains("ssid=466122726d5cc3a9\n"));
        }
    }
}
