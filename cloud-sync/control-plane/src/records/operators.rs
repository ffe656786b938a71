//! Who may come in: operators, what they may do, and the sessions of their browsers.

use holm_core::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::tokens::audit;
use super::{Records, Refused};
use crate::CloudError;
use crate::error::sql;
use crate::secret::Hash;

/// Sessions that are kept; the oldest one makes room. Only who has a token can open one.
const MAX_SESSIONS: i64 = 1_000;

/// Operators that are kept.
const MAX_OPERATORS: i64 = 1_000;

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Look.
    Viewer,
    /// Look and change.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Viewer, Self::Admin];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
        }
    }

    /// What cannot be read may look, and no more.
    fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|role| role.as_str() == text).unwrap_or(Self::Viewer)
    }
}

/// Somebody whom a token or a session has let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operator {
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// An operator as it is listed: without the token, which nobody knows any more.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct OperatorInfo {
    /// The first digits of the token's hash.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) made: Timestamp,
}

impl Records {
    /// Whether there is an operator.
    pub(crate) async fn has_operators(&self) -> Result<bool, CloudError> {
        self.read(|connection| {
            connection
                .query_row("SELECT EXISTS (SELECT * FROM operator)", [], |row| row.get(0))
                .map_err(sql("read the operators"))
        })
        .await
    }

    /// Lets an operator in. `by` is empty for the control plane itself.
    pub(crate) async fn add_operator(
        &self,
        hash: Hash,
        operator: Operator,
        by: String,
        now: Timestamp,
    ) -> Result<Result<(), Refused>, CloudError> {
        self.write(move |connection| {
            let action = "add an operator";
            let count: i64 =
                connection.query_row("SELECT count(*) FROM operator", [], |row| row.get(0)).map_err(sql(action))?;
            if count >= MAX_OPERATORS {
                let sentence = format!("there are {count} operators' tokens: end some of them first");
                return Ok(Err(Refused::Conflict(sentence)));
            }
            let Operator { name, role } = operator;
            let statement = "INSERT INTO operator (hash, name, made, role) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(statement, params![hash.0, name, now.0, role.as_str()]).map_err(sql(action))?;
            audit(connection, now, &by, &format!("make a token for a {}", role.as_str()), &name)?;
            Ok(Ok(()))
        })
        .await
    }

    /// Whose token this is the hash of.
    pub(crate) async fn operator(&self, hash: Hash) -> Result<Option<Operator>, CloudError> {
        self.read(move |connection| find(connection, hash)).await
    }

    /// All of them, the latest first.
    pub(crate) async fn operators(&self) -> Result<Vec<OperatorInfo>, CloudError> {
        self.read(|connection| {
            let action = "read the operators";
            let statement = "SELECT hash, name, role, made FROM operator ORDER BY made DESC";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let rows = statement.query_map([], |row| {
                let role: String = row.get(2)?;
                Ok(OperatorInfo {
                    id: Hash(row.get(0)?).id(),
                    name: row.get(1)?,
                    role: Role::parse(&role),
                    made: Timestamp(row.get(3)?),
                })
            });
            rows.map_err(sql(action))?.collect::<Result<_, _>>().map_err(sql(action))
        })
        .await
    }

    /// Ends an operator's token, named by its id, and the sessions that were opened with it.
    pub(crate) async fn end_operator(
        &self,
        id: String,
        by: String,
        now: Timestamp,
    ) -> Result<Result<String, Refused>, CloudError> {
        self.write(move |connection| {
            let action = "end an operator";
            let statement = "SELECT hash, name, role FROM operator";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            let all: Vec<(Hash, String, String)> = statement
                .query_map([], |row| Ok((Hash(row.get(0)?), row.get(1)?, row.get(2)?)))
                .map_err(sql(action))?
                .collect::<Result<_, _>>()
                .map_err(sql(action))?;
            let Some((hash, name, role)) = all.iter().find(|(hash, ..)| hash.id() == id) else {
                return Ok(Err(Refused::NoSuchOperator));
            };
            let admin = Role::Admin.as_str();
            if role == admin && all.iter().filter(|(_, _, role)| role == admin).count() == 1 {
                let sentence = format!("{name} is the last admin: make another admin's token first");
                return Ok(Err(Refused::Conflict(sentence)));
            }
            connection.execute("DELETE FROM session WHERE operator = ?1", [hash.0]).map_err(sql(action))?;
            connection.execute("DELETE FROM operator WHERE hash = ?1", [hash.0]).map_err(sql(action))?;
            audit(connection, now, &by, "end a token", name)?;
            Ok(Ok(name.clone()))
        })
        .await
    }

    /// Opens a session for whoever has this token; `None` if nobody has. Those that are over are swept out.
    pub(crate) async fn open_session(
        &self,
        token: Hash,
        session: Hash,
        now: Timestamp,
        ends: Timestamp,
    ) -> Result<Option<Operator>, CloudError> {
        self.write(move |connection| {
            let action = "open a session";
            let Some(operator) = find(connection, token)? else { return Ok(None) };
            connection.execute("DELETE FROM session WHERE ends <= ?1", [now.0]).map_err(sql(action))?;
            let statement = "DELETE FROM session WHERE hash IN \
                             (SELECT hash FROM session ORDER BY made DESC LIMIT -1 OFFSET ?1)";
            connection.execute(statement, [MAX_SESSIONS - 1]).map_err(sql(action))?;
            let statement = "INSERT INTO session (hash, operator, made, ends) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(statement, params![session.0, token.0, now.0, ends.0]).map_err(sql(action))?;
            audit(connection, now, &operator.name, "sign in", operator.role.as_str())?;
            Ok(Some(operator))
        })
        .await
    }

    /// Whose session this is, if it is not over.
    pub(crate) async fn session(&self, session: Hash, now: Timestamp) -> Result<Option<Operator>, CloudError> {
        self.read(move |connection| {
            let action = "read a session";
            let statement = "SELECT o.name, o.role FROM session s JOIN operator o ON o.hash = s.operator \
                             WHERE s.hash = ?1 AND s.ends > ?2";
            let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
            statement.query_row(params![session.0, now.0], of_row).optional().map_err(sql(action))
        })
        .await
    }

    /// Ends a session.
    pub(crate) async fn close_session(
        &self,
        session: Hash,
        operator: String,
        now: Timestamp,
    ) -> Result<(), CloudError> {
        self.write(move |connection| {
            let ended =
                connection.execute("DELETE FROM session WHERE hash = ?1", [session.0]).map_err(sql("end a session"))?;
            if ended > 0 { audit(connection, now, &operator, "sign out", "") } else { Ok(()) }
        })
        .await
    }
}

fn find(connection: &Connection, token: Hash) -> Result<Option<Operator>, CloudError> {
    let action = "read the operators";
    let mut statement =
        connection.prepare_cached("SELECT name, role FROM operator WHERE hash = ?1").map_err(sql(action))?;
    statement.query_row([token.0], of_row).optional().map_err(sql(action))
}

fn of_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Operator> {
    Ok(Operator { name: row.get(0)?, role: Role::parse(&row.get::<_, String>(1)?) })
}

#[cfg(test)]
#[path = "operators_tests.rs"]
mod tests;
