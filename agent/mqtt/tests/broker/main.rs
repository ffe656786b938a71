//! The broker, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod access;
mod acknowledgement;
mod double;
mod features;
mod hostile;
mod interop;
mod peer;
mod sessions;
