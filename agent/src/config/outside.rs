//! `[http]` and `[[folder]]`: what of the world beyond the board may start functions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use holm_core::{Label, Section};

const MIB: u64 = 1 << 20;

/// The listener for requests that start functions.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where. Off-host addresses need a token.
    pub listen: SocketAddr,
    /// File with the token that every request must carry; white space at its end is not part of it.
    pub token_file: Option<PathBuf>,
    /// The largest body of a request, in bytes.
    pub max_body: u64,
    /// How long an answer is waited for.
    pub timeout: Duration,
    /// Connections at once.
    pub connections: usize,
}

impl Http {
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let listen = section.require("listen", str::parse::<SocketAddr>);
        let second = Duration::from_secs(1);
        Some(Self {
            token_file: section.text("token_file").map(PathBuf::from),
            max_body: section.bytes("max_body", 0..=4 * MIB).unwrap_or(MIB / 4),
            timeout: section.duration_in("timeout", Duration::from_millis(10)..=300 * second).unwrap_or(10 * second),
            connections: section.integer("connections", 1..=4096).map_or(64, |n| n as usize),
            listen: listen?,
        })
    }

    /// Why it must not be so, where everybody could ask.
    pub(super) fn is_open(&self) -> Option<String> {
        let open = !self.listen.ip().is_loopback() && self.token_file.is_none();
        open.then(|| format!("{} is open to other hosts but there is no token_file", self.listen))
    }
}

/// Reads the folders; a name that is there twice is a problem.
pub(super) fn folders(root: &mut Section<'_>, folders: &mut BTreeMap<Label, PathBuf>) {
    for mut folder in root.sections("folder") {
        let name = folder.require("name", Label::new);
        let path = folder.require("path", |text| Ok::<_, String>(PathBuf::from(text)));
        if let (Some(name), Some(path)) = (name, path)
            && folders.insert(name.clone(), path).is_some()
        {
            folder.problem("name", format_args!("names `{name}` twice"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Overrides};

    fn check(text: &str, keys: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        let found = Config::read(Some(&file), Overrides::default());
        let found: Option<Vec<_>> =
            found.err().map(|found| found.problems.into_iter().map(|problem| problem.key).collect());
        assert_eq!(found.unwrap_or_default(), keys, "{text}");
    }

    #[test]
    fn a_listener_that_others_can_reach_needs_a_token() {
        check("[http]\nlisten = \"127.0.0.1:8080\"", &[]);
        check("[http]\nlisten = \"0.0.0.0:8080\"", &["http.listen"]);
        check("[http]\nlisten = \"0.0.0.0:8080\"\ntoken_file = \"/etc/holm/token\"", &[]);
        check("[http]\nmax_body = \"1GiB\"", &["http.listen", "http.max_body"]);
    }

    #[test]
    fn a_folder_has_a_name_of_its_own() {
        let folder = "[[folder]]\nname = \"camera\"\npath = \"/srv/camera\"\n";
        check(folder, &[]);
        check(&folder.repeat(2), &["folder[1].name"]);
        check("[[folder]]\nname = \"Camera\"", &["folder[0].path", "folder[0].name"]);
    }
}
