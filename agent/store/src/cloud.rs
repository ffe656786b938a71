//! The door of the one who sends the outbox to the cloud: what is next, and what is done with. It sees nothing else of the
//! store.
//!
//! # How it works
//!
//! A lane is read by ascending row, so the oldest stream is found first; what goes up is then read from that stream, by sequence,
//! rows and gap records together, without a hole. Nothing is kept here between two calls: the caller says up to where it has
//! looked, and what of which stream is on its way.
//!
//! Rows are deleted by [`Outbox::forget`] only, and together with the gap records that the same watermark has passed.
//!
//! # How it fails
//!
//! A row whose content has rotted goes up as a gap, and goes with the watermark that passes it. A hole that no gap record
//! explains, which only damage can leave, goes up as a gap too: the records behind it must not wait for ever.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::apply::run;
use crate::book::OutboxBook;
use crate::{CommitError, Lane, Store, StoreError, Write, sql};

/// Rows that one transaction deletes: more would hold up the events behind it. What is left is deleted by a later one, for the
/// same rows are sent and acknowledged again.
const DELETE_MOST: i64 = 4_000;

/// The reason of a gap that damage left.
const DAMAGE: &str = "damage";

/// What JSON carries: no protocol takes more.
const LAST_SEQUENCE: i64 = (1 << 53) - 1;

/// The reason of a gap at the begin of an epoch: these numbers belong to an earlier one, and nothing is missing.
const EARLIER_EPOCH: &str = "earlier-epoch";

/// A change that the cloud asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloudWrite {
    /// The cloud has all of this stream up to this sequence.
    Forget {
        /// Which stream.
        stream: String,
        /// The last sequence.
        upto: i64,
    },
    /// These rows will never go up: a gap record takes their place.
    Replace {
        /// Which stream.
        stream: String,
        /// The lane that the gap record goes up in.
        lane: Lane,
        /// The first sequence.
        first: i64,
        /// The last one.
        last: i64,
        /// One word.
        reason: String,
        /// When, in milliseconds since 1970.
        at: i64,
    },
    /// Nothing of this stream can ever go up.
    Discard {
        /// Which stream.
        stream: String,
    },
    /// The database begins a new life: its numbers mean something else than those that the cloud has.
    NewEpoch {
        /// When, in milliseconds since 1970.
        at: i64,
    },
}

/// The oldest row of a lane that is not on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Its row, or that of its gap record.
    pub id: i64,
    /// Its stream.
    pub stream: String,
}

/// A part of a stream, without holes.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The life of the database that the sequences belong to.
    pub epoch: String,
    /// The first sequence.
    pub first: i64,
    /// What is there, in order.
    pub items: Vec<Item>,
}

/// What covers one sequence or more.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A row.
    Row {
        /// When it was made, in milliseconds since 1970.
        created: i64,
        /// MIME type.
        content_type: Option<String>,
        /// The payload.
        data: Vec<u8>,
    },
    /// A row whose payload is larger than was asked for.
    TooLarge,
    /// Rows that are gone.
    Gap {
        /// How many.
        count: i64,
        /// Why: one word.
        reason: String,
        /// When, in milliseconds since 1970.
        at: i64,
    },
}

/// How much of a stream to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion {
    /// Rows and gaps.
    pub items: usize,
    /// Bytes of payload after which no further row is read.
    pub bytes: usize,
    /// Bytes of one payload, beyond which it is not read.
    pub largest: usize,
}

/// See the module. Cheap to clone. Every method blocks on the disk, except where it says otherwise.
#[derive(Clone)]
pub struct Outbox {
    store: Store,
}

impl Store {
    /// The door to the lanes, for the one who sends them.
    pub fn cloud(&self) -> Outbox {
        Outbox { store: self.clone() }
    }
}

impl Outbox {
    /// The first row of `lane` after `after` whose stream is not named in `passed` with a sequence beyond the row's. Beside it, the
    /// last row that was passed over on the way: nothing up to there has to be looked at again.
    pub fn head(
        &self,
        lane: Lane,
        after: i64,
        passed: &BTreeMap<String, i64>,
    ) -> Result<(i64, Option<Head>), StoreError> {
        let action = "look for what goes up next";
        let connection = self.store.read()?;
        let mut statement = connection
            .prepare_cached("SELECT id, stream, sequence FROM outbox WHERE lane = ?1 AND id > ?2 ORDER BY id")
            .map_err(sql(action))?;
        let mut rows = statement.query(params![lane.number(), after]).map_err(sql(action))?;
        let mut looked = after;
        while let Some(row) = rows.next().map_err(sql(action))? {
            let id: i64 = row.get(0).map_err(sql(action))?;
            // One whose stream cannot be read belongs to nobody. The writer drops it when it evicts.
            let (Ok(stream), Ok(sequence)) = (row.get_ref(1), row.get::<_, i64>(2)) else { continue };
            let Ok(stream) = stream.as_str() else { continue };
            if passed.get(stream).is_some_and(|next| sequence < *next) {
                looked = id;
                continue;
            }
            // A number that was never given out is a rotten one, and belongs to nobody either.
            if !(1..=given_out(&connection, stream)?).contains(&sequence) {
                continue;
            }
            return Ok((looked, Some(Head { id, stream: stream.to_owned() })));
        }
        Ok((looked, None))
    }

    /// As [`Outbox::head`], of gap records: a stream whose rows are all gone has nothing else.
    pub fn gap_head(&self, lane: Lane, passed: &BTreeMap<String, i64>) -> Result<Option<Head>, StoreError> {
        let action = "look for gaps that go up next";
        let connection = self.store.read()?;
        let mut statement = connection
            .prepare_cached("SELECT id, stream, last FROM gap WHERE lane = ?1 ORDER BY id")
            .map_err(sql(action))?;
        let mut rows = statement.query([lane.number()]).map_err(sql(action))?;
        while let Some(row) = rows.next().map_err(sql(action))? {
            let (Ok(stream), Ok(last)) = (row.get::<_, String>(1), row.get::<_, i64>(2)) else { continue };
            if passed.get(&stream).is_none_or(|next| last >= *next) {
                return Ok(Some(Head { id: row.get(0).map_err(sql(action))?, stream }));
            }
        }
        Ok(None)
    }

    /// The last row of a lane.
    pub fn last_id(&self, lane: Lane) -> Result<Option<i64>, StoreError> {
        self.store
            .read()?
            .prepare_cached("SELECT id FROM outbox WHERE lane = ?1 ORDER BY id DESC LIMIT 1")
            .and_then(|mut statement| statement.query_row([lane.number()], |row| row.get(0)).optional())
            .map_err(sql("look for the end of a lane"))
    }

    /// The highest sequence that a stream ever had; 0 for one that was never there.
    pub fn last_sequence(&self, stream: &str) -> Result<i64, StoreError> {
        let connection = self.store.read()?;
        Ok(last_sequence(&connection, stream)?.unwrap_or_default())
    }

    /// A stream from `from` on, or from its begin. Empty if there is nothing.
    pub fn stretch(&self, stream: &str, from: Option<i64>, portion: Portion) -> Result<Stretch, StoreError> {
        let mut connection = self.store.read()?;
        // One snapshot: a row that is evicted between two statements would look like a hole.
        let snapshot = connection.snapshot()?;
        read_stretch(&snapshot, stream, from, portion)
    }

    /// The life of the database.
    pub fn epoch(&self) -> Result<String, StoreError> {
        self.store.epoch()
    }

    /// Queues changes and waits for the commit.
    pub fn commit(&self, writes: Vec<CloudWrite>) -> Result<(), CommitError> {
        self.store.commit(writes.into_iter().map(Write::Cloud).collect())
    }

    /// Rows that were committed to a lane since the store was opened. Does not block.
    pub fn rows(&self, lane: Lane) -> u64 {
        self.store.shared.news.rows(lane)
    }

    /// Asks to be told, once, when [`Outbox::rows`] of a lane reaches `count`; 0 is never. `false`: it has already. Does not block.
    pub fn tell_at(&self, lane: Lane, count: u64) -> bool {
        self.store.shared.news.tell_at(lane, count)
    }

    /// Whom to tell. Runs on the writer's thread and must not block. Only the first one counts.
    pub fn listen(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.store.shared.news.listen(Box::new(tell));
    }
}

/// The door to what the link to the cloud remembers: documents of the registry under names that begin with `cloud.`, and no
/// others. Cheap to clone; blocks on the disk.
#[derive(Clone)]
pub struct CloudNotes {
    store: Store,
}

impl Store {
    /// The door to what the link to the cloud remembers.
    pub fn cloud_notes(&self) -> CloudNotes {
        CloudNotes { store: self.clone() }
    }
}

impl CloudNotes {
    /// What was last written under a name.
    pub fn read(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.store.registry(&format!("cloud.{name}"))
    }

    /// Writes a JSON text, and waits for the commit.
    pub fn write(&self, name: &str, document: String) -> Result<(), CommitError> {
        let key = format!("cloud.{name}").into();
        self.store.commit(vec![Write::Registry { key, document: Some(document) }])
    }
}

/// Gap records of a stream that are not over before `from`, in order.
fn gaps(connection: &Connection, stream: &str, from: i64) -> Result<Vec<(i64, i64, String, i64)>, StoreError> {
    let action = "read the gaps of a stream";
    let mut statement = connection
        .prepare_cached(
            "SELECT first, last, reason, at FROM gap WHERE stream = ?1 AND last >= ?2 ORDER BY first LIMIT 500",
        )
        .map_err(sql(action))?;
    let rows = statement
        .query_map(params![stream, from], |row| {
            let reason = row.get(2).unwrap_or_else(|_| DAMAGE.to_owned());
            Ok((row.get(0)?, row.get(1)?, reason, row.get(3).unwrap_or_default()))
        })
        .map_err(sql(action))?;
    // One that cannot be read leaves a hole, which is a gap as well.
    Ok(rows.filter_map(Result::ok).collect())
}

fn last_sequence(connection: &Connection, stream: &str) -> Result<Option<i64>, StoreError> {
    connection
        .prepare_cached("SELECT sequence FROM stream WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([stream], |row| row.get(0)).optional())
        .map_err(sql("look up a stream"))
}

/// The last number of a stream that was given out; if that has gone, the last that there can be.
fn given_out(connection: &Connection, stream: &str) -> Result<i64, StoreError> {
    Ok(last_sequence(connection, stream)?.unwrap_or(LAST_SEQUENCE).min(LAST_SEQUENCE))
}

fn read_stretch(
    connection: &Connection,
    stream: &str,
    from: Option<i64>,
    portion: Portion,
) -> Result<Stretch, StoreError> {
    let action = "read a stream";
    let epoch: String = connection
        .query_row("SELECT value FROM meta WHERE key = 'epoch'", [], |row| row.get(0))
        .map_err(sql("read the epoch"))?;
    let gaps = gaps(connection, stream, from.unwrap_or(1))?;
    let mut statement = connection
        .prepare_cached(
            "SELECT sequence, created, content_type, CASE WHEN octet_length(data) > ?3 THEN NULL ELSE data END
             FROM outbox WHERE stream = ?1 AND sequence BETWEEN ?2 AND ?4 ORDER BY sequence",
        )
        .map_err(sql(action))?;
    let largest = i64::try_from(portion.largest).unwrap_or(i64::MAX);
    let last = given_out(connection, stream)?;
    let mut rows = statement.query(params![stream, from.unwrap_or(1), largest, last]).map_err(sql(action))?;
    let mut weave =
        Weave { first: from, next: from.unwrap_or(1), items: Vec::new(), gaps: gaps.into_iter().peekable() };
    let mut bytes = 0;
    let mut ended = true;
    while let Some(row) = rows.next().map_err(sql(action))? {
        let Ok(sequence) = row.get::<_, i64>(0) else { continue };
        weave.reach(sequence, portion.items);
        if weave.items.len() >= portion.items || bytes >= portion.bytes {
            ended = false;
            break;
        }
        let item = match (row.get(1), row.get(2), row.get::<_, Option<Vec<u8>>>(3)) {
            (Ok(created), Ok(content_type), Ok(Some(data))) => {
                bytes += data.len();
                Item::Row { created, content_type, data }
            }
            (Ok(_), Ok(_), Ok(None)) => Item::TooLarge,
            _ => Item::Gap { count: 1, reason: DAMAGE.to_owned(), at: 0 },
        };
        weave.put(sequence, item);
    }
    if ended {
        weave.finish(portion.items);
    }
    Ok(Stretch { epoch, first: weave.first.unwrap_or(1), items: weave.items })
}

/// Rows and gap records, put into one order.
struct Weave<I: Iterator<Item = (i64, i64, String, i64)>> {
    /// The first sequence; none until it is known.
    first: Option<i64>,
    /// The sequence that comes next.
    next: i64,
    items: Vec<Item>,
    gaps: std::iter::Peekable<I>,
}

impl<I: Iterator<Item = (i64, i64, String, i64)>> Weave<I> {
    /// Fills up to, and not with, `sequence`.
    fn reach(&mut self, sequence: i64, most: usize) {
        if self.first.is_none() {
            let begin = self.gaps.peek().map_or(sequence, |(first, ..)| sequence.min(*first));
            (self.first, self.next) = (Some(begin), begin);
        }
        while self.next < sequence && self.items.len() < most {
            let Some((first, last, reason, at)) = self.gaps.peek() else {
                self.gap(sequence - 1, DAMAGE.to_owned(), 0);
                return;
            };
            let (first, last, at) = (*first, *last, *at);
            if last < self.next {
                self.gaps.next();
            } else if first > self.next {
                self.gap((sequence - 1).min(first - 1), DAMAGE.to_owned(), at);
            } else {
                let reason = reason.clone();
                self.gap((sequence - 1).min(last), reason, at);
            }
        }
    }

    /// The gap records after the last row.
    fn finish(&mut self, most: usize) {
        while self.items.len() < most
            && let Some((_, last, ..)) = self.gaps.peek()
        {
            let last = *last;
            self.reach(last.saturating_add(1), most);
            self.gaps.next();
        }
    }

    fn put(&mut self, sequence: i64, item: Item) {
        if sequence == self.next {
            self.items.push(item);
            self.next += 1;
        }
    }

    fn gap(&mut self, last: i64, reason: String, at: i64) {
        self.items.push(Item::Gap { count: last - self.next + 1, reason, at });
        self.next = last + 1;
    }
}

/// Applies a change, in the writer's transaction.
pub(crate) fn apply(connection: &Connection, book: &mut OutboxBook, write: &CloudWrite) -> Result<(), StoreError> {
    match write {
        CloudWrite::Forget { stream, upto } => {
            delete(connection, book, stream, 0, *upto)?;
            let statement = "DELETE FROM gap WHERE stream = ?1 AND last <= ?2";
            run(connection, "forget gaps", statement, params![stream, upto])?;
            let statement = "UPDATE gap SET first = ?2 + 1 WHERE stream = ?1 AND first <= ?2";
            run(connection, "shorten a gap", statement, params![stream, upto])
        }
        CloudWrite::Replace { stream, lane, first, last, reason, at } => {
            delete(connection, book, stream, *first, *last)?;
            let statement = "DELETE FROM gap WHERE stream = ?1 AND first >= ?2 AND last <= ?3";
            run(connection, "replace gaps", statement, params![stream, first, last])?;
            run(
                connection,
                "record a gap",
                "INSERT INTO gap (lane, stream, first, last, reason, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![lane.number(), stream, first, last, reason, at],
            )
        }
        CloudWrite::Discard { stream } => {
            delete(connection, book, stream, 0, i64::MAX)?;
            run(connection, "discard gaps", "DELETE FROM gap WHERE stream = ?1", [stream])
        }
        CloudWrite::NewEpoch { at } => {
            let statement = "UPDATE meta SET value = lower(hex(randomblob(8))) WHERE key = 'epoch'";
            run(connection, "begin an epoch", statement, [])?;
            number_begins(connection, *at)
        }
    }
}

/// At the begin of an epoch every stream begins with a gap record that says so: the cloud counts from 1.
pub(crate) fn number_begins(connection: &Connection, at: i64) -> Result<(), StoreError> {
    run(connection, "end the gaps of an epoch", "DELETE FROM gap WHERE reason = ?1", [EARLIER_EPOCH])?;
    run(
        connection,
        "number the begins of an epoch",
        "INSERT INTO gap (lane, stream, first, last, reason, at)
         SELECT coalesce(lane, 1), name, 1, held - 1, ?1, ?2 FROM (
             SELECT name,
                 (SELECT lane FROM outbox WHERE stream = name ORDER BY sequence LIMIT 1) AS lane,
                 min(sequence + 1,
                     coalesce((SELECT min(sequence) FROM outbox WHERE stream = name), sequence + 1),
                     coalesce((SELECT min(first) FROM gap WHERE stream = name), sequence + 1)) AS held
             FROM stream)
         WHERE held > 1",
        params![EARLIER_EPOCH, at],
    )
}

/// Deletes rows of a stream, and takes them out of the book.
fn delete(
    connection: &Connection,
    book: &mut OutboxBook,
    stream: &str,
    first: i64,
    last: i64,
) -> Result<(), StoreError> {
    let action = "delete what has gone up";
    let mut statement = connection
        .prepare_cached(
            "DELETE FROM outbox WHERE id IN (
                 SELECT id FROM outbox WHERE stream = ?1 AND sequence BETWEEN ?2 AND ?3 ORDER BY sequence LIMIT ?4)
             RETURNING lane, octet_length(data)",
        )
        .map_err(sql(action))?;
    let mut rows = statement.query(params![stream, first, last, DELETE_MOST]).map_err(sql(action))?;
    let (mut all, mut evictable) = (0_u64, 0_u64);
    while let Some(row) = rows.next().map_err(sql(action))? {
        let bytes = row.get::<_, i64>(1).ok().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default();
        all += bytes;
        if row.get::<_, i64>(0).is_ok_and(|lane| lane != Lane::Alarms.number()) {
            evictable += bytes;
        }
    }
    book.total = book.total.saturating_sub(all);
    if let Some(held) = book.streams.get_mut(stream) {
        *held = held.saturating_sub(evictable);
        if *held == 0 {
            book.streams.remove(stream);
        }
    }
    Ok(())
}
