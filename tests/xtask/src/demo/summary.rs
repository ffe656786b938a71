//! What the demo has shown.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

/// The last line of a file of JSON lines.
pub fn last_line(path: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text.lines().last().with_context(|| format!("{} is empty", path.display()))?;
    let value: Value = serde_json::from_str(line).with_context(|| format!("{} is cut off", path.display()))?;
    ensure!(value.get("event").and_then(Value::as_str) == Some("report"), "{} has no report", path.display());
    Ok(value)
}

/// One line of JSON for scripts, else a page for people.
pub fn print(
    report: &Value,
    status: &Value,
    functions: &Value,
    rollouts: &[Value],
    ran: Duration,
    json: bool,
) -> anyhow::Result<()> {
    if json {
        let seconds = ran.as_secs();
        let functions = functions.get("functions");
        println!(
            "{}",
            json!({
                "event": "summary", "seconds": seconds, "feed": report, "status": status, "functions": functions,
                "rollouts": rollouts,
            })
        );
    } else {
        print!("{}{}", page(report, status, functions, ran), of_rollouts(rollouts));
    }
    Ok(())
}

fn page(report: &Value, status: &Value, functions: &Value, ran: Duration) -> String {
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let of_status = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or_default();
    let mut text = format!(
        "\nthe demo ran for {} seconds\n  sent {} messages, {} acknowledged; {} readings of water flow in {} passes and a part\n",
        ran.as_secs(),
        number("/link/sent"),
        number("/link/acknowledged"),
        number("/rows"),
        number("/passes"),
    );
    let commits = of_status("/store/commits");
    text.push_str(&format!(
        "  the node took {} events in {} commits, {} µs each; {} in the inbox, {} dead letters\n",
        of_status("/events/accepted"),
        commits,
        of_status("/store/commit_us").checked_div(commits).unwrap_or_default(),
        of_status("/inbox/parked"),
        of_status("/inbox/dead"),
    ));
    for function in functions.get("functions").and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| function.get(name).cloned().unwrap_or_default();
        let name = field("name");
        text.push_str(&format!(
            "  {:<16} {} succeeded, {} failed, {} µs each\n",
            name.as_str().unwrap_or_default(),
            field("succeeded"),
            field("failed"),
            field("mean_us")
        ));
    }
    text.push_str("what was found in the water, of what is known\n");
    for (name, key) in [("losses", "losses"), ("leaks put in", "leaks"), ("peaks", "peaks"), ("gaps", "gaps")] {
        let share = |what: &str| match report.pointer(&format!("/{key}/{what}")).and_then(Value::as_f64) {
            Some(share) => format!("{share:.2}"),
            None => "-".to_owned(),
        };
        text.push_str(&format!(
            "  {name:<12} {} of {}, precision {}, recall {}\n",
            number(&format!("/{key}/found")),
            number(&format!("/{key}/known")),
            share("precision"),
            share("recall")
        ));
    }
    text.push_str("the record as it is\n");
    for stretch in report.get("first_pass").and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| stretch.get(name).and_then(Value::as_str).unwrap_or_default();
        let found = stretch.get("found").and_then(Value::as_bool).unwrap_or_default();
        let found = if found { "found" } else { "MISSED" };
        text.push_str(&format!("  {:<6} {} to {}  {found}\n", field("kind"), field("from"), field("to")));
    }
    text
}

/// The oldest first.
fn of_rollouts(rollouts: &[Value]) -> String {
    let mut text = if rollouts.is_empty() { String::new() } else { "what went over the air\n".to_owned() };
    for rollout in rollouts.iter().rev() {
        let field = |name: &str| rollout.get(name).and_then(Value::as_str).unwrap_or_default();
        let counts: Vec<String> = rollout
            .get("counts")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(standing, count)| format!("{count} {standing}"))
            .collect();
        let what = format!("{} {}", field("function"), field("what"));
        text.push_str(&format!("  {what:<22} {:<10} {}\n", field("state"), counts.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_what_was_found_and_what_was_missed() {
        let score = json!({"known": 4, "found": 3, "alerts": 3, "right": 3, "precision": 1.0, "recall": 0.75});
        let report = json!({
            "rows": 1_300, "passes": 1, "link": {"sent": 1_310, "acknowledged": 1_310}, "losses": score,
            "first_pass": [{"kind": "loss", "from": "a", "to": "b", "found": false}],
        });
        let status = json!({"events": {"accepted": 9}, "store": {"commits": 3, "commit_us": 600}});
        let functions = json!({"functions": [{"name": "scale", "succeeded": 5, "failed": 0, "mean_us": 90}]});
        let page = page(&report, &status, &functions, Duration::from_secs(60));
        for words in [
            "took 9 events in 3 commits, 200 µs each",
            "scale            5 succeeded, 0 failed, 90 µs each",
            "losses       3 of 4, precision 1.00, recall 0.75",
            "leaks put in 0 of 0, precision -, recall -",
            "loss   a to b  MISSED",
        ] {
            assert!(page.contains(words), "{words}\n{page}");
        }
    }
}
