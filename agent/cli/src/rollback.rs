//! `holm rollback`: devices go back to an older release.
//!
//! A device goes back by itself to what it had confirmed before. For anything older it wants a permit, signed here by the targets
//! key: for which bundle is read from the repository as this machine knows it, and not from what the control plane says.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use holm_core::{FunctionName, Timestamp};
use holm_protocol::{Artifact, Envelope, ROLLBACK_PERMIT_FORMAT, ROLLBACK_PERMIT_TYPE, RollbackPermit};
use holm_trust::sign;
use holm_trust::tuf::{Listing, Repository};
use serde_json::{Value, json};

use crate::build::chain;
use crate::failure::Failure;
use crate::keys::{self, Keys};
use crate::remote::Remote;
use crate::repository::{clock, refresh};
use crate::rollout::{Staging, To, begin, preview, tell};
use crate::screen::Screen;
use crate::tuf::refused;

/// So long, in milliseconds, a permit may be used: as long as a desired state.
const TERM: i64 = 30 * 86_400_000;

/// See `holm rollback --help`.
#[derive(clap::Args)]
pub(crate) struct Rollback {
    /// The function
    function: FunctionName,
    #[command(flatten)]
    to: To,
    /// To this version [default: what each device had confirmed before]
    #[arg(long = "to", value_name = "VERSION")]
    release: Option<String>,
    /// Why, for those who look at it later
    #[arg(short, long = "message", value_name = "TEXT")]
    message: String,
    #[command(flatten)]
    staging: Staging,
    /// How long devices watch the older version before it is confirmed [default: 1m with --to; else not at all: it was]
    #[arg(long, value_parser = holm_core::parse_duration, value_name = "TIME")]
    health_window: Option<Duration>,
    /// Follow it until it ends
    #[arg(long)]
    watch: bool,
    /// Stop following after this time; it goes on
    #[arg(long, requires = "watch", default_value = "15m", value_parser = holm_core::parse_duration, value_name = "TIME")]
    timeout: Duration,
    /// Only tell what would be
    #[arg(long)]
    dry_run: bool,
    /// The folder of the keys [default: ~/.config/holm/keys]
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Rollback {
    pub(crate) async fn run(self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let remote = Remote::open()?;
        let mut fields = self.to.fields();
        // Whoever rolls back is in a hurry, and knows where to.
        fields.extend(self.staging.at_once().fields());
        fields.insert("function".to_owned(), json!(self.function.to_string()));
        fields.insert("why".to_owned(), json!(self.message));
        let usual = self.release.is_none().then_some(Duration::ZERO);
        let window = self.health_window.or(usual).map(|window| window.as_secs());
        fields.insert("health_window_s".to_owned(), json!(window));
        match &self.release {
            Some(version) => fields.insert("version".to_owned(), json!(version)),
            None => fields.insert("back".to_owned(), json!(true)),
        };
        let would = preview(&remote, &fields).await?;
        let permitted = would.get("permit").is_some_and(|permit| !permit.is_null());
        if self.dry_run {
            match self.json {
                true => screen.json(&would)?,
                false => {
                    let told = tell(self.function.as_str(), &would, &screen.look);
                    screen.text(&told)?;
                }
            }
            if permitted {
                screen.note("a permit of the targets key is needed, and would be signed");
            }
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(version) = self.release.as_ref().filter(|_| permitted) {
            let keys = Keys::open(keys::folder(self.keys.as_deref())?)?;
            let permit = permit(&remote, &keys, &self.function, version, &self.message).await?;
            fields.insert("permit".to_owned(), permit);
            screen.note("signed a permit to go back, with the targets key");
        }
        screen.note("state is kept: the older version finds the key-value data and the waiting events as they are");
        begin(&remote, fields, self.watch.then_some(self.timeout), self.json, screen).await
    }
}

async fn permit(
    remote: &Remote,
    keys: &Keys,
    function: &FunctionName,
    version: &str,
    why: &str,
) -> Result<Value, Failure> {
    let key = keys.targets()?;
    let (kept, outcome) = refresh(remote, keys).await?;
    outcome?;
    let repository = Repository::open(&kept).map_err(|error| refused("the repository", &error))?;
    let target = repository.peek(&Listing::bundle_name(function, version));
    let bundle = target.and_then(|target| Some(Artifact { sha256: target.sha256()?, length: target.length }));
    let bundle = bundle.ok_or_else(|| Failure::new(format!("{function} {version} is not in the repository")))?;
    let permit = RollbackPermit {
        format: ROLLBACK_PERMIT_FORMAT,
        function: function.clone(),
        bundle,
        why: why.to_owned(),
        expires: Timestamp(clock().0.saturating_add(TERM)),
    };
    let failed = |error: &dyn std::error::Error| Failure::new(format!("the permit cannot be signed: {}", chain(error)));
    let payload = permit.write().map_err(|error| failed(&error))?;
    let envelope: Envelope = sign(ROLLBACK_PERMIT_TYPE, payload, &[key]);
    serde_json::to_value(&envelope).map_err(|error| failed(&error))
}
