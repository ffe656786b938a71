//! Rows for the control plane, in the database of a node that is not running.

use std::path::Path;

use holm_store::{OpenOptions, Write};

/// Works on a node's database.
pub fn with_store(data: &Path, work: impl FnOnce(&holm_store::Store)) {
    let opened = OpenOptions::new(data).open().unwrap();
    let writer = opened.writer;
    let writer = std::thread::spawn(move || writer.run());
    work(&opened.store);
    opened.store.close();
    writer.join().unwrap();
}

/// Fills its outbox.
pub fn fill(data: &Path, rows: impl Iterator<Item = Write>) {
    with_store(data, |store| {
        let rows: Vec<Write> = rows.collect();
        for chunk in rows.chunks(1_000) {
            store.commit(chunk.to_vec()).unwrap();
        }
    });
}
