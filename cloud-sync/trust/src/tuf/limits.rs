//! How large the files of a repository may be.

/// Bounds for one run of the client. In bytes, but the last.
///
/// A parsed file takes about ten times its bytes while it is checked, which is what the defaults for boards are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of each `N.root.json`. One with nine keys has about 3 KB.
    pub root: u64,
    /// Of `timestamp.json`, which has less than 1 KB.
    pub timestamp: u64,
    /// Of `snapshot.json`, which has less than 1 KB as long as there are no delegations.
    pub snapshot: u64,
    /// Of `targets.json`: about 400 bytes for each target.
    pub targets: u64,
    /// How many roots are followed in one run. The next run goes on from there.
    pub rotations: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { root: 128 << 10, timestamp: 16 << 10, snapshot: 128 << 10, targets: 2 << 20, rotations: 256 }
    }
}
