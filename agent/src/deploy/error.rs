//! Why a deployment did not happen.

use std::path::PathBuf;

use holm_bundle::BundleError;
use holm_core::{ErrorCode, FunctionName};
use holm_runtime::RuntimeError;

/// Why a deployment did not happen. Whatever was active still is.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The configuration forbids it.
    #[error("unsigned bundles are not allowed on this node (functions.allow_unsigned)")]
    Unsigned,
    /// The bundle is not one.
    #[error("the bundle is refused")]
    Bundle(#[source] BundleError),
    /// The manifest asks for more than the node gives.
    #[error("{0}")]
    TooMuch(String),
    /// The bundle is another one than was asked for.
    #[error("{0}")]
    Mismatch(String),
    /// The manifest holds what only the node can see is wrong.
    #[error("{0}")]
    Manifest(String),
    /// Configuration that the manifest does not allow.
    #[error("{0}")]
    Config(String),
    /// The manifest asks for what the node's configuration does not bind.
    #[error("{function} asks for what this node does not have:\n  {}", .missing.join("\n  "))]
    Missing {
        /// Who asks.
        function: FunctionName,
        /// All of it.
        missing: Vec<String>,
    },
    /// The component could not be compiled.
    #[error("the component cannot be compiled: {0}")]
    Compile(String),
    /// The native code could not be loaded or instantiated.
    #[error("the function cannot be loaded")]
    Load(#[source] RuntimeError),
    /// A secret does not open.
    #[error("a secret does not open")]
    Secret(#[source] holm_cloud_sync::Refusal),
    /// A file could not be written or read.
    #[error("cannot {action} {}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The registry could not be written or read.
    #[error("cannot keep the registry: {0}")]
    Registry(String),
    /// There is no such function, or nothing to go back to.
    #[error("{0}")]
    NotFound(String),
}

impl DeployError {
    /// What people look it up by; `None` where the words say all there is to say.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Unsigned => Some(ErrorCode::UnsignedRefused),
            Self::Manifest(_) | Self::Bundle(BundleError::Manifest(_)) => Some(ErrorCode::ManifestWrong),
            Self::Bundle(_) | Self::Mismatch(_) => Some(ErrorCode::BundleRefused),
            Self::TooMuch(_) => Some(ErrorCode::TooMuch),
            Self::Config(_) => Some(ErrorCode::ParameterWrong),
            Self::Missing { .. } => Some(ErrorCode::NodeLacks),
            Self::Compile(_) | Self::Load(_) => Some(ErrorCode::ComponentWrong),
            Self::NotFound(_) => Some(ErrorCode::NotFound),
            Self::Secret(_) => None,
            Self::File { .. } | Self::Registry(_) => Some(ErrorCode::StoreFailing),
        }
    }
}
