//! The fleet.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use holm_protocol::{DesiredState, Envelope, GroupName, JobId, ThingName};
use serde_json::{Value, json};

use super::body::Body;
use super::fields::Fields;
use super::problem::Problem;
use super::{MAX_BODY, Operator};
use crate::plane::Plane;
use crate::records::{Device, DeviceStatus, PutJob, Refused};

/// Devices in one answer.
const MAX_PAGE: i64 = 1_000;

/// `?group=&status=&after=&limit=`, by name.
pub(super) async fn list(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let mut fields = Fields::of_query(query.as_deref());
    let group: Option<GroupName> = fields.parse("group");
    let statuses = [DeviceStatus::Active, DeviceStatus::Replaced, DeviceStatus::Revoked];
    let status = fields.word("status", &statuses.map(|status| (status.as_str(), status)));
    let after: Option<ThingName> = fields.parse("after");
    let limit = usize::try_from(fields.number("limit", 1, MAX_PAGE).unwrap_or(MAX_PAGE)).unwrap_or(1);
    fields.finish()?;
    let (group, after) = (group.map(|name| name.to_string()), after.map(|name| name.to_string()));
    let devices = plane.records.devices(group, status, after, limit).await?;
    let next = devices.last().filter(|_| devices.len() >= limit).map(|device| device.thing.clone());
    let devices: Vec<Value> = devices.into_iter().map(|device| shown(&plane, device)).collect();
    Ok(Json(json!({ "devices": devices, "next": next })).into_response())
}

pub(super) async fn show(
    _: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let device = plane.records.device(thing.clone()).await?.ok_or(Refused::NoSuchDevice)?;
    let desired = plane.records.desired(thing).await?;
    let mut shown = shown(&plane, device);
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("desired".to_owned(), json!(desired));
    }
    Ok(Json(shown).into_response())
}

/// Ends a device: its certificates are worth nothing any more, and its connection ends.
pub(super) async fn revoke(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let was_connected = end(&plane, thing.clone(), operator.name).await?;
    Ok(Json(json!({ "thing": thing, "status": DeviceStatus::Revoked, "was_connected": was_connected })).into_response())
}

/// Whether it was connected.
pub(crate) async fn end(plane: &Plane, thing: ThingName, operator: String) -> Result<bool, Problem> {
    let ended = plane.records.revoke(thing.clone(), operator, (plane.clock)()).await??;
    // In this order: who is kicked finds the door closed.
    plane.live.remove(&ended);
    let was_connected = plane.bus.kick(&thing);
    tracing::info!(%thing, was_connected, "a device is revoked");
    Ok(was_connected)
}

/// `{"add": ["..."], "remove": ["..."]}`, both optional. What is so already stays so.
pub(super) async fn groups(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let mut fields = Fields::of_json(&body)?;
    let mut names = |name| {
        let mut groups = Vec::new();
        for text in fields.texts(name).unwrap_or_default() {
            match GroupName::new(&text) {
                Ok(group) => groups.push(group),
                Err(error) => fields.problem(format!("`{name}`: {error}")),
            }
        }
        groups
    };
    let (add, remove) = (names("add"), names("remove"));
    fields.finish()?;
    let groups = plane.records.change_groups(thing.clone(), add, remove, operator.name, (plane.clock)()).await??;
    // A rollout of a group may have a new member.
    plane.rollouts.wake();
    Ok(Json(json!({ "thing": thing, "groups": groups })).into_response())
}

/// The body is the envelope around a desired state for this device. Its signature is the device's to check; that it is for
/// this device, and readable, is checked here, where somebody can do something about it.
pub(super) async fn put_job(
    operator: Operator,
    State(plane): State<Arc<Plane>>,
    Path(thing): Path<String>,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let thing = ThingName::new(&thing)?;
    let document =
        std::str::from_utf8(&body).map_err(|_| Problem::bad_request(vec!["the body is not text".to_owned()]))?;
    let envelope = Envelope::read(document)?;
    let state = DesiredState::read(&envelope)?;
    if state.device != thing {
        let problem = format!("it is for {}, not for {thing}", state.device);
        return Err(Problem::bad_request(vec![problem]));
    }
    let generation = state.generation;
    let id = JobId::new(&format!("generation-{generation}"))?;
    let put = PutJob {
        thing: thing.clone(),
        generation,
        id: id.clone(),
        document: envelope.write()?,
        operator: operator.name,
        now: (plane.clock)(),
    };
    if let Some(next) = plane.records.put_job(put).await?? {
        plane.uplink.notify_next(&thing, &next);
    }
    Ok(Json(json!({ "thing": thing, "job": id, "generation": generation })).into_response())
}

fn shown(plane: &Plane, device: Device) -> Value {
    let connected = device.status == DeviceStatus::Active && plane.bus.is_connected(&device.thing);
    json!({
        "connected": connected,
        "held_up": plane.bus.held(&device.thing),
        "thing": device.thing,
        "status": device.status,
        "groups": device.groups,
        "enrolled": device.enrolled,
        "seen": device.seen,
        "agent": device.agent,
        "certificate": { "issued": device.certificate_issued, "expires": device.certificate_expires },
        "reported": device.reported,
        "reported_at": device.reported_at,
        "reported_version": device.reported_version,
        "job": device.job.map(|(generation, id, status)| json!({ "generation": generation, "id": id, "status": status })),
    })
}
