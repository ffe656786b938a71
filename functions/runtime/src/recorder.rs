//! The one door for answers that another run of the same guest on the same event might not get: clocks, random numbers,
//! state, other functions. What passes can be kept, and fed to a later run instead of asking.

use std::sync::Arc;

use holm_core::Recorded;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A replayed guest asked for something else than it did when it was recorded: not the same component, event or manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("replay diverged: the guest asked for `{asked}` where the recording has `{recorded}`")]
pub struct Diverged {
    /// The call that was made.
    pub asked: &'static str,
    /// The call that was recorded, or `nothing`.
    pub recorded: String,
}

/// Whether answers are forgotten, kept, or replayed.
#[derive(Debug, Default)]
pub enum Recorder {
    /// Answers pass, at no cost.
    #[default]
    Off,
    /// Answers pass and are kept.
    Keep(Vec<Recorded>),
    /// Nobody is asked: answers come from a recording.
    Replay(std::vec::IntoIter<Recorded>),
}

impl Recorder {
    /// Keeps answers.
    pub fn keep() -> Self {
        Self::Keep(Vec::new())
    }

    /// Answers from `recording`.
    pub fn replay(recording: Vec<Recorded>) -> Self {
        Self::Replay(recording.into_iter())
    }

    /// Whether nobody is asked, so that there is nothing to wait for either.
    pub(crate) fn is_replay(&self) -> bool {
        matches!(self, Self::Replay(_))
    }

    /// The answer to `call`: from `ask`, or from the recording.
    pub(crate) fn answer<T: Serialize + DeserializeOwned>(
        &mut self,
        call: &'static str,
        ask: impl FnOnce() -> T,
    ) -> Result<T, Diverged> {
        match self {
            Self::Off => Ok(ask()),
            Self::Keep(kept) => {
                let answer = ask();
                // Postcard writes any of our answers to memory; should it ever not, the replay says that it diverged.
                let encoded = postcard::to_stdvec(&answer).unwrap_or_default();
                kept.push(Recorded { call: Arc::from(call), answer: encoded });
                Ok(answer)
            }
            Self::Replay(recording) => {
                let diverged = |recorded: &str| Diverged { asked: call, recorded: recorded.to_owned() };
                let next = recording.next().ok_or_else(|| diverged("nothing"))?;
                if &*next.call != call {
                    return Err(diverged(&next.call));
                }
                postcard::from_bytes(&next.answer).map_err(|_| diverged("an answer of another shape"))
            }
        }
    }

    /// What was kept.
    pub(crate) fn into_recording(self) -> Option<Vec<Recorded>> {
        match self {
            Self::Keep(kept) => Some(kept),
            Self::Off | Self::Replay(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_answer_is_replayed_without_asking() {
        let mut keep = Recorder::keep();
        assert_eq!(keep.answer("a.b", || (7_u64, "x".to_owned())), Ok((7, "x".to_owned())));
        let mut replay = Recorder::replay(keep.into_recording().unwrap());
        assert_eq!(replay.answer("a.b", || -> (u64, String) { unreachable!() }), Ok((7, "x".to_owned())));
        assert_eq!(replay.answer("a.b", || 1_u8).unwrap_err().recorded, "nothing");
    }

    #[test]
    fn another_question_than_the_recorded_one_diverges() {
        let mut replay = Recorder::replay(vec![Recorded { call: "a.b".into(), answer: vec![1] }]);
        assert_eq!(replay.answer("a.c", || 1_u8).unwrap_err().recorded, "a.b");
    }
}
