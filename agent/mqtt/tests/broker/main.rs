//! The broker, over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "the doubles own tasks of their own")]

mod access;
mod acknowledgement;
mod double;
mod external;
mod features;
mod hostile;
mod identity;
mod interop;
mod peer;
mod resends;
mod retained;
mod sessions;
