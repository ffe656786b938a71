//! The connection to the broker.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rumqttc::mqttbytes::v5::PublishProperties;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions, QoS};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Messages that may wait for the connection before publishing waits.
const WAITING: usize = 256;

/// How long the first connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(500);

/// Alerts that are kept to be judged. A function that sends more is not worth judging.
const ALERTS: usize = 100_000;

/// An alert as it came.
pub struct Alert {
    /// Its topic.
    pub topic: String,
    /// Its payload, or null where that is no JSON.
    pub payload: Value,
}

#[derive(Default)]
struct Seen {
    connected: AtomicU64,
    acknowledged: AtomicU64,
    alerts: Mutex<Vec<Alert>>,
}

/// See the module's text.
pub struct Link {
    client: AsyncClient,
    seen: Arc<Seen>,
    run: String,
    sent: u64,
    /// Ends with us.
    _tasks: JoinSet<()>,
}

impl Link {
    /// Connects, and subscribes to `alerts/#`.
    pub async fn open(address: SocketAddr, run: String) -> anyhow::Result<Self> {
        let mut options = MqttOptions::new(format!("holm-feed-{run}"), (address.ip().to_string(), address.port()));
        options.set_keep_alive(30);
        // The session outlives a broken connection, and with it what was not acknowledged.
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(600));
        let (client, events) = AsyncClient::builder(options).capacity(WAITING).build();
        let seen = Arc::<Seen>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(events, client.clone(), seen.clone()));
        let connected = timeout(CONNECT, async {
            while seen.connected.load(Ordering::Relaxed) == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        });
        if connected.await.is_err() {
            bail!("no broker answers at {address}");
        }
        Ok(Self { client, seen, run, sent: 0, _tasks: tasks })
    }

    /// Hands one message over at QoS 1. Waits while too many are on their way.
    pub async fn publish(&mut self, topic: &str, payload: &Value) -> anyhow::Result<()> {
        self.sent += 1;
        let id = format!("{}-{:x}", self.run, self.sent);
        let properties =
            PublishProperties { user_properties: vec![("holm-id".into(), id)], ..PublishProperties::default() };
        let options = PublishOptions::new(QoS::AtLeastOnce).properties(properties);
        self.client.publish(topic, payload.to_string(), options).await.context("the connection has ended")
    }

    /// Messages that the broker has not promised to keep yet.
    pub fn unacknowledged(&self) -> u64 {
        self.sent.saturating_sub(self.seen.acknowledged.load(Ordering::Relaxed))
    }

    /// Takes the alerts that came.
    pub fn alerts(&self) -> Vec<Alert> {
        std::mem::take(&mut self.seen.alerts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Figures.
    pub fn stats(&self) -> Value {
        json!({
            "sent": self.sent,
            "acknowledged": self.seen.acknowledged.load(Ordering::Relaxed),
            "connections": self.seen.connected.load(Ordering::Relaxed),
        })
    }
}

/// Runs until its link is dropped. Never waits for who publishes: both would wait for each other.
async fn listen(mut events: EventLoop, client: AsyncClient, seen: Arc<Seen>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                seen.connected.fetch_add(1, Ordering::Relaxed);
                // Again on every connection: the session may be gone with the broker that had it. A full queue means
                // that we are connected already, and subscribed.
                let _ = client.try_subscribe("alerts/#", QoS::AtLeastOnce);
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => {
                seen.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                let mut alerts = seen.alerts.lock().unwrap_or_else(PoisonError::into_inner);
                if alerts.len() < ALERTS {
                    alerts.push(Alert {
                        topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                        payload: serde_json::from_slice(&publish.payload).unwrap_or_default(),
                    });
                }
            }
            Ok(_) => {}
            Err(_) => sleep(RETRY).await,
        }
    }
}
