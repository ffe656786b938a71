//! The time of day: asked by SNTP (RFC 4330). A board without a clock of its own starts where it was last.
//!
//! Nothing signs such an answer. It is for logs and schedules, and the next one may set it right, in either direction; certificates are
//! judged by the agent's own floor, which a lying server cannot lower.

use std::fs;
use std::net::{ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::InitError;
use crate::console::{say, warn};

/// The file with the time that it was last, in seconds, in the data partition.
const FLOOR: &str = "time";

/// Seconds from 1900, where NTP begins, to 1970.
const FROM_1900: u64 = 2_208_988_800;

/// 2024-01-01, before any release.
const UNKNOWN_BEFORE: u64 = 1_704_067_200;

/// Where servers listen.
const PORT: u16 = 123;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(3);

/// A clock that is off by less is left alone.
const CLOSE: i64 = 1;

/// The time in seconds since 1970, by a server. `None` if it does not answer, or does not know.
pub fn ask(server: &str) -> Option<u64> {
    ask_at((server, PORT))
}

fn ask_at(server: impl ToSocketAddrs) -> Option<u64> {
    let address = server.to_socket_addrs().ok()?.find(|address| address.is_ipv4())?;
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.connect(address).ok()?;
    // Version 4, client. What we send as our time comes back, so that an answer can be told from a guess.
    let nonce = clock_gettime(ClockId::Monotonic);
    let nonce = ((nonce.tv_sec as u64) << 32 | nonce.tv_nsec as u64).to_be_bytes();
    let mut request = vec![0x23];
    request.resize(40, 0);
    request.extend(nonce);
    socket.send(&request).ok()?;
    let mut answer = [0; 128];
    let length = socket.recv(&mut answer).ok()?;
    parse(answer.get(..length)?, nonce)
}

fn parse(answer: &[u8], nonce: [u8; 8]) -> Option<u64> {
    let (first, stratum) = (*answer.first()?, *answer.get(1)?);
    // A server, whose clock is set, and who answers us.
    let good = first & 7 == 4 && first >> 6 != 3 && (1..16).contains(&stratum) && answer.get(24..32)? == nonce;
    let seconds = answer.get(40..44)?.try_into().ok().map(u32::from_be_bytes)?;
    // The first era ends in 2036; small numbers are of the next one.
    let era = if seconds < 1 << 31 { 1 << 32 } else { 0 };
    let seconds = u64::from(seconds).checked_add(era)?.checked_sub(FROM_1900)?;
    // Who says that it is earlier does not know either, whatever he says of himself.
    (good && seconds >= UNKNOWN_BEFORE).then_some(seconds)
}

/// Sets the clock, if it is off.
pub fn set(seconds: u64) -> Result<(), InitError> {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let off = seconds - now();
    if off.abs() <= CLOSE {
        return Ok(());
    }
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: 0 })
        .map_err(InitError::kernel("set the clock"))?;
    say(format_args!("the clock was off by {off} s"));
    Ok(())
}

/// A board without a clock of its own begins in 1970: puts it where it was known to be last.
pub fn raise_to_floor(data: &Path) {
    let floor = fs::read_to_string(data.join(FLOOR)).ok().and_then(|text| text.trim().parse::<i64>().ok());
    if let Some(floor) = floor.filter(|floor| *floor > now())
        && let Err(error) = set(u64::try_from(floor).unwrap_or_default())
    {
        warn(error.chain());
    }
}

/// Remembers what time it is.
pub fn keep_floor(data: &Path, write: impl FnOnce(&Path, &[u8]) -> Result<(), InitError>) -> Result<(), InitError> {
    write(&data.join(FLOOR), format!("{}\n", now()).as_bytes())
}

fn now() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_what_time_it_is() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        // As RFC 4330, section 6 has it: the request's own time comes back as the originate timestamp.
        let answers = std::thread::spawn(move || {
            for right in [true, false] {
                let mut request = [0; 128];
                let (length, client) = server.recv_from(&mut request).unwrap();
                assert_eq!((length, request[0]), (48, 0x23), "version 4, mode 3, and no extension");
                let mut answer = [0; 48];
                (answer[0], answer[1]) = (0x24, 2);
                answer[24..32].copy_from_slice(&request[40..48]);
                answer[31] ^= u8::from(!right);
                answer[40..44].copy_from_slice(&3_941_000_000_u32.to_be_bytes());
                server.send_to(&answer, client).unwrap();
            }
        });
        assert_eq!(ask_at(address), Some(3_941_000_000 - FROM_1900));
        assert_eq!(ask_at(address), None, "an answer to somebody else");
        answers.join().unwrap();
    }

    #[test]
    fn an_answer_is_believed_only_if_it_is_one_to_us_from_somebody_who_knows() {
        let answer = |first: u8, stratum: u8, nonce: u8, seconds: u32| {
            let mut answer = vec![first, stratum];
            answer.resize(24, 0);
            answer.extend([nonce; 8]);
            answer.resize(40, 0);
            answer.extend(seconds.to_be_bytes());
            answer.resize(48, 0);
            parse(&answer, [7; 8])
        };
        assert_eq!(answer(0x24, 2, 7, 3_941_000_000), Some(3_941_000_000 - FROM_1900));
        assert_eq!(answer(0x24, 2, 7, 1000), Some((1 << 32) + 1000 - FROM_1900), "after 2036");
        assert_eq!(answer(0x24, 2, 7, 3_900_000_000), None, "2023");
        assert_eq!(answer(0x24, 2, 7, 1 << 31), None, "1968");
        assert_eq!(answer(0x24, 2, 8, 3_941_000_000), None, "to somebody else");
        assert_eq!(answer(0xe4, 2, 7, 3_941_000_000), None, "not set");
        assert_eq!(answer(0x24, 0, 7, 3_941_000_000), None, "a kiss of death");
        assert_eq!(answer(0x23, 2, 7, 3_941_000_000), None, "a client");
        assert_eq!(parse(&[0x24, 2], [7; 8]), None);
    }
}
