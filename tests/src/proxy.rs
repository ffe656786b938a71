//! What sits between a device and its control plane: a pipe that can freeze, with both sides still connected.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

#[derive(Default)]
struct State {
    frozen: AtomicBool,
    muted: AtomicBool,
    /// Connections of an earlier number end.
    life: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
    stopped: AtomicBool,
}

/// See the module.
pub struct Proxy {
    state: Arc<State>,
    /// Where it listens.
    pub port: u16,
}

impl Proxy {
    /// Hands everything on to `target`.
    pub fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            while !shared.stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((socket, _)) => serve(&socket, &target, &shared),
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        });
        Self { state, port }
    }

    /// Nothing passes any more, in either direction, and nobody is told.
    pub fn freeze(&self, frozen: bool) {
        self.state.frozen.store(frozen, Ordering::Relaxed);
    }

    /// Nothing passes down to the device any more, and what it sends still passes up.
    pub fn mute(&self, muted: bool) {
        self.state.muted.store(muted, Ordering::Relaxed);
    }

    /// Every connection ends.
    pub fn cut(&self) {
        self.state.life.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes that passed, in both directions.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::Relaxed)
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        self.cut();
    }
}

fn serve(socket: &TcpStream, target: &str, state: &Arc<State>) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    socket.set_nonblocking(false).unwrap();
    let Ok(other) = TcpStream::connect(target) else { return };
    for (mut from, mut to, down) in [
        (socket.try_clone().unwrap(), other.try_clone().unwrap(), false),
        (other.try_clone().unwrap(), socket.try_clone().unwrap(), true),
    ] {
        let state = state.clone();
        let held =
            move |state: &State| state.frozen.load(Ordering::Relaxed) || (down && state.muted.load(Ordering::Relaxed));
        let life = state.life.load(Ordering::Relaxed);
        from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        to.set_nodelay(true).unwrap();
        std::thread::spawn(move || {
            let mut chunk = [0; 16 << 10];
            loop {
                if state.life.load(Ordering::Relaxed) != life {
                    break;
                }
                if held(&state) {
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                match from.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(count) => {
                        // What was read before it froze is held back as well.
                        while held(&state) && state.life.load(Ordering::Relaxed) == life {
                            std::thread::sleep(Duration::from_millis(5));
                        }
                        state.bytes.fetch_add(count as u64, Ordering::Relaxed);
                        if to.write_all(&chunk[..count]).is_err() {
                            break;
                        }
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(_) => break,
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
