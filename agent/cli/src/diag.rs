//! `holm device diag D`: what is needed to find out what is wrong with a device, in one file that may be handed on.
//!
//! The device redacts its own part: the control plane never sees what is left out. What is known of it here is its entry in the fleet, and
//! how its last jobs went.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::client::escape;
use crate::failure::Failure;
use crate::remote::{Remote, query};
use crate::screen::Screen;

/// Fast enough, and small enough to be sent.
const LEVEL: i32 = 9;

/// See the module.
pub(crate) struct Diag {
    name: String,
    device: Value,
    report: Option<Value>,
    /// The last log lines that came here.
    logs: Value,
}

impl Diag {
    /// Asks. A device that is away has no report, and the rest is still worth something.
    pub(crate) async fn of(remote: &Remote, name: &str, screen: &Screen) -> Result<Self, Failure> {
        let path = format!("/v1/devices/{}", escape(name));
        let mut device = remote.get(&path).await?;
        let report = match device.get("connected").and_then(Value::as_bool) {
            Some(true) => {
                let mut answer = remote.post(&format!("{path}/report"), &Value::Null).await?;
                answer.get_mut("answer").map(Value::take)
            }
            _ => {
                screen.note(format_args!("{name} is not connected: this is only what is known of it here"));
                None
            }
        };
        let values = [("device", Some(name.to_owned())), ("order", Some("latest".to_owned()))];
        let mut logs = remote.get(&query("/v1/logs", &values)).await?;
        // Configuration of functions may hold what is nobody's business; what is a secret is not there anyway.
        if let Some(functions) = device.pointer_mut("/desired/functions").and_then(Value::as_array_mut) {
            for config in functions.iter_mut().filter_map(|function| function.get_mut("config")) {
                let names: Vec<String> =
                    config.as_object().map(|fields| fields.keys().cloned().collect()).unwrap_or_default();
                *config = json!(names);
            }
        }
        let rows = logs.get_mut("rows").map(Value::take).unwrap_or_default();
        let is_line =
            |row: &Value| row.get("stream").and_then(Value::as_str).is_some_and(|stream| stream.starts_with("log"));
        let rows: Vec<Value> = rows.as_array().into_iter().flatten().filter(|row| is_line(row)).cloned().collect();
        Ok(Self { name: name.to_owned(), device, report, logs: json!(rows) })
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "device": self.device, "report": self.report, "logs": self.logs })
    }

    /// A file for each of its parts.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let pretty = |value: &Value| serde_json::to_vec_pretty(value).unwrap_or_default();
        let lines = |value: &Value| {
            let rows = value.as_array().into_iter().flatten().map(|row| format!("{row}\n"));
            rows.collect::<String>().into_bytes()
        };
        let mut files =
            vec![("device.json".to_owned(), pretty(&self.device)), ("sent.ndjson".to_owned(), lines(&self.logs))];
        let mut report = self.report.clone().unwrap_or_default();
        if let Some(fields) = report.as_object_mut() {
            for name in ["events", "logs"] {
                files.extend(fields.remove(name).map(|list| (format!("{name}.ndjson"), lines(&list))));
            }
            let config = fields.remove("config").and_then(|config| config.as_object().cloned());
            for (path, text) in config.unwrap_or_else(Map::new) {
                let plain = path.trim_start_matches('/').replace('/', "-");
                files.push((format!("config/{plain}"), text.as_str().unwrap_or_default().as_bytes().to_vec()));
            }
            files.push(("report.json".to_owned(), pretty(&report)));
        }
        files
    }

    pub(crate) fn pack(&self, output: Option<&Path>, screen: &mut Screen) -> Result<(), Failure> {
        let path = output.map_or_else(|| PathBuf::from(format!("{}-diag.tar.zst", self.name)), Path::to_owned);
        let failed = |error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display()));
        let bytes = archive(&self.name, self.files()).map_err(failed)?;
        std::fs::write(&path, &bytes).map_err(failed)?;
        screen.line(path.display())?;
        screen.note("look through it before you hand it on: `tar --zstd -tf FILE`");
        Ok(())
    }
}

fn archive(name: &str, files: Vec<(String, Vec<u8>)>) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (file, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, format!("{name}-diag/{file}"), &data[..])?;
    }
    zstd::encode_all(&archive.into_inner()?[..], LEVEL)
}
