//! Secrets of devices: names, and what was sealed elsewhere. No value can be read here, because none is known.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use holm_core::Label;
use holm_protocol::{DeploymentPolicy, GroupName, ThingName, limits};
use holm_trust::SealingKey;
use serde_json::{Value, json};

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::{SealedFor, SecretChange, SecretScope, SecretTold};

/// A function with another secret is watched for so long, in seconds, unless something else is said.
const HEALTH_WINDOW: (i64, i64, i64) = (0, 60, 86_400);

/// How long everything before that may take, in seconds.
const DEADLINE: u32 = 3_600;

pub(super) async fn list(_: Operator, State(plane): State<Arc<Plane>>) -> Result<Response, Problem> {
    let secrets = plane.records.secrets().await?;
    Ok(Json(json!({ "secrets": secrets })).into_response())
}

/// `{"group": "...", "sealed": [{"thing": "...", "key": "...", "value": base64}], "health_window_s": seconds}`: the group if it is
/// a group's, so that who comes into it later is known to lack it.
pub(super) async fn set(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_json(&body)?;
    let name = label(&name, &mut fields);
    let group: Option<GroupName> = fields.parse("group");
    let (least, usual, most) = HEALTH_WINDOW;
    let window = fields.number("health_window_s", least, most).unwrap_or(usual);
    let mut sealed = Vec::new();
    match fields.value("sealed") {
        Some(Value::Array(values)) if !values.is_empty() => {
            for value in &values {
                match one(value) {
                    Ok(one) => sealed.push(one),
                    Err(problem) => fields.problem(format!("`sealed`: {problem}")),
                }
            }
        }
        _ => fields.problem("`sealed` says what was sealed to which device".to_owned()),
    }
    fields.finish()?;
    let scope = group.map(SecretScope::Group);
    let change = change(&plane, name, scope, sealed, window, operator)?;
    let told = plane.records.set_secret(change, plane.signing.clone()).await??;
    Ok(answer(&plane, told))
}

/// `?group=` or `?device=`; without either, everywhere.
pub(super) async fn remove(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let name = label(&name, &mut fields);
    let (group, device): (Option<GroupName>, Option<ThingName>) = (fields.parse("group"), fields.parse("device"));
    let scope = match (group, device) {
        (Some(_), Some(_)) => {
            fields.problem("give either `group` or `device`".to_owned());
            None
        }
        (Some(group), None) => Some(SecretScope::Group(group)),
        (None, device) => device.map(SecretScope::Device),
    };
    fields.finish()?;
    let change = change(&plane, name, scope, Vec::new(), HEALTH_WINDOW.1, operator)?;
    let told = plane.records.remove_secret(change, plane.signing.clone()).await??;
    Ok(answer(&plane, told))
}

fn change(
    plane: &Plane,
    name: Option<Label>,
    scope: Option<SecretScope>,
    sealed: Vec<SealedFor>,
    window: i64,
    operator: Operator,
) -> Result<SecretChange, Problem> {
    let name = name.ok_or_else(|| Problem::bad_request(Vec::new()))?;
    let health_window_s = u32::try_from(window).unwrap_or(u32::MAX);
    let policy = DeploymentPolicy { health_window_s, deadline_s: DEADLINE, window: None };
    Ok(SecretChange { name, scope, sealed, policy, operator: operator.name, now: (plane.clock)() })
}

fn label(name: &str, fields: &mut Fields) -> Option<Label> {
    let label = Label::new(name);
    if let Err(error) = &label {
        fields.problem(format!("the secret's name: {error}"));
    }
    label.ok()
}

fn one(value: &Value) -> Result<SealedFor, String> {
    let text = |name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.ok_or_else(|| format!("each needs `thing`, `key` and `value`, and `{name}` is missing"))
    };
    let (thing, key, sealed) = (text("thing")?, text("key")?, text("value")?);
    let thing = ThingName::new(thing).map_err(|error| error.to_string())?;
    let key = SealingKey::parse(key).map_err(|error| format!("{thing}: {error}"))?;
    if sealed.len() > limits::MAX_CONFIG_VALUE || STANDARD.decode(sealed).is_err() {
        return Err(format!("{thing}: the value is not base64 of at most {} bytes", limits::MAX_CONFIG_VALUE));
    }
    Ok(SealedFor { thing, key: key.to_string(), value: sealed.to_owned() })
}

fn answer(plane: &Plane, told: Vec<SecretTold>) -> Response {
    let mut devices = Vec::new();
    for SecretTold { thing, generation, next } in told {
        if let Some(next) = next {
            plane.uplink.notify_next(&thing, &next);
        }
        let connected = plane.bus.is_connected(thing.as_str());
        devices.push(json!({ "thing": thing, "generation": generation, "connected": connected }));
    }
    Json(json!({ "devices": devices })).into_response()
}
