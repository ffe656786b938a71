//! Dead letters, and the two ways out of them: to the function again, or nowhere.
//!
//! # Invariants
//!
//! 1. A letter leaves once. It is out of the dead letters by the transaction that has it in the inbox, and from the look to that commit
//!    there is one caller at a time, be it the admin socket or the control plane: two would both find it, and its event would run twice.
//! 2. What is to be told of it is a write of the same transaction.
//! 3. A transaction has at most [`MAX_LETTERS`] of them, and [`MOST_BYTES`] and one letter's: whoever wants more asks again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use holm_core::FunctionName;
use holm_protocol::LetterWay;
use holm_protocol::limits::MAX_LETTERS;
use holm_store::{CommitError, DeadLetter, StoreError, Write};
use serde_json::{Value, json};

use crate::clock;
use crate::dispatch::Dispatcher;

/// Bytes of events that are taken into one transaction, if more than one letter's.
const MOST_BYTES: usize = 4 << 20;

/// See the module. Every method blocks.
pub struct Letters {
    dispatcher: Arc<Dispatcher>,
    one_at_a_time: Mutex<()>,
}

/// Which of them.
#[derive(Debug, Clone)]
pub enum Which {
    /// Those with these numbers.
    These(BTreeSet<i64>),
    /// All of a function up to a number.
    Of(FunctionName, i64),
}

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Those that have left.
    pub done: Vec<i64>,
    /// Those that were not there.
    pub gone: Vec<i64>,
    /// Whether the same question would find more.
    pub more: bool,
    /// Dead letters that there are now.
    pub left: u64,
}

/// Why none has left.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The look failed.
    #[error("cannot read the dead letters")]
    Read(#[from] StoreError),
    /// There is no room for them.
    #[error("the inbox is full (`store.inbox_rows`): replay them when functions have caught up")]
    Full,
    /// They are where they were.
    #[error("cannot take dead letters out")]
    Commit(#[from] CommitError),
}

impl Letters {
    /// Of a node.
    pub fn new(dispatcher: Arc<Dispatcher>) -> Self {
        Self { dispatcher, one_at_a_time: Mutex::new(()) }
    }

    /// Takes letters out, in the order of their numbers. What `tell` makes of it happens with it, or not at all.
    pub fn take_out(
        &self,
        which: Which,
        way: LetterWay,
        tell: impl FnOnce(&Moved) -> Option<Write>,
    ) -> Result<Moved, LetterError> {
        let store = &self.dispatcher.store;
        let _one_at_a_time = self.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let ids = match which {
            Which::These(ids) => ids.into_iter().collect(),
            // One more than are moved tells whether there are more.
            Which::Of(function, until) => store.dead_letters_until(function.as_str(), until, MAX_LETTERS + 1)?,
        };
        let (mut moved, mut writes, mut bytes) = (Moved::default(), Vec::new(), 0);
        for id in ids {
            let has_room = way == LetterWay::Drop || self.dispatcher.inbox_has_room(moved.done.len() as u64 + 1);
            if !has_room && moved.done.is_empty() {
                return Err(LetterError::Full);
            }
            if !has_room || moved.done.len() == MAX_LETTERS || bytes > MOST_BYTES {
                moved.more = true;
                break;
            }
            let Some(letter) = store.dead_letter(id)? else {
                moved.gone.push(id);
                continue;
            };
            bytes += letter.event.data.len();
            writes.push(Write::Exhume(id));
            if way == LetterWay::Replay {
                let mut event = letter.event;
                event.attempt = 1;
                let (id, due) = (store.next_inbox_id(), clock::now());
                writes.push(Write::Park { id, function: letter.function, event: event.into(), due, fault: None });
            }
            moved.done.push(id);
        }
        moved.left = store.dead_letter_count()?.saturating_sub(moved.done.len() as u64);
        writes.extend(tell(&moved));
        if !writes.is_empty() {
            store.commit(writes)?;
        }
        if way == LetterWay::Replay && !moved.done.is_empty() {
            self.dispatcher.look();
        }
        Ok(moved)
    }
}

/// A letter for people; `whole` with what was in it.
pub(crate) fn shown(letter: &DeadLetter, whole: bool) -> Value {
    let mut value = json!({
        "id": letter.id, "function": letter.function.as_str(), "buried": letter.buried, "expires": letter.expires,
        "kind": letter.kind, "fault": letter.fault, "event": letter.event.id, "source": letter.event.source,
        "subject": &*letter.event.subject, "attempts": letter.event.attempt, "bytes": letter.event.data.len(),
    });
    if whole && let Value::Object(fields) = &mut value {
        fields.insert("data".into(), text_or_bytes(&letter.event.data));
        fields.insert("attributes".into(), json!(letter.event.attributes));
    }
    value
}

/// Text where it is text, else an array of numbers.
pub(crate) fn text_or_bytes(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) => json!(text),
        Err(_) => json!(data),
    }
}
