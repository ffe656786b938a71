//! `cargo xtask layers`: who may depend on whom, held by a tool and not by prose.
//!
//! Only what ships counts: dependencies for tests may go where they like.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::shell::{cargo, metadata, output};

/// A rule of the house.
enum Rule {
    /// Of our crates, only these may name this one.
    Only { of: &'static str, by: &'static [&'static str] },
    /// Of our crates, this one may name these and no others.
    Names { who: &'static str, may: &'static [&'static str] },
    /// This one never reaches any of these, however far down.
    Never { who: &'static str, reaches: &'static [&'static str] },
}

use Rule::{Names, Never, Only};

/// See the table of the design. Whoever adds a line here says why in the change that does.
const RULES: &[Rule] = &[
    Only { of: "wasmtime", by: &["holm-runtime", "holm-compiler"] },
    Only { of: "wasmparser", by: &["holm-compiler"] },
    Only { of: "addr2line", by: &["holm-compiler"] },
    // The benchmark measures the store beside a table of its own; deny.toml says the same.
    Only { of: "rusqlite", by: &["holm-bench", "holm-control-plane", "holm-store"] },
    Only { of: "mqtt-protocol-core", by: &["holm-mqtt"] },
    Only { of: "rumqttc-v5-next", by: &["holm-mqtt", "holm-bench", "holm-feed", "holm-tests"] },
    Only { of: "gpiocdev", by: &["holm-boards"] },
    Only { of: "i2cdev", by: &["holm-boards"] },
    Only { of: "spidev", by: &["holm-boards"] },
    Only { of: "embedded-hal", by: &["holm-boards"] },
    Only { of: "ratatui", by: &["holm-cli"] },
    // It makes components of core modules; what is deployed is looked through by the compiler.
    Only { of: "wit-component", by: &["holm-cli"] },
    Only { of: "wit-parser", by: &["holm-cli"] },
    Only { of: "x25519-dalek", by: &["holm-trust"] },
    Only { of: "maud", by: &["holm-control-plane"] },
    Only { of: "holm-agent", by: &["holm-tests"] },
    Names { who: "holm-core", may: &[] },
    Names { who: "holm-bundle", may: &["holm-core"] },
    Names { who: "holm-store", may: &["holm-core"] },
    Names { who: "holm-mqtt", may: &["holm-core"] },
    Names { who: "holm-runtime", may: &["holm-core"] },
    Names { who: "holm-boards", may: &["holm-core"] },
    Names { who: "holm-compiler", may: &["holm-core", "holm-runtime"] },
    Names { who: "holm-function", may: &[] },
    // For `Digest` only: one type for what a bundle is named by.
    Names { who: "holm-protocol", may: &["holm-bundle", "holm-core"] },
    Names { who: "holm-trust", may: &["holm-bundle", "holm-core", "holm-protocol"] },
    Only { of: "holm-control-plane", by: &["holm-cli"] },
    Only { of: "fatfs", by: &["holm-image"] },
    Only { of: "ext4-view", by: &["holm-image"] },
    Only { of: "holm-image", by: &["holm-cli"] },
    Names { who: "holm-image", may: &["holm-init"] },
    // For documents and durations only.
    Names { who: "holm-init", may: &["holm-core"] },
    Only { of: "rcgen", by: &["holm-cli", "holm-control-plane", "holm-tests"] },
    Names { who: "holm-control-plane", may: &["holm-bundle", "holm-core", "holm-mqtt", "holm-protocol", "holm-trust"] },
    Names {
        who: "holm-cli",
        may: &[
            "holm-bundle",
            "holm-control-plane",
            "holm-core",
            "holm-image",
            "holm-mqtt",
            "holm-protocol",
            "holm-trust",
        ],
    },
    // The handles on the outbox and on what the link remembers, never the whole store. Of bundles the digest only.
    Names {
        who: "holm-cloud-sync",
        may: &["holm-bundle", "holm-core", "holm-mqtt", "holm-protocol", "holm-store", "holm-trust"],
    },
    Names { who: "holm-feed", may: &[] },
    Names { who: "xtask", may: &[] },
    Never { who: "holm-core", reaches: &["tokio", "mio", "rusqlite", "wasmtime"] },
    Never {
        who: "holm-protocol",
        reaches: &["tokio", "mio", "rusqlite", "mqtt-protocol-core", "rumqttc-v5-next", "wasmtime", "ring"],
    },
    Never { who: "holm-trust", reaches: &["tokio", "mio", "rusqlite", "aws-lc-rs", "openssl-sys"] },
    Never { who: "holm-boards", reaches: &["tokio", "mio", "rusqlite", "wasmtime"] },
    Never { who: "holm-init", reaches: &["tokio", "mio", "rusqlite", "wasmtime", "ring"] },
    Never {
        who: "holm-runtime",
        reaches: &["holm-boards", "holm-store", "holm-mqtt", "rusqlite", "mqtt-protocol-core"],
    },
    Never { who: "holm-cli", reaches: &["holm-agent", "holm-boards", "holm-store", "holm-runtime", "wasmtime"] },
    // What signs certificates, and the fleet's database, have no place on a device.
    Never { who: "holm-agent", reaches: &["holm-control-plane", "rcgen", "x509-parser"] },
    Never { who: "holm-control-plane", reaches: &["holm-agent", "holm-store", "holm-runtime", "wasmtime"] },
    Never { who: "holm-cloud-sync", reaches: &["holm-agent", "holm-runtime", "wasmtime", "aws-lc-rs", "openssl-sys"] },
    // One provider of cryptography in the whole tree.
    Never { who: "holm-agent", reaches: &["aws-lc-rs", "openssl", "openssl-sys", "native-tls"] },
    Never { who: "holm-cli", reaches: &["aws-lc-rs", "openssl", "openssl-sys", "native-tls"] },
];

/// Collections that wasmtime describes loaded code with, compiler or not. They generate nothing.
const COLLECTIONS: [&str; 3] = ["cranelift-bforest", "cranelift-bitset", "cranelift-entity"];

/// Checks all rules, and tells every violation.
pub fn run() -> anyhow::Result<()> {
    let graph = Graph::read(&metadata(&[])?)?;
    let mut violations = 0;
    let mut tell = |rule: String, found: Vec<String>| {
        if found.is_empty() {
            println!("ok         {rule}");
        } else {
            violations += 1;
            println!("violation  {rule}: {}", found.join(", "));
        }
    };
    for rule in RULES {
        tell(rule.to_string(), graph.violations(rule));
    }
    tell("no compiler in holmd".into(), compiler()?);
    if violations > 0 {
        bail!("{violations} of the rules are broken");
    }
    Ok(())
}

/// What of a compiler `holmd` has, as it is built: with its own features and nobody else's.
fn compiler() -> anyhow::Result<Vec<String>> {
    let tree = &["tree", "-p", "holm-agent", "-e", "features,no-dev,no-build", "--prefix", "none"];
    let tree = output(&mut cargo(tree))?;
    let suspicious = |line: &&str| {
        let name = line.split_whitespace().next().unwrap_or_default();
        let feature = line.split_once("feature \"").and_then(|(_, rest)| rest.split('"').next());
        let whole = name.starts_with("cranelift") && !COLLECTIONS.contains(&name) || name.starts_with("winch");
        let part = name == "wasmtime" && matches!(feature, Some("cranelift" | "winch" | "all-arch"));
        whole || part || name == "holm-compiler"
    };
    let found: BTreeSet<String> = tree.lines().filter(suspicious).map(|line| line.trim().to_owned()).collect();
    Ok(found.into_iter().collect())
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Only { of, by } => write!(f, "only {} name {of}", by.join(" and ")),
            Names { who, may: [] } => write!(f, "{who} names none of our crates"),
            Names { who, may } => write!(f, "{who} names only {}", may.join(" and ")),
            Never { who, reaches } => write!(f, "{who} never reaches {}", reaches.join(", ")),
        }
    }
}

/// Names and what they depend on, for what ships.
struct Graph {
    ours: BTreeSet<String>,
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read(metadata: &Value) -> anyhow::Result<Self> {
        let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> =
            list(metadata, "packages").iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
        let name = |id: &str| names.get(id).cloned().unwrap_or_default();
        let ours = list(metadata, "workspace_members").iter().filter_map(Value::as_str).map(name).collect();
        let resolve = metadata.get("resolve").context("cargo metadata tells no dependencies")?;
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(resolve, "nodes") {
            let to = edges.entry(name(&text(&node, "id"))).or_default();
            for dependency in list(&node, "deps") {
                let ships = list(&dependency, "dep_kinds").iter().any(|kind| text(kind, "kind") != "dev");
                if ships {
                    to.insert(name(&text(&dependency, "pkg")));
                }
            }
        }
        Ok(Self { ours, edges })
    }

    fn names(&self, who: &str) -> impl Iterator<Item = &String> {
        self.edges.get(who).into_iter().flatten()
    }

    fn violations(&self, rule: &Rule) -> Vec<String> {
        match rule {
            Only { of, by } => {
                let names_it = |who: &&String| !by.contains(&who.as_str()) && self.names(who).any(|name| name == of);
                self.ours.iter().filter(names_it).cloned().collect()
            }
            Names { who, may } => {
                let others = |name: &&String| self.ours.contains(*name) && !may.contains(&name.as_str());
                self.names(who).filter(others).cloned().collect()
            }
            Never { who, reaches } => {
                let mut seen = BTreeSet::from([(*who).to_owned()]);
                let mut next = vec![(*who).to_owned()];
                while let Some(name) = next.pop() {
                    next.extend(self.names(&name).filter(|name| seen.insert((*name).clone())).cloned());
                }
                reaches.iter().filter(|name| seen.contains(**name)).map(|name| (*name).to_owned()).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_breaks_a_rule_and_nothing_else() {
        let edges = |pairs: &[(&str, &[&str])]| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            pairs.iter().map(|(name, to)| ((*name).to_owned(), set(to))).collect()
        };
        let graph = Graph {
            ours: ["a", "b"].map(str::to_owned).into(),
            edges: edges(&[("a", &["b", "tokio"]), ("b", &["sqlite"]), ("tokio", &["mio"])]),
        };
        for (rule, expected) in [
            (Only { of: "sqlite", by: &["b"] }, vec![]),
            (Only { of: "tokio", by: &["b"] }, vec!["a"]),
            (Names { who: "a", may: &[] }, vec!["b"]),
            (Names { who: "b", may: &[] }, vec![]),
            (Never { who: "a", reaches: &["mio", "sqlite", "x"] }, vec!["mio", "sqlite"]),
        ] {
            assert_eq!(graph.violations(&rule), expected, "{rule}");
        }
    }
}
