//! The life of a job execution, as AWS IoT Jobs tells it.

use crate::code::codes;

codes! {
    /// Where a job execution is (<https://docs.aws.amazon.com/iot/latest/developerguide/iot-jobs-lifecycle.html>).
    JobStatus {
        /// The device has not begun.
        Queued = "QUEUED",
        /// The device is at work.
        InProgress = "IN_PROGRESS",
        /// Done.
        Succeeded = "SUCCEEDED",
        /// Not done. The service may send the job again, if the job says so.
        Failed = "FAILED",
        /// The device did not say in time that it was done.
        TimedOut = "TIMED_OUT",
        /// The device will not do it. Never sent again.
        Rejected = "REJECTED",
        /// The device is no longer among the job's targets.
        Removed = "REMOVED",
        /// An operator took it back.
        Canceled = "CANCELED",
    }
}

/// Who changes a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// By `update`.
    Device,
    /// By itself, or for an operator.
    Service,
}

impl JobStatus {
    /// Whether nothing comes after it. An unknown status counts as not terminal: asking once more costs little, and forgetting a
    /// job costs a rollout.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Self::Queued | Self::InProgress | Self::Unknown(_))
    }

    /// Whether `by` may turn this status into `next`. A device may repeat `IN_PROGRESS`, which is how it reports progress. AWS's
    /// description goes from `QUEUED` to an end by way of `IN_PROGRESS`, or to `REJECTED` at once; our devices do that. Any end is
    /// taken from `QUEUED` here, for a device that did the work before it could say that it began.
    pub fn may_become(&self, next: &Self, by: Party) -> bool {
        if self.is_terminal() || matches!(self, Self::Unknown(_)) {
            return false;
        }
        match by {
            Party::Device => matches!(next, Self::InProgress | Self::Succeeded | Self::Failed | Self::Rejected),
            Party::Service => match next {
                Self::Removed | Self::Canceled => true,
                Self::TimedOut => *self == Self::InProgress,
                _ => false,
            },
        }
    }
}

codes! {
    /// Why a request was rejected
    /// (<https://docs.aws.amazon.com/iot/latest/developerguide/jobs-api.html#jobs-mqtt-error-response>).
    JobErrorCode {
        /// The topic is not one of Jobs.
        InvalidTopic = "InvalidTopic",
        /// The request is not JSON.
        InvalidJson = "InvalidJson",
        /// The request is JSON and yet no request.
        InvalidRequest = "InvalidRequest",
        /// The status cannot become that one. The answer has the execution's state.
        InvalidStateTransition = "InvalidStateTransition",
        /// There is no such job for this thing.
        ResourceNotFound = "ResourceNotFound",
        /// The execution has another version than expected. The answer has the execution's state.
        VersionMismatch = "VersionMismatch",
        /// Something is wrong at the service.
        InternalError = "InternalError",
        /// Too many requests.
        RequestThrottled = "RequestThrottled",
        /// The execution is over already.
        TerminalStateReached = "TerminalStateReached",
    }
}

impl JobErrorCode {
    /// Whether the same request may be accepted later. The others need another request, or none. Unknown codes count as worth
    /// another try, which the caller's capped delays bound.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InternalError | Self::RequestThrottled | Self::Unknown(_))
    }
}
