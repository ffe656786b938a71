//! What this disk and SQLite take at the least: bare inserts into a table (id, topic, payload), in a process of its own
//! so that the system counts what it writes.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// What was measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reference {
    /// The middle and the 99th percentile of a commit, in microseconds.
    pub commit_p50: f64,
    /// The same at 99 %.
    pub commit_p99: f64,
    /// Bytes written to the disk per row.
    pub bytes: f64,
    /// Rows a second.
    pub rate: f64,
}

/// Runs it in a process of its own.
pub fn measure(folder: &Path, rows: u64, batch: u64) -> anyhow::Result<Reference> {
    let output = Command::new(std::env::current_exe()?)
        .args(["reference", "--rows", &rows.to_string(), "--batch", &batch.to_string(), "--folder"])
        .arg(folder)
        .output()?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the reference table failed: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The process.
pub fn run(folder: &Path, rows: u64, batch: u64) -> anyhow::Result<()> {
    let path = folder.join(format!("reference-{}.db", std::process::id()));
    let mut connection = Connection::open(&path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection
        .execute("CREATE TABLE reference (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)", [])?;
    let pid = std::process::id();
    let (before, start) = (crate::process::written(pid)?, Instant::now());
    let mut times = Vec::new();
    let mut row = 0;
    while row < rows {
        let at = Instant::now();
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO reference VALUES (?1, ?2, ?3)")?;
            for _ in 0..batch {
                row += 1;
                let topic = format!("out/s{}/fahrenheit", row % 10);
                let payload = format!("{{\"seq\":{row},\"f\":74.3}}");
                insert.execute(params![row as i64, topic, payload.as_bytes()])?;
            }
        }
        transaction.commit()?;
        times.push(at.elapsed().as_nanos() as f64 / 1e3);
    }
    let elapsed = start.elapsed().as_secs_f64();
    let written = crate::process::written(pid)? - before;
    times.sort_by(f64::total_cmp);
    let quantile = |q: f64| times.get((times.len() as f64 * q) as usize).copied().unwrap_or(f64::NAN);
    let answer = Reference {
        commit_p50: quantile(0.5),
        commit_p99: quantile(0.99),
        bytes: written as f64 / row as f64,
        rate: row as f64 / elapsed,
    };
    drop(connection);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
    println!("{}", serde_json::to_string(&answer)?);
    Ok(())
}
