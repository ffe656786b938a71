//! `holm password`: the hash of a password, for `[[mqtt.user]]`.

use std::io::{BufRead as _, IsTerminal as _};
use std::num::NonZeroU32;

use holm_mqtt::PasswordHash;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::failure::Failure;
use crate::screen::Screen;

/// See `holm password --help`.
#[derive(clap::Args)]
pub(crate) struct Password {
    /// Rounds of PBKDF2: every connection costs the node so many
    #[arg(long, default_value = "600000", value_name = "N")]
    iterations: NonZeroU32,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Password {
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let password = read(screen, "Password")?;
        if password.is_empty() {
            return Err(Failure::new("the password is empty").next("give one on stdin: `holm password < FILE`"));
        }
        let hash = PasswordHash::create(password.as_bytes(), self.iterations)
            .map_err(|error| Failure::new(format!("cannot hash the password: {error}")))?;
        match self.json {
            true => screen.json(&serde_json::json!({ "password_hash": hash.to_string() })),
            false => screen.line(hash),
        }
    }
}

/// The first line of stdin, and on a terminal without showing it, after saying what is wanted.
pub(crate) fn read(screen: &Screen, what: &str) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("cannot read from stdin: {error}"));
    let stdin = std::io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        screen.note(format_args!("{what} (it is not shown):"));
        let before = tcgetattr(&stdin).map_err(|error| failed(error.into()))?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
        let result = stdin.lock().read_line(&mut line);
        tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(|error| failed(error.into()))?;
        result.map_err(failed)?;
    } else {
        stdin.lock().read_line(&mut line).map_err(failed)?;
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}
