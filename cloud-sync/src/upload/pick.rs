//! Reading the next batch. Blocks: for a thread of its own.

use std::collections::BTreeMap;

use holm_core::Timestamp;
use holm_protocol::limits::MAX_BATCH_TEXT;
use holm_protocol::{
    BatchBuilder, BatchHeader, BatchStart, Epoch, Gap, GapReason, Line, ProtocolError, Push, Record, StreamName,
    ThingName,
};
use holm_store::{CloudWrite, Head, Item, Lane, Outbox, Portion, Stretch};

use super::{WallClock, protocol_lane};
use crate::SyncError;

/// What a batch is made of, at most: 500 records, or 64 KiB.
const PORTION: Portion = Portion { items: 500, bytes: 64 << 10, largest: MAX_BATCH_TEXT };

/// Records that are too large, or streams that cannot be sent, that are dealt with in one go.
const DETOURS: u64 = 32;

/// What is asked for.
pub(crate) struct Request {
    pub(super) generation: u64,
    pub(super) thing: ThingName,
    pub(super) outbox: Outbox,
    /// Lanes in the order of their turns: the last row that was looked at, and the last row of the flush.
    pub(super) lanes: Vec<(Lane, i64, Option<i64>)>,
    /// Streams of which something is on its way, each with the sequence that comes next.
    pub(super) passed: BTreeMap<String, i64>,
    /// Where to begin instead.
    pub(super) mend: BTreeMap<String, i64>,
}

/// What was found.
pub(crate) struct Picked {
    pub(super) generation: u64,
    /// How far each lane was looked through, and whether its flush is over.
    pub(super) lanes: Vec<(Lane, i64, Option<i64>, bool)>,
    pub(super) too_large: u64,
    pub(super) unsendable: u64,
    pub(super) ready: Result<Option<Ready>, SyncError>,
}

/// A batch that can be sent.
pub(crate) struct Ready {
    pub(crate) lane: Lane,
    pub(crate) header: BatchHeader,
    pub(crate) payload: Vec<u8>,
    pub(crate) records: u64,
}

/// What came of one stream.
enum Made {
    Ready(Ready),
    /// Something of it was dropped: look again.
    Again,
    /// Nothing is there.
    Nothing,
}

/// Finds the next batch.
pub(crate) fn pick(request: Request, clock: WallClock) -> Picked {
    let mut picked =
        Picked { generation: request.generation, lanes: Vec::new(), too_large: 0, unsendable: 0, ready: Ok(None) };
    for (lane, looked, upto) in &request.lanes {
        match look(&request, *lane, *looked, *upto, clock, &mut picked) {
            Ok(None) => {}
            // One lane that cannot be read keeps no other from going.
            Err(error) => picked.ready = Err(error),
            found => {
                picked.ready = found;
                break;
            }
        }
    }
    picked
}

/// Looks through one lane.
fn look(
    request: &Request,
    lane: Lane,
    mut looked: i64,
    upto: Option<i64>,
    clock: WallClock,
    picked: &mut Picked,
) -> Result<Option<Ready>, SyncError> {
    let store = |source| SyncError::Store { source };
    let outbox = &request.outbox;
    let upto = match upto {
        Some(upto) => upto,
        None => outbox.last_id(lane).map_err(store)?.unwrap_or_default(),
    };
    loop {
        let (passed_over, head) = outbox.head(lane, looked, &request.passed).map_err(store)?;
        looked = passed_over;
        let head = match head.filter(|head| head.id <= upto) {
            Some(head) => Some(head),
            None => outbox.gap_head(lane, &request.passed).map_err(store)?,
        };
        let Some(head) = head else {
            picked.lanes.push((lane, looked, Some(upto), true));
            return Ok(None);
        };
        match make(request, lane, &head, clock, picked)? {
            Made::Ready(ready) => {
                picked.lanes.push((lane, looked, Some(upto), false));
                return Ok(Some(ready));
            }
            Made::Again if picked.too_large + picked.unsendable < DETOURS => {}
            // The rest in the next go; and what has gone since it was found is looked for then.
            Made::Again | Made::Nothing => {
                picked.lanes.push((lane, looked, Some(upto), false));
                return Ok(None);
            }
        }
    }
}

fn make(request: &Request, lane: Lane, head: &Head, clock: WallClock, picked: &mut Picked) -> Result<Made, SyncError> {
    let outbox = &request.outbox;
    let commit = |write| outbox.commit(vec![write]).map_err(|source| SyncError::Commit { source });
    let Ok(stream) = StreamName::new(&head.stream) else {
        tracing::error!(
            bytes = head.stream.len(),
            "a stream cannot go up, because its name is longer than 512 bytes or not printable; its records are discarded"
        );
        commit(CloudWrite::Discard { stream: head.stream.clone() })?;
        picked.unsendable += 1;
        return Ok(Made::Again);
    };
    let from = request.passed.get(&head.stream).copied().or_else(|| request.mend.get(&head.stream).copied());
    let stretch = outbox.stretch(&head.stream, from, PORTION).map_err(|source| SyncError::Store { source })?;
    if stretch.items.is_empty() {
        return Ok(Made::Nothing);
    }
    match build(request, lane, stream, stretch, clock()) {
        Ok(Built::Batch(ready)) => Ok(Made::Ready(*ready)),
        Ok(Built::TooLarge { sequence }) => {
            tracing::error!(
                stream = head.stream,
                sequence,
                "a record is larger than a message may be; a gap takes its place"
            );
            commit(CloudWrite::Replace {
                stream: head.stream.clone(),
                lane,
                first: sequence,
                last: sequence,
                reason: GapReason::TooLarge.as_str().to_owned(),
                at: clock().0,
            })?;
            picked.too_large += 1;
            Ok(Made::Again)
        }
        Err(source) => Err(SyncError::Protocol { source }),
    }
}

enum Built {
    Batch(Box<Ready>),
    /// The first record is one that no batch can hold.
    TooLarge {
        sequence: i64,
    },
}

fn build(
    request: &Request,
    lane: Lane,
    stream: StreamName,
    stretch: Stretch,
    now: Timestamp,
) -> Result<Built, ProtocolError> {
    let epoch: Epoch = stretch.epoch.parse()?;
    let first = u64::try_from(stretch.first).unwrap_or_default();
    let start = BatchStart { device: request.thing.clone(), lane: protocol_lane(lane), stream, epoch, first };
    let mut builder = BatchBuilder::new(start);
    let mut records = 0;
    for item in stretch.items {
        let is_record = !matches!(item, Item::Gap { .. });
        let pushed = match line(item, now) {
            Some(line) => builder.push(builder.next(), &line),
            None => Err(ProtocolError::TooLarge {
                what: "a record, in bytes,",
                size: MAX_BATCH_TEXT + 1,
                limit: MAX_BATCH_TEXT,
            }),
        };
        match pushed {
            Ok(Push::Taken) => records += u64::from(is_record),
            Ok(Push::Full) => break,
            // What is before it goes first.
            Err(ProtocolError::TooLarge { .. }) if builder.lines() > 0 => break,
            Err(ProtocolError::TooLarge { .. }) => return Ok(Built::TooLarge { sequence: stretch.first }),
            Err(error) => return Err(error),
        }
    }
    let one_record = builder.lines() == 1 && records == 1;
    match builder.finish(now) {
        Ok((header, payload)) => Ok(Built::Batch(Box::new(Ready { lane, header, payload, records }))),
        Err(ProtocolError::TooLarge { .. }) if one_record => Ok(Built::TooLarge { sequence: stretch.first }),
        Err(error) => Err(error),
    }
}

/// As it goes up. `None`: it is too large to.
fn line(item: Item, now: Timestamp) -> Option<Line> {
    match item {
        Item::Row { created, content_type, data } => {
            Some(Line::Record(Record { time: Timestamp(created), content_type, data }))
        }
        Item::TooLarge => None,
        Item::Gap { count, reason, at } => Some(Line::Gap(Gap {
            count: u64::try_from(count).unwrap_or(1),
            reason: GapReason::parse(&reason),
            at: if at == 0 { now } else { Timestamp(at) },
        })),
    }
}
