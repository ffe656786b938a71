//! What a node tells about itself to who has to find out what is wrong with it: figures, configuration without secrets, the last events
//! and lines.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use holm_cloud_sync::Cloud;
use holm_store::Store;
use serde_json::{Value, json};

use super::build;
use crate::deploy::Deployer;
use crate::dispatch::Dispatcher;
use crate::{clock, deploy, letters};

/// Events, and lines of logs, at most.
const LAST: usize = 200;

/// Bytes of a report: packed it fits into one message, and there is room for what packs badly.
const MOST: usize = 60 << 10;

/// Bytes of one file of the configuration.
const MAX_FILE: usize = 8 << 10;

/// Dead letters in one list.
const LETTERS: usize = 100;

/// Characters of the words of a fault in a list.
const WORDS: usize = 300;

/// Characters of them where there is one letter.
const FAULT: usize = 4_000;

/// Keys whose values are nobody's business, wherever in their name it is.
const SECRETS: [&str; 6] = ["password", "secret", "token", "key", "hash", "psk"];

/// Something that makes a report, on a thread that may block.
pub(super) fn report(
    dispatcher: &Arc<Dispatcher>,
    deployer: &Arc<Deployer>,
    cloud: &Cloud,
    files: &[PathBuf],
) -> impl FnOnce() -> Value + Send + use<> {
    let (dispatcher, deployer, cloud, files) = (dispatcher.clone(), deployer.clone(), cloud.clone(), files.to_vec());
    move || {
        let store = &dispatcher.store;
        let config: serde_json::Map<String, Value> =
            files.iter().map(|path| (path.display().to_string(), Value::String(redacted(path)))).collect();
        let mut report = json!({
            "time": clock::now(),
            "agent": build(),
            "kernel": line("/proc/sys/kernel/osrelease"),
            "board": line("/proc/device-tree/model"),
            "load": line("/proc/loadavg"),
            "uptime_s": clock::uptime().as_secs(),
            "cloud": cloud.status(),
            "functions": deployer.status(),
            "store": {
                "commits": store.stats(),
                "inbox": told(store.inbox_stat()),
                "outbox": told(store.lanes()),
                "gaps": told(store.gaps(20)),
                "epoch": told(store.epoch()),
            },
            "config": config,
            "events": dispatcher.journal.events.since(0, LAST),
            "logs": dispatcher.journal.logs.since(0, LAST),
        });
        shorten(&mut report);
        report
    }
}

/// The last ones, without what was in them: that stays on the node.
pub(super) fn dead_letters(store: &Store) -> Value {
    match store.dead_letters(None, LETTERS) {
        Ok(found) => {
            let shown = |letter: &holm_store::DeadLetter| {
                json!({
                    "letter": letter.id, "function": letter.function.as_str(), "buried": letter.buried,
                    "expires": letter.expires, "kind": letter.kind,
                    "fault": letter.fault.chars().take(WORDS).collect::<String>(),
                    "source": letter.event.source, "subject": &*letter.event.subject,
                    "attempts": letter.event.attempt, "bytes": letter.event.data.len(),
                })
            };
            let left = store.dead_letter_count().ok();
            let mut answer = json!({ "letters": found.iter().map(shown).collect::<Vec<_>>(), "left": left });
            shorten(&mut answer);
            answer
        }
        Err(error) => json!({ "error": deploy::chain(&error) }),
    }
}

/// One, as it is told on the node, with as much of what was in it as fits; `whole`: with any of it.
pub(super) fn dead_letter(store: &Store, id: i64, whole: bool) -> Value {
    match store.dead_letter(id) {
        Ok(Some(mut letter)) => {
            letter.fault = letter.fault.chars().take(FAULT).collect();
            let (bytes, mut cut) = (letter.event.data.len(), false);
            loop {
                let mut told = letters::shown(&letter, whole);
                if let Some(fields) = told.as_object_mut() {
                    fields.insert("bytes".to_owned(), bytes.into());
                }
                let answer = json!({ "letter": told, "withheld": !whole, "cut": cut });
                let is_bare = letter.event.data.is_empty() && letter.event.attributes.is_empty();
                if is_bare || answer.to_string().len() <= MOST {
                    return answer;
                }
                cut = true;
                // What a client has set beside its payload is as long as it likes, too.
                match letter.event.data.is_empty() {
                    true => letter.event.attributes.clear(),
                    false => letter.event.data = half(&letter.event.data),
                }
            }
        }
        Ok(None) => json!({ "gone": true }),
        Err(error) => json!({ "error": deploy::chain(&error) }),
    }
}

/// The first half; of text, up to a whole letter of it.
fn half(data: &Bytes) -> Bytes {
    let end = data.len() / 2;
    let end = std::str::from_utf8(data).map_or(end, |text| text.floor_char_boundary(end));
    data.slice(..end)
}

/// Takes from its lists, the oldest first, until it fits; dead letters are the other way round.
fn shorten(report: &mut Value) {
    while report.to_string().len() > MOST {
        let lists = ["events", "logs", "letters"];
        let longest = lists.iter().filter_map(|name| Some((report.get(name)?.as_array()?.len(), *name))).max();
        let Some((length @ 1.., name)) = longest else { return };
        if let Some(list) = report.get_mut(name).and_then(Value::as_array_mut) {
            if name == "letters" {
                list.truncate(length / 2);
            } else {
                list.drain(..length.div_ceil(2));
            }
        }
    }
}

fn told<T: serde::Serialize>(found: Result<T, holm_store::StoreError>) -> Value {
    match found {
        Ok(value) => json!(value),
        Err(error) => json!({ "error": deploy::chain(&error) }),
    }
}

fn line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\n', '\0']).to_owned())
}

/// A file of the configuration without what is secret in it.
fn redacted(path: &std::path::Path) -> String {
    match std::fs::read_to_string(path) {
        Ok(text) => redact(text.get(..text.floor_char_boundary(MAX_FILE)).unwrap_or_default()),
        Err(error) => format!("cannot be read: {error}"),
    }
}

/// Line by line, and more rather than less: what is not a table's name, a comment or a key that is known to be harmless goes.
fn redact(text: &str) -> String {
    let mut secret_goes_on = false;
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let key = line.split_once('=').map(|(key, _)| key.trim().to_ascii_lowercase());
        match &key {
            Some(name) if SECRETS.iter().any(|word| name.contains(word)) => {
                // A value may go on over lines, in brackets or in long quotes.
                secret_goes_on =
                    line.trim_end().ends_with(['[', '{']) || line.contains("\"\"\"") || line.contains("'''");
                kept.push_str(line.split_once('=').map_or("", |(key, _)| key));
                kept.push_str("= \"…\"");
            }
            // A table within a line may have a secret anywhere.
            Some(_) if line.contains('{') && SECRETS.iter().any(|word| line.to_ascii_lowercase().contains(word)) => {
                kept.push_str(line.split_once('=').map_or("", |(key, _)| key));
                kept.push_str("= \"…\"");
            }
            Some(_) => {
                secret_goes_on = false;
                kept.push_str(line);
            }
            None if line.trim_start().starts_with('[') => {
                secret_goes_on = false;
                kept.push_str(line);
            }
            None if secret_goes_on => kept.push('…'),
            None => kept.push_str(line),
        }
        kept.push('\n');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_told_without_its_secrets() {
        let text = "[node]\ndevice = \"pi3\"\n[[mqtt.user]]\nname = \"ada\"\npassword_hash = \"$pbkdf2$x\"\n\
                    [mqtt.tls]\nkey = \"/etc/k.pem\"\ntokens = [\n  \"t0k\",\n]\n[http]\nlisten = \"0.0.0.0:80\"\n\
                    user = { name = \"eve\", password = \"p4ss\" }\n";
        let told = redact(text);
        for secret in ["$pbkdf2$x", "t0k", "p4ss", "/etc/k.pem"] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        for kept in ["device = \"pi3\"", "name = \"ada\"", "password_hash = \"…\"", "[http]", "listen = \"0.0.0.0:80\""]
        {
            assert!(told.contains(kept), "{kept}: {told}");
        }
    }

    #[test]
    fn half_of_a_text_is_a_text() {
        let half = |data: &'static [u8]| half(&Bytes::from_static(data));
        assert_eq!(half("aüb".as_bytes()), "a");
        assert_eq!(half(&[255, 254, 253]), &[255][..]);
        assert_eq!(half(b"a"), "");
    }

    #[test]
    fn what_is_too_long_loses_what_is_oldest() {
        let mut report =
            json!({ "events": (0..5_000).map(|n| format!("event {n:09}")).collect::<Vec<_>>(), "logs": [] });
        shorten(&mut report);
        assert!(report.to_string().len() <= MOST);
        let last = report.get("events").and_then(Value::as_array).and_then(|list| list.last()).cloned();
        assert_eq!(last, Some("event 000004999".into()));
    }
}
