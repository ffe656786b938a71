//! The load generator: a raw MQTT client on one connection and one thread, the same for both sides.
//!
//! It keeps a number of events in flight, takes all that has arrived with one read, and answers it with one write.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// Sensors that take turns.
const SENSORS: u64 = 10;

/// Of 25 events this many are hot and raise an alert: 16 %.
const HOT_OF_25: u64 = 4;

/// Without an answer for this long, messages are lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a connection behaves.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// MQTT 5 instead of 3.1.1.
    pub v5: bool,
    /// A session that outlives the connection: what is sent to it at QoS 1 has to be kept.
    pub durable: bool,
    /// Every event carries a `holm-id`, so that it takes effect once. Needs MQTT 5.
    pub named: bool,
}

impl Dialect {
    /// MQTT 3.1.1 without a session.
    pub const PLAIN: Self = Self { v5: false, durable: false, named: false };
}

/// What is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// W1: a reading; an answer, and sometimes an alert, come back.
    Readings,
    /// W2: this many bytes to one of ten topics; nothing comes back but the PUBACK.
    Blobs(usize),
}

/// When a round ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this long.
    Time(Duration),
    /// After so many events.
    Count(u64),
}

/// What a round has shown.
#[derive(Debug, Default)]
pub struct Round {
    /// Events that were answered: all that were sent.
    pub events: u64,
    /// From the first write to the last answer.
    pub elapsed: Duration,
    /// Round trips in nanoseconds, sorted; only with one in flight.
    pub rtts: Vec<u32>,
}

impl Round {
    /// Events a second.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64()
    }

    /// A quantile of the round trips, in microseconds.
    pub fn rtt(&self, quantile: f64) -> f64 {
        let at = (self.rtts.len() as f64 * quantile) as usize;
        self.rtts.get(at.min(self.rtts.len().saturating_sub(1))).map_or(f64::NAN, |nanos| f64::from(*nanos) / 1e3)
    }

    /// How many in a million took 35 to 50 ms: Nagle's algorithm and delayed acknowledgements meet there.
    pub fn stalls_per_million(&self) -> f64 {
        let stalls = self.rtts.iter().filter(|nanos| (35_000_000..50_000_000).contains(*nanos)).count();
        stalls as f64 * 1e6 / self.rtts.len().max(1) as f64
    }
}

/// The connection.
pub struct Generator {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    dialect: Dialect,
    qos: u8,
    next_id: u16,
    next_seq: u64,
    run: u32,
    seen: Seen,
}

/// What has arrived since the round began.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    answer_sum: u64,
    alerts: u64,
    pubacks: u64,
}

impl Generator {
    /// Connects and subscribes to what comes back.
    pub fn connect(address: &str, name: &str, qos: u8, dialect: Dialect) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut this = Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            dialect,
            qos,
            next_id: 1,
            next_seq: 1,
            run: std::process::id(),
            seen: Seen::default(),
        };
        let mut body = vec![0, 4];
        body.extend(b"MQTT");
        body.extend([if dialect.v5 { 5 } else { 4 }, if dialect.durable { 0 } else { 2 }, 0, 0]);
        match dialect {
            Dialect { v5: true, durable: true, .. } => body.extend([5, 0x11, 0, 0, 0x0e, 0x10]),
            Dialect { v5: true, .. } => body.push(0),
            Dialect { .. } => {}
        }
        text(&mut body, name.as_bytes());
        this.packet(0x10, &body);
        this.flush()?;
        this.expect(2)?;
        for filter in ["out/+/fahrenheit", "alerts/+", "done/+"] {
            let mut body = vec![0, 1];
            if dialect.v5 {
                body.push(0);
            }
            text(&mut body, filter.as_bytes());
            body.push(qos);
            this.packet(0x82, &body);
            this.flush()?;
            this.expect(9)?;
        }
        Ok(this)
    }

    /// Publishes one reading, and waits for its answer.
    pub fn one(&mut self) -> anyhow::Result<Duration> {
        Ok(self.drive(Work::Readings, 1, Until::Count(1))?.elapsed)
    }

    /// Runs a round. Every event must be answered exactly once, with the alerts that belong to it, or it is an error.
    pub fn drive(&mut self, work: Work, in_flight: u64, until: Until) -> anyhow::Result<Round> {
        self.seen = Seen::default();
        let (mut sent, mut sent_sum, mut hot) = (0_u64, 0_u64, 0_u64);
        let blob = if let Work::Blobs(size) = work { vec![0x5a; size] } else { Vec::new() };
        let mut round = Round::default();
        let start = Instant::now();
        let mut trip = start;
        loop {
            let open = match until {
                Until::Time(time) => start.elapsed() < time,
                Until::Count(count) => sent < count,
            };
            if open {
                let limit = if let Until::Count(count) = until { count } else { u64::MAX };
                while sent < limit && sent - self.seen.done(self.qos, work).min(sent) < in_flight {
                    let seq = self.next_seq;
                    self.next_seq += 1;
                    if work == Work::Readings {
                        hot += u64::from(seq % 25 < HOT_OF_25);
                        self.reading(seq);
                    } else {
                        self.blob(seq, &blob);
                    }
                    sent += 1;
                    sent_sum = sent_sum.wrapping_add(seq);
                }
            }
            if in_flight == 1 {
                trip = Instant::now();
            }
            self.flush()?;
            let done = |seen: &Seen| seen.done(self.qos, work) >= sent && seen.alerts >= hot;
            if done(&self.seen) && !open {
                break;
            }
            let before = self.seen.done(self.qos, work);
            self.receive().with_context(|| {
                format!("sent {sent} events at QoS {}, hot {hot}; arrived {:?}", self.qos, self.seen)
            })?;
            // An alert alone ends no round trip.
            if in_flight == 1 && before < sent {
                // The acknowledgement and the answer may come in two pieces: the round trip ends with the later one.
                while self.seen.done(self.qos, work) == before {
                    self.flush()?;
                    self.receive().with_context(|| format!("event {sent}; arrived {:?}", self.seen))?;
                }
                round.rtts.push(u32::try_from(trip.elapsed().as_nanos()).unwrap_or(u32::MAX));
            }
        }
        round.elapsed = start.elapsed();
        round.events = sent;
        round.rtts.sort_unstable();
        if work == Work::Readings && (self.seen.answer_sum != sent_sum || self.seen.alerts != hot) {
            bail!("sent {sent} events, hot {hot}, but {:?} came back", self.seen);
        }
        Ok(round)
    }

    /// Publishes one message and waits for the answer on `done/`, which tells how many the other side has handled.
    pub fn finish(&mut self, topic: &str) -> anyhow::Result<u64> {
        self.seen = Seen::default();
        self.publish(topic.as_bytes(), |output| output.extend(b"end"));
        self.flush()?;
        while self.seen.answers == 0 {
            self.receive()?;
            self.flush()?;
        }
        Ok(self.seen.answer_sum)
    }

    fn reading(&mut self, seq: u64) {
        let (sensor, hot) = (seq % SENSORS, seq % 25 < HOT_OF_25);
        let topic =
            [b's', b'e', b'n', b's', b'o', b'r', b's', b'/', b's', b'0' + sensor as u8, b'/', b't', b'e', b'm', b'p'];
        self.publish(&topic, |output| {
            let t = if hot { "31.5" } else { "23.5" };
            let _ = write!(output, "{{\"id\":\"s{sensor}\",\"t\":{t},\"seq\":{seq}}}");
        });
    }

    fn blob(&mut self, seq: u64, blob: &[u8]) {
        let topic = [b'w', b'2', b'/', b'0' + (seq % SENSORS) as u8, b'/', b'x'];
        self.publish(&topic, |output| {
            let at = output.len();
            output.extend(blob);
            // Every payload is another one.
            if let Some(head) = output.get_mut(at..at + 8) {
                head.copy_from_slice(&seq.to_le_bytes());
            }
        });
    }

    fn publish(&mut self, topic: &[u8], payload: impl FnOnce(&mut Vec<u8>)) {
        let mut body = Vec::with_capacity(128);
        text(&mut body, topic);
        if self.qos > 0 {
            body.extend(self.next_id.to_be_bytes());
        }
        if self.dialect.v5 {
            let mut properties = Vec::new();
            if self.dialect.named {
                properties.push(0x26);
                text(&mut properties, b"holm-id");
                text(&mut properties, format!("{:x}-{:x}", self.run, self.next_seq).as_bytes());
            }
            length(&mut body, properties.len());
            body.extend(properties);
        }
        self.next_id = self.next_id.checked_add(1).unwrap_or(1);
        payload(&mut body);
        let first = 0x30 | self.qos << 1;
        self.packet(first, &body);
    }

    fn packet(&mut self, first: u8, body: &[u8]) {
        self.output.push(first);
        length(&mut self.output, body.len());
        self.output.extend(body);
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.stream.write_all(&self.output)?;
            self.output.clear();
        }
        Ok(())
    }

    /// Waits for bytes, and takes every whole packet.
    fn receive(&mut self) -> anyhow::Result<()> {
        let mut chunk = [0; 64 << 10];
        let count = self.stream.read(&mut chunk).context("no answer")?;
        if count == 0 {
            bail!("the broker closed the connection");
        }
        self.input.extend(chunk.get(..count).unwrap_or_default());
        let mut input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((first, body, next)) = frame(&input, at) {
            self.take(first, input.get(body..next).unwrap_or_default());
            at = next;
        }
        input.drain(..at);
        self.input = input;
        Ok(())
    }

    fn take(&mut self, first: u8, body: &[u8]) {
        match first >> 4 {
            3 => {
                let topic_end = 2 + usize::from(u16::from_be_bytes([at(body, 0), at(body, 1)]));
                let mut payload = topic_end;
                if first & 6 != 0 {
                    let id = [at(body, payload), at(body, payload + 1)];
                    payload += 2;
                    self.packet(0x40, &id);
                }
                if self.dialect.v5 {
                    let (properties, digits) = varint(body, payload).unwrap_or((0, 1));
                    payload += digits + properties;
                }
                if body.get(2) == Some(&b'a') {
                    self.seen.alerts += 1;
                } else {
                    self.seen.answers += 1;
                    // {"seq":N,...
                    let digits = body.get(payload + 7..).unwrap_or_default().iter();
                    let seq = digits
                        .take_while(|digit| digit.is_ascii_digit())
                        .fold(0_u64, |seq, digit| seq * 10 + u64::from(digit - b'0'));
                    self.seen.answer_sum = self.seen.answer_sum.wrapping_add(seq);
                }
            }
            4 => self.seen.pubacks += 1,
            _ => {}
        }
    }

    /// Waits for a packet of this type at the start of a connection.
    fn expect(&mut self, kind: u8) -> anyhow::Result<()> {
        let mut chunk = [0; 1024];
        loop {
            if let Some((first, body, next)) = frame(&self.input, 0) {
                let body: Vec<u8> = self.input.get(body..next).unwrap_or_default().to_vec();
                self.input.drain(..next);
                if first >> 4 != kind || (kind == 2 && at(&body, 1) != 0) || (kind == 9 && body.last() > Some(&2)) {
                    bail!("the broker answered {first:#x} {body:?} instead of type {kind}");
                }
                return Ok(());
            }
            let count = self.stream.read(&mut chunk)?;
            if count == 0 {
                bail!("the broker closed the connection");
            }
            self.input.extend(chunk.get(..count).unwrap_or_default());
        }
    }
}

impl Seen {
    /// Events that are over: answered, and at QoS 1 acknowledged too.
    fn done(&self, qos: u8, work: Work) -> u64 {
        match (work, qos) {
            (Work::Readings, 0) => self.answers,
            (Work::Readings, _) => self.answers.min(self.pubacks),
            (Work::Blobs(_), _) => self.pubacks,
        }
    }
}

fn at(bytes: &[u8], index: usize) -> u8 {
    bytes.get(index).copied().unwrap_or_default()
}

fn text(to: &mut Vec<u8>, text: &[u8]) {
    to.extend((text.len() as u16).to_be_bytes());
    to.extend(text);
}

fn length(to: &mut Vec<u8>, mut length: usize) {
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        to.push(if length > 0 { digit | 128 } else { digit });
        if length == 0 {
            return;
        }
    }
}

fn varint(bytes: &[u8], from: usize) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.get(from..)?.iter().enumerate().take(4) {
        value |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

/// First byte, start of the body and end of the packet that begins at `from`, if it is whole.
fn frame(bytes: &[u8], from: usize) -> Option<(u8, usize, usize)> {
    let first = *bytes.get(from)?;
    let (length, digits) = varint(bytes, from + 1)?;
    let body = from + 1 + digits;
    (bytes.len() >= body + length).then_some((first, body, body + length))
}
