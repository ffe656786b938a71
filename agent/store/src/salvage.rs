//! What to do about a damaged database: keep the evidence, save every row that can be read.
//!
//! The damaged file and its log are linked into `quarantine/` first. A new database is made beside the old one, from a
//! copy (`.rebuilt`), and when it is whole and on the disk it is called `.ready`. Until then, a node that is switched off
//! finds the damaged one again and begins anew; from then on it takes the new one, however far it had come with clearing
//! the old one away. Nothing is deleted that is not in the quarantine.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, params_from_iter, types::Value};

use crate::open::file;
use crate::{Recovery, StoreError, schema, sql};

/// A database that was rebuilt and is whole.
const READY: &str = ".ready";

/// Whether the file itself is broken, rather than the disk full, the folder read-only or the format unknown.
pub(crate) fn is_damage(error: &StoreError) -> bool {
    match error {
        StoreError::Row { .. } => true,
        StoreError::Sql { source, .. } if is_content(source) => true,
        StoreError::Sql {
            source:
                rusqlite::Error::SqliteFailure(_, Some(message)) | rusqlite::Error::SqlInputError { msg: message, .. },
            ..
        } => {
            // A schema page that was overwritten, or the wrong format number, shows as statements that do not fit.
            is_corrupt(error)
                || ["malformed", "no such", "already exists", "unsupported file format"]
                    .iter()
                    .any(|words| message.contains(words))
        }
        _ => is_corrupt(error),
    }
}

/// Whether SQLite stumbled over the file.
pub(crate) fn is_corrupt(error: &StoreError) -> bool {
    matches!(error, StoreError::Sql { source: rusqlite::Error::SqliteFailure(failure, _), .. }
        if matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether a value is not of the kind that its column holds.
pub(crate) fn is_content(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// Notes that the database was found to be damaged while it was in use: too large to be checked at every start, it is
/// salvaged at the next one.
pub(crate) fn mark(path: &Path, reason: &str) {
    if let Err(error) = fs::write(with_suffix(path, ".damaged"), reason) {
        tracing::error!(%error, "cannot note that the database is damaged");
    }
}

/// Finds the damage that SQLite would not, or would mend by throwing something away.
pub(crate) fn inspect_files(path: &Path) -> Result<(), StoreError> {
    let damage = |what: String| Err(StoreError::Row { table: "sqlite_schema", what });
    if let Ok(reason) = fs::read_to_string(with_suffix(path, ".damaged")) {
        return damage(reason);
    }
    let size = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
    if size(path) == 0 {
        // SQLite deletes a log that has no database.
        return if size(&with_suffix(path, "-wal")) > 0 { damage("a log without its database".into()) } else { Ok(()) };
    }
    let mut header = [0; 20];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match header {
        // The versions for writing and reading: an unknown one would make the file read-only for ever.
        [.., write, read] if write > 2 || read > 2 => damage(format!("file versions {write} and {read}")),
        _ => match read {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => damage("shorter than a header".into()),
            Err(source) => Err(file("read", path, source)),
            Ok(()) => Ok(()),
        },
    }
}

/// Sets the damaged file aside and puts a new one in its place, with every row that can be read.
pub(crate) fn salvage(path: &Path, error: &StoreError) -> Result<Recovery, StoreError> {
    let reason = describe(error);
    let quarantined = set_aside(path)?;
    let rebuilt = with_suffix(path, ".rebuilt");
    remove(&rebuilt, &["", "-journal"])?;
    let (rows_saved, incomplete) = rebuild(&quarantined, &rebuilt)?;
    // SQLite has synced the file already, but only as far as it knew that it mattered.
    File::open(&rebuilt).and_then(|rebuilt| rebuilt.sync_all()).map_err(|source| file("sync", &rebuilt, source))?;
    let ready = with_suffix(path, READY);
    fs::rename(&rebuilt, &ready).map_err(|source| file("rename", &rebuilt, source))?;
    // Before anything of the old one goes: without its log it would be salvaged as it was long ago.
    sync_folder(path)?;
    take(path)?;
    Ok(Recovery { quarantined, reason, rows_saved, incomplete })
}

/// Finishes a salvage that was cut off when the new database was ready. `false`: there is none.
pub(crate) fn finish(path: &Path) -> Result<bool, StoreError> {
    if !with_suffix(path, READY).exists() {
        return Ok(false);
    }
    take(path)?;
    Ok(true)
}

/// Puts the database that is ready in the place of the damaged one.
fn take(path: &Path) -> Result<(), StoreError> {
    // The old log first, and for good: under the new file it would be taken for its own.
    remove(path, &["-wal", "-shm", "-journal", ".damaged"])?;
    sync_folder(path)?;
    let ready = with_suffix(path, READY);
    fs::rename(&ready, path).map_err(|source| file("rename", &ready, source))?;
    sync_folder(path)
}

/// Links the file and its log into the quarantine, or copies them where there are no links.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let folder = path.with_file_name("quarantine");
    fs::create_dir_all(&folder).map_err(|source| file("create", &folder, source))?;
    let mut number = 1;
    let quarantined = loop {
        let candidate = folder.join(format!("holm-{number}.db"));
        if !candidate.exists() && !with_suffix(&candidate, "-wal").exists() {
            break candidate;
        }
        number += 1;
    };
    for suffix in ["", "-wal"] {
        let (from, to) = (with_suffix(path, suffix), with_suffix(&quarantined, suffix));
        if from.exists() && fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to)
                .and_then(|_| File::open(&to)?.sync_all())
                .map_err(|source| file("copy", &from, source))?;
        }
    }
    sync_folder(&quarantined)?;
    Ok(quarantined)
}

/// Makes the new database out of what can be read. An error means that the new one could not be written.
fn rebuild(from: &Path, to: &Path) -> Result<(u64, Vec<String>), StoreError> {
    let mut connection = Connection::open(to).map_err(sql("make the new database"))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(sql("make the new database"))?;
    schema::migrate(&mut connection)?;
    // SQLite writes into a database it opens (recovery of the log): work on a copy, keep the evidence.
    // Always of the same name, so that one that was cut off makes room for the next.
    let copy = from.with_file_name("copy.db");
    let suffixes = ["", "-wal", "-shm", "-journal"];
    remove(&copy, &suffixes)?;
    for suffix in ["", "-wal"] {
        let source = with_suffix(from, suffix);
        if source.exists() {
            fs::copy(&source, with_suffix(&copy, suffix)).map_err(|error| file("copy", &source, error))?;
        }
    }
    let result = copy_tables(&copy, &mut connection);
    remove(&copy, &suffixes)?;
    let saved = result?;
    connection.close().map_err(|(_, error)| error).map_err(sql("close the new database"))?;
    Ok(saved)
}

/// Copies row by row, because a damaged page ends a scan; then once more from the other end. Answers with the rows and
/// the tables that are not whole.
fn copy_tables(copy: &Path, to: &mut Connection) -> Result<(u64, Vec<String>), StoreError> {
    let list = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('meta', 'sqlite_sequence')";
    // The new database gets an epoch of its own, so `meta` stays behind.
    let tables: Vec<String> = to
        .prepare(list)
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(sql("list the tables"))?;
    let Ok(source) = Connection::open(copy) else { return Ok((0, tables)) };
    let present: Vec<String> = source
        .prepare(list)
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .unwrap_or_default();
    let transaction = to.transaction().map_err(sql("begin the salvage"))?;
    let (mut saved, mut incomplete) = (0, Vec::new());
    for table in tables {
        // A table that an older release did not have yet.
        if !present.is_empty() && !present.contains(&table) {
            continue;
        }
        let (rows, whole) = copy_table(&source, &transaction, &table)?;
        saved += rows;
        if !whole {
            incomplete.push(table);
        }
    }
    mend_streams(&transaction)?;
    transaction.commit().map_err(sql("commit the salvage"))?;
    Ok((saved, incomplete))
}

fn copy_table(source: &Connection, to: &Connection, table: &str) -> Result<(u64, bool), StoreError> {
    let columns: Vec<(String, String)> = to
        .prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')"))
        .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(sql("list the columns"))?;
    let (names, types): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let list = names.join(", ");
    let marks = vec!["?"; names.len()].join(", ");
    let insert = format!("INSERT OR IGNORE INTO {table} ({list}) VALUES ({marks})");
    let mut saved = 0;
    for direction in ["ASC", "DESC"] {
        let Ok(mut statement) = source.prepare(&format!("SELECT {list} FROM {table} ORDER BY 1 {direction}")) else {
            return Ok((0, false));
        };
        let Ok(mut rows) = statement.query([]) else { return Ok((0, false)) };
        let mut left_behind = false;
        let end = loop {
            match rows.next() {
                Ok(Some(row)) => match keep(row, &types, to, &insert)? {
                    Some(count) => saved += count,
                    None => left_behind = true,
                },
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        if end {
            return Ok((saved, !left_behind));
        }
    }
    Ok((saved, false))
}

/// Writes one row into the new database. `None`: it does not fit (a text that is none, a NULL where none may be), and
/// would be damage there as well.
fn keep(row: &rusqlite::Row<'_>, types: &[String], to: &Connection, insert: &str) -> Result<Option<u64>, StoreError> {
    let values: Result<Vec<Value>, _> = (0..types.len()).map(|i| row.get(i)).collect();
    let Ok(values) = values else { return Ok(None) };
    let fits = |(value, kind): (&Value, &String)| match value {
        Value::Null => true,
        Value::Integer(_) => kind == "INTEGER",
        Value::Text(_) => kind == "TEXT",
        Value::Blob(_) => kind == "BLOB",
        Value::Real(_) => false,
    };
    if !values.iter().zip(types).all(fits) {
        return Ok(None);
    }
    let inserted = to.prepare_cached(insert).and_then(|mut statement| statement.execute(params_from_iter(values)));
    match inserted {
        Ok(count) => Ok(Some(count as u64)),
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(failure.code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig) =>
        {
            Ok(None)
        }
        Err(error) => Err(sql("write a saved row")(error)),
    }
}

/// Streams go on after the highest number that is known to have been used, and what is missing between becomes gaps.
fn mend_streams(connection: &Connection) -> Result<(), StoreError> {
    let now = crate::now();
    connection
        .execute(
            "INSERT INTO stream (name, sequence)
             SELECT stream, max(last) FROM (
                 SELECT stream, sequence AS last FROM outbox UNION ALL SELECT stream, last FROM gap)
             WHERE true GROUP BY stream
             ON CONFLICT DO UPDATE SET sequence = max(sequence, excluded.sequence)",
            [],
        )
        .map_err(sql("mend the streams"))?;
    connection
        .execute(
            "INSERT INTO gap (lane, stream, first, last, reason, at)
             SELECT lane, stream, before + 1, first - 1, 'damage', ?1 FROM (
                 SELECT lane, stream, first, lag(last) OVER (PARTITION BY stream ORDER BY first) AS before FROM (
                     SELECT lane, stream, sequence AS first, sequence AS last FROM outbox
                     UNION ALL SELECT lane, stream, first, last FROM gap
                     UNION ALL SELECT coalesce((SELECT lane FROM outbox WHERE stream = name LIMIT 1), 1), name,
                         sequence + 1, sequence + 1 FROM stream))
             WHERE before IS NOT NULL AND first > before + 1",
            [now],
        )
        .map_err(sql("record what is missing"))?;
    // The new database has an epoch of its own, in which the cloud counts from 1.
    crate::cloud::number_begins(connection, now)
}

fn remove(path: &Path, suffixes: &[&str]) -> Result<(), StoreError> {
    for suffix in suffixes {
        let path = with_suffix(path, suffix);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(file("remove", &path, source)),
            _ => {}
        }
    }
    Ok(())
}

/// Makes the names in the file's folder durable.
fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| file("sync", folder, source))
}

fn describe(error: &StoreError) -> String {
    match error {
        StoreError::Sql { action, source } => format!("cannot {action}: {source}"),
        other => other.to_string(),
    }
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
