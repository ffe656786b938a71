//! `holm status`: what the node does and holds.

use crate::client::{Client, parse};
use crate::failure::Failure;
use crate::look::{self, Look, Tone};
use crate::reply;
use crate::screen::Screen;
use crate::table::list;

/// See `holm status --help`.
#[derive(clap::Args)]
pub(crate) struct Status {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(&self, client: &Client, screen: &mut Screen) -> Result<(), Failure> {
        let answer = client.get("/v1/status").await?;
        if self.json {
            return screen.json(&answer);
        }
        let status = parse(serde_json::json!({ "status": answer }), "/v1/status", "status")?;
        let text = render(&status, &screen.look);
        screen.text(&text)
    }
}

fn render(status: &reply::Status, look: &Look) -> String {
    let count = look::count;
    let bad = |number: u64, words: &str| match number {
        0 => String::new(),
        _ => format!(", {}", look.paint(Tone::Warn, &format!("{} {words}", count(number)))),
    };
    let (events, store, broker) = (&status.events, &status.store, &status.broker);
    let clock = if status.time_plausible { "" } else { ", its clock is not set" };
    let failing = match store.failing {
        true => format!(" {}", look.paint(Tone::Bad, "(the last commit failed)")),
        false => String::new(),
    };
    let lanes: Vec<String> = status.outbox.iter().map(|lane| format!("{} {}", lane.lane, count(lane.rows))).collect();
    let bytes: u64 = status.outbox.iter().map(|lane| lane.bytes).sum();
    let mut entries = vec![
        ("device", format!("{}, holmd {}, up {}{clock}", status.device, status.version, look::span(status.uptime_s))),
        (
            "events",
            format!(
                "{} accepted{}{}{}{}",
                count(events.accepted),
                bad(events.duplicates, "duplicates"),
                bad(events.dropped, "dropped"),
                bad(events.refused, "refused"),
                bad(events.loops, "loops cut")
            ),
        ),
        (
            "broker",
            format!(
                "{} clients, {} sessions, {} messages in, {} out, {} retained, {} queued ({}){}",
                broker.clients,
                broker.sessions,
                count(broker.messages_in),
                count(broker.messages_out),
                count(broker.retained),
                count(broker.queued_messages),
                look::bytes(broker.queued_bytes),
                bad(broker.dropped, "dropped"),
            ),
        ),
        (
            "store",
            format!(
                "{} commits of {} settlements, {} each, {} waiting, {}{}{failing}",
                count(store.commits),
                count(store.settlements),
                look::micros(mean(store.commit_us, store.commits)),
                count(store.waiting),
                look::bytes(status.inbox.database_bytes),
                bad(store.failures, "failures"),
            ),
        ),
        ("inbox", format!("{} waiting, {} dead letters", count(status.inbox.parked), count(status.inbox.dead))),
        ("outbox", format!("{} ({})", lanes.join(", "), look::bytes(bytes))),
    ];
    if let (Some(external), Some(entry)) = (&status.external, entries.iter_mut().find(|(name, _)| *name == "broker")) {
        entry.1 = away(external, look);
    }
    entries.extend(status.cloud.iter().map(|cloud| ("cloud", link(cloud, look))));
    entries
        .extend(status.cloud.iter().filter(|cloud| cloud.thing.is_some()).map(|cloud| ("upload", upload(cloud, look))));
    let key = status.cloud.as_ref().and_then(|cloud| cloud.sealing_key.clone());
    entries.extend(key.map(|key| ("key", format!("{key} is what secrets are sealed to"))));
    list(look, &entries)
}

/// The link to somebody else's broker, on a node that has none.
fn away(external: &reply::External, look: &Look) -> String {
    let words = if external.connected { "connected to" } else { "not connected to" };
    let tone = if external.connected { Tone::Good } else { Tone::Warn };
    let mut text = look.paint(tone, &format!("{words} {}", external.address));
    let (taken, sent) = (look::count(external.messages_in), look::count(external.messages_out));
    text.push_str(&format!(", {taken} messages in, {sent} out, {} on their way", look::count(external.in_flight)));
    if let Some(error) = external.last_error.as_ref().filter(|_| !external.connected) {
        text.push_str(&format!(": {}", look.paint(Tone::Warn, &look::short(error, 200))));
    }
    text
}

/// The link to the control plane.
fn link(cloud: &reply::Cloud, look: &Look) -> String {
    let address = cloud.address.as_deref().unwrap_or("?");
    let mut text = match (cloud.state.as_str(), &cloud.thing) {
        ("connected", Some(thing)) => look.paint(Tone::Good, &format!("connected to {address} as {thing}")),
        ("unenrolled", _) => "not enrolled (`holmd enrol`)".to_owned(),
        (_, Some(thing)) => look.paint(Tone::Warn, &format!("not connected to {address} as {thing}")),
        (state, None) => state.to_owned(),
    };
    if let Some(job) = &cloud.next_job {
        text.push_str(&format!(", job {job} is to be done"));
    }
    if cloud.phase.as_deref() == Some("deferred") {
        let until = cloud.deferred_until.map_or_else(String::new, |until| format!(" until {}", look.moment(until)));
        let why = cloud.message.as_deref().unwrap_or_default();
        text.push_str(&format!(", an update waits{until} ({})", look::short(why, 200)));
    }
    if let Some(expires) = cloud.certificate_expires {
        text.push_str(&format!(", certificate until {}", look.moment(expires)));
    }
    if let Some(error) = &cloud.last_error {
        text.push_str(&format!(": {}", look.paint(Tone::Warn, &look::short(error, 200))));
    }
    text
}

/// What became of records.
fn upload(cloud: &reply::Cloud, look: &Look) -> String {
    let upload = &cloud.upload;
    let allowed = cloud.daily_bytes.map_or_else(String::new, |bytes| format!(" of {}", look::bytes(bytes)));
    let mut text = format!(
        "{} records stored, {} batches on their way, {}{allowed} today",
        look::count(upload.acknowledged),
        cloud.in_flight,
        look::bytes(cloud.bytes_today)
    );
    if cloud.paused {
        text.push_str(&look.paint(Tone::Warn, ", only alarms go up"));
    }
    for (number, words) in [
        (upload.resends, "resends"),
        (upload.too_large, "too large"),
        (upload.refused, "batches refused"),
        (upload.unsendable, "streams without a sendable name"),
    ] {
        if number > 0 {
            text.push_str(&look.paint(Tone::Warn, &format!(", {} {words}", look::count(number))));
        }
    }
    text
}

/// 0 of nothing.
pub(crate) fn mean(total: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { total as f64 / count as f64 }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An answer of `/v1/status`.
    pub(crate) fn sample() -> reply::Status {
        serde_json::from_value(serde_json::json!({
            "device": "pi3", "version": "0.1.0", "uptime_s": 3_700, "time_plausible": true,
            "events": {"accepted": 1_268, "dropped": 0, "refused": 2, "duplicates": 0, "loops": 0},
            "store": {"commits": 400, "settlements": 1_270, "failures": 0, "commit_us": 80_000, "waiting": 1, "failing": true},
            "inbox": {"parked": 3, "dead": 1, "database_bytes": 1_048_576},
            "outbox": [{"lane": "alarms", "rows": 4, "bytes": 300, "oldest": 1}, {"lane": "results", "rows": 2_536, "bytes": 20_000, "oldest": 2}],
            "cloud": {
                "state": "connecting", "thing": "pi3", "address": "cloud:8883", "last_error": "the server closed the connection",
                "certificate_expires": 1_800_000_000_000_i64, "in_flight": 0, "bytes_today": 2_048, "daily_bytes": 1_048_576,
                "upload": {"acknowledged": 1_234, "resends": 1},
            },
            "broker": {"connections": 1, "clients": 1, "sessions": 2, "queued_messages": 0, "queued_bytes": 0, "retained": 5, "messages_in": 1_300, "messages_out": 20, "dropped": 0},
        }))
        .unwrap_or_default()
    }

    #[test]
    fn a_node_without_a_broker_says_whose_it_uses() {
        let mut status = sample();
        status.external = serde_json::from_value(serde_json::json!({
            "address": "broker.lan:1883", "connected": false, "last_error": "connection refused", "messages_in": 1_300, "messages_out": 20,
        }))
        .ok();
        let text = render(&status, &Look::plain());
        let line = "\nbroker  not connected to broker.lan:1883, 1,300 messages in, 20 out, 0 on their way: connection refused\n";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn says_what_the_node_does_and_holds() {
        let expected = "\
device  pi3, holmd 0.1.0, up 1h 1m
events  1,268 accepted, 2 refused
broker  1 clients, 2 sessions, 1,300 messages in, 20 out, 5 retained, 0 queued (0 B)
store   400 commits of 1,270 settlements, 200 µs each, 1 waiting, 1.0 MiB (the last commit failed)
inbox   3 waiting, 1 dead letters
outbox  alarms 4, results 2,536 (19.8 KiB)
cloud   not connected to cloud:8883 as pi3, certificate until 2027-01-15 08:00:00: the server closed the connection
upload  1,234 records stored, 0 batches on their way, 2.0 KiB of 1.0 MiB today, 1 resends
";
        assert_eq!(render(&sample(), &Look::plain()), expected);
    }
}
