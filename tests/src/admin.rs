//! The admin socket, spoken plainly.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A client of one node's admin socket.
#[derive(Debug, Clone)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// For a data folder.
    pub fn new(data: &Path) -> Self {
        Self { socket: data.join("admin.sock") }
    }

    /// GET, which must succeed.
    pub fn get(&self, path: &str) -> Value {
        let (status, value) = self.request("GET", path, &[]);
        assert_eq!(status, 200, "GET {path}: {value}");
        value
    }

    /// POST, with the status.
    pub fn post(&self, path: &str, body: &[u8]) -> (u16, Value) {
        self.request("POST", path, body)
    }

    /// Deploys a bundle; the report must say that it was confirmed.
    pub fn deploy(&self, bundle: &[u8]) -> Value {
        let (status, report) = self.post("/v1/deploy", bundle);
        assert_eq!(status, 200, "{report}");
        assert!(report["outcome"].as_str().unwrap().starts_with("confirmed"), "{report}");
        report
    }

    /// GET of a node that may not be there at this moment.
    pub fn try_get(&self, path: &str) -> Option<Value> {
        self.ask("GET", path, &[]).ok().filter(|(status, _)| *status == 200).map(|(_, value)| value)
    }

    /// One request on one connection.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        self.ask(method, path, body).unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Value)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: holm\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok((status, serde_json::from_str(body).unwrap_or(Value::String(body.to_owned()))))
    }
}
