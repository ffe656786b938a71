//! The one door for answers that another run of the same guest on the same event might not get: clocks, random numbers,
//! state, other functions. What passes can be kept, and fed to a later run instead of asking.
//!
//! Keeping is on for every invocation of a node, because nobody knows beforehand which one will trap. So it costs a copy
//! of the answer into a buffer that is used again, and nothing else: no allocation, once the buffer has its size.

use serde::Serialize;
use serde::de::DeserializeOwned;

use holm_core::Recording;

use crate::fault::Stop;
use crate::recording::{self, Call, Writer};

/// A replayed guest asked for something else than it did when it was recorded: not the same component, event or manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replay diverged at call {at}: the guest asked for {asked} where the recording has {recorded}")]
pub struct Diverged {
    /// The call's number, from 1.
    pub at: usize,
    /// The call that was made.
    pub asked: String,
    /// The call that was recorded, or that there is none.
    pub recorded: String,
}

/// How a recording answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Call by call, as it was recorded: for the same component.
    Exact {
        /// The invocation was ended by its deadline. A guest that goes on where the recording ends has come to that.
        out_of_time: bool,
    },
    /// Each question by itself, in any order: for another version. What only has to be plausible (clocks, random numbers,
    /// ids) is made up where the recording has none.
    Loose,
}

/// Whether answers are forgotten, kept, or replayed.
#[derive(Debug, Default)]
pub enum Recorder {
    /// Answers pass, at no cost.
    #[default]
    Off,
    /// Answers pass and are kept.
    Keep(Writer),
    /// Nobody is asked: answers come from a recording.
    Replay(Box<Replay>),
}

/// A recording that answers.
#[derive(Debug)]
pub struct Replay {
    calls: Vec<Call>,
    used: Vec<bool>,
    missing: u32,
    order: Order,
    next: usize,
    pub(crate) diverged: Option<Diverged>,
    pub(crate) made_up: Vec<&'static str>,
}

/// What a call is about, for a replay by another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Of the world as it was: only the recording knows.
    World,
    /// Any answer will do, if it is plausible.
    Plausible,
    /// The replaying function's own: never from the recording of another version.
    Own,
}

impl Recorder {
    /// Keeps answers of at most `limit` bytes together, in a buffer that is emptied first.
    pub fn keep(buffer: Vec<u8>, limit: usize) -> Self {
        Self::Keep(Writer::new(buffer, limit))
    }

    /// Answers from `recording`. One that cannot be read is one that ends where it cannot.
    pub fn replay(recording: &Recording, order: Order) -> Self {
        let calls = recording::read(recording);
        let used = vec![false; calls.len()];
        let missing = recording.missing;
        Self::Replay(Box::new(Replay { calls, used, missing, order, next: 0, diverged: None, made_up: Vec::new() }))
    }

    /// Whether effects are only gathered, because nobody is there.
    pub(crate) fn is_replay(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    /// The answer to `call` about `asked`: from `ask`, or from the recording.
    pub(crate) fn answer<Q: Serialize, T: Serialize + DeserializeOwned>(
        &mut self,
        nature: Nature,
        call: &'static str,
        asked: &Q,
        ask: impl FnOnce() -> T,
    ) -> Result<T, Stop> {
        match self {
            Self::Off => Ok(ask()),
            Self::Keep(writer) => {
                let answer = ask();
                writer.add(call, asked, &answer);
                Ok(answer)
            }
            Self::Replay(replay) => replay.answer(nature, call, asked, ask),
        }
    }

    /// What was kept.
    pub(crate) fn into_recording(self) -> Option<Recording> {
        match self {
            Self::Keep(writer) => Some(writer.finish()),
            Self::Off | Self::Replay(_) => None,
        }
    }
}

impl Replay {
    /// Calls that were recorded and never asked for.
    pub(crate) fn unasked(&self) -> usize {
        self.used.iter().filter(|used| !**used).count()
    }

    fn answer<Q: Serialize, T: DeserializeOwned>(
        &mut self,
        nature: Nature,
        call: &'static str,
        asked: &Q,
        ask: impl FnOnce() -> T,
    ) -> Result<T, Stop> {
        let asked = recording::encode(asked);
        let found = match self.order {
            Order::Loose if nature == Nature::Own => return Ok(ask()),
            Order::Loose => {
                let same = |(index, one): (usize, &Call)| {
                    (!*self.used.get(index)? && *one.call == *call && one.asked == asked).then_some(index)
                };
                self.calls.iter().enumerate().find_map(same)
            }
            Order::Exact { out_of_time } => match self.calls.get(self.next) {
                Some(next) if *next.call == *call && next.asked == asked => Some(self.next),
                None if out_of_time && self.missing == 0 => return Err(Stop::Timeout),
                _ => None,
            },
        };
        let Some(index) = found else {
            if self.order == Order::Loose && nature == Nature::Plausible {
                if !self.made_up.contains(&call) {
                    self.made_up.push(call);
                }
                return Ok(ask());
            }
            let recorded = match (self.order, self.calls.get(self.next)) {
                (Order::Exact { .. }, Some(next)) => next.question(),
                _ if self.missing > 0 => format!("no more room: {} calls were not kept", self.missing),
                (Order::Loose, _) => "no such question".to_owned(),
                _ => "no more calls".to_owned(),
            };
            return Err(self.diverge(Call { call: call.into(), asked, answer: Vec::new() }.question(), recorded));
        };
        self.next += 1;
        if let Some(used) = self.used.get_mut(index) {
            *used = true;
        }
        let answer = self.calls.get(index).map(|call| call.answer.as_slice()).unwrap_or_default();
        match postcard::from_bytes(answer) {
            Ok(answer) => Ok(answer),
            Err(_) => {
                let question = Call { call: call.into(), asked, answer: Vec::new() }.question();
                Err(self.diverge(question, "an answer of another shape".to_owned()))
            }
        }
    }

    fn diverge(&mut self, asked: String, recorded: String) -> Stop {
        let diverged = Diverged { at: self.next + 1, asked, recorded };
        self.diverged = Some(diverged.clone());
        Stop::Diverged(diverged)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const EXACT: Order = Order::Exact { out_of_time: false };

    fn kept(limit: usize) -> Recording {
        let mut keep = Recorder::keep(vec![9; 100], limit);
        for (key, value) in [("x", 7_u64), ("y", 8)] {
            assert_eq!(keep.answer(Nature::World, "a.b", &key, || value).unwrap(), value);
        }
        keep.answer(Nature::Plausible, "clock", &(), || 1_u64).unwrap();
        keep.into_recording().unwrap()
    }

    fn world(replay: &mut Recorder, key: &str) -> Result<u64, String> {
        replay.answer(Nature::World, "a.b", &key, || -> u64 { unreachable!() }).map_err(|stop| stop.to_string())
    }

    #[test]
    fn a_kept_answer_is_replayed_without_asking() {
        let recording = kept(1000);
        assert_eq!((recording.calls, recording.missing), (3, 0));
        let mut replay = Recorder::replay(&recording, EXACT);
        assert_eq!((world(&mut replay, "x"), world(&mut replay, "y")), (Ok(7), Ok(8)));
        assert_eq!(replay.answer(Nature::Plausible, "clock", &(), || 2_u64).unwrap(), 1);
        assert!(world(&mut replay, "x").unwrap_err().contains("no more calls"));
    }

    #[test]
    fn another_question_than_the_recorded_one_diverges() {
        let mut replay = Recorder::replay(&kept(1000), EXACT);
        let words = world(&mut replay, "y").unwrap_err();
        assert!(words.contains("at call 1"), "{words}");
    }

    #[test]
    fn what_has_no_room_is_counted_and_the_replay_says_so() {
        let recording = kept(15);
        assert_eq!((recording.calls, recording.missing), (1, 2));
        assert_eq!(recording.bytes.len(), 15);
        let mut replay = Recorder::replay(&recording, Order::Exact { out_of_time: true });
        assert_eq!(world(&mut replay, "x"), Ok(7));
        assert!(world(&mut replay, "y").unwrap_err().contains("2 calls were not kept"));
    }

    #[test]
    fn where_a_recording_ends_by_the_deadline_the_replay_ends_by_it_too() {
        let mut replay = Recorder::replay(&Recording::default(), Order::Exact { out_of_time: true });
        let stop = replay.answer(Nature::World, "a.b", &"x", || 1_u64).unwrap_err();
        assert!(matches!(stop, Stop::Timeout));
    }

    #[test]
    fn another_version_may_ask_in_another_order_but_not_for_what_is_not_known() {
        let mut replay = Recorder::replay(&kept(1000), Order::Loose);
        assert_eq!((world(&mut replay, "y"), world(&mut replay, "x")), (Ok(8), Ok(7)));
        assert_eq!(replay.answer(Nature::Plausible, "random", &(), || 5_u64).unwrap(), 5);
        assert_eq!(replay.answer(Nature::Own, "config", &"k", || 6_u64).unwrap(), 6);
        assert!(world(&mut replay, "z").unwrap_err().contains("no such question"));
        let Recorder::Replay(replay) = replay else { unreachable!() };
        assert_eq!((replay.made_up, replay.used.len()), (vec!["random"], 3));
    }
}
