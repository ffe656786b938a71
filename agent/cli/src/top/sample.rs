//! One look at the node.

use std::time::{Duration, Instant};

use crate::client::{Client, parse};
use crate::failure::Failure;
use crate::reply::{Event, Function, Log, Status};

/// The functions of a node are not told while one is being deployed: then the last ones are shown, and said to be old.
const FUNCTIONS: Duration = Duration::from_millis(700);

/// For everything else.
const LIMIT: Duration = Duration::from_secs(5);

/// Lines that are asked for: more than fit most screens.
const LINES: usize = 40;

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) status: Status,
    pub(crate) functions: Vec<Function>,
    /// The functions are from an earlier look.
    pub(crate) deploying: bool,
    /// Newest last.
    pub(crate) events: Vec<Event>,
    /// Newest last.
    pub(crate) logs: Vec<Log>,
}

/// Who looks, and remembers what may not be told the next time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    functions: Vec<Function>,
}

impl Watch {
    /// Looks once.
    pub(crate) async fn look(&mut self, client: &Client) -> Result<Sample, Failure> {
        let answer = client.get_within(LIMIT, "/v1/status").await?;
        let at = Instant::now();
        let status = parse(serde_json::json!({ "status": answer }), "/v1/status", "status")?;
        let deploying = match client.get_within(FUNCTIONS, "/v1/functions").await {
            Ok(answer) => {
                self.functions = parse(answer, "/v1/functions", "functions")?;
                false
            }
            Err(_) => true,
        };
        let events = tail(client, "/v1/events").await?;
        let logs = tail(client, "/v1/logs").await?;
        Ok(Sample { at, status, functions: self.functions.clone(), deploying, events, logs })
    }
}

async fn tail<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<Vec<T>, Failure> {
    let mut lines = client.stream(&format!("{path}?limit={LINES}")).await?;
    let mut entries = Vec::new();
    while let Some(value) = lines.next().await? {
        entries.extend(serde_json::from_value(value).ok());
    }
    Ok(entries)
}
