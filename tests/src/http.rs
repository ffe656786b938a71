//! A client of the node's HTTP listener that does exactly as told.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::node::Node;

/// An answer: its status, its head in small letters, its body.
pub struct Answer(pub u16, pub String, pub String);

/// One request on one connection; `head` has more lines, each ended.
pub fn ask(node: &Node, method: &str, target: &str, head: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(node.http.as_deref().unwrap()).unwrap();
    let length =
        if head.contains("Transfer-Encoding") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}{head}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // A node that has said no need not read the rest.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    Answer(head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase(), body.to_owned())
}
