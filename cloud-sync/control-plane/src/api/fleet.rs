//! The fleet as a file says it, all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use holm_core::{FunctionName, Timestamp};
use holm_protocol::{GroupName, ThingName};
use serde_json::{Value, json};

use super::Operator;
use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::rollouts::{plan, why, wish};
use crate::plane::Plane;
use crate::records::{Applied, Begin, Fleet, Target, Wish};

/// Bytes of a request: a hundred thousand devices with long names.
const MAX_FLEET: usize = 8 << 20;

/// Deployments of one request.
const MAX_DEPLOYMENTS: usize = 1_000;

/// `{"groups": {name: [device, ...]}, "deployments": [{"function", "version", "group", ...}], "why"}`: a deployment is as a rollout of
/// a version to a group begins. With `"preview": true` it only tells what would be.
pub(super) async fn apply(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Body(body): Body<MAX_FLEET>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let groups = groups(&mut fields);
    let why = why(&mut fields);
    let preview = fields.flag("preview");
    let now = (plane.clock)();
    let deployments = deployments(&mut fields, &operator.name, why.as_deref(), now);
    fields.finish()?;
    let fleet = Fleet { groups, deployments, operator: operator.name, preview, now };
    let Applied { groups, deployments, underway } = plane.records.apply_fleet(fleet, plane.blobs.clone()).await??;
    if !preview {
        // What runs to a group that has a new member goes there too.
        plane.rollouts.wake();
    }
    let mut shown = Vec::new();
    for deployed in deployments {
        let rollout = match deployed.id {
            Some(id) => {
                tracing::info!(%id, "a rollout begins");
                plane.records.rollout(id).await?
            }
            None => None,
        };
        shown.push(json!({
            "function": deployed.function.to_string(),
            "group": deployed.group.to_string(),
            "preview": deployed.preview,
            "rollout": rollout,
        }));
    }
    Ok(Json(json!({ "groups": groups, "deployments": shown, "underway": underway })).into_response())
}

fn groups(fields: &mut Fields) -> BTreeMap<GroupName, BTreeSet<ThingName>> {
    let mut groups = BTreeMap::new();
    let named = match fields.value("groups") {
        None => return groups,
        Some(Value::Object(named)) => named,
        Some(_) => {
            fields.problem("`groups`: not an object of lists".to_owned());
            return groups;
        }
    };
    for (name, value) in named {
        let Ok(group) = GroupName::new(&name).map_err(|error| fields.problem(format!("`groups`: {error}"))) else {
            continue;
        };
        let mut things = BTreeSet::new();
        let Ok(names) = serde_json::from_value::<Vec<String>>(value) else {
            fields.problem(format!("`groups`: {group}: not a list of texts"));
            continue;
        };
        for text in names {
            match ThingName::new(&text) {
                Ok(thing) => drop(things.insert(thing)),
                Err(error) => fields.problem(format!("`groups`: {group}: {error}")),
            }
        }
        groups.insert(group, things);
    }
    groups
}

fn deployments(fields: &mut Fields, operator: &str, why: Option<&str>, now: Timestamp) -> Vec<(GroupName, Begin)> {
    let values = match fields.value("deployments") {
        None => return Vec::new(),
        Some(Value::Array(values)) if values.len() <= MAX_DEPLOYMENTS => values,
        Some(_) => {
            fields.problem(format!("`deployments`: not a list of at most {MAX_DEPLOYMENTS}"));
            return Vec::new();
        }
    };
    let mut deployments = Vec::new();
    for (place, value) in values.into_iter().enumerate() {
        let mut inner = match Fields::of_value(value) {
            Ok(inner) => inner,
            Err(problem) => {
                fields.problem(format!("`deployments[{place}]`: {problem}"));
                continue;
            }
        };
        let function: Option<FunctionName> = inner.parse("function");
        let group: Option<GroupName> = inner.parse("group");
        if function.is_none() || group.is_none() {
            inner.problem("`function` and `group` say what is deployed where".to_owned());
        }
        let wish = wish(&mut inner);
        if wish.as_ref().is_some_and(|wish| !matches!(wish, Wish::Release { .. })) {
            inner.problem("a file says which `version` runs".to_owned());
        }
        let plan = plan(&mut inner);
        for problem in inner.into_problems() {
            fields.problem(format!("`deployments[{place}]`: {problem}"));
        }
        if let (Some(function), Some(group), Some(wish)) = (function, group, wish) {
            let (target, why) = (Target::Group(group.clone()), why.map(str::to_owned));
            let operator = operator.to_owned();
            deployments.push((group, Begin { function, wish, plan, target, why, operator, preview: false, now }));
        }
    }
    deployments
}
