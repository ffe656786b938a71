//! What people see of the control plane in a browser: pages, made here and served whole.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | the fleet at a glance |
//! | `/fleet`, `/devices/{thing}` | devices, and one of them, with what comes from it |
//! | `/rollouts`, `/rollouts/{id}` | rollouts, and one of them, with what can be done about it |
//! | `/results` | series, plotted and in figures |
//! | `/dead-letters`, `/devices/{thing}/dead-letters`, and below it | events that were given up, and what can be done about them |
//! | `/functions` | releases, and where they run |
//! | `/enrol` | tokens for new devices |
//! | `/audit` | who did what |
//! | `/login`, `/logout` | sessions |
//! | `/live/...` | server-sent events for the parts of pages that change |
//! | `/assets/...` | the style sheet, the script, and uPlot |
//!
//! # Invariants
//!
//! 1. No page makes a browser ask anybody else, or run what is not a file of ours (`guard`).
//! 2. What changes something is a form, sent by a page of ours within a session of an admin (`session`).
//! 3. Everything works without a script, but for plots and what is live.
//! 4. What devices and people wrote is text in a page, never markup: maud escapes it.
//!
//! # How it works
//!
//! A handler asks the records what the API would ask them, and writes a page around it. The script asks the API for points, with
//! the session's cookie, so a plot and a program see the same figures.

mod assets;
mod audit;
mod device;
mod enrol;
mod failure;
mod fleet;
mod frame;
mod functions;
mod guard;
mod letters;
mod live;
mod overview;
mod results;
mod rollouts;
mod session;
mod shown;

use std::sync::Arc;

use axum::Router;
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

use crate::plane::Plane;
use failure::Failure;
pub(crate) use overview::Glance;
pub(crate) use session::signed_in;

/// All of it.
pub(crate) fn router() -> Router<Arc<Plane>> {
    Router::new()
        .route("/", get(overview::page))
        .route("/login", get(session::page).post(session::sign_in))
        .route("/logout", post(session::sign_out))
        .route("/fleet", get(fleet::page))
        .route("/devices/{thing}", get(device::page))
        .route("/devices/{thing}/revoke", get(device::ask_revoke).post(device::revoke))
        .route("/rollouts", get(rollouts::list))
        .route("/rollouts/{id}", get(rollouts::page))
        .route("/rollouts/{id}/{verb}", post(rollouts::turn))
        .route("/results", get(results::page))
        .route("/dead-letters", get(letters::page))
        .route("/devices/{thing}/dead-letters", get(letters::of_device))
        .route("/devices/{thing}/dead-letters/{what}", get(letters::one).post(letters::turn))
        .route("/functions", get(functions::page))
        .route("/enrol", get(enrol::page).post(enrol::make))
        .route("/audit", get(audit::page))
        .route("/live/overview", get(live::overview))
        .route("/live/devices/{thing}", get(live::device))
        .route("/live/rollouts/{id}", get(live::rollout))
        .layer(map_response(guard::guarded))
        // Everybody's, and the same for everybody.
        .merge(Router::new().route("/assets/{*name}", get(assets::get)).layer(map_response(guard::guarded)))
}

/// For a path that is nobody's.
pub(crate) fn nothing_here() -> Response {
    guard::guard(Failure::nothing_here("page").into_response())
}

/// For a path that takes other methods.
pub(crate) fn not_this_way() -> Response {
    guard::guard(Failure::not_this_way().into_response())
}
