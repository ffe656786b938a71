//! `holmd look`: answers what a database holds, without being its node: no function runs, nobody is connected to, and no
//! row is let go for its age.
//!
//! `holm buffer open` starts it on a copy, because the SQL is here and not there. The store is opened as a node would open
//! it: what lost power is recovered, a damaged file is set aside and salvaged, an older format brought up to date.

use std::path::Path;

use anyhow::Context as _;
use holm_store::{OpenOptions, Opened};

use crate::{admin, node};

/// Serves on a socket in the folder `at`, and says on stdout that it does, until stdin ends.
pub async fn run(data: &Path, at: &Path) -> anyhow::Result<()> {
    let end = node::tether()?;
    // Of a copy, the disk is the only limit.
    let options = OpenOptions { max_pages: None, ..OpenOptions::new(data) };
    // Nobody gives the writer a thread: nothing is written.
    let Opened { store, writer: _writer, recovery, lock: _lock } =
        options.open().with_context(|| format!("cannot open the database in {}", data.display()))?;
    let listener = admin::bind(at).with_context(|| format!("cannot make a socket in {}", at.display()))?;
    let recovery = recovery.map(|recovery| {
        serde_json::json!({
            "reason": recovery.reason, "rows_saved": recovery.rows_saved, "incomplete": recovery.incomplete,
            "quarantined": recovery.quarantined,
        })
    });
    let line = serde_json::json!({ "event": "ready", "recovery": recovery });
    // Whoever started us may have closed the pipe.
    let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{line}\n"));
    admin::serve_store(listener, store, async move { drop(end.await) }).await;
    Ok(())
}
