//! What a device gets that comes into a group with its enrolment: what runs there already.

use std::collections::BTreeMap;

use holm_protocol::{AGENT, DesiredFunction};
use rusqlite::{Connection, params};

use super::step::of_json;
use crate::CloudError;
use crate::error::sql;

/// The functions that the last rollouts to this group have left there, as most of its devices confirmed them. What is under way is none of
/// them: a newcomer gets that as the others do. Nor is the agent: it runs the one that it came with.
pub(in crate::records) fn runs_in(connection: &Connection, group: &str) -> Result<Vec<DesiredFunction>, CloudError> {
    let action = "look for what runs in a group";
    let statement = "SELECT r.function, (SELECT d.wanted FROM rollout_device d WHERE d.rollout = r.number AND d.state = 'confirmed' \
                     GROUP BY d.wanted ORDER BY count(*) DESC, d.wanted LIMIT 1) FROM rollout r WHERE r.\"group\" = ?1 \
                     AND r.state = 'completed' AND r.function IS NOT ?2 AND EXISTS \
                     (SELECT * FROM rollout_device d WHERE d.rollout = r.number AND d.state = 'confirmed') ORDER BY r.number";
    let mut statement = connection.prepare_cached(statement).map_err(sql(action))?;
    let rows = statement.query_map(params![group, AGENT], |row| Ok((row.get(0)?, row.get(1)?))).map_err(sql(action))?;
    // The last one of each counts. One that took it away has left nothing.
    let last: BTreeMap<String, Option<String>> = rows.collect::<Result<_, _>>().map_err(sql(action))?;
    let mut functions = Vec::new();
    for wanted in last.into_values() {
        // It has nothing yet that an older release would need a permit for.
        functions.extend(of_json(wanted.as_deref())?.map(|function| DesiredFunction { permit: None, ..function }));
    }
    Ok(functions)
}
