//! Addresses for every wired interface, by DHCP, for as long as the node runs; and the time, once there is a way to it.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::console::{complain, say, warn};
use crate::dhcp::{Client, Lease};
use crate::link::Links;
use crate::{InitError, seed, sntp};

/// How often new interfaces are looked for: adapters on USB come late.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long an interface rests that got no address.
const REST: Duration = Duration::from_secs(10);

/// Where names are resolved; `/etc/resolv.conf` of the system leads here.
const RESOLVERS: &str = "/run/resolv.conf";

/// Who tells the time if the network names nobody.
const TIME_SERVER: &str = "2.debian.pool.ntp.org";

/// Starts all of it.
pub fn start(hostname: String, data: &'static Path) {
    let watch = move || {
        let mut known = BTreeSet::new();
        loop {
            for name in wired(Path::new("/sys/class/net")) {
                if known.insert(name.clone()) {
                    let hostname = hostname.clone();
                    start_thread(format!("dhcp-{name}"), move || serve(&name, &hostname, data));
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    };
    start_thread("network".to_owned(), watch);
}

fn start_thread(name: String, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.clone()).spawn(run) {
        complain(format_args!("no thread for {name}: {error}"));
    }
}

/// Interfaces with a device behind them that speak Ethernet and have no radio.
fn wired(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let fits = |path: &Path| {
        let ethernet = fs::read_to_string(path.join("type")).is_ok_and(|kind| kind.trim() == "1");
        ethernet && path.join("device").exists() && !path.join("wireless").exists()
    };
    entries.filter(|entry| fits(&entry.path())).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// One interface, for ever.
fn serve(name: &str, hostname: &str, data: &Path) {
    let mut held = None;
    loop {
        if let Err(error) = lease(name, hostname, data, &mut held) {
            warn(format_args!("{name}: {}", error.chain()));
        }
        thread::sleep(REST);
    }
}

/// Gets an address and keeps it for as long as it is given. `held` is what the interface has had last: it stays in use
/// while nobody gives another.
fn lease(name: &str, hostname: &str, data: &Path, held: &mut Option<Lease>) -> Result<(), InitError> {
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
    use_lease(&links, index, held, lease)?;
    while let Some(lease) = held {
        thread::sleep(lease.time / 2);
        match client.lease(Some(lease)) {
            Some(next) => use_lease(&links, index, held, next)?,
            // The address stays in use: a node that is cut off from its server is better off with it than without.
            None => {
                warn(format_args!("{name}: the address is not renewed"));
                break;
            }
        }
    }
    Ok(())
}

/// Puts a lease in the place of the one that is held.
fn use_lease(links: &Links, index: u32, held: &mut Option<Lease>, lease: Lease) -> Result<(), InitError> {
    let place = |lease: &Lease| (lease.address, lease.prefix);
    if held.as_ref().map(place) != Some(place(&lease)) {
        links.address(index, lease.address, lease.prefix)?;
        if let Some(old) = held {
            links.forget(index, old.address, old.prefix)?;
        }
    }
    // Routes go with the address that they were made for.
    if let Some(router) = lease.router {
        links.gateway(index, router)?;
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
    fn only_wires_with_a_device_are_served() {
        let root = tempfile::tempdir().unwrap();
        for (name, kind, more) in [
            ("eth0", "1\n", &["device"][..]),
            ("lo", "772\n", &[]),
            ("wlan0", "1\n", &["device", "wireless"]),
            ("bridge0", "1\n", &[]),
        ] {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("type"), kind).unwrap();
            more.iter().for_each(|more| fs::create_dir(root.path().join(name).join(more)).unwrap());
        }
        assert_eq!(wired(root.path()), ["eth0"]);
        assert_eq!(hardware("52:54:00:12:34:56"), [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    }
}
