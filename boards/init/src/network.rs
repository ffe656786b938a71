//! Addresses for every interface, by DHCP, for as long as the node runs; and the time, once there is a way to it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::console::{complain, say, warn};
use crate::dhcp::{Client, Lease};
use crate::link::Links;
use crate::{InitError, radio, seed, sntp};

/// How often new interfaces are looked for: adapters on USB come late.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long an interface rests that got no address.
const REST: Duration = Duration::from_secs(10);

/// Where names are resolved; `/etc/resolv.conf` of the system leads here.
const RESOLVERS: &str = "/run/resolv.conf";

/// Who tells the time if the network names nobody.
const TIME_SERVER: &str = "2.debian.pool.ntp.org";

/// The interfaces that have an address.
#[derive(Debug, Clone, Default)]
pub struct Addresses(Arc<Mutex<BTreeSet<String>>>);

impl Addresses {
    /// Whether there is a way out, as far as can be told from here: an address on an interface that is plugged in.
    pub fn any(&self) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let down = |name: &String| {
            let state = fs::read_to_string(Path::new("/sys/class/net").join(name).join("operstate"));
            state.is_ok_and(|state| ["down", "lowerlayerdown"].contains(&state.trim()))
        };
        held.iter().any(|name| !down(name))
    }

    fn add(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    fn remove(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

/// Starts all of it.
pub fn start(hostname: String, data: &'static Path) -> Addresses {
    let addresses = Addresses::default();
    let shared = addresses.clone();
    // A cable that is pulled leaves its routes behind: the kernel is not to take those while there is another way.
    let _ = fs::write("/proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown", "1");
    let watch = move || {
        let mut known = BTreeSet::new();
        loop {
            for (name, kind) in interfaces(Path::new("/sys/class/net")) {
                let serves = kind == Kind::Wire || radio::is_wanted(data);
                if serves && known.insert(name.clone()) {
                    if kind == Kind::Radio {
                        let name = name.clone();
                        start_thread(format!("join-{name}"), move || radio::join(&name, data));
                    }
                    let (hostname, shared) = (hostname.clone(), shared.clone());
                    start_thread(format!("dhcp-{name}"), move || serve(&name, kind, &hostname, data, &shared));
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    start_thread("network".to_owned(), watch);
    addresses
}

/// What an interface leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Wire,
    Radio,
}

impl Kind {
    /// How much the kernel would rather not send that way: a wire is taken before a radio.
    fn metric(self) -> u32 {
        match self {
            Self::Wire => 0,
            Self::Radio => 600,
        }
    }
}

fn start_thread(name: String, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.clone()).spawn(run) {
        complain(format_args!("no thread for {name}: {error}"));
    }
}

/// Interfaces with a device behind them that speak Ethernet, as radios do too.
fn interfaces(folder: &Path) -> Vec<(String, Kind)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let kind = |path: &Path| {
        let ethernet = fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.trim() == "1");
        let radio = ["phy80211", "wireless"].iter().any(|name| path.join(name).exists());
        let fits = ethernet && path.join("device").exists();
        fits.then_some(if radio { Kind::Radio } else { Kind::Wire })
    };
    entries.filter_map(|entry| Some((entry.file_name().to_string_lossy().into_owned(), kind(&entry.path())?))).collect()
}

/// One interface, for ever.
fn serve(name: &str, kind: Kind, hostname: &str, data: &Path, addresses: &Addresses) {
    let mut held = None;
    loop {
        // Before it has joined a network there is nobody to ask.
        while kind == Kind::Radio && !radio::has_joined(name) {
            thread::sleep(LOOK_EVERY);
        }
        if let Err(error) = lease(name, kind, hostname, data, (&mut held, addresses)) {
            warn(format_args!("{name}: {}", error.chain()));
        }
        addresses.remove(name);
        thread::sleep(REST);
    }
}

/// Gets an address and keeps it for as long as it is given. `held` is what the interface has had last: it stays in use
/// while nobody gives another.
fn lease(
    name: &str,
    kind: Kind,
    hostname: &str,
    data: &Path,
    (held, addresses): (&mut Option<Lease>, &Addresses),
) -> Result<(), InitError> {
    let folder = Path::new("/sys/class/net").join(name);
    let read = |what: &str| {
        let path = folder.join(what);
        fs::read_to_string(&path).map_err(InitError::file("read", &path))
    };
    let index = read("ifindex")?.trim().parse().unwrap_or_default();
    let hardware = hardware(read("address")?.trim());
    let links = Links::open()?;
    links.up(index)?;
    let [.., a, b, c, d] = hardware;
    let mut client = Client::new(name, hardware, u32::from_be_bytes([a, b, c, d]) ^ 0x484f_4c4d, hostname.to_owned())?;
    let Some(lease) = client.lease(None) else {
        warn(format_args!("{name}: nobody answers to DHCP"));
        return Ok(());
    };
    say(format_args!("{name}: {}/{} for {} s", lease.address, lease.prefix, lease.time.as_secs()));
    if held.is_none() {
        let (told, data) = (lease.clone(), data.to_owned());
        start_thread(format!("time-{name}"), move || tell_time(&told, &data));
    }
    let interface = (index, kind.metric());
    use_lease(&links, interface, held, lease)?;
    addresses.add(name);
    while let Some(lease) = held {
        thread::sleep(lease.time / 2);
        match client.lease(Some(lease)) {
            Some(next) => use_lease(&links, interface, held, next)?,
            // The address stays in use: a node that is cut off from its server is better off with it than without.
            None => {
                warn(format_args!("{name}: the address is not renewed"));
                break;
            }
        }
    }
    Ok(())
}

/// Puts a lease in the place of the one that is held, on an interface by its index and metric.
fn use_lease(
    links: &Links,
    (index, metric): (u32, u32),
    held: &mut Option<Lease>,
    lease: Lease,
) -> Result<(), InitError> {
    let place = |lease: &Lease| (lease.address, lease.prefix);
    if held.as_ref().map(place) != Some(place(&lease)) {
        links.address(index, lease.address, lease.prefix)?;
        if let Some(old) = held {
            links.forget(index, old.address, old.prefix)?;
        }
    }
    // Routes go with the address that they were made for.
    if let Some(router) = lease.router {
        links.gateway(index, router, metric)?;
    }
    let lines: String = lease.resolvers.iter().map(|resolver| format!("nameserver {resolver}\n")).collect();
    *held = Some(lease);
    let path = Path::new(RESOLVERS);
    fs::write(path, lines).map_err(InitError::file("write", path))
}

/// Sets the clock once somebody tells the time, and now and then afterwards.
fn tell_time(lease: &Lease, data: &Path) {
    let mut servers: Vec<String> = lease.time_servers.iter().map(Ipv4Addr::to_string).collect();
    servers.push(TIME_SERVER.to_owned());
    let mut wait = REST;
    loop {
        match servers.iter().find_map(|server| sntp::ask(server)) {
            Some(time) => {
                if let Err(error) = sntp::set(time).and_then(|()| sntp::keep_floor(data, seed::write)) {
                    warn(error.chain());
                }
                wait = Duration::from_secs(3600);
            }
            None => wait = (wait * 2).min(Duration::from_secs(3600)),
        }
        thread::sleep(wait);
    }
}

/// `52:54:00:12:34:56`.
fn hardware(text: &str) -> [u8; 6] {
    let mut address = [0; 6];
    for (byte, digits) in address.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_with_a_device_are_served_and_a_radio_is_known_as_one() {
        let root = tempfile::tempdir().unwrap();
        for (name, kind, more) in [
            ("eth0", "1\n", &["device"][..]),
            ("lo", "772\n", &[]),
            ("wlan0", "1\n", &["device", "wireless"]),
            ("wlan1", "1\n", &["device", "phy80211"]),
            ("bridge0", "1\n", &[]),
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("type"), kind).unwrap();
            more.iter().for_each(|more| fs::create_dir(root.path().join(name).join(more)).unwrap());
        }
        let mut found = interfaces(root.path());
        found.sort_by(|a, b| a.0.cmp(&b.0));
        let names = [("eth0", Kind::Wire), ("wlan0", Kind::Radio), ("wlan1", Kind::Radio)];
        assert_eq!(found, names.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(hardware("52:54:00:12:34:56"), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    }
}
