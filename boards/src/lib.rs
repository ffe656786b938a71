//! Holm's boards: what a node knows of the world by itself.
//!
//! A node's configuration gives names to sensors, lines and buses ([`Bindings`]); a [`Profile`] says where things are
//! on a kind of board; [`Hardware`] is the door through which the rest of the node uses them, by name. Behind it is a
//! [`Board`]: [`Linux`], or [`Sim`], which has models of the same chips and runs the same drivers.
//!
//! # How it fails
//!
//! A node runs without its sensors: what is absent, in use or broken answers an error that says so, is tried again, and
//! is never the end of the node. What a chip sends is not trusted: checksums are checked where there are any, every
//! reading has a limit of time, and a driver that panics is one that failed. See [`pins`](Hardware::make_safe) for what
//! outputs do at the end.

mod bindings;
mod board;
mod bus;
mod clock;
mod debounce;
mod drivers;
mod error;
mod hardware;
mod health;
mod linux;
mod owner;
mod pins;
mod profile;
mod sim;

pub use bindings::{
    Bindings, Calibration, Direction, EdgeScript, FaultKind, FaultScript, I2cBinding, LineBinding, Pull, SensorBinding,
    SignalScript, SimScript, SpiBinding, Wave,
};
pub use board::{Board, Edges, I2cBus, Inputs, Line, RawEdge, SpiPort};
pub use clock::Clock;
pub use debounce::Debouncer;
pub use drivers::{Channel, DriverBinding};
pub use error::{BoardError, BusFault};
pub use hardware::{Body, Hardware, LineReport, Listener, OnEdge, OnSample, SensorReport};
pub use health::{Guard, Health};
pub use linux::{Linux, compatible};
pub use pins::{Fired, Watch};
pub use profile::{Build, Lines, Profile, Status, Watchdog};
pub use sim::Sim;
