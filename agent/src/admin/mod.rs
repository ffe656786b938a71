//! The admin socket: HTTP and JSON on a unix socket in the data folder, for its owner only.
//!
//! `holm` is its client; `curl --unix-socket` will do. Paths begin with `/v1`. Streams (`follow=true`) are NDJSON, one
//! object a line. Errors are `{"error": "...", "code": "..."}` with a fitting status; the code is there where a
//! page says more.

mod board;
mod handlers;
mod letters;
mod rehearsal;
mod traps;
mod workshop;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, post};
use holm_cloud_sync::Cloud;
use holm_store::Store;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::deploy::Deployer;
use crate::dispatch::Dispatcher;
use crate::letters::Letters;
use crate::rehearsal::Rehearsal;

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";

/// The largest bundle that is taken over the socket, in bytes.
const MAX_BUNDLE: usize = 64 << 20;

/// What the handlers work with.
#[derive(Clone)]
pub struct State {
    pub(crate) deployer: Arc<Deployer>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) device: Arc<str>,
    pub(crate) cloud: Option<Cloud>,
    pub(crate) rehearsal: Option<Arc<Rehearsal>>,
    pub(crate) started: std::time::Instant,
    pub(crate) letters: Arc<Letters>,
}

impl State {
    /// For one node.
    pub fn new(
        deployer: Arc<Deployer>,
        dispatcher: Arc<Dispatcher>,
        letters: Arc<Letters>,
        device: String,
        cloud: Option<Cloud>,
    ) -> Self {
        let (device, started) = (device.into(), std::time::Instant::now());
        Self { deployer, dispatcher, device, cloud, rehearsal: None, started, letters }
    }

    /// The same for a node whose clock stands still.
    pub fn rehearse(self, rehearsal: Option<Arc<Rehearsal>>) -> Self {
        Self { rehearsal, ..self }
    }
}

/// What only reads the store needs nothing else.
impl FromRef<State> for Store {
    fn from_ref(state: &State) -> Self {
        state.dispatcher.store.clone()
    }
}

/// Opens the socket; one that a crash left behind is replaced. The store's lock is held by now, so no other node uses
/// the folder.
pub fn bind(folder: &Path) -> std::io::Result<UnixListener> {
    let path = folder.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `shutdown`.
pub async fn serve(listener: UnixListener, state: State, mut shutdown: watch::Receiver<bool>) {
    let stop = shutdown.clone();
    let app = router(state, stop);
    let ended = axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = shutdown.changed().await;
        })
        .await;
    if let Err(error) = ended {
        tracing::error!(%error, "the admin socket failed");
    }
}

fn router(state: State, stop: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/status", get(handlers::status))
        .route("/v1/board", get(board::board))
        .route("/v1/functions", get(handlers::functions))
        .route("/v1/functions/{name}", axum::routing::delete(handlers::remove))
        .route("/v1/functions/{name}/rollback", post(handlers::rollback))
        .route("/v1/functions/{name}/release", post(handlers::release))
        .route("/v1/functions/{name}/invoke", post(handlers::invoke))
        .route("/v1/deploy", post(handlers::deploy))
        .route("/v1/cloud/deploy", post(handlers::carry))
        .route("/v1/events", get(handlers::events))
        .route("/v1/logs", get(handlers::logs))
        .route("/v1/results/{name}", get(handlers::results))
        .merge(reading())
        .route("/v1/dlq/replay", post(letters::replay_lot))
        .route("/v1/dlq/{id}", axum::routing::delete(letters::forget))
        .route("/v1/dlq/{id}/replay", post(letters::replay))
        .route("/v1/traps", get(traps::list))
        .route("/v1/traps/{id}", get(traps::one))
        .route("/v1/recordings", get(traps::recordings))
        .route("/v1/publish", post(workshop::publish))
        .route("/v1/state/{function}", get(workshop::state))
        .route("/v1/tape", get(workshop::tape))
        .route("/v1/rehearsal/settle", post(rehearsal::settle))
        .route("/v1/rehearsal/advance", post(rehearsal::advance))
        .route("/v1/rehearsal/schedule/{function}/{schedule}", post(rehearsal::fire))
        .route("/v1/rehearsal/sensor/{sensor}", post(rehearsal::measure))
        .route("/v1/rehearsal/line/{line}", post(rehearsal::drive))
        .route("/v1/rehearsal/file/{folder}/{name}", post(rehearsal::put))
        .route("/v1/rehearsal/http", post(rehearsal::ask))
        .layer(axum::Extension(stop))
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BUNDLE))
        .with_state(state)
}

/// What can be asked of a store alone.
fn reading<S: Clone + Send + Sync + 'static>() -> Router<S>
where
    Store: FromRef<S>,
{
    Router::new()
        .route("/v1/dlq", get(letters::list))
        .route("/v1/dlq/{id}", get(letters::one))
        .route("/v1/buffer", get(handlers::buffer))
        .route("/v1/buffer/rows", get(handlers::buffer_rows))
}

/// Serves what can be asked of a store without a node, until `end`.
pub async fn serve_store(listener: UnixListener, store: Store, end: impl Future<Output = ()> + Send + 'static) {
    let app = reading().with_state(store);
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(end).await {
        tracing::error!(%error, "the socket failed");
    }
}
