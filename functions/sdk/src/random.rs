//! Random numbers, different in every instance.

use crate::backend;

/// 64 random bits, fit for secrets.
pub fn bits() -> u64 {
    backend::random()
}
