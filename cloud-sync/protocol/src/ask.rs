//! What somebody wants to see of a device now. Told beside acknowledgements, on a topic that every device listens to.
//!
//! A device answers with records of its log lane, and may decline: an ask comes from the control plane's word alone, so it can make a
//! device say more about itself, and do nothing else. Kinds that a device does not know are passed over.

use holm_core::LogLevel;
use serde::{Deserialize, Serialize};

use crate::ClientToken;

/// The stream of answers to [`Ask::Report`].
pub const REPORT_STREAM: &str = "report";

/// The stream of answers to [`Ask::DeadLetters`].
pub const DEAD_LETTER_STREAM: &str = "dead-letters";

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
    /// Of a later release.
    #[serde(other)]
    Unknown,
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
