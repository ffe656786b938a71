//! Secrets that an operator set for the node, and the manifest grants (`permissions.secrets`).
//!
//! Ask for one when it is needed, and keep it nowhere. The node takes values out of what the function logs; what it publishes is its own
//! business.

use crate::{Error, backend};

/// The value, as it was set.
pub fn get(name: &str) -> Result<Vec<u8>, Error> {
    backend::secret(name)
}

/// The value as text.
pub fn text(name: &str) -> Result<String, Error> {
    String::from_utf8(get(name)?).map_err(|_| Error::Invalid(["secret ", name, " is not text"].concat()))
}
