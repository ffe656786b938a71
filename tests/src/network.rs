//! A device in a network of its own, and a router between it and this machine that can drop or refuse what passes.

use std::path::Path;
use std::process::Command;

/// How the two are kept from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Packets vanish: nobody is told anything.
    Silent,
    /// Whoever sends is told that there is no way (ICMP).
    Loud,
}

impl Cut {
    /// What the router does with a packet.
    fn action(self) -> &'static str {
        match self {
            Self::Silent => "blackhole",
            Self::Loud => "unreachable",
        }
    }
}

/// Two network namespaces: the router's and the device's. Gone when dropped.
pub struct Network {
    number: u32,
    cut: Option<Cut>,
}

impl Network {
    /// Makes one, or says that it may not here.
    pub fn new() -> Option<Self> {
        let this = Self { number: std::process::id(), cut: None };
        let (router, device) = (this.router(), this.device());
        if !ip(&["netns", "add", &router]) || !ip(&["netns", "add", &device]) {
            crate::skip("network namespaces are not permitted here");
            return None;
        }
        let [ours, routers, to_device, devices] = ["a", "b", "c", "d"].map(|end| format!("ht{end}{}", this.number));
        let address = |last: u8| format!("{}/30", this.address(last));
        let net = format!("{}/30", this.address(4));
        let lines: [&[&str]; 13] = [
            &["link", "add", &ours, "type", "veth", "peer", "name", &routers, "netns", &router],
            &["-n", &router, "link", "add", &to_device, "type", "veth", "peer", "name", &devices, "netns", &device],
            &["addr", "add", &address(1), "dev", &ours],
            &["-n", &router, "addr", "add", &address(2), "dev", &routers],
            &["-n", &router, "addr", "add", &address(5), "dev", &to_device],
            &["-n", &device, "addr", "add", &address(6), "dev", &devices],
            &["link", "set", &ours, "up"],
            &["-n", &router, "link", "set", &routers, "up"],
            &["-n", &router, "link", "set", &to_device, "up"],
            &["-n", &device, "link", "set", &devices, "up"],
            &["-n", &device, "link", "set", "lo", "up"],
            &["route", "add", &net, "via", &this.address(2)],
            &["-n", &device, "route", "add", "default", "via", &this.address(5)],
        ];
        for line in lines {
            if !ip(line) {
                crate::skip("links between network namespaces are not permitted here");
                return None;
            }
        }
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        assert!(ip(&["netns", "exec", &router, "sh", "-c", forward]), "the router does not forward");
        Some(this)
    }

    /// This machine's address, as the device sees it.
    pub fn address_of_this_machine(&self) -> String {
        self.address(1)
    }

    /// What a program is run under to be in the device's place.
    pub fn device_runs(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.device()].map(str::to_owned).to_vec()
    }

    /// From now on nothing passes, in either direction.
    pub fn cut(&mut self, cut: Cut) {
        self.heal();
        self.rules("add", cut);
        self.cut = Some(cut);
    }

    /// From now on everything passes.
    pub fn heal(&mut self) {
        if let Some(cut) = self.cut.take() {
            self.rules("del", cut);
        }
    }

    /// By who sends: what the router itself has to say arrives.
    fn rules(&self, action: &str, cut: Cut) {
        for last in [1, 6] {
            let from = format!("{}/32", self.address(last));
            assert!(ip(&["-n", &self.router(), "rule", action, "from", &from, cut.action()]), "cannot {action} a rule");
        }
    }

    /// From the block that is set aside for tests of devices (RFC 2544), so that it is nobody's here; several runs have several nets.
    fn address(&self, last: u8) -> String {
        let net = self.number % (1 << 13);
        let base = net * 8 + u32::from(last);
        format!("198.{}.{}.{}", 18 + (base >> 16), (base >> 8) & 255, base & 255)
    }

    fn router(&self) -> String {
        format!("holm-router-{}", self.number)
    }

    fn device(&self) -> String {
        format!("holm-device-{}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links go with them.
        for name in [self.device(), self.router()] {
            if Path::new("/run/netns").join(&name).exists() {
                ip(&["netns", "delete", &name]);
            }
        }
    }
}

fn ip(words: &[&str]) -> bool {
    // Debian has it where the path of a user does not look.
    let run = |program: &str| Command::new(program).args(words).output();
    match run("ip").or_else(|_| run("/usr/sbin/ip")) {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            println!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            println!("ip {}: {error}", words.join(" "));
            false
        }
    }
}
