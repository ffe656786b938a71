//! Topics: what is said where.
//!
//! # Ours
//!
//! | topic | direction | payload |
//! | --- | --- | --- |
//! | `holm/{thing}/r/{lane}/{stream}` | up | a [batch](crate::Batch) |
//! | `holm/{thing}/ack` | down | an [acknowledgement](crate::Ack) |
//!
//! # Those of AWS IoT, the subset that we speak
//!
//! | topic | direction | payload |
//! | --- | --- | --- |
//! | `$aws/things/{thing}/jobs/notify-next` | down | [`NextJob`](crate::NextJob) |
//! | `$aws/things/{thing}/jobs/{job or $next}/get` | up | [`GetJob`](crate::GetJob) |
//! | ... `/accepted`, `/rejected` | down | [`GotJob`](crate::GotJob), [`JobRejected`](crate::JobRejected) |
//! | `$aws/things/{thing}/jobs/{job}/update` | up | [`UpdateJob`](crate::UpdateJob) |
//! | ... `/accepted`, `/rejected` | down | [`UpdatedJob`](crate::UpdatedJob), [`JobRejected`](crate::JobRejected) |
//! | `$aws/things/{thing}/shadow/name/{name}/update` | up | [`ShadowUpdate`](crate::ShadowUpdate) |
//! | ... `/accepted`, `/rejected`, `/delta` | down | [`ShadowAccepted`](crate::ShadowAccepted), [`ShadowRejected`](crate::ShadowRejected), ignored |
//! | `$aws/things/{thing}/shadow/name/{name}/get` | up | empty |
//! | ... `/accepted`, `/rejected` | down | as for `update` |
//!
//! Sources: <https://docs.aws.amazon.com/iot/latest/developerguide/reserved-topics.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html>,
//! <https://docs.aws.amazon.com/iot/latest/developerguide/device-shadow-mqtt.html>.
//!
//! # How it fails
//!
//! AWS answers the publisher of a request even where it has no subscription, and new reserved topics appear: a topic that
//! [`Address::parse`] does not know is nobody's mistake, and whoever receives it ignores it. A thing name other than one's own is
//! to be ignored as well: see [`Address::parse_for`].

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_TOPIC_BYTES;
use crate::{JobId, Lane, ProtocolError, ShadowName, StreamSegment, ThingName, error::excerpt};

/// The id that stands for "the next job" in `get`.
pub const NEXT_JOB: &str = "$next";

/// Which job a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum JobTarget {
    /// The first of those that are not done: `$next`.
    Next,
    /// This one.
    Id(JobId),
}

/// A request, or one of the two answers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// The request itself, up.
    Request,
    /// `/accepted`, down.
    Accepted,
    /// `/rejected`, down.
    Rejected,
}

/// What a message is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A batch of records.
    Results {
        /// Its lane.
        lane: Lane,
        /// Its stream, as far as a topic tells.
        stream: StreamSegment,
    },
    /// What of the records the control plane has.
    Ack,
    /// The next job is another one than before. A doorbell: its content is a hint.
    NextJobChanged,
    /// A job is asked for.
    GetJob(JobTarget, Exchange),
    /// A job's status is reported.
    UpdateJob(JobId, Exchange),
    /// The shadow is written.
    UpdateShadow(ShadowName, Exchange),
    /// The shadow is asked for.
    GetShadow(ShadowName, Exchange),
    /// Desired and reported state of the shadow differ. Ours only reports, so this comes only if somebody else writes to it.
    ShadowDelta(ShadowName),
}

impl Subject {
    /// Whether devices receive it. The others they send.
    pub fn is_down(&self) -> bool {
        match self {
            Self::Ack | Self::NextJobChanged | Self::ShadowDelta(_) => true,
            Self::Results { .. } => false,
            Self::GetJob(_, exchange)
            | Self::UpdateJob(_, exchange)
            | Self::UpdateShadow(_, exchange)
            | Self::GetShadow(_, exchange) => *exchange != Exchange::Request,
        }
    }
}

/// A topic, taken apart. Its `Display` is the topic as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Whose.
    pub thing: ThingName,
    /// About what.
    pub subject: Subject,
}

impl Address {
    /// Puts a topic together.
    pub fn new(thing: &ThingName, subject: Subject) -> Self {
        Self { thing: thing.clone(), subject }
    }

    /// Takes a topic apart. Whatever is not exactly a topic of this protocol is [`ProtocolError::UnknownTopic`].
    pub fn parse(topic: &str) -> Result<Self, ProtocolError> {
        parse(topic).ok_or_else(|| ProtocolError::UnknownTopic { topic: excerpt(topic) })
    }

    /// As [`Address::parse`], and the thing has to be `thing`: AWS asks devices to confirm that
    /// (<https://docs.aws.amazon.com/iot/latest/developerguide/jobs-mqtt-api.html>).
    pub fn parse_for(thing: &ThingName, topic: &str) -> Result<Subject, ProtocolError> {
        let address = Self::parse(topic)?;
        if address.thing == *thing {
            return Ok(address.subject);
        }
        Err(ProtocolError::Mismatch {
            what: "the thing name",
            found: address.thing.to_string(),
            expected: thing.to_string(),
        })
    }
}

fn parse(topic: &str) -> Option<Address> {
    if topic.len() > MAX_TOPIC_BYTES {
        return None;
    }
    // One more than the longest of ours, so that what is too deep does not look like something shorter.
    let levels: Vec<&str> = topic.splitn(9, '/').collect();
    let (thing, subject) = match levels.as_slice() {
        ["holm", thing, "ack"] => (thing, Subject::Ack),
        ["holm", thing, "r", lane, stream] => {
            (thing, Subject::Results { lane: Lane::parse(lane)?, stream: StreamSegment::new(stream).ok()? })
        }
        ["$aws", "things", thing, "jobs", "notify-next"] => (thing, Subject::NextJobChanged),
        ["$aws", "things", thing, "jobs", job, "get", rest @ ..] => {
            let target = if *job == NEXT_JOB { JobTarget::Next } else { JobTarget::Id(JobId::new(job).ok()?) };
            (thing, Subject::GetJob(target, exchange(rest)?))
        }
        ["$aws", "things", thing, "jobs", job, "update", rest @ ..] => {
            (thing, Subject::UpdateJob(JobId::new(job).ok()?, exchange(rest)?))
        }
        ["$aws", "things", thing, "shadow", "name", name, "update", "delta"] => {
            (thing, Subject::ShadowDelta(ShadowName::new(name).ok()?))
        }
        ["$aws", "things", thing, "shadow", "name", name, "update", rest @ ..] => {
            (thing, Subject::UpdateShadow(ShadowName::new(name).ok()?, exchange(rest)?))
        }
        ["$aws", "things", thing, "shadow", "name", name, "get", rest @ ..] => {
            (thing, Subject::GetShadow(ShadowName::new(name).ok()?, exchange(rest)?))
        }
        _ => return None,
    };
    Some(Address { thing: ThingName::new(thing).ok()?, subject })
}

fn exchange(rest: &[&str]) -> Option<Exchange> {
    match rest {
        [] => Some(Exchange::Request),
        ["accepted"] => Some(Exchange::Accepted),
        ["rejected"] => Some(Exchange::Rejected),
        _ => None,
    }
}

impl Exchange {
    fn suffix(self) -> &'static str {
        match self {
            Self::Request => "",
            Self::Accepted => "/accepted",
            Self::Rejected => "/rejected",
        }
    }
}

impl fmt::Display for JobTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Next => f.write_str(NEXT_JOB),
            Self::Id(id) => id.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thing = &self.thing;
        match &self.subject {
            Subject::Results { lane, stream } => write!(f, "holm/{thing}/r/{lane}/{stream}"),
            Subject::Ack => write!(f, "holm/{thing}/ack"),
            Subject::NextJobChanged => write!(f, "$aws/things/{thing}/jobs/notify-next"),
            Subject::GetJob(job, exchange) => {
                write!(f, "$aws/things/{thing}/jobs/{job}/get{}", exchange.suffix())
            }
            Subject::UpdateJob(job, exchange) => {
                write!(f, "$aws/things/{thing}/jobs/{job}/update{}", exchange.suffix())
            }
            Subject::UpdateShadow(name, exchange) => {
                write!(f, "$aws/things/{thing}/shadow/name/{name}/update{}", exchange.suffix())
            }
            Subject::GetShadow(name, exchange) => {
                write!(f, "$aws/things/{thing}/shadow/name/{name}/get{}", exchange.suffix())
            }
            Subject::ShadowDelta(name) => write!(f, "$aws/things/{thing}/shadow/name/{name}/update/delta"),
        }
    }
}

impl FromStr for Address {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        Self::parse(text)
    }
}

/// The filters that a device subscribes to, all in one SUBSCRIBE with QoS 0, right after each connect and before it sends
/// anything: exactly [`MAX_SUBSCRIPTIONS`](crate::limits::MAX_SUBSCRIPTIONS). Everything that comes down is level-triggered, so
/// what is lost is asked for again.
///
/// Not among them: the answers to the shadow's `get` (a device sends what it is, whatever the cloud believed before) and its
/// `delta` (nobody writes a desired state there).
pub fn subscriptions(thing: &ThingName, shadow: &ShadowName) -> Vec<String> {
    vec![
        format!("$aws/things/{thing}/jobs/notify-next"),
        format!("$aws/things/{thing}/jobs/{NEXT_JOB}/get/accepted"),
        format!("$aws/things/{thing}/jobs/{NEXT_JOB}/get/rejected"),
        format!("$aws/things/{thing}/jobs/+/update/accepted"),
        format!("$aws/things/{thing}/jobs/+/update/rejected"),
        format!("$aws/things/{thing}/shadow/name/{shadow}/update/accepted"),
        format!("$aws/things/{thing}/shadow/name/{shadow}/update/rejected"),
        format!("holm/{thing}/ack"),
    ]
}
