//! The pages in `docs`: every command of the how-tos as it stands, every link, and the pages that are made from something
//! else. `HOLM_BLESS=1` makes those anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use holm_tests::functions::repository;
use holm_tests::golden;
use holm_tests::mosquitto::free_port;
use holm_tests::node::binary;

fn docs() -> PathBuf {
    repository().join("docs")
}

fn page(name: &str) -> String {
    let path = docs().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What a page tells people to run. `<!-- run` has what people do by looking, such as waiting; `<!-- after PAGE -->` is a
/// page that comes first; `<!-- run-link -->` lets a build find what another has compiled.
fn script(name: &str) -> String {
    let shared = repository().join("functions/examples/target");
    let mut script = String::new();
    let text = page(name);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let end = match line {
            "```sh" => "```",
            "<!-- run" => "-->",
            "<!-- run-link -->" => {
                script.push_str(&format!("ln -s {} target\n", shared.display()));
                continue;
            }
            _ => {
                if let Some(first) = line.strip_prefix("<!-- after ").and_then(|rest| rest.strip_suffix(" -->")) {
                    script.push_str(&self::script(first));
                }
                continue;
            }
        };
        script.extend(lines.by_ref().take_while(|line| *line != end).map(|line| format!("{line}\n")));
    }
    script
}

/// Runs a page in a folder and home of its own, on ports that are free.
fn follow(name: &str, told: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut text = script(name);
    assert!(!text.is_empty(), "{name} has nothing to run");
    for port in ["1883", "1884", "8443", "8883"] {
        text = text.replace(port, &free_port().to_string());
    }
    // Whatever a page has started ends with it, and is waited for, in the order in which people would.
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true; wait || true' EXIT\n{text}");
    let home = std::env::var("HOME").unwrap_or_default();
    let tool = |name: &str, usual: &str| std::env::var(name).unwrap_or_else(|_| format!("{home}/{usual}"));
    let programs = binary("holm").parent().unwrap().display().to_string();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "240", "bash", "-c", &script]).current_dir(folder.path());
    command.env("PATH", format!("{programs}:{}:/usr/sbin", std::env::var("PATH").unwrap()));
    command.env("CARGO_HOME", tool("CARGO_HOME", ".cargo")).env("RUSTUP_HOME", tool("RUSTUP_HOME", ".rustup"));
    command.env("HOME", folder.path()).env("NO_COLOR", "1").stdin(Stdio::null());
    for name in ["XDG_CONFIG_HOME", "HOLM_DATA", "HOLM_CLOUD", "HOLM_TOKEN", "HOLM_CA", "HOLM_LOG"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    let logs = || {
        let entries = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = entries.filter(|path| path.extension().is_some_and(|end| end == "log" || end == "err"));
        logs.map(|path| format!("{}:\n{}\n", path.display(), std::fs::read_to_string(&path).unwrap()))
            .collect::<String>()
    };
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}\n{}", output.status, logs());
    for words in told {
        assert!(out.contains(words) || err.contains(words), "{name} does not say `{words}`:\n{out}\n{err}");
    }
}

#[test]
fn a_node_is_run_and_configured() {
    follow("how-to/node.md", &["the configuration is good", "holmd"]);
}

#[test]
fn clients_come_with_tls_and_passwords() {
    follow("how-to/clients.md", &["the configuration is good"]);
}

#[test]
fn a_node_is_a_client_of_another_broker() {
    follow("how-to/external-broker.md", &["connected to 127.0.0.1:"]);
}

#[test]
fn sensors_are_bound_and_read() {
    follow("how-to/sensors.md", &["greenhouse", "pump", "climate"]);
}

#[test]
fn a_server_that_knows_nothing_of_holm_runs() {
    follow("how-to/http.md", &["answers requests and messages", "greeter"]);
}

#[test]
fn messages_of_yesterday_are_replayed() {
    follow("how-to/replay.md", &["sensors/attic/temperature"]);
}

#[test]
fn dead_letters_are_looked_at_replayed_and_dropped() {
    follow("how-to/dead-letters.md", &["sensors/attic/temperature"]);
}

#[test]
fn a_trap_is_found_and_run_again() {
    follow("how-to/traps.md", &["no sensor says that", "src/lib.rs:", "the same trap again", "as it should be"]);
}

#[test]
fn a_function_goes_over_the_air_and_back() {
    follow("how-to/rollback.md", &["confirmed", "state is kept", "0.2.0", "0.1.0"]);
}

#[test]
fn keys_are_put_away_brought_back_and_made_anew() {
    follow("how-to/keys.md", &["targets"]);
}

#[test]
fn the_buffer_of_a_dead_node_is_read_from_its_card() {
    follow(
        "how-to/recover.md",
        &["found in /var/lib/holm: holm.db", "epoch ", "kept in rescued", "rows in rows.ndjson"],
    );
}

#[test]
fn a_control_plane_is_backed_up_and_made_again() {
    follow("how-to/backup.md", &[]);
}

/// Every page of Markdown in a folder of `docs`.
fn pages(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() && name != "book" && name != "evidence" {
            pages(&path, found);
        } else if path.extension().is_some_and(|end| end == "md") && name != "SUMMARY.md" {
            found.insert(path);
        }
    }
}

/// Without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Targets of `[...](...)`, outside of blocks of code.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut code = false;
    for line in text.lines() {
        code ^= line.starts_with("```");
        for part in line.split("](").skip(1).filter(|_| !code) {
            links.extend(part.split_once(')').map(|(link, _)| link.to_owned()));
        }
    }
    links
}

/// What headings are called in addresses, as mdBook and GitHub do it.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        code ^= line.starts_with("```");
        if let Some(heading) = Some(line).filter(|line| line.starts_with('#') && !code) {
            let words = heading.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
        }
    }
    found
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let mut found = BTreeSet::new();
    pages(&docs(), &mut found);
    let named: BTreeSet<PathBuf> = links(&page("SUMMARY.md")).iter().map(|link| docs().join(link)).collect();
    assert_eq!(named, found, "what SUMMARY.md names, and what there is");
    let mut dead = Vec::new();
    let mut checked = 0;
    let outside =
        ["README.md", "ARCHITECTURE.md", "cloud-sync/README.md", "boards/README.md", "boards/image/README.md"];
    for path in found.into_iter().chain(outside.map(|name| repository().join(name))) {
        let text = std::fs::read_to_string(&path).unwrap();
        for link in links(&text).iter().filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { plain(&path.parent().unwrap().join(file)) };
            let good = target.exists()
                && anchor.is_none_or(|anchor| anchors(&std::fs::read_to_string(&target).unwrap()).contains(anchor));
            checked += 1;
            if !good {
                dead.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty() && checked > 100, "{checked} links, and these lead nowhere:\n{}", dead.join("\n"));
}

/// What a program says of itself, command by command.
fn commands(program: &str, words: &[String], lines: &mut String) {
    let output = Command::new(binary(program))
        .args(words)
        .arg("--help")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "120")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // The node's data folder is said once.
    let shown: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("--data <DIR>")).collect();
    let shown = shown.join("\n").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let name = [&[program.to_owned()], words].concat().join(" ");
    let level = if words.is_empty() { "##" } else { "###" };
    lines.push_str(&format!("\n{level} {name}\n\n```text\n{}\n```\n", shown.trim_end()));
    let below = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = below.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    for name in names.map(str::to_owned).collect::<Vec<_>>() {
        commands(program, &[words, &[name]].concat(), lines);
    }
}

#[test]
fn the_reference_of_commands_is_what_they_say_of_themselves() {
    let mut lines = String::from(
        "# Commands\n\nMade from what the commands say of themselves: `--help` has the same. Every one of `holm` takes `--data DIR`: the\n\
         node's data folder, by default `$HOLM_DATA`, else `./.holm/data` if it is there, else `/var/lib/holm`. Exit codes: 0 done, 1 failed,\n\
         2 wrong usage, 3 done in part, 4 deployed and rolled back, 5 still queued.\n",
    );
    for program in ["holm", "holmd"] {
        commands(program, &[], &mut lines);
    }
    golden::hold(&docs().join("reference/commands.md"), &lines);
}

#[test]
fn the_references_of_files_are_what_their_schemas_say() {
    for (schema, name) in [("manifest", "holm-toml"), ("agent", "agent-toml")] {
        let script = repository().join("tests/schemas/page.py");
        let schema = docs().join(format!("reference/schemas/{schema}.json"));
        let output = Command::new("python3").arg(script).arg(schema).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        golden::hold(&docs().join(format!("reference/{name}.md")), &String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn the_reference_of_the_interface_is_the_interface() {
    let text = std::fs::read_to_string(repository().join("functions/wit/world.wit")).unwrap();
    let page = format!(
        "# The interface of functions\n\nWhat a component may import, and the one thing that it exports, in\n\
         [WIT](https://component-model.bytecodealliance.org/design/wit.html). `holm new` puts it, with the parts of WASI that it uses, into `.holm/wit`\n\
         of a function; the SDK is made from it. Made from `functions/wit/world.wit`.\n\n```wit\n{}\n```\n",
        text.trim_end()
    );
    golden::hold(&docs().join("reference/wit.md"), &page);
}

#[test]
fn every_error_has_its_line_in_the_list() {
    let text = page("reference/errors/README.md");
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| [")) {
        let (code, about) = line.trim_matches('|').split_once('|').unwrap();
        let code = code.trim().trim_start_matches('[').split(']').next().unwrap().to_owned();
        rows.insert(code, about.trim().to_owned());
    }
    let mut found = BTreeSet::new();
    pages(&docs().join("reference/errors"), &mut found);
    found.remove(&docs().join("reference/errors/README.md"));
    assert_eq!(rows.len(), found.len());
    for path in found {
        let code = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next().unwrap(), format!("# {code}: {}", rows[&code]), "{code}");
    }
}
