//! Network interfaces over rtnetlink (RFC 3549, rtnetlink(7)): up, an address, a way out.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with};

use crate::InitError;

const NEWLINK: u16 = 16;
const NEWADDR: u16 = 20;
const DELADDR: u16 = 21;
const NEWROUTE: u16 = 24;
const ERROR: u16 = 2;
/// Request, acknowledge.
const ASK: u16 = 0x0001 | 0x0004;
/// Create, or replace what is there.
const PUT: u16 = 0x0400 | 0x0100;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const TABLE_MAIN: u8 = 254;
/// Who made the route: DHCP.
const FROM_DHCP: u8 = 16;
const UNICAST: u8 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;

/// A message that is being written.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((ASK | flags).to_ne_bytes());
        // Sequence and port: there is one request at a time.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: [u8; 4]) -> Self {
        self.0.extend(8_u16.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or_default();
        if let Some(place) = self.0.get_mut(..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        self.0
    }
}

/// A way to ask the kernel.
pub struct Links(OwnedFd);

impl Links {
    /// Opens it.
    pub fn open() -> Result<Self, InitError> {
        let failed = || InitError::kernel("open netlink");
        // Without a protocol it is the first: NETLINK_ROUTE.
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map_err(failed())?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).map_err(failed())?;
        Ok(Self(socket))
    }

    /// Sets an interface up.
    pub fn up(&self, index: u32) -> Result<(), InitError> {
        self.ask("set an interface up", up(index))
    }

    /// Gives an interface an address.
    pub fn address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), InitError> {
        self.ask("take an address", address_message(NEWADDR, PUT, index, address, prefix))
    }

    /// Takes an address away from it.
    pub fn forget(&self, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), InitError> {
        self.ask("give up an address", address_message(DELADDR, 0, index, address, prefix))
    }

    /// Makes a router the way to everywhere else. Of several, the one with the least metric is taken.
    pub fn gateway(&self, index: u32, router: Ipv4Addr, metric: u32) -> Result<(), InitError> {
        self.ask("take a route", gateway_message(index, router, metric))
    }

    fn ask(&self, what: &str, message: Vec<u8>) -> Result<(), InitError> {
        let failed = || InitError::kernel(what);
        sendto(&self.0, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0)).map_err(failed())?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer[..], RecvFlags::empty()).map_err(failed())?;
        match verdict(answer.get(..length).unwrap_or_default()) {
            Some(0) => Ok(()),
            Some(code) => Err(failed()(rustix::io::Errno::from_raw_os_error(-code))),
            None => Err(failed()(rustix::io::Errno::BADMSG)),
        }
    }
}

fn up(index: u32) -> Vec<u8> {
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    Message::new(NEWLINK, 0, &body).finish()
}

fn address_message(kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let message = Message::new(kind, flags, &body);
    message.attribute(IFA_LOCAL, address.octets()).attribute(IFA_ADDRESS, address.octets()).finish()
}

fn gateway_message(index: u32, router: Ipv4Addr, metric: u32) -> Vec<u8> {
    // struct rtmsg: family, lengths, service, table, protocol, scope, type, flags.
    let mut body = vec![AF_INET, 0, 0, 0, TABLE_MAIN, FROM_DHCP, 0, UNICAST];
    body.extend([0; 4]);
    let message = Message::new(NEWROUTE, PUT, &body);
    let message = message.attribute(RTA_GATEWAY, router.octets()).attribute(RTA_OIF, index.to_ne_bytes());
    message.attribute(RTA_PRIORITY, metric.to_ne_bytes()).finish()
}

/// The error of an acknowledgement: 0 is none.
fn verdict(answer: &[u8]) -> Option<i32> {
    let kind = answer.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)?;
    let code = answer.get(16..20)?.try_into().ok().map(i32::from_ne_bytes)?;
    (kind == ERROR).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        assert_eq!(up(2).len(), 32);
        let message = address_message(NEWADDR, PUT, 2, Ipv4Addr::new(10, 0, 2, 15), 24);
        assert_eq!(message.len(), 40);
        assert_eq!(message[0], 40);
        assert_eq!(message[24..32], [8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(gateway_message(2, Ipv4Addr::new(10, 0, 2, 2), 600).len(), 52);
    }

    #[test]
    fn the_kernel_answers_for_an_interface_that_is_not_there() {
        let links = Links::open().unwrap();
        let error = links.up(999_999).unwrap_err();
        assert!(error.chain().contains("set an interface up"), "{}", error.chain());
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&[0; 20]), None);
    }
}
