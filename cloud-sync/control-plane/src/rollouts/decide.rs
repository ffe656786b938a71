//! What a rollout does next: the whole decision, without a database.

use super::plan::Plan;

/// How a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Goes from stage to stage.
    Running,
    /// Begins with no other device until it is resumed.
    Paused,
    /// Devices are being taken back to what they had confirmed before.
    Aborting,
    /// All devices that were heard of are back.
    Aborted,
    /// Every stage has passed.
    Completed,
}

impl State {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Aborting, Self::Aborted, Self::Completed];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Aborting => "aborting",
            Self::Aborted => "aborted",
            Self::Completed => "completed",
        }
    }

    pub(crate) fn words() -> [(&'static str, Self); 5] {
        Self::ALL.map(|state| (state.as_str(), state))
    }
}

/// How a device stands in a rollout. Everything but the first, and what an operator or the control plane did, is by the device's
/// word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// Its stage, or its turn in it, has not come.
    Waiting,
    /// Its job is put in, and not taken up.
    Queued,
    /// For too long: nobody knows.
    Unknown,
    /// It is at work on it.
    Working,
    /// What it shall run runs, and stays.
    Confirmed,
    /// It refused it, or tried it and went back by itself.
    Failed,
    /// It was at work on it for too long.
    TimedOut,
    /// Something else was deployed to it since, or there is nothing to change on it.
    Superseded,
    /// It is told to go back.
    Undoing,
    /// It is back.
    Undone,
    /// It refused to go back.
    Stuck,
    /// The rollout ended before its turn came.
    Skipped,
    /// It was revoked.
    Removed,
}

impl Standing {
    const ALL: [Self; 13] = [
        Self::Waiting,
        Self::Queued,
        Self::Unknown,
        Self::Working,
        Self::Confirmed,
        Self::Failed,
        Self::TimedOut,
        Self::Superseded,
        Self::Undoing,
        Self::Undone,
        Self::Stuck,
        Self::Skipped,
        Self::Removed,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Unknown => "unknown",
            Self::Working => "working",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::TimedOut => "timed-out",
            Self::Superseded => "superseded",
            Self::Undoing => "undoing",
            Self::Undone => "undone",
            Self::Stuck => "stuck",
            Self::Skipped => "skipped",
            Self::Removed => "removed",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == text)
    }

    pub(crate) fn words() -> [(&'static str, Self); 13] {
        Self::ALL.map(|standing| (standing.as_str(), standing))
    }
}

/// Devices of one stage, by how they stand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) waiting: u32,
    pub(crate) queued: u32,
    pub(crate) unknown: u32,
    pub(crate) working: u32,
    pub(crate) confirmed: u32,
    /// Those that timed out included.
    pub(crate) failed: u32,
    /// Those that do not count any more.
    pub(crate) out: u32,
}

impl Counts {
    pub(crate) fn add(&mut self, standing: Standing, devices: u32) {
        let count = match standing {
            Standing::Waiting => &mut self.waiting,
            Standing::Queued => &mut self.queued,
            Standing::Unknown => &mut self.unknown,
            Standing::Working => &mut self.working,
            Standing::Confirmed => &mut self.confirmed,
            Standing::Failed | Standing::TimedOut => &mut self.failed,
            _ => &mut self.out,
        };
        *count = count.saturating_add(devices);
    }

    fn reported(&self) -> u32 {
        self.confirmed + self.failed
    }

    /// Those that may still confirm, or have.
    fn hopeful(&self) -> u32 {
        self.waiting + self.queued + self.unknown + self.working + self.confirmed
    }
}

/// What there is to know of a running rollout.
#[derive(Debug, Clone)]
pub(crate) struct View<'a> {
    pub(crate) plan: &'a Plan,
    /// The one that it is at.
    pub(crate) stage: usize,
    /// Of all stages.
    pub(crate) counts: &'a [Counts],
    /// Milliseconds since the stage was settled, if it is.
    pub(crate) soaked_ms: Option<i64>,
    /// Devices that were told within the last minute.
    pub(crate) told: u32,
    /// Devices of the stage that have confirmed and are connected now.
    pub(crate) live: u32,
}

/// What is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Tell so many devices of this stage.
    Tell(u32),
    /// Nothing, and why.
    Wait(String),
    /// The stage is settled, and soaks from now on.
    Soak,
    /// A device has left what was settled: it soaks no more.
    Unsettle,
    /// The next stage begins.
    Advance,
    /// All is done.
    Complete,
    /// It goes wrong.
    Abort(String),
}

/// The decision about a running rollout.
pub(crate) fn decide(view: &View<'_>) -> Decision {
    let View { plan, stage, counts, soaked_ms, told, live } = view;
    let now = counts.get(*stage).copied().unwrap_or_default();
    let begun = counts.iter().take(stage + 1);
    let (failed, reported) =
        begun.fold((0_u32, 0_u32), |(failed, reported), stage| (failed + stage.failed, reported + stage.reported()));
    if reported >= plan.abort_min && failed > 0 && !is_less(failed, reported, plan.abort_percent) {
        return Decision::Abort(format!(
            "{failed} of {reported} devices that have reported failed, and {} % end it",
            plan.abort_percent
        ));
    }
    let number = stage + 1;
    // Also those that came after their stage had passed.
    let hopeless =
        counts.iter().take(number).enumerate().find(|(_, one)| {
            one.failed > 0 && is_less(one.hopeful(), one.hopeful() + one.failed, plan.success_percent)
        });
    if let Some((which, one)) = hopeless {
        let of = one.hopeful() + one.failed;
        return Decision::Abort(format!(
            "{} of {of} devices of stage {} failed, and {} % have to succeed",
            one.failed,
            which + 1,
            plan.success_percent
        ));
    }
    if now.waiting > 0 {
        let room = plan.rate_per_minute.map_or(u32::MAX, |rate| rate.saturating_sub(*told));
        return match room {
            0 => Decision::Wait(format!("{told} devices were told within a minute: {} wait", now.waiting)),
            room => Decision::Tell(room.min(now.waiting)),
        };
    }
    if now.queued + now.working > 0 {
        return match soaked_ms {
            Some(_) => Decision::Unsettle,
            None => Decision::Wait(waits(&now)),
        };
    }
    // Who is silent may be well: not lost, and no success either.
    if is_less(now.confirmed, now.reported(), plan.success_percent) {
        return Decision::Wait(format!(
            "{} of {} devices of stage {number} that have reported failed, and {} % have to succeed; {} are not heard of",
            now.failed,
            now.reported(),
            plan.success_percent,
            now.unknown
        ));
    }
    let last = number >= plan.stages.len();
    if last {
        let (confirmed, unknown) = counts
            .iter()
            .fold((0_u32, 0_u32), |(confirmed, unknown), stage| (confirmed + stage.confirmed, unknown + stage.unknown));
        // Silence alone is no success: whoever comes first tells.
        if confirmed == 0 && unknown > 0 {
            return Decision::Wait(format!("none has confirmed; {unknown} are not heard of"));
        }
        return Decision::Complete;
    }
    let present = now.reported() + now.unknown;
    if present == 0 && (now.out == 0 || plan.min_reported == 0) {
        // A stage that nobody is in.
        return Decision::Advance;
    }
    if present == 0 {
        return Decision::Wait(format!("nobody of stage {number} is left to judge it by: something else runs there"));
    }
    if now.reported() < plan.min_reported.min(present) {
        return Decision::Wait(format!(
            "{} of stage {number} have reported, {} have to; {} are not heard of",
            now.reported(),
            plan.min_reported.min(present),
            now.unknown
        ));
    }
    if counts.iter().skip(number).all(|later| later.waiting == 0) {
        // Nobody comes after it whom looking at it could protect.
        return Decision::Advance;
    }
    match soaked_ms {
        None => Decision::Soak,
        // Who confirmed and went silent since may have gone down with it.
        Some(soaked) if *soaked >= i64::from(plan.soak_s) * 1_000 => match plan.min_reported.min(now.confirmed) {
            least if *live < least => Decision::Wait(format!(
                "{live} of the {} devices of stage {number} that have confirmed are connected, {least} have to be",
                now.confirmed
            )),
            _ => Decision::Advance,
        },
        Some(_) => Decision::Wait(format!("stage {number} is looked at before the next one")),
    }
}

fn waits(now: &Counts) -> String {
    let parts = [(now.queued, "to be taken up"), (now.working, "to be ended")];
    let words: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("waits for {}", words.join(", "))
}

/// Whether `part` of `whole` is less than so many of 100.
fn is_less(part: u32, whole: u32, percent: u32) -> bool {
    u64::from(part) * 100 < u64::from(whole) * u64::from(percent)
}
