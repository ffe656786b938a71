//! Recorded system calls.
