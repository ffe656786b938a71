//! How devices get their certificates.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use holm_protocol::{
    ApiErrorCode, EnrolRequest, Enrolled, GroupName, MqttAddress, RenewRequest, ThingName, TrustAnchor, TufAddress,
};

use super::MAX_BODY;
use super::body::Body;
use super::problem::Problem;
use crate::CloudError;
use crate::authority::{DeviceKey, check_renewal};
use crate::plane::Plane;
use crate::records::{Admitted, Enrolment, Refused};
use crate::secret::{Hash, random};

/// So long after its end, in milliseconds, a certificate is still good for a new one.
const GRACE: i64 = 90 * 86_400_000;

pub(super) async fn ca(State(plane): State<Arc<Plane>>) -> Response {
    Json(TrustAnchor { root_pem: plane.authority.root_pem().to_owned() }).into_response()
}

pub(super) async fn enrol(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let request = EnrolRequest::read(&body)?;
    let token = Hash::of(&request.token);
    // Before anything that costs: strangers get no further.
    let Some(used_by) = plane.records.token_user(token).await? else { return Err(Refused::TokenUnknown.into()) };
    let key = DeviceKey::of_request(&request.csr_pem)?;
    let thing = match request.thing.or(used_by) {
        Some(thing) => thing,
        None => made_up()?,
    };
    let now = (plane.clock)();
    let issued = plane.authority.issue_device(&thing, &key, now)?;
    let (chain_pem, fingerprint) = (issued.chain_pem, issued.kept.fingerprint);
    let enrolment = Enrolment { token, thing, agent: request.agent, certificate: issued.kept, now };
    let Admitted { thing, groups, ended } = plane.records.enrol(enrolment, plane.signing.clone()).await??;
    // In this order: who is kicked finds the door closed.
    plane.live.remove(&ended);
    if !ended.is_empty() && plane.bus.kick(&thing) {
        tracing::warn!(%thing, "the device that is replaced was connected");
    }
    plane.live.add(fingerprint, thing.as_str());
    tracing::info!(%thing, "a device is enrolled");
    enrolled(&plane, &headers, thing, &groups, chain_pem).await
}

pub(super) async fn renew(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    Body(body): Body<MAX_BODY>,
) -> Result<Response, Problem> {
    let RenewRequest { csr_pem, certificate_pem, signature, agent } = RenewRequest::read(&body)?;
    let (old, expires) = check_renewal(&certificate_pem, &csr_pem, &signature)?;
    // From here on it is known that the certificate's owner asks; whether it is one of ours is not.
    let thing = plane.records.owner(old).await??;
    let now = (plane.clock)();
    if now.0 > expires.0.saturating_add(GRACE) {
        let sentence = format!(
            "the certificate ended more than {} days ago: make a token with `holm device replace {thing}`, and give it to \
             `holmd enrol --anew` on the device",
            GRACE / 86_400_000
        );
        return Err(Problem::new(ApiErrorCode::CertificateExpired, sentence));
    }
    let key = DeviceKey::of_request(&csr_pem)?;
    let issued = plane.authority.issue_device(&thing, &key, now)?;
    let (chain_pem, fingerprint) = (issued.chain_pem, issued.kept.fingerprint);
    let renewed = plane.records.renew(old, agent, issued.kept, now).await??;
    plane.live.remove(&renewed.ended);
    plane.live.add(fingerprint, thing.as_str());
    // It may have been revoked since it was made.
    if plane.records.owner(fingerprint).await?.is_err() {
        plane.live.remove(&[fingerprint]);
    }
    tracing::info!(%thing, "a device has a new certificate");
    enrolled(&plane, &headers, thing, &renewed.groups, chain_pem).await
}

async fn enrolled(
    plane: &Plane,
    headers: &HeaderMap,
    thing: ThingName,
    groups: &[String],
    certificate_pem: String,
) -> Result<Response, Problem> {
    let (host, https_port) = reached_by(plane, headers);
    let authority = if host.contains(':') { format!("[{host}]:{https_port}") } else { format!("{host}:{https_port}") };
    let held = plane.records.repository().await?;
    let root_json = held.map(|held| super::repository::raw(held.kept.root)).transpose()?;
    let answer = Enrolled {
        thing,
        groups: groups.iter().filter_map(|group| GroupName::new(group).ok()).collect(),
        certificate_pem,
        root_pem: plane.authority.root_pem().to_owned(),
        mqtt: MqttAddress { host, port: plane.mqtt_port },
        tuf: TufAddress {
            metadata_url: format!("https://{authority}/tuf/metadata/"),
            targets_url: format!("https://{authority}/tuf/targets/"),
            root_json,
        },
    };
    let body = answer.write().map_err(CloudError::from)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The name and port that the device has come by, if the name is one that our certificate has: what worked once works again,
/// behind whatever forwards ports. Otherwise our own idea of them.
fn reached_by(plane: &Plane, headers: &HeaderMap) -> (String, u16) {
    let names = plane.server.names();
    let own = || (names.first().cloned().unwrap_or_default(), plane.https_port);
    let given = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let Some(authority) = given.and_then(|text| text.parse::<axum::http::uri::Authority>().ok()) else { return own() };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    match names.iter().find(|name| name.eq_ignore_ascii_case(host)) {
        Some(name) => (name.clone(), authority.port_u16().unwrap_or(443)),
        None => own(),
    }
}

/// A name for a device that has none.
fn made_up() -> Result<ThingName, Problem> {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let letter = |byte: u8| LETTERS.get(usize::from(byte % 32)).copied().map_or('a', char::from);
    let name: String = random::<10>()?.into_iter().map(letter).collect();
    Ok(ThingName::new(&format!("thing-{name}"))?)
}
