//! Components on a real engine: what the interface promises, and what misbehaving guests cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "a test may wait for ever and fail")]

mod board;
mod contract;
mod hostile;
mod load;
mod programs;
mod proxies;
mod support;
