//! What somebody wants of a device now. Told beside acknowledgements, on a topic that every device listens to.
//!
//! A device answers with records of its log lane, and may decline: an ask comes from the control plane's word alone. So it can make a
//! device say more about itself, and give dead letters to their functions again or drop them, and do nothing else. Kinds that a
//! device does not know are passed over.
//!
//! # Asked again
//!
//! An ask is told once and its answer may be lost, so whoever got none asks again, and nothing may happen twice by that. A dead letter has
//! its number for good, and one that was replayed and failed again is another letter with a higher number. [`Ask::ReplayDeadLetters`] and
//! [`Ask::DropDeadLetters`] name numbers: of those that have left already the device says that they are gone. [`Ask::ReplayFunction`] has
//! a last number: what has failed again since lies beyond it.

use holm_core::{FunctionName, LogLevel};
use serde::{Deserialize, Serialize};

use crate::ClientToken;
use crate::ProtocolError;
use crate::error::bounded;
use crate::limits::MAX_LETTERS;
use crate::wire::text;

/// The stream of answers to [`Ask::Report`].
pub const REPORT_STREAM: &str = "report";

/// The stream of answers to [`Ask::DeadLetters`].
pub const DEAD_LETTER_STREAM: &str = "dead-letters";

/// The stream of answers to [`Ask::DeadLetter`].
pub const LETTER_STREAM: &str = "dead-letter";

/// The stream of answers to what moves dead letters, each a [`MovedLetters`].
pub const MOVED_STREAM: &str = "dead-letters-moved";

/// The stream of gaps among log lines that nobody knows a function of. A function's lines are in `log.FUNCTION`.
pub const LOG_STREAM: &str = "log";

/// The longest that log lines go up for one [`Ask::Logs`], in seconds: whoever looks on asks again.
pub const MAX_LOGS_S: u32 = 300;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Ask {
    /// What functions write to their logs, the last lines and what comes, as records of [`LogRecord`].
    Logs {
        /// At least so loud.
        level: LogLevel,
        /// For so long, in seconds; see [`MAX_LOGS_S`].
        for_s: u32,
    },
    /// How the device is, with what it is configured to, and no secrets: a record of the stream [`REPORT_STREAM`].
    Report {
        /// Comes back in the answer.
        id: ClientToken,
    },
    /// The last dead letters, without what was in them: a record of the stream [`DEAD_LETTER_STREAM`].
    DeadLetters {
        /// Comes back in the answer.
        id: ClientToken,
    },
    /// One dead letter with what was in it: a record of the stream [`LETTER_STREAM`].
    DeadLetter {
        /// Comes back in the answer.
        id: ClientToken,
        /// Which.
        letter: i64,
    },
    /// Dead letters go to their functions again, with all their attempts: a record of the stream [`MOVED_STREAM`].
    ReplayDeadLetters {
        /// Comes back in the answer.
        id: ClientToken,
        /// Which; at most [`MAX_LETTERS`].
        letters: Vec<i64>,
    },
    /// Dead letters of a function go to it again, the oldest first, as many as the device moves at a time: a record of the stream
    /// [`MOVED_STREAM`].
    ReplayFunction {
        /// Comes back in the answer.
        id: ClientToken,
        /// Whose.
        #[serde(with = "text")]
        function: FunctionName,
        /// None with a higher number.
        until: i64,
    },
    /// Dead letters are forgotten: a record of the stream [`MOVED_STREAM`].
    DropDeadLetters {
        /// Comes back in the answer.
        id: ClientToken,
        /// Which; at most [`MAX_LETTERS`].
        letters: Vec<i64>,
    },
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

impl Ask {
    /// Bounds what one ask may cost.
    pub(crate) fn check(&self) -> Result<(), ProtocolError> {
        match self {
            Self::ReplayDeadLetters { letters, .. } | Self::DropDeadLetters { letters, .. } => {
                bounded("the number of dead letters", letters.len(), MAX_LETTERS)
            }
            _ => Ok(()),
        }
    }
}

/// A way out of the dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LetterWay {
    /// To its function again.
    Replay,
    /// Nowhere.
    Drop,
}

/// What became of dead letters. Written in the transaction in which it happened, so it is told if and only if it is so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MovedLetters {
    /// Of the ask.
    pub id: ClientToken,
    /// What was asked for.
    pub way: LetterWay,
    /// Those that have left by this ask.
    pub done: Vec<i64>,
    /// Those that were not there any more, or never.
    pub gone: Vec<i64>,
    /// Whether the same ask would find more: one moves so many letters and bytes and no more.
    pub more: bool,
    /// Dead letters that the device has now.
    pub left: u64,
    /// Why nothing has happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declined: Option<String>,
}

/// A line of a function's log, or a hole in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LogRecord {
    /// So many lines are not here.
    Gap {
        /// How many.
        gap: u64,
        /// `rate`: more came than may go up; `ring`: they were overwritten before they were read.
        reason: String,
    },
    /// A line.
    Line {
        /// How loud.
        level: LogLevel,
        /// `stdout`, `stderr`, or what the function says.
        context: String,
        /// The text.
        message: String,
    },
}
