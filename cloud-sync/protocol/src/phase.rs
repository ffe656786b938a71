//! How far a deployment is, and why it went as it did.

use crate::JobStatus;
use crate::code::codes;

codes! {
    /// How far a device is with a desired state. Goes forward only; the last three are final, and exactly the old or the new set of
    /// functions runs in each.
    Phase {
        /// Known, not begun.
        Queued = "queued",
        /// Bundles and native code are being fetched.
        Downloading = "downloading",
        /// Everything is here, and what was signed is what is here.
        Verified = "verified",
        /// Waits for an update window, or because a function asked for it.
        Deferred = "deferred",
        /// Compiled and instantiated once, beside what runs.
        Staged = "staged",
        /// Runs, and is watched.
        Trial = "trial",
        /// Runs, and stays.
        Confirmed = "confirmed",
        /// What ran before runs again.
        RolledBack = "rolled-back",
        /// Never begun: see the reason.
        Refused = "refused",
    }
}

impl Phase {
    /// Whether nothing comes after it. An unknown phase is not final.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Confirmed | Self::RolledBack | Self::Refused)
    }

    /// The status that the job has then; `QUEUED` is never reported, the job is born with it. `FAILED` may be sent again by the service,
    /// `REJECTED` is not, and the same bytes would be refused again. What was refused for a reason that may pass is `FAILED` all the
    /// same: see [`ReasonCode::is_retryable`].
    pub fn job_status(&self) -> JobStatus {
        match self {
            Self::Queued => JobStatus::Queued,
            Self::Confirmed => JobStatus::Succeeded,
            Self::RolledBack => JobStatus::Failed,
            Self::Refused => JobStatus::Rejected,
            _ => JobStatus::InProgress,
        }
    }
}

/// Codes with a sentence for the operator each.
macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident { $($variant:ident = $text:literal, $sentence:literal;)+ }) => {
        codes! {
            $(#[$doc])*
            $type { $(#[doc = concat!("\"", $sentence, "\"")] $variant = $text,)+ }
        }

        impl $type {
            /// The sentence for the operator; for an unknown code, the code.
            pub fn explanation(&self) -> &str {
                match self {
                    $(Self::$variant => $sentence,)+
                    Self::Unknown(text) => text,
                }
            }
        }
    };
}

reasons! {
    /// Why a deployment waits, was refused, or was rolled back.
    ReasonCode {
        Malformed = "malformed", "the desired state cannot be read";
        UnsupportedFormat = "unsupported-format", "what was signed has a format that this agent is too old for";
        UnknownKey = "unknown-key", "the signature is by a key that this device does not trust";
        WrongSignature = "wrong-signature", "the signature does not fit what was signed";
        TooFewSignatures = "too-few-signatures", "fewer keys have signed than the role demands";
        WrongDevice = "wrong-device", "the desired state is for another device";
        OlderGeneration = "older-generation", "this device has seen a newer desired state";
        Expired = "expired", "the desired state has expired";
        MetadataExpired = "metadata-expired", "the repository's metadata has expired, so no new code is accepted";
        MalformedMetadata = "malformed-metadata", "the repository's metadata cannot be read";
        MetadataIncomplete = "metadata-incomplete", "the repository's metadata is not complete, so no new code is accepted";
        OlderMetadata = "older-metadata", "the repository shows older metadata than it did before";
        MixedMetadata = "mixed-metadata", "the repository's metadata files do not belong together";
        EndlessData = "endless-data", "a download was longer than signed for or allowed";
        UnknownTarget = "unknown-target", "the repository does not list this bundle";
        WrongDigest = "wrong-digest", "a downloaded file is not the one that was signed";
        UntrustedNativeCode = "untrusted-native-code", "native code was made neither by this device nor under the targets key";
        WidenedPermissions = "widened-permissions", "the version wants more permissions and nobody has approved them";
        OlderVersion = "older-version", "the version is older than the one that runs and there is no permit to go back";
        InvalidConfig = "invalid-config", "a configuration value does not fit the function's manifest";
        SecretUnreadable = "secret-unreadable", "a secret is not sealed to this device's key";
        Incompatible = "incompatible", "the function needs something that this board or agent does not have";
        TooLarge = "too-large", "the set of functions needs more memory or space than this node gives";
        DiskFull = "disk-full", "the disk is full";
        DownloadFailed = "download-failed", "a file could not be downloaded";
        CompileFailed = "compile-failed", "a component could not be compiled";
        LoadFailed = "load-failed", "a function could not be loaded";
        Deadline = "deadline", "the phase took longer than it may";
        OutsideWindow = "outside-window", "the update window is not open";
        DeferredByFunction = "deferred-by-function", "a function has asked to wait";
        Trapped = "trapped", "a function failed too often in its health window";
        SelfTestFailed = "self-test-failed", "a function's self-test failed";
        CrashLoop = "crash-loop", "the agent went down during the trial";
        AgentFailed = "agent-failed", "the new agent did not prove itself, and the one before runs again";
        Superseded = "superseded", "a newer desired state took its place";
        Canceled = "canceled", "an operator took it back";
        RolledBackByOperator = "rolled-back-by-operator", "an operator rolled it back";
        Internal = "internal", "something is wrong in the agent: see its log";
    }
}

impl ReasonCode {
    /// Whether the same desired state may be accepted later without anybody changing it: then a job that ends with it is `FAILED`, and
    /// else `REJECTED`. Unknown codes count as such, for sending once more costs little.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::MetadataExpired
                | Self::MetadataIncomplete
                | Self::DiskFull
                | Self::DownloadFailed
                | Self::Deadline
                | Self::OutsideWindow
                | Self::DeferredByFunction
                | Self::Superseded
                | Self::Canceled
                | Self::Internal
                | Self::Unknown(_)
        )
    }

    /// Whether a person should look: somebody may be lying to the device, or holds the wrong keys.
    pub fn is_security(&self) -> bool {
        matches!(
            self,
            Self::UnknownKey
                | Self::WrongSignature
                | Self::TooFewSignatures
                | Self::WrongDevice
                | Self::OlderGeneration
                | Self::OlderMetadata
                | Self::MixedMetadata
                | Self::EndlessData
                | Self::WrongDigest
                | Self::UntrustedNativeCode
                | Self::WidenedPermissions
                | Self::OlderVersion
        )
    }
}
