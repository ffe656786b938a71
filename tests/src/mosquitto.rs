//! Somebody else's broker: a real mosquitto in a process of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::eventually;
use crate::node::signal;

/// A running mosquitto. Killed when dropped.
pub struct Mosquitto {
    child: Child,
    port: u16,
    config: PathBuf,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Mosquitto {
    /// Starts it on `port`, with what it has to keep in `folder`, and `extra` lines of configuration for its listener.
    pub fn start(folder: &Path, port: u16, extra: &str) -> Self {
        let config = folder.join("mosquitto.conf");
        let folder = folder.display();
        // Nothing is dropped from a queue, and what is acknowledged survives a SIGTERM.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\n{extra}\npersistence true\n\
             persistence_location {folder}/\nmax_queued_messages 0\nlog_dest file {folder}/mosquitto.log\n"
        );
        std::fs::write(&config, text).unwrap();
        let child = spawn(&config);
        let this = Self { child, port, config };
        this.await_listener();
        this
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// SIGTERM, on which it saves, and starts it again after `pause` ran.
    pub fn restart(&mut self, pause: impl FnOnce()) {
        self.signal("TERM");
        self.child.wait().unwrap();
        pause();
        self.child = spawn(&self.config);
        self.await_listener();
    }

    /// Any signal.
    pub fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    fn await_listener(&self) {
        let address = self.address();
        eventually("mosquitto listens", || TcpStream::connect(&address).ok());
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path) -> Child {
    // Debian puts daemons where the path of a user does not look.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("mosquitto");
    command.env("PATH", format!("{path}:/usr/sbin")).arg("-c").arg(config);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("mosquitto is needed, run `cargo xtask test`: {error}"))
}
