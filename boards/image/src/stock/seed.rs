//! The files of which a first boot makes a node.
//!
//! They are in the folder `holm` of the FAT partition: the packages, a script that installs them, and what the card was
//! told, each in the form in which its place wants it, so that the script copies and never quotes. What cloud-init is told
//! is YAML, and is quoted here, for any value.

use crate::card_seed::{Seed, Wifi};
use crate::stock::{Deb, Way};

/// The kernel's command line, on the FAT partition.
pub(super) const LINE: &str = "cmdline.txt";

/// The script that systemd runs, as the kernel's command line has it.
const FIRST_RUN: &str =
    "systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target";

/// Where the node has its configuration under Debian.
const CONFIG: &str = "/etc/holm";

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct Seeded {
    pub(super) files: Vec<(String, Vec<u8>)>,
}

// Tokens and keys must not get into a log.
impl std::fmt::Debug for Seeded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

impl Seeded {
    pub(super) fn new(way: Way, told: &Seed, packages: &[Deb], instance: &str, line: &str) -> Self {
        let mut seeded = Self { files: Vec::new() };
        seeded.put("holm/setup.sh", include_str!("setup.sh"));
        for deb in packages {
            seeded.files.push((format!("holm/{}.deb", deb.package), deb.bytes.clone()));
        }
        if let Some(enrol) = &told.enrol {
            seeded.put("holm/files/enrol.toml", &enrol.document());
        }
        if let Some(mqtt) = &told.mqtt {
            seeded.put("holm/files/mqtt.crt", &mqtt.certificate);
            seeded.put("holm/files/mqtt.key", &mqtt.key);
            seeded.put("holm/files/mqtt.toml", &mqtt.layer(CONFIG));
        }
        if let Some(config) = &told.config {
            seeded.put("holm/files/config.toml", config);
        }
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if let Some(wifi) = &told.wifi {
            words.retain(|word| !word.starts_with("cfg80211.ieee80211_regdom="));
            words.push(format!("cfg80211.ieee80211_regdom={}", wifi.country));
        }
        match way {
            Way::CloudInit => {
                seeded.put("user-data", &user_data(told));
                seeded.put("network-config", &network(told.wifi.as_ref()));
                seeded.put("meta-data", &format!("dsmode: local\ninstance-id: {instance}\n"));
                // What is said here comes before what meta-data says.
                words.retain(|word| !word.starts_with("ds=nocloud"));
                words.push(format!("ds=nocloud;i={instance}"));
            }
            Way::FirstRun => {
                seeded.put("firstrun.sh", include_str!("firstrun.sh"));
                if let Some(hostname) = &told.hostname {
                    seeded.put("holm/files/hostname", &format!("{hostname}\n"));
                }
                if let Some(wifi) = &told.wifi {
                    seeded.put("holm/files/country", &format!("{}\n", wifi.country));
                    seeded.put("holm/files/wifi", &connection(wifi));
                }
                words.push(FIRST_RUN.to_owned());
            }
        }
        // Last, and in one line: without it the rest is never looked at.
        seeded.put(LINE, &format!("{}\n", words.join(" ")));
        seeded
    }

    /// Their names on the FAT partition.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| &**name)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    fn put(&mut self, name: &str, text: &str) {
        self.files.push((name.to_owned(), text.as_bytes().to_vec()));
    }
}

fn user_data(told: &Seed) -> String {
    let mut text = String::from("#cloud-config\n# Written by `holm flash --os`.\n");
    if let Some(hostname) = &told.hostname {
        text.push_str(&format!("hostname: {}\nmanage_etc_hosts: true\n", quoted(hostname)));
    }
    text.push_str("runcmd:\n  - [sh, /boot/firmware/holm/setup.sh]\n");
    text
}

/// What is said of the network takes the place of what the system would do by itself, so the wire is said, too.
fn network(wifi: Option<&Wifi>) -> String {
    let mut text = String::from(
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n      dhcp6: true\n      optional: true\n",
    );
    if let Some(Wifi { ssid, psk, country }) = wifi {
        let (ssid, country) = (quoted(ssid), quoted(country));
        text.push_str(&format!(
            "  wifis:\n    wlan0:\n      dhcp4: true\n      dhcp6: true\n      optional: true\n      \
             regulatory-domain: {country}\n      access-points:\n"
        ));
        text.push_str(&match psk {
            Some(psk) => format!("        {ssid}:\n          password: {}\n", quoted(psk)),
            None => format!("        {ssid}: {{}}\n"),
        });
    }
    text
}

/// A network as NetworkManager keeps it. The name goes in by its bytes: nothing in it can end a line.
fn connection(Wifi { ssid, psk, .. }: &Wifi) -> String {
    let name: String = ssid.bytes().map(|byte| format!("{byte};")).collect();
    let security =
        psk.as_ref().map(|psk| format!("[wifi-security]\nkey-mgmt=wpa-psk\npsk={psk}\n")).unwrap_or_default();
    format!(
        "[connection]\nid=holm\ntype=wifi\n[wifi]\nmode=infrastructure\nssid={name}\n{security}[ipv4]\nmethod=auto\n\
         [ipv6]\nmethod=auto\n"
    )
}

/// A double-quoted scalar of YAML (1.2.2, 7.3.1), in ASCII.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            c => quoted.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
