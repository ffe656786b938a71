//! `holmd`, the agent that runs on the device: configuration, dispatcher, deployments, admin socket, and the
//! supervisor that starts every task.

pub mod admin;
pub mod arguments;
pub mod board;
pub mod breadcrumb;
mod build;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod controls;
pub mod deploy;
pub mod dispatch;
pub mod journal;
pub mod letters;
pub mod look;
pub mod node;
mod notify;
pub mod record;
pub mod recordings;
pub mod rehearsal;
pub mod replay;
pub mod tape;
pub mod traps;
pub mod triggers;
pub mod upgrade;
