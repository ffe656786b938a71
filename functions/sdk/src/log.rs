//! Lines of log. They are kept whether or not the handler succeeds, up to the manifest's limit.

use crate::backend;

/// How loud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For the developer.
    Debug,
    /// Normal.
    Info,
    /// Odd.
    Warn,
    /// Broken.
    Error,
}

/// Writes a line.
pub fn log(level: Level, message: &str) {
    backend::log(level, message);
}

/// Writes a formatted line for the developer.
#[macro_export]
macro_rules! debug { ($($arg:tt)+) => { $crate::log::log($crate::log::Level::Debug, &::std::format!($($arg)+)) } }

/// Writes a formatted line.
#[macro_export]
macro_rules! info { ($($arg:tt)+) => { $crate::log::log($crate::log::Level::Info, &::std::format!($($arg)+)) } }

/// Writes a formatted line about something odd.
#[macro_export]
macro_rules! warn { ($($arg:tt)+) => { $crate::log::log($crate::log::Level::Warn, &::std::format!($($arg)+)) } }

/// Writes a formatted line about something broken.
#[macro_export]
macro_rules! error { ($($arg:tt)+) => { $crate::log::log($crate::log::Level::Error, &::std::format!($($arg)+)) } }
