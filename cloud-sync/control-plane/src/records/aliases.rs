//! Aliases of versions: `stable`, `canary`, and whatever else people call them. They are looked up when something is deployed, and change
//! nothing that was: a rollout goes on with the version that it began with.

use holm_core::{FunctionName, Label, Timestamp};
use holm_trust::tuf::Repository;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::tokens::audit;
use super::{Records, Refused, desired, repository};
use crate::CloudError;
use crate::error::{sql, trust};

/// A name for a version of a function.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Alias {
    function: String,
    name: String,
    version: String,
    made: Timestamp,
}

impl Records {
    /// All of them, by function and name.
    pub(crate) async fn aliases(&self) -> Result<Vec<Alias>, CloudError> {
        self.read(|connection| {
            let action = "list aliases";
            let statement = "SELECT function, name, version, made FROM alias ORDER BY function, name";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| {
                let made = Timestamp(row.get(3)?);
                Ok(Alias { function: row.get(0)?, name: row.get(1)?, version: row.get(2)?, made })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Names a version that is published, or, without one, forgets the name.
    pub(crate) async fn set_alias(
        &self,
        function: FunctionName,
        name: Label,
        version: Option<String>,
        operator: String,
        now: Timestamp,
    ) -> Result<Result<(), Refused>, CloudError> {
        self.write(move |connection| set(connection, &function, &name, version.as_deref(), &operator, now)).await
    }
}

fn set(
    connection: &Connection,
    function: &FunctionName,
    name: &Label,
    version: Option<&str>,
    operator: &str,
    now: Timestamp,
) -> Result<Result<(), Refused>, CloudError> {
    let action = "name a version";
    let (function_name, alias) = (function.as_str(), name.as_str());
    let Some(version) = version else {
        let statement = "DELETE FROM alias WHERE function = ?1 AND name = ?2";
        let gone = connection.execute(statement, params![function_name, alias]).map_err(sql(action))?;
        if gone == 0 {
            return Ok(Err(Refused::Conflict(format!("{function} has no alias `{name}`"))));
        }
        audit(connection, now, operator, "forget an alias", &format!("{function}@{name}"))?;
        return Ok(Ok(()));
    };
    let held = repository::load(connection)?.filter(|held| held.kept.targets.is_some());
    let opened = held.map(|held| Repository::open(&held.kept).map_err(trust("read the targets"))).transpose()?;
    let Some(repository) = opened else {
        return Ok(Err(Refused::Conflict("nothing was published here yet".to_owned())));
    };
    if desired::release(&repository, function, version).is_none() {
        return Ok(Err(Refused::Conflict(desired::not_published(&repository, function, version))));
    }
    let statement = "INSERT INTO alias (function, name, version, made) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT DO UPDATE SET version = ?3, made = ?4";
    connection.execute(statement, params![function_name, alias, version, now.0]).map_err(sql(action))?;
    audit(connection, now, operator, "name a version", &format!("{function}@{name} = {version}"))?;
    Ok(Ok(()))
}

/// A version as it was given: itself, or what the alias stands for. No version is a label, because those have no dots.
pub(super) fn resolve(
    connection: &Connection,
    function: &FunctionName,
    version: String,
) -> Result<Result<String, Refused>, CloudError> {
    if Label::new(&version).is_err() {
        return Ok(Ok(version));
    }
    let action = "look up an alias";
    let statement = "SELECT version FROM alias WHERE function = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let found: Option<String> =
        statement.query_row(params![function.as_str(), version], |row| row.get(0)).optional().map_err(sql(action))?;
    let sentence = || format!("{function} has no alias `{version}`: see `holm alias list`");
    Ok(found.ok_or_else(|| Refused::Conflict(sentence())))
}
