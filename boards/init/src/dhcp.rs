//! A client for DHCP (RFC 2131, options of RFC 2132): enough for a node that wants an address and the way out.
//!
//! Over an ordinary UDP socket on one interface, with the broadcast flag set, so that answers reach a host that has no
//! address yet. Answers to somebody else, and those that make no sense, are dropped.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use crate::{InitError, kernel};

const SERVER: u16 = 67;
const CLIENT: u16 = 68;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const OPTIONS_AT: usize = 240;

/// How long an answer is waited for; doubled with every try, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(2);

/// Tries of one round.
const TRIES: u32 = 4;

/// What an address that comes without a time is worth.
const DEFAULT_LEASE: Duration = Duration::from_secs(3600);

/// Nobody asks more often.
const SHORTEST_LEASE: Duration = Duration::from_secs(60);

/// What a server gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Our address.
    pub address: Ipv4Addr,
    /// The bits of its network.
    pub prefix: u8,
    /// The way out.
    pub router: Option<Ipv4Addr>,
    /// Who resolves names.
    pub resolvers: Vec<Ipv4Addr>,
    /// Who tells the time.
    pub time_servers: Vec<Ipv4Addr>,
    /// Who gave it.
    pub server: Ipv4Addr,
    /// How long it is ours.
    pub time: Duration,
}

/// A client on one interface.
pub struct Client {
    socket: UdpSocket,
    hardware: [u8; 6],
    transaction: u32,
    hostname: String,
}

impl Client {
    /// On an interface that is up. `transaction` is any number.
    pub fn new(interface: &str, hardware: [u8; 6], transaction: u32, hostname: String) -> Result<Self, InitError> {
        let failed = |source| InitError::Kernel { action: format!("let DHCP use {interface}"), source };
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::DGRAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| failed(errno.into()))?;
        // Several interfaces ask from the same port.
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).map_err(|errno| failed(errno.into()))?;
        kernel::bind_to_interface(&socket, interface).map_err(|errno| failed(errno.into()))?;
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, CLIENT)))
            .map_err(|errno| failed(errno.into()))?;
        let socket = UdpSocket::from(socket);
        socket.set_broadcast(true).map_err(failed)?;
        Ok(Self { socket, hardware, transaction, hostname })
    }

    /// Asks for an address, or for `current` once more. `None` if nobody answers.
    pub fn lease(&mut self, current: Option<&Lease>) -> Option<Lease> {
        let offered = match current {
            Some(lease) => lease.clone(),
            None => self.exchange(&self.discover(), OFFER)?,
        };
        self.exchange(&self.request(&offered, current.is_some()), ACK)
    }

    /// Sends until the answer of this kind comes.
    fn exchange(&mut self, message: &[u8], kind: u8) -> Option<Lease> {
        let mut wait = FIRST_WAIT;
        for _ in 0..TRIES {
            self.socket.send_to(message, (Ipv4Addr::BROADCAST, SERVER)).ok()?;
            let deadline = Instant::now() + wait;
            let mut packet = [0; 1500];
            while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
                self.socket.set_read_timeout(Some(left)).ok()?;
                let Ok((length, _)) = self.socket.recv_from(&mut packet) else { continue };
                match parse(packet.get(..length).unwrap_or_default(), self.transaction) {
                    Some((found, lease)) if found == kind => return Some(lease),
                    Some((NAK, _)) => return None,
                    _ => {}
                }
            }
            wait *= 2;
        }
        None
    }

    fn head(&self, client: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![1, 1, 6, 0];
        packet.extend(self.transaction.to_be_bytes());
        // Seconds, and the flag that wants the answer broadcast.
        packet.extend([0, 0, 0x80, 0]);
        packet.extend(client.octets());
        packet.extend([0; 12]);
        packet.extend(self.hardware);
        packet.resize(OPTIONS_AT - MAGIC.len(), 0);
        packet.extend(MAGIC);
        packet
    }

    fn finish(&self, mut packet: Vec<u8>) -> Vec<u8> {
        // Mask, router, resolvers, time servers, time.
        option(&mut packet, 55, &[1, 3, 6, 42, 51]);
        option(&mut packet, 12, self.hostname.as_bytes());
        packet.push(END);
        // Some servers drop shorter ones (RFC 1542, 2.1).
        packet.resize(packet.len().max(300), 0);
        packet
    }

    fn discover(&self) -> Vec<u8> {
        let mut packet = self.head(Ipv4Addr::UNSPECIFIED);
        option(&mut packet, 53, &[DISCOVER]);
        self.finish(packet)
    }

    /// A request that renews names its address as the client's own, and no server (RFC 2131, 4.3.2).
    fn request(&self, lease: &Lease, renews: bool) -> Vec<u8> {
        let mut packet = self.head(if renews { lease.address } else { Ipv4Addr::UNSPECIFIED });
        option(&mut packet, 53, &[REQUEST]);
        if !renews {
            option(&mut packet, 50, &lease.address.octets());
            option(&mut packet, 54, &lease.server.octets());
        }
        self.finish(packet)
    }
}

const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;
const NAK: u8 = 6;
const END: u8 = 255;

fn option(packet: &mut Vec<u8>, code: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len())
        && length > 0
    {
        packet.extend([code, length]);
        packet.extend(value);
    }
}

/// An answer to this transaction: its kind and what it gives.
fn parse(packet: &[u8], transaction: u32) -> Option<(u8, Lease)> {
    let four = |at: usize| -> Option<[u8; 4]> { packet.get(at..at + 4)?.try_into().ok() };
    if packet.first() != Some(&2) || four(4)? != transaction.to_be_bytes() || four(OPTIONS_AT - 4)? != MAGIC {
        return None;
    }
    let mut kind = None;
    let mut lease = Lease {
        address: four(16)?.into(),
        prefix: 24,
        router: None,
        resolvers: Vec::new(),
        time_servers: Vec::new(),
        server: four(20)?.into(),
        time: DEFAULT_LEASE,
    };
    let mut rest = packet.get(OPTIONS_AT..)?;
    while let [code, after @ ..] = rest {
        if *code == END {
            break;
        }
        // Padding.
        if *code == 0 {
            rest = after;
            continue;
        }
        let (length, after) = after.split_first()?;
        let (value, after) = after.split_at_checked(usize::from(*length))?;
        rest = after;
        let addresses = || value.as_chunks::<4>().0.iter().map(|octets| Ipv4Addr::from(*octets));
        let number = || value.try_into().ok().map(u32::from_be_bytes);
        match code {
            1 => {
                lease.prefix =
                    number().filter(|mask| mask.leading_ones() + mask.trailing_zeros() == 32)?.leading_ones() as u8
            }
            3 => lease.router = addresses().next(),
            6 => lease.resolvers = addresses().take(3).collect(),
            42 => lease.time_servers = addresses().take(3).collect(),
            51 => lease.time = Duration::from_secs(number()?.into()).max(SHORTEST_LEASE),
            53 => kind = value.first().copied(),
            54 => lease.server = addresses().next()?,
            _ => {}
        }
    }
    Some((kind?, lease)).filter(|(kind, lease)| *kind == NAK || !lease.address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: u8, options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut packet = vec![2, 1, 6, 0, 0, 0, 0, 7];
        packet.resize(16, 0);
        packet.extend([10, 0, 2, 15, 10, 0, 2, 2]);
        packet.resize(OPTIONS_AT - 4, 0);
        packet.extend(MAGIC);
        packet.push(0);
        option(&mut packet, 53, &[kind]);
        for (code, value) in options {
            option(&mut packet, *code, value);
        }
        packet.push(END);
        packet
    }

    #[test]
    fn an_offer_is_read() {
        let packet = answer(
            OFFER,
            &[
                (1, &[255, 255, 255, 0]),
                (3, &[10, 0, 2, 2]),
                (6, &[10, 0, 2, 3, 1, 1, 1, 1]),
                (51, &[0, 1, 0x51, 0x80]),
                (54, &[10, 0, 2, 4]),
            ],
        );
        let (kind, lease) = parse(&packet, 7).unwrap();
        assert_eq!(kind, OFFER);
        let expected = Lease {
            address: Ipv4Addr::new(10, 0, 2, 15),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 2, 2)),
            resolvers: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(1, 1, 1, 1)],
            time_servers: Vec::new(),
            server: Ipv4Addr::new(10, 0, 2, 4),
            time: Duration::from_secs(86_400),
        };
        assert_eq!(lease, expected);
    }

    #[test]
    fn what_is_not_for_us_or_makes_no_sense_is_dropped() {
        let good = answer(ACK, &[]);
        assert!(parse(&good, 7).is_some());
        assert_eq!(parse(&good, 8), None, "another transaction");
        assert_eq!(parse(&answer(ACK, &[(1, &[255, 0, 255, 0])]), 7), None, "a mask with holes");
        assert_eq!(parse(&answer(ACK, &[(51, &[1])]), 7), None, "a time that is cut off");
        for length in 0..good.len() - 1 {
            // Whatever is cut off, it ends.
            let _ = parse(&good[..length], 7);
        }
    }
}
