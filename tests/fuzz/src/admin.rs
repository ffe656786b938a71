//! Bytes to the admin socket of a node.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Sends bytes and reads whatever comes back: an answer is HTTP or none, and the node goes on to serve others.
pub fn request(socket: &Path, data: &[u8]) {
    let answer = exchange(socket, data, true);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    let health = exchange(socket, b"GET /v1/status HTTP/1.1\r\nHost: holm\r\nConnection: close\r\n\r\n", false);
    assert!(health.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&health));
}

/// `hang_up` ends our side after the data; a node need not answer somebody who has hung up.
fn exchange(socket: &Path, data: &[u8], hang_up: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("the admin socket");
    stream.set_read_timeout(Some(Duration::from_millis(15))).expect("a timeout");
    // The node may hang up on nonsense before it has all of it.
    let _ = stream.write_all(data);
    let mut answer = Vec::new();
    if let Err(error) = (&stream).take(1 << 20).read_to_end(&mut answer)
        && error.kind() == std::io::ErrorKind::WouldBlock
    {
        // It waits for more, or for the next request. To hang up before would be to take the request back.
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        if hang_up {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
    }
    answer
}
