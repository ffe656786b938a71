//! Names of what goes wrong. Each has a page in docs/reference/errors, which `holm explain` shows.

/// Each variant has one word.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)+) => {
        /// A name for what went wrong: a word for people to look up and for programs to compare. A word is never given another
        /// meaning, and none is taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// From the word; `None` for one of another release.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// A folder has no holm.toml.
    NoFunction = "no-function",
    /// holm.toml has problems.
    ManifestWrong = "manifest-wrong",
    /// A program that is needed to build is not there.
    ToolchainMissing = "toolchain-missing",
    /// The build command failed.
    BuildFailed = "build-failed",
    /// The build made no component, or nobody says where it is.
    ComponentMissing = "component-missing",
    /// The component is not one that can be a function.
    ComponentWrong = "component-wrong",
    /// `holmd` or `holm-compile` is not there.
    ProgramMissing = "program-missing",
    /// There are no cases to run.
    CasesMissing = "cases-missing",
    /// Case files have problems.
    CasesWrong = "cases-wrong",
    /// A recording to replay has problems.
    RecordingWrong = "recording-wrong",
    /// A node has no recordings of invocations that could be replayed.
    RecordingsMissing = "recordings-missing",
    /// The component that ran is not on this machine.
    ComponentUnknown = "component-unknown",
    /// A record cannot be run again.
    ReplayImpossible = "replay-impossible",
    /// A record was run again, and it went another way.
    ReplayDiverged = "replay-diverged",
    /// A node that was to run here did not start.
    NodeNotStarted = "node-not-started",
    /// agent.toml has problems.
    ConfigWrong = "config-wrong",
    /// Nobody answers on the node's socket.
    NodeUnreachable = "node-unreachable",
    /// The node took too long.
    NodeSilent = "node-silent",
    /// The node has no such thing.
    NotFound = "not-found",
    /// The store cannot be written.
    StoreFailing = "store-failing",
    /// A bundle is not one, or damaged.
    BundleRefused = "bundle-refused",
    /// A bundle has no signature, and the node wants one.
    UnsignedRefused = "unsigned-refused",
    /// The node's configuration does not bind what the function needs.
    NodeLacks = "node-lacks",
    /// The function asks for more than the node gives.
    TooMuch = "too-much",
    /// A parameter is not one that the manifest allows.
    ParameterWrong = "parameter-wrong",
    /// A new version did not stand its trial.
    RolledBack = "rolled-back",
    /// An invocation did not end well.
    InvocationFailed = "invocation-failed",
    /// No function has that route, or not for that method.
    RouteUnknown = "route-unknown",
    /// A request has no token, or another one.
    TokenWrong = "token-wrong",
    /// The body of a request is over the limit.
    BodyTooLarge = "body-too-large",
    /// The body of a request did not come whole.
    BodyIncomplete = "body-incomplete",
    /// The function of a route cannot take a request now.
    FunctionBehind = "function-behind",
    /// No control plane is known here.
    CloudUnknown = "cloud-unknown",
    /// The control plane does not answer.
    CloudUnreachable = "cloud-unreachable",
    /// The control plane refused a request.
    CloudRefused = "cloud-refused",
    /// A release with this version is there already.
    VersionTaken = "version-taken",
    /// A release wants to do more than the one before it.
    PermissionsGrow = "permissions-grow",
    /// A signing key is not there.
    KeyMissing = "key-missing",
    /// fleet.toml has problems.
    FleetWrong = "fleet-wrong",
    /// A disk is not written.
    DiskRefused = "disk-refused",
    /// No database can be read from a card.
    CardUnreadable = "card-unreadable",
    /// An image of a system cannot be seeded.
    SystemUnfit = "system-unfit",
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_word_that_is_read_back() {
        for code in ErrorCode::ALL {
            let word = code.as_str();
            assert_eq!(ErrorCode::parse(word), Some(*code));
            assert!(word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{word}");
        }
        assert_eq!(ErrorCode::parse("of-another-release"), None);
    }
}
