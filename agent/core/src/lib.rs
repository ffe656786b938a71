//! Holm's pure types: what an event, a topic, a function and an outcome are.
//!
//! No I/O, no clock, no tokio: everything here is a value that was checked when it was made. The other rooms parse at
//! their doors into these types and trust them afterwards.

mod code;
mod document;
mod event;
mod jump;
mod manifest;
mod name;
mod outcome;
mod pin;
mod reading;
mod session;
mod topic;
mod transfer;
mod trie;
mod units;

pub use code::ErrorCode;
pub use document::{Document, Problem, Problems, Section};
pub use event::{Event, EventId, Payload, Publish, Qos, Route, Source, Timestamp};
pub use jump::{ClockReading, Jump, JumpWatch};
pub use manifest::{
    ConfigKind, ConfigParameter, ConfigValue, FileTrigger, GpioTrigger, HttpTrigger, Limits, METHODS, Manifest,
    MissedRun, Permissions, Retry, RetryOrder, ScheduleWhen, SensorTrigger, SeriesDecl, Threshold, Trigger,
    TriggerKind, When, Zone,
};
pub use name::{FunctionName, Label, NameError};
pub use outcome::{
    Effects, Enqueue, Fault, LogLevel, LogLine, Outcome, ReadSet, Recording, Response, ResultRow, StateWrite, Usage,
};
pub use pin::{Edge, Level};
pub use reading::{Quality, Reading};
pub use session::{ClientId, Message, Queued, Received, SessionWrite, StoredBroker, StoredSession, Subscription};
pub use topic::{TopicError, TopicFilter, TopicName};
pub use transfer::{I2cPart, SpiPart};
pub use trie::TopicTrie;
pub use units::{UnitError, parse_bytes, parse_duration, parse_rate};
