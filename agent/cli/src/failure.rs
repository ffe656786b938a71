//! Why a command did not do what it was asked: what, where, why, and the next command to run.

use std::process::ExitCode;

use holm_core::ErrorCode;

use crate::look::{Look, Tone};

/// The end of a command that failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// To be told.
    Told {
        /// What, where and why. May have several lines.
        what: String,
        /// What to do about it.
        next: Option<String>,
        /// The page that says more.
        page: Option<ErrorCode>,
    },
    /// Whoever read our output has gone. Nothing to tell, and nobody to tell it to.
    Unheard,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Told { what, .. } => f.write_str(what),
            Self::Unheard => Ok(()),
        }
    }
}

impl Failure {
    /// With nothing to advise.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self::Told { what: what.into(), next: None, page: None }
    }

    /// Says what to do about it.
    pub(crate) fn next(self, advice: impl Into<String>) -> Self {
        match self {
            Self::Told { what, page, .. } => Self::Told { what, next: Some(advice.into()), page },
            Self::Unheard => Self::Unheard,
        }
    }

    /// Says where more is said about it.
    pub(crate) fn page(self, code: ErrorCode) -> Self {
        match self {
            Self::Told { what, next, .. } => Self::Told { what, next, page: Some(code) },
            Self::Unheard => Self::Unheard,
        }
    }

    /// Of writing to stdout.
    pub(crate) fn of_output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Unheard,
            _ => Self::new(format!("cannot write to stdout: {error}")),
        }
    }

    /// Whether it speaks of this.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        matches!(self, Self::Told { what, .. } if what.contains(word))
    }

    /// Whether this page says more about it.
    pub(crate) fn is(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Told { page: Some(page), .. } if *page == code)
    }

    /// For the shell.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Told { .. } => ExitCode::FAILURE,
            Self::Unheard => ExitCode::SUCCESS,
        }
    }

    /// As plain text; empty when there is nothing to tell.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Told { what, next: Some(next), .. } => format!("{what}\nnext: {next}"),
            Self::Told { what, next: None, .. } => what.clone(),
            Self::Unheard => String::new(),
        }
    }

    /// For people; empty when there is nothing to tell.
    pub(crate) fn render(&self, look: &Look) -> String {
        match self {
            Self::Unheard => String::new(),
            Self::Told { what, next, page } => {
                let mut text = format!("{} {what}\n", look.paint(Tone::Bad, "holm:"));
                if let Some(next) = next {
                    text.push_str(&format!("  {} {next}\n", look.paint(Tone::Strong, "next:")));
                }
                if let Some(code) = page {
                    text.push_str(&format!("  {} holm explain {code}\n", look.paint(Tone::Dim, "more:")));
                }
                text
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_cause_and_then_the_next_step() {
        let failure = Failure::new("cannot reach the node at x").next("start it with `holmd run`");
        assert_eq!(
            failure.render(&Look::plain()),
            "holm: cannot reach the node at x\n  next: start it with `holmd run`\n"
        );
        assert_eq!(
            failure.page(ErrorCode::NodeUnreachable).render(&Look::plain()),
            "holm: cannot reach the node at x\n  next: start it with `holmd run`\n  more: holm explain node-unreachable\n"
        );
        assert_eq!(Failure::Unheard.render(&Look::plain()), "");
    }
}
