//! The memory and table limits of one instance.

use wasmtime::ResourceLimiter;

/// Entries of all tables of an instance: enough for the indirect calls of a large program.
const TABLE_ENTRIES: usize = 20_000;

/// Counts what an instance has grown to, and refuses beyond its limit.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: usize,
    memory: usize,
    table_entries: usize,
    /// The limit that was last asked to give more than it has. Only a trap makes it the invocation's fault: a guest may
    /// well live with a `memory.grow` that failed.
    pub(crate) refused: Option<&'static str>,
}

impl Limiter {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, memory: 0, table_entries: 0, refused: None }
    }

    /// Bytes of linear memory. Memories never shrink, so that the present size is the peak.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.memory as u64
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.limit || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some("memory");
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_entries.saturating_add(desired.saturating_sub(current));
        if total > TABLE_ENTRIES || maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = Some("table");
            return Ok(false);
        }
        self.table_entries = total;
        Ok(true)
    }
}
