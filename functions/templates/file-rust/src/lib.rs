//! Reads CSV files that appear in a folder, and records what is in them: the second column of every line but the heading.

use holm_function::prelude::*;
use serde::Serialize;

/// What this function publishes on `files/read`.
#[derive(Serialize)]
struct Read<'a> {
    file: &'a str,
    rows: usize,
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    // The event carries what is in the file; where it is, its attributes say.
    let name = event.attribute("name").unwrap_or("unknown");
    let mut rows = 0;
    for (number, line) in event.text()?.lines().enumerate().skip(1) {
        let value = line
            .split(',')
            .nth(1)
            .and_then(|value| value.trim().parse::<f64>().ok());
        // A file that cannot be read today cannot be read tomorrow: it goes to the dead letters, whole.
        let value = value
            .ok_or_else(|| Failure::reject(format!("{name}: line {} has no value", number + 1)))?;
        results::record("value", value)?;
        rows += 1;
    }
    publish_json("files/read", &Read { file: name, rows })?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn every_line_is_a_result() {
        let mut host = TestHost::new();
        let event = Event {
            source: "file".to_owned(),
            ..Event::mqtt("inbox", "time,flow\n0,1.5\n1,2.5\n")
        };
        host.run(handle, event.with_attribute("name", "a.csv"))
            .unwrap();
        assert_eq!(host.results().len(), 2);
        assert_eq!(
            host.publishes()[0].payload.data,
            br#"{"file":"a.csv","rows":2}"#
        );
    }
}
