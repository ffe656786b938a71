//! The format of the database, and how an older one becomes a newer one.
//!
//! `user_version` is `major * 1000 + minor`. A minor step only adds (tables, columns with defaults, indexes), so that
//! the previous release still opens the file; a higher major is refused untouched.

use rusqlite::{Connection, TransactionBehavior};

use crate::{StoreError, sql};

/// `HOLM` in ASCII.
pub(crate) const APPLICATION_ID: i64 = 0x484F_4C4D;
const MAJOR: i64 = 1;

/// Each step brings the database from the version before it to `version`.
const STEPS: &[(i64, &str)] = &[
    (1000, include_str!("schema/1000.sql")),
    (1001, include_str!("schema/1001.sql")),
    (1002, include_str!("schema/1002.sql")),
];

/// Refuses what is not ours or not known, without writing. [`StoreError::Row`] is damage.
pub(crate) fn inspect(connection: &Connection, path: &str) -> Result<(), StoreError> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let version = pragma("user_version").map_err(sql("read the format version"))?;
    let application = pragma("application_id").map_err(sql("read the application id"))?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(sql("read the schema"))?;
    let ours: i64 = connection
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('meta', 'inbox', 'state', 'outbox')",
            [],
            |row| row.get(0),
        )
        .map_err(sql("read the schema"))?;
    if tables > 0 && application != APPLICATION_ID && ours < 4 {
        return Err(StoreError::NotOurs { path: path.to_owned(), found: application });
    }
    if version / 1000 > MAJOR {
        return Err(StoreError::FromTheFuture { path: path.to_owned(), found: version, known: MAJOR * 1000 + 999 });
    }
    // Our tables under numbers that no release has written: the header is damaged, not the property of somebody else.
    if tables > 0 && (application != APPLICATION_ID || version < 1000) {
        return Err(StoreError::Row {
            table: "sqlite_schema",
            what: format!("application id {application:#x}, format {version}"),
        });
    }
    Ok(())
}

/// Brings the database up to date in one transaction. Returns the version it had.
pub(crate) fn migrate(connection: &mut Connection) -> Result<i64, StoreError> {
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql("begin the migration"))?;
    let found: i64 = transaction
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(sql("read the format version"))?;
    for (version, script) in STEPS.iter().filter(|(version, _)| *version > found) {
        transaction.execute_batch(script).map_err(sql("migrate the database"))?;
        transaction.pragma_update(None, "user_version", version).map_err(sql("write the format version"))?;
    }
    if found == 0 {
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sql("write the application id"))?;
        transaction
            .execute("INSERT INTO meta (key, value) VALUES ('epoch', lower(hex(randomblob(8))))", [])
            .map_err(sql("write the epoch"))?;
    }
    transaction.commit().map_err(sql("commit the migration"))?;
    Ok(found)
}
