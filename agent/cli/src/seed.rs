//! What a card is told: the options of `holm flash`, and what is made of them.

use std::io::{BufRead as _, IsTerminal as _};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use holm_image::card_seed::{Enrol, Mqtt, Seed, Wifi};
use holm_mqtt::PasswordHash;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::flash::{failure, host, land, network};
use crate::password;
use crate::remote::Remote;
use crate::screen::Screen;

/// How long a card may lie around before it is put in.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 86_400);

/// See `holm flash --help`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The device's name, on the network and at the control plane
    #[arg(long, value_parser = host, value_name = "NAME")]
    hostname: Option<String>,
    /// The wireless network; its password is read from stdin, and only a key made of it gets on the card
    #[arg(long, value_parser = network, value_name = "NAME")]
    wifi_ssid: Option<String>,
    /// The country whose rules for radio hold, such as DE; asked for on a terminal
    #[arg(long, value_parser = land, requires = "wifi_ssid", value_name = "CC")]
    wifi_country: Option<String>,
    /// The control plane, as the device reaches it [default: the one that `holm login` knows, with --group]
    #[arg(long, value_name = "URL")]
    cloud: Option<String>,
    /// The group that the device comes into; makes a token for it at the control plane that `holm login` knows
    #[arg(long, conflicts_with = "token", value_name = "NAME")]
    group: Option<String>,
    /// An enrolment token, instead of a new one; `-` reads it from stdin
    #[arg(long, requires = "cloud", requires = "ca_hash", value_name = "TOKEN")]
    token: Option<String>,
    /// SHA-256 of the control plane's root certificate, with --token
    #[arg(long, requires = "token", value_name = "HASH")]
    ca_hash: Option<String>,
    /// Let this user reach the device's broker from other hosts, by TLS on port 8883; the password is read from stdin
    #[arg(long, value_name = "NAME")]
    mqtt_user: Option<String>,
    /// A name or address by which clients reach the broker, besides the device's name and NAME.local
    #[arg(long = "mqtt-name", requires = "mqtt_user", value_name = "NAME")]
    mqtt_names: Vec<String>,
    /// Where the broker's certificate is kept, which its clients need [default: NAME-mqtt.crt]
    #[arg(long, requires = "mqtt_user", value_name = "FILE")]
    mqtt_ca: Option<PathBuf>,
    /// Rounds of PBKDF2 for that password: every connection costs the device so many
    #[arg(long, default_value = "600000", value_name = "N")]
    mqtt_iterations: NonZeroU32,
    /// More of the node's configuration, such as its sensors: TOML, as in agent.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A seed, and what belongs to it and stays here.
pub(crate) struct Made {
    pub(crate) seed: Seed,
    certificate: Option<(PathBuf, String)>,
}

impl Options {
    /// Whether a wireless network is named.
    pub(crate) fn wants_wifi(&self) -> bool {
        self.wifi_ssid.is_some()
    }

    /// Reads passwords, makes keys, and asks for a token, in the order of the options.
    pub(crate) async fn make(&self, screen: &Screen) -> Result<Made, Failure> {
        let wifi = match (&self.wifi_ssid, &self.wifi_country) {
            (Some(ssid), Some(country)) => Some(wifi(ssid, country, screen)?),
            (Some(ssid), None) => Some(wifi(ssid, &country(screen)?, screen)?),
            (None, _) => None,
        };
        let enrol = self.enrol(screen).await?;
        let (mqtt, certificate) = match &self.mqtt_user {
            Some(user) => {
                let (mqtt, certificate) = self.mqtt(user, screen)?;
                (Some(mqtt), Some(certificate))
            }
            None => (None, None),
        };
        let config = match &self.config {
            Some(path) => {
                let wrong = |error: String| Failure::new(format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
                // What its keys mean, only `holmd check-config` knows; that it is TOML can be said here.
                text.parse::<toml::Table>().map_err(|error| wrong(error.to_string()))?;
                Some(text)
            }
            None => None,
        };
        Ok(Made { seed: Seed { hostname: self.hostname.clone(), wifi, enrol, mqtt, config }, certificate })
    }

    async fn enrol(&self, screen: &Screen) -> Result<Option<Enrol>, Failure> {
        let thing = self.hostname.clone();
        if let (Some(cloud), Some(token), Some(ca_hash)) = (&self.cloud, &self.token, &self.ca_hash) {
            let token = match &**token {
                "-" => password::read(screen, "Enrolment token")?,
                token => token.to_owned(),
            };
            return Ok(Some(Enrol { cloud: cloud.clone(), token, ca_hash: ca_hash.clone(), thing }));
        }
        if self.cloud.is_none() && self.group.is_none() {
            return Ok(None);
        }
        let remote = Remote::open()?;
        let body = json!({ "group": self.group, "ttl": TOKEN_LIFE.as_secs() });
        let answer = remote.post("/v1/enrolment-tokens", &body).await?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let cloud = self.cloud.clone().unwrap_or_else(|| remote.url().to_owned());
        if ["//localhost", "//127.", "//[::1]"].iter().any(|local| cloud.contains(local)) {
            screen.note(format_args!("warning: {cloud} is this machine, which the device cannot reach: use --cloud"));
        }
        Ok(Some(Enrol { cloud, token: text("token"), ca_hash: text("ca_hash"), thing }))
    }

    /// A user, and a certificate that vouches for itself: nobody else could for a device in a field.
    fn mqtt(&self, user: &str, screen: &Screen) -> Result<(Mqtt, (PathBuf, String)), Failure> {
        let host = self.hostname.clone().unwrap_or_else(|| "holm".to_owned());
        let password = password::read(screen, &format!("Password of {user} at the device's broker"))?;
        if password.is_empty() {
            return Err(Failure::new("the password of the broker's user is empty").next("give it on stdin"));
        }
        let hash = PasswordHash::create(password.as_bytes(), self.mqtt_iterations)
            .map_err(|error| Failure::new(format!("cannot hash the password: {error}")))?;
        let mut names = vec![host.clone(), format!("{host}.local")];
        names.extend(self.mqtt_names.iter().cloned());
        let failed = |error: rcgen::Error| Failure::new(format!("cannot make the broker's certificate: {error}"));
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(names).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, host.clone());
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        let path = self.mqtt_ca.clone().unwrap_or_else(|| PathBuf::from(format!("{host}-mqtt.crt")));
        let mqtt = Mqtt {
            user: user.to_owned(),
            password_hash: hash.to_string(),
            certificate: certificate.clone(),
            key: key.serialize_pem(),
        };
        Ok((mqtt, (path, certificate)))
    }
}

impl Made {
    /// Writes what stays here.
    pub(crate) fn keep(&self, screen: &Screen) -> Result<(), Failure> {
        let Some((path, certificate)) = &self.certificate else { return Ok(()) };
        std::fs::write(path, certificate)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        screen.note(format_args!("clients of the broker trust {}", path.display()));
        Ok(())
    }
}

/// Which country's rules hold, from whoever sits there.
fn country(screen: &Screen) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new("which channels a radio may use depends on the country, and none is named")
            .next("add --wifi-country with two letters, such as DE"));
    }
    screen.note("Country of the wireless network, by two letters such as DE:");
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(|error| Failure::new(format!("cannot read from stdin: {error}")))?;
    land(line.trim()).map_err(Failure::new)
}

fn wifi(ssid: &str, country: &str, screen: &Screen) -> Result<Wifi, Failure> {
    let password = password::read(screen, &format!("Password of {ssid}, empty for an open network"))?;
    let psk = match password.is_empty() {
        true => None,
        false => Some(holm_image::seed::psk(ssid, &password).map_err(|error| failure(&error))?),
    };
    Ok(Wifi { ssid: ssid.to_owned(), psk, country: country.to_owned() })
}
