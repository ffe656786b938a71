//! A wireless network: `wpa_supplicant` of Debian, kept running on the board's radio.
//!
//! It runs as root, and its configuration can name libraries that it loads. So that is where `holmd` cannot write: in a folder
//! of root's, and it comes from the card's seed only, checked and written by [`crate::seed`].

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::console::{pass_on, warn};

/// Its configuration, in the data partition.
pub const CONFIG: &str = "network/wpa_supplicant.conf";

/// The program.
const SUPPLICANT: &str = "/usr/sbin/wpa_supplicant";

/// How long it rests when it has ended.
const REST: Duration = Duration::from_secs(10);

/// Whether the card was told of a wireless network.
pub fn is_wanted(data: &Path) -> bool {
    data.join(CONFIG).is_file()
}

/// Whether an interface has joined a network, keys and all (`operstate` of RFC 2863).
pub fn has_joined(name: &str) -> bool {
    let path = Path::new("/sys/class/net").join(name).join("operstate");
    std::fs::read_to_string(path).is_ok_and(|state| state.trim() == "up")
}

/// Joins the network, for ever: what ends is started again.
pub fn join(name: &str, data: &Path) {
    loop {
        let mut command = Command::new(SUPPLICANT);
        command.args(["-D", "nl80211", "-i", name, "-c"]).arg(data.join(CONFIG)).env_clear().current_dir("/");
        match command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(mut child) => {
                if let Some(out) = child.stdout.take() {
                    pass_on("wpa_supplicant", out);
                }
                if let Some(log) = child.stderr.take() {
                    pass_on("wpa_supplicant", log);
                }
                // The supervisor collects whatever ends; then there is nothing left to wait for, which is an end as well.
                let _ = child.wait();
                warn(format_args!("{name}: wpa_supplicant has ended; it is started again in {} s", REST.as_secs()));
            }
            Err(error) => warn(format_args!("{name}: cannot start {SUPPLICANT}: {error}")),
        }
        std::thread::sleep(REST);
    }
}
