//! The API: JSON over HTTPS.
//!
//! | path | who | what |
//! | --- | --- | --- |
//! | `GET /v1/ca` | everybody | the root certificate |
//! | `POST /v1/enrol`, `POST /v1/renew` | devices | certificates |
//! | `GET`, `POST /v1/enrolment-tokens` | operators | tokens for devices |
//! | `GET /v1/devices`, `GET /v1/devices/{thing}` | operators | the fleet |
//! | `POST /v1/devices/{thing}/revoke` | operators | ends a device |
//! | `POST /v1/devices/{thing}/replace` | operators | a token for the device that takes its place |
//! | `POST /v1/devices/{thing}/groups` | operators | into groups, and out of them |
//! | `PUT /v1/devices/{thing}/job` | operators | hands a signed desired state to a device |
//! | `POST /v1/devices/{thing}/deploy` | operators | makes, signs and hands over a device's next desired state |
//! | `GET /v1/devices/{thing}/jobs/{generation}` | operators | how far a device is with one |
//! | `POST /v1/devices/{thing}/logs` | operators | makes a device send log lines for a while |
//! | `POST /v1/devices/{thing}/report`, `/dead-letters` | operators | asks a device how it is; which events it gave up |
//! | `POST /v1/devices/{thing}/dead-letters/{letter}` | operators | asks for one of those whole |
//! | `POST /v1/devices/{thing}/dead-letters/replay`, `/drop` | operators | has the device give some to their functions again, or forget them |
//! | `POST /v1/fleet` | operators | who is in which group and what runs there, all at once |
//! | `GET`, `POST /v1/rollouts`, `GET /v1/rollouts/{id}` | operators | one change of a function, to many devices, in stages |
//! | `GET /v1/rollouts/{id}/devices` | operators | how each device stands in it |
//! | `POST /v1/rollouts/{id}/pause`, `/resume`, `/abort` | operators | turns it |
//! | `GET /v1/secrets` | operators | names of secrets, and which devices have them |
//! | `POST`, `DELETE /v1/secrets/{name}` | operators | takes in what was sealed to devices' keys; forgets it |
//! | `GET /v1/aliases`, `PUT`, `DELETE /v1/aliases/{function}/{name}` | operators | names of versions, to deploy by |
//! | `GET /v1/retention`, `PUT`, `DELETE /v1/retention/{streams}` | operators | how long records are kept |
//! | `GET`, `POST /v1/repository` | operators | the code repository's keys and versions; new roots and targets |
//! | `GET /tuf/metadata/{name}`, `GET /tuf/targets/{path}` | everybody | the code repository, as TUF has it |
//! | `GET /v1/results`, `GET /v1/logs` | operators | what devices sent; results also in buckets, to be plotted |
//! | `GET /v1/traps`, `GET /v1/traps/{id}` | operators | records of traps on devices, to be run again |
//! | `GET /v1/export` | operators | all results of a question as one file |
//! | `GET`, `PUT /v1/blobs/{sha256}` | operators | files by their hash |
//! | `GET`, `POST /v1/operators`, `DELETE /v1/operators/{id}` | operators | operators' tokens |
//! | `GET /v1/audit` | operators | what operators did |
//! | `GET /api/openapi.json` | everybody | this, for programs |
//! | `GET /v1/status` | operators | how the control plane is |
//!
//! Operators send `Authorization: Bearer TOKEN`; viewers may do no more than `GET`. A browser that has signed in sends the
//! session's cookie instead, and may do no more either: what changes something goes by the forms of [`crate::ui`]. Whatever is refused is answered with a [`holm_protocol::ApiError`], with all
//! problems in it; nothing is done by halves.

mod aliases;
mod asks;
mod blobs;
pub(crate) mod body;
mod deploy;
mod devices;
mod enrol;
mod export;
pub(crate) mod fields;
mod fleet;
pub(crate) mod letters;
mod openapi;
mod operators;
pub(crate) mod problem;
mod repository;
mod results;
mod retention;
mod rollouts;
mod secrets;
mod serve;
mod tokens;
mod traps;
mod tuf;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{FromRequestParts, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Uri, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use holm_protocol::{ApiErrorCode, limits};
use serde_json::json;

use crate::plane::Plane;
use crate::records::{Operator, Role};
use crate::secret::Hash;
use crate::ui;
pub(crate) use devices::end as revoke;
use problem::Problem;
pub(crate) use serve::serve;

/// Bytes of a request's body.
const MAX_BODY: usize = limits::MAX_PAYLOAD_BYTES;

/// Everything that is served.
fn router(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/v1/ca", get(enrol::ca))
        .route("/v1/enrol", post(enrol::enrol))
        .route("/v1/renew", post(enrol::renew))
        .route("/v1/enrolment-tokens", get(tokens::list).post(tokens::make))
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{thing}", get(devices::show))
        .route("/v1/devices/{thing}/revoke", post(devices::revoke))
        .route("/v1/devices/{thing}/replace", post(tokens::replace))
        .route("/v1/devices/{thing}/groups", post(devices::groups))
        .route("/v1/devices/{thing}/job", put(devices::put_job))
        .route("/v1/devices/{thing}/logs", post(asks::logs))
        .route("/v1/devices/{thing}/report", post(asks::report))
        .route("/v1/devices/{thing}/dead-letters", post(asks::dead_letters))
        .route("/v1/devices/{thing}/dead-letters/replay", post(letters::replay))
        .route("/v1/devices/{thing}/dead-letters/drop", post(letters::forget))
        .route("/v1/devices/{thing}/dead-letters/{letter}", post(letters::show))
        .route("/v1/results", get(results::results))
        .route("/v1/logs", get(results::logs))
        .route("/v1/traps", get(traps::list))
        .route("/v1/traps/{id}", get(traps::one))
        .route("/v1/export", get(export::export))
        .route("/v1/blobs/{digest}", get(blobs::get).put(blobs::put))
        .route("/v1/devices/{thing}/deploy", post(deploy::deploy))
        .route("/v1/devices/{thing}/jobs/{generation}", get(deploy::job))
        .route("/v1/devices/{thing}/next", get(deploy::next))
        .route("/v1/fleet", post(fleet::apply))
        .route("/v1/rollouts", get(rollouts::list).post(rollouts::begin))
        .route("/v1/rollouts/{id}", get(rollouts::show))
        .route("/v1/rollouts/{id}/devices", get(rollouts::devices))
        .route("/v1/rollouts/{id}/{verb}", post(rollouts::turn))
        .route("/v1/secrets", get(secrets::list))
        .route("/v1/secrets/{name}", post(secrets::set).delete(secrets::remove))
        .route("/v1/aliases", get(aliases::list))
        .route("/v1/aliases/{function}/{name}", put(aliases::set).delete(aliases::remove))
        .route("/v1/retention", get(retention::list))
        .route("/v1/retention/{streams}", put(retention::set).delete(retention::remove))
        .route("/v1/repository", get(repository::show).post(repository::publish))
        .route("/tuf/metadata/{name}", get(tuf::metadata))
        .route("/tuf/targets/{*path}", get(tuf::target))
        .route("/v1/operators", get(operators::list).post(operators::make))
        .route("/v1/operators/{id}", delete(operators::end))
        .route("/v1/audit", get(operators::audit))
        .route("/v1/status", get(status))
        .route("/api/openapi.json", get(openapi::document))
        .layer(map_response(unguessed))
        .merge(ui::router())
        .fallback(async |uri: Uri| match is_api(uri.path()) {
            true => Problem::new(ApiErrorCode::NotFound, "there is nothing here").into_response(),
            false => ui::nothing_here(),
        })
        .method_not_allowed_fallback(async |uri: Uri| match is_api(uri.path()) {
            true => Problem::new(ApiErrorCode::MethodNotAllowed, "this path is there, but not with this method")
                .into_response(),
            false => ui::not_this_way(),
        })
        .with_state(plane)
}

/// Who asks for one of these is a program.
fn is_api(path: &str) -> bool {
    ["/v1/", "/tuf/", "/api/"].iter().any(|root| path.starts_with(root))
}

/// What devices sent is served here too: no browser shall take it for something else than we say.
async fn unguessed(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Who is asking. A handler that takes one is for operators only, and for admins unless it only looks.
impl FromRequestParts<Arc<Plane>> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, plane: &Arc<Plane>) -> Result<Self, Problem> {
        let looks = matches!(parts.method, Method::GET | Method::HEAD);
        let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
        let operator = match token {
            Some(token) => plane.records.operator(Hash::of(token)).await?,
            // A cookie comes by itself, whoever made the browser ask.
            None if looks => ui::signed_in(&parts.headers, plane).await?,
            None => return Err(Problem::new(ApiErrorCode::Unauthorized, "send `Authorization: Bearer TOKEN`")),
        };
        match operator {
            Some(operator) if looks || operator.role == Role::Admin => Ok(operator),
            Some(Operator { name, .. }) => {
                let sentence = format!("the token of {name} is a viewer's: it may look, and change nothing");
                Err(Problem::new(ApiErrorCode::Forbidden, sentence))
            }
            None if token.is_none() => {
                Err(Problem::new(ApiErrorCode::Unauthorized, "send `Authorization: Bearer TOKEN`"))
            }
            None => Err(Problem::new(ApiErrorCode::Unauthorized, "this token lets nobody in")),
        }
    }
}

/// Figures for whoever looks after it.
async fn status(_: Operator, State(plane): State<Arc<Plane>>) -> Response {
    let (messages, devices) = plane.bus.all_held();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "time": (plane.clock)().0,
        "connected": plane.bus.connected(),
        "held_up": { "messages": messages, "devices": devices },
        "ca_hash": plane.authority.root_hash().hex(),
    }))
    .into_response()
}
