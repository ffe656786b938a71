//! The desk where devices get their certificates: HTTPS, as plain as can be.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::tls::{Authority, Identity};

/// What it knows.
#[derive(Default)]
pub struct Desk {
    tokens: BTreeSet<String>,
    used: BTreeSet<String>,
    number: u32,
    /// The public key and name of every certificate, by its PEM.
    issued: BTreeMap<String, (Vec<u8>, String)>,
    /// Begin and end of certificates that are issued, in seconds from now.
    pub life: (i64, i64),
    /// Requests so far, by path.
    pub requests: Vec<String>,
    /// Takes requests and answers nothing.
    pub silent: bool,
    /// Files of the repository, by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Its first root; `null` if there is none yet.
    pub root_json: Value,
    /// Files below `functions` break off after so many bytes, each time.
    pub cut: Option<usize>,
    /// Files below `functions` are not answered.
    pub withheld: bool,
    /// Ranges that were asked for.
    pub ranges: Vec<String>,
    url: String,
}

impl Desk {
    /// A fresh token.
    pub fn token(&mut self) -> String {
        self.number += 1;
        let token = format!("token-{}", self.number);
        self.tokens.insert(token.clone());
        token
    }
}

/// See the module.
pub struct Https {
    /// Where it is.
    pub url: String,
    desk: Arc<Mutex<Desk>>,
    stopped: Arc<AtomicBool>,
}

impl Https {
    pub(super) fn start(authority: Arc<Authority>, server: &Identity, mqtt: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let desk = Arc::new(Mutex::new(Desk { life: (-60, 86_400), url: url.clone(), ..Desk::default() }));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, stop, config) = (desk.clone(), stopped.clone(), authority.server(server));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that goes away in the middle is no matter.
                    Ok((socket, _)) => drop(serve(socket, &config, &authority, &shared, mqtt)),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { url, desk, stopped }
    }

    /// What it knows.
    pub fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn serve(
    socket: TcpStream,
    config: &Arc<ServerConfig>,
    authority: &Authority,
    desk: &Mutex<Desk>,
    mqtt: u16,
) -> std::io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let connection = ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    let (head, body) = loop {
        let count = stream.read(&mut chunk)?;
        bytes.extend(&chunk[..count]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                break (head.to_owned(), body.to_owned());
            }
        }
        if count == 0 {
            return Ok(());
        }
    };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut desk = desk.lock().unwrap();
    desk.requests.push(path.clone());
    if desk.silent {
        return Ok(());
    }
    if path.starts_with("/tuf/") {
        return file(&mut stream, &mut desk, &path, &head);
    }
    let (status, answer) = match path.as_str() {
        "/v1/ca" => (200, json!({ "root_pem": authority.pem() })),
        "/v1/enrol" => answer(enrol(&mut desk, authority, &body, mqtt)),
        "/v1/renew" => answer(renew(&mut desk, authority, &body, mqtt)),
        _ => answer(Err(refuse(404, "not-found"))),
    };
    drop(desk);
    let answer = answer.to_string();
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}", answer.len())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// A file of the repository, or what is left of it from a byte on.
fn file(
    stream: &mut StreamOwned<ServerConnection, TcpStream>,
    desk: &mut Desk,
    path: &str,
    head: &str,
) -> std::io::Result<()> {
    let Some(bytes) = desk.files.get(path).cloned() else {
        write!(stream, "HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return stream.flush();
    };
    let function = path.contains("/functions/");
    if function && desk.withheld {
        return Ok(());
    }
    let range = head.to_lowercase().lines().find_map(|line| Some(line.strip_prefix("range: ")?.to_owned()));
    desk.ranges.extend(range.clone());
    let from: usize =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()).unwrap_or(0);
    let rest = &bytes[from.min(bytes.len())..];
    let status = if from > 0 { 206 } else { 200 };
    write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n", rest.len())?;
    if from > 0 {
        write!(stream, "Content-Range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len())?;
    }
    write!(stream, "\r\n")?;
    let cut = desk.cut.filter(|_| function).unwrap_or(usize::MAX);
    stream.write_all(&rest[..cut.min(rest.len())])?;
    stream.conn.send_close_notify();
    stream.flush()
}

type Refusal = (u16, Value);

fn refuse(status: u16, code: &str) -> Refusal {
    (status, json!({ "error": { "code": code, "message": format!("this is about {code}"), "problems": [] } }))
}

fn answer(result: Result<Value, Refusal>) -> (u16, Value) {
    result.map_or_else(|refusal| refusal, |value| (200, value))
}

fn enrol(desk: &mut Desk, authority: &Authority, body: &str, mqtt: u16) -> Result<Value, Refusal> {
    let request: Value = serde_json::from_str(body).map_err(|_| refuse(400, "bad-request"))?;
    let token = request["token"].as_str().unwrap_or_default();
    if desk.used.contains(token) {
        return Err(refuse(409, "token-used"));
    }
    if !desk.tokens.contains(token) {
        return Err(refuse(403, "token-unknown"));
    }
    let thing = request["thing"].as_str().unwrap_or("given").to_owned();
    let enrolled = certify(desk, authority, &request, &thing, mqtt)?;
    desk.used.insert(token.to_owned());
    Ok(enrolled)
}

fn renew(desk: &mut Desk, authority: &Authority, body: &str, mqtt: u16) -> Result<Value, Refusal> {
    let request: Value = serde_json::from_str(body).map_err(|_| refuse(400, "bad-request"))?;
    let old = request["certificate_pem"].as_str().unwrap_or_default();
    let (key, thing) = desk.issued.get(old).cloned().ok_or_else(|| refuse(403, "certificate-unknown"))?;
    let signature = base64(request["signature"].as_str().unwrap_or_default());
    let csr = request["csr_pem"].as_str().unwrap_or_default();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .verify(csr.as_bytes(), &signature)
        .map_err(|_| refuse(403, "signature-wrong"))?;
    certify(desk, authority, &request, &thing, mqtt)
}

fn certify(desk: &mut Desk, authority: &Authority, request: &Value, thing: &str, mqtt: u16) -> Result<Value, Refusal> {
    let csr = request["csr_pem"].as_str().unwrap_or_default();
    let (begin, end) = desk.life;
    let (pem, key) = authority.certify(csr, thing, begin, end).map_err(|_| refuse(400, "csr-refused"))?;
    desk.issued.insert(pem.clone(), (key, thing.to_owned()));
    Ok(json!({
        "thing": thing, "groups": ["greenhouse"], "certificate_pem": pem, "root_pem": authority.pem(),
        "mqtt": { "host": "127.0.0.1", "port": mqtt },
        "tuf": {
            "metadata_url": format!("{}/tuf/metadata/", desk.url), "targets_url": format!("{}/tuf/targets/", desk.url),
            "root_json": desk.root_json,
        },
    }))
}

fn base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        (bits, count) = (bits << 6 | u32::from(value(byte)), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
