//! What answers behind the broker: records, jobs and shadows, with the quirks that the documentation of AWS IoT Core tells of.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use holm_protocol::{
    Ack, Address, Batch, BatchHeader, BatchLimits, Epoch, Line, Refusal, RefusalReason, Subject, Watermark,
};
use serde_json::{Value, json};

use crate::eventually;
use crate::mqtt::{Client, Packet};
use crate::tls::{Authority, Identity};

/// What becomes of acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// They are sent.
    Prompt,
    /// Nothing is stored and nothing is said: the broker has acknowledged it all the same.
    Never,
    /// It is stored, but of so many acknowledgements only one is sent.
    OneOf(u32),
    /// They come twice, and each one late: after the one that follows it.
    LateAndTwice,
    /// So many batches are refused for good.
    Refuse(u32),
    /// There is no room for streams whose names begin so.
    NoRoomFor(&'static str),
}

/// In which unit it tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Units {
    /// Milliseconds here and seconds there, as the documentation has it.
    Mixed,
    /// Seconds everywhere.
    Seconds,
    /// Milliseconds everywhere.
    Milliseconds,
}

/// A stream in one life of a device's database.
#[derive(Debug, Default)]
pub struct Stream {
    /// What came, by sequence.
    pub lines: BTreeMap<u64, Line>,
    /// Everything up to here is there.
    pub watermark: u64,
    /// Batches in the order of their coming.
    pub batches: Vec<BatchHeader>,
}

/// What it knows, and what it is to do.
pub struct State {
    /// Streams by device, epoch and name.
    pub streams: BTreeMap<(String, Epoch, String), Stream>,
    /// Records that came again, which is allowed.
    pub again: u64,
    /// Records that came again and were not the same, which is not.
    pub altered: u64,
    /// Batches that came, whatever became of them.
    pub seen: u64,
    /// See [`Acks`].
    pub acks: Acks,
    held: VecDeque<(String, Ack)>,
    counted: u32,
    /// The job that `$next/get` answers with.
    pub job: Option<Value>,
    /// Answers of "nothing" that come before it.
    pub empty: u32,
    /// Questions for the next job.
    pub asked: u32,
    /// What devices said about jobs: the job, its status and details.
    pub updates: Vec<(String, String, Value)>,
    /// What devices reported, by device.
    pub shadows: BTreeMap<String, Vec<Value>>,
    /// Whether answers come to those who did not ask as well.
    pub unasked: bool,
    /// The job in an answer to `$next/get` that nobody asked for.
    pub foreign: Value,
    /// See [`Units`].
    pub units: Units,
    outgoing: Vec<(String, Vec<u8>)>,
}

/// See the module.
pub struct Core {
    state: Arc<Mutex<State>>,
    stopped: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
}

impl Core {
    pub(super) fn start(authority: Arc<Authority>, operator: Identity, address: String) -> Self {
        let state = Arc::new(Mutex::new(State {
            streams: BTreeMap::new(),
            again: 0,
            altered: 0,
            seen: 0,
            acks: Acks::Prompt,
            held: VecDeque::new(),
            counted: 0,
            job: None,
            empty: 0,
            asked: 0,
            updates: Vec::new(),
            shadows: BTreeMap::new(),
            unasked: true,
            foreign: json!({ "jobId": "foreign", "status": "QUEUED" }),
            units: Units::Mixed,
            outgoing: Vec::new(),
        }));
        let (stopped, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (shared, stop, listening) = (state.clone(), stopped.clone(), ready.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // The broker may be away: the test restarts it.
                let _ = serve(&authority, &operator, &address, &shared, &stop, &listening);
                listening.store(false, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let this = Self { state, stopped, ready };
        this.await_ready();
        this
    }

    /// Waits until it listens at the broker.
    pub fn await_ready(&self) {
        eventually("the scripted control plane listens", || self.ready.load(Ordering::Relaxed).then_some(()));
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Rings the doorbell, with nothing in it that a device may rely on.
    pub fn ring(&self, thing: &str) {
        let payload =
            json!({ "timestamp": 1_489_096_425_069_u64, "execution": { "jobId": "hint", "status": "QUEUED" } });
        self.state().outgoing.push((format!("$aws/things/{thing}/jobs/notify-next"), payload.to_string().into_bytes()));
    }

    /// Sends anything.
    pub fn send(&self, topic: &str, payload: &[u8]) {
        self.state().outgoing.push((topic.to_owned(), payload.to_vec()));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// All streams of a name, over all epochs, by age of their first batch.
    pub fn stream(&self, thing: &str, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|((device, _, stream), _)| device == thing && stream == name).map(|(_, stream)| stream)
    }

    /// Records of a device, without gaps, over all streams.
    pub fn records(&self, thing: &str) -> usize {
        let of_device = self.streams.iter().filter(|((device, ..), _)| device == thing);
        of_device.flat_map(|(_, stream)| stream.lines.values()).filter(|line| matches!(line, Line::Record(_))).count()
    }

    fn on_batch(&mut self, address: &Address, payload: &[u8]) {
        let batch = Batch::read(payload, &BatchLimits::default()).expect("a batch that can be read");
        batch.header.check_address(address).expect("a batch on its own topic");
        let header = batch.header.clone();
        let thing = header.device.to_string();
        let topic = Address::new(&header.device, Subject::Ack).to_string();
        self.seen += 1;
        match self.acks {
            Acks::Never => return,
            Acks::Refuse(left) if left > 0 => {
                self.acks = Acks::Refuse(left - 1);
                return self.refuse(topic, header, RefusalReason::Malformed);
            }
            Acks::NoRoomFor(begin) if header.stream.as_str().starts_with(begin) => {
                return self.refuse(topic, header, RefusalReason::TooManyStreams);
            }
            _ => {}
        }
        let stream = self.streams.entry((thing, header.epoch, header.stream.to_string())).or_default();
        stream.batches.push(header.clone());
        for (sequence, line) in batch.lines {
            match stream.lines.get(&sequence) {
                Some(known) if *known == line => self.again += 1,
                Some(_) if sequence <= stream.watermark => self.again += 1,
                Some(_) => self.altered += 1,
                None => drop(stream.lines.insert(sequence, line)),
            }
        }
        while let Some(line) = stream.lines.get(&(stream.watermark + 1)) {
            stream.watermark += line.covers();
        }
        let watermark = Watermark { stream: header.stream, epoch: header.epoch, upto: stream.watermark };
        let ack = Ack::new(vec![watermark], vec![]);
        self.counted += 1;
        match self.acks {
            Acks::OneOf(of) if !self.counted.is_multiple_of(of) => {}
            Acks::LateAndTwice => {
                self.held.push_back((topic, ack));
                if self.held.len() > 1 {
                    // The younger one first, then the older one, twice.
                    let older = self.held.pop_front().unwrap();
                    let younger = self.held.back().cloned().unwrap();
                    for (topic, ack) in [younger, older.clone(), older] {
                        self.outgoing.push((topic, ack.write().unwrap()));
                    }
                }
            }
            _ => self.outgoing.push((topic, ack.write().unwrap())),
        }
    }

    fn refuse(&mut self, topic: String, header: BatchHeader, reason: RefusalReason) {
        let BatchHeader { stream, epoch, first, count, .. } = header;
        let refusal = Refusal { stream, epoch, first, count, reason };
        self.outgoing.push((topic, Ack::new(vec![], vec![refusal]).write().unwrap()));
    }

    /// Now, in the unit that is told here by the documentation, or in the one that is told everywhere.
    fn stamp(&self, milliseconds: bool) -> u64 {
        match (self.units, milliseconds) {
            (Units::Milliseconds, _) | (Units::Mixed, true) => 1_795_000_000_123,
            (Units::Seconds, _) | (Units::Mixed, false) => 1_795_000_000,
        }
    }

    fn on_get(&mut self, topic: &str, payload: &[u8]) {
        self.asked += 1;
        let request: Value = serde_json::from_slice(payload).unwrap();
        let empty = self.empty > 0 || self.job.is_none();
        self.empty = self.empty.saturating_sub(1);
        let answer = match &self.job {
            Some(job) if !empty => {
                json!({ "execution": job, "timestamp": self.stamp(true), "clientToken": request["clientToken"] })
            }
            _ => json!({ "timestamp": self.stamp(false), "clientToken": request["clientToken"] }),
        };
        if self.unasked {
            let foreign = json!({ "execution": self.foreign, "clientToken": "somebody" });
            let rejected = json!({ "code": "VersionMismatch", "message": "late", "clientToken": "somebody", "executionState": {"status": "QUEUED"} });
            self.outgoing.push((format!("{topic}/accepted"), foreign.to_string().into_bytes()));
            self.outgoing.push((format!("{topic}/rejected"), rejected.to_string().into_bytes()));
        }
        self.outgoing.push((format!("{topic}/accepted"), answer.to_string().into_bytes()));
    }

    fn on_update(&mut self, id: &str, thing: &str, topic: &str, payload: &[u8]) {
        let request: Value = serde_json::from_slice(payload).unwrap();
        let status = request["status"].as_str().unwrap().to_owned();
        let token = &request["clientToken"];
        let now = self.stamp(true);
        if self.unasked {
            let foreign = json!({ "clientToken": "somebody", "executionState": { "status": "CANCELED" } });
            let rejected = json!({ "code": "TerminalStateReached", "clientToken": "somebody", "executionState": { "status": "CANCELED" } });
            self.outgoing.push((format!("{topic}/accepted"), foreign.to_string().into_bytes()));
            self.outgoing.push((format!("{topic}/rejected"), rejected.to_string().into_bytes()));
        }
        let job = self.job.as_mut().filter(|job| job["jobId"] == id);
        let Some(job) = job else {
            let rejected = json!({ "code": "TerminalStateReached", "clientToken": token, "timestamp": now });
            self.outgoing.push((format!("{topic}/rejected"), rejected.to_string().into_bytes()));
            return;
        };
        job["status"] = json!(status);
        self.updates.push((id.to_owned(), status.clone(), request["statusDetails"].clone()));
        if !matches!(status.as_str(), "QUEUED" | "IN_PROGRESS") {
            self.job = None;
            self.outgoing.push((format!("$aws/things/{thing}/jobs/notify-next"), b"{}".to_vec()));
        }
        let accepted = json!({ "clientToken": token, "timestamp": now });
        self.outgoing.push((format!("{topic}/accepted"), accepted.to_string().into_bytes()));
    }

    fn on_shadow(&mut self, thing: &str, topic: &str, payload: &[u8]) {
        let request: Value = serde_json::from_slice(payload).unwrap();
        let now = self.stamp(false);
        let reports = self.shadows.entry(thing.to_owned()).or_default();
        reports.push(request["state"]["reported"].clone());
        let answer = json!({
            "state": request["state"], "version": reports.len(), "timestamp": now, "clientToken": request["clientToken"],
        });
        if self.unasked {
            self.outgoing
                .push((format!("{topic}/rejected"), b"{\"code\": 409, \"clientToken\": \"somebody\"}".to_vec()));
        }
        self.outgoing.push((format!("{topic}/accepted"), answer.to_string().into_bytes()));
    }
}

fn serve(
    authority: &Authority,
    operator: &Identity,
    address: &str,
    state: &Mutex<State>,
    stop: &AtomicBool,
    ready: &AtomicBool,
) -> std::io::Result<()> {
    let (stream, socket) = authority.connect_as(operator, address)?;
    let mut client = Client::over(stream, socket, "operator", true)?;
    for filter in [
        "holm/+/r/+/+",
        "$aws/things/+/jobs/$next/get",
        "$aws/things/+/jobs/+/update",
        "$aws/things/+/shadow/name/holm/update",
    ] {
        client.subscribe(filter, 1)?;
    }
    client.patience(Duration::from_millis(2));
    ready.store(true, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) {
        let outgoing = std::mem::take(&mut state.lock().unwrap().outgoing);
        for (topic, payload) in outgoing {
            client.publish(&topic, &payload, 0, 0, false, None)?;
        }
        let (topic, payload, qos, id) = match client.receive() {
            Ok(Packet::Publish { topic, payload, qos, id, .. }) => (topic, payload, qos, id),
            Ok(_) => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        let mut state = state.lock().unwrap();
        match Address::parse(&topic) {
            Ok(address) => match address.subject {
                Subject::Results { .. } => state.on_batch(&address, &payload),
                Subject::GetJob(..) => state.on_get(&topic, &payload),
                Subject::UpdateJob(job, _) => state.on_update(job.as_str(), address.thing.as_str(), &topic, &payload),
                Subject::UpdateShadow(..) => state.on_shadow(address.thing.as_str(), &topic, &payload),
                _ => {}
            },
            Err(error) => panic!("{topic}: {error}"),
        }
        drop(state);
        if qos == 1 {
            client.ack(4, id)?;
        }
    }
    Ok(())
}
