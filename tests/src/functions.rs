//! The example functions and the misbehaving guests as bundles.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The path, with the zig of `cargo xtask test`, for functions in C.
pub fn path() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let zig = repository().join("target/tools/zig/ziglang");
    std::env::join_paths(std::env::split_paths(&path).chain([zig])).unwrap()
}

/// The bundle of an example, with `change` applied to its manifest's text.
pub fn example(name: &str, change: impl FnOnce(String) -> String) -> Vec<u8> {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = repository().join("functions/examples");
    BUILT.get_or_init(|| build(&folder));
    let manifest = std::fs::read_to_string(folder.join(name).join("holm.toml")).unwrap();
    let file = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let component = std::fs::read(folder.join(file)).unwrap();
    holm_bundle::Bundle::pack(&change(manifest), &component).unwrap().bytes
}

/// The component of `tests/guests`: its parameter `habit` says what it does.
pub fn guests() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| guest("guests"))
}

/// The component of `tests/guests/board`.
pub fn board_guests() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| guest("board_guests"))
}

/// The component of `tests/guests/program`: a program that exports `wasi:cli/run` and nothing else.
pub fn program() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| guest("program"))
}

/// The component of `tests/guests/proxy`: a server that exports `wasi:http/incoming-handler` and nothing else.
pub fn proxy() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| guest("proxy"))
}

fn guest(name: &str) -> Vec<u8> {
    let folder = repository().join("tests/guests");
    build(&folder);
    std::fs::read(folder.join(format!("target/wasm32-wasip2/release/{name}.wasm"))).unwrap()
}

fn build(folder: &Path) {
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
        .current_dir(folder)
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .status()
        .unwrap();
    assert!(status.success(), "{} does not build", folder.display());
}

/// A function with one of the habits of `tests/guests`.
#[derive(Debug, Clone)]
pub struct Guest {
    name: String,
    version: String,
    triggers: String,
    permissions: String,
    limits: String,
    parameters: Vec<(String, String)>,
    more: String,
}

impl Guest {
    /// A function of this name. It may publish to `seen/#` and `granted/#` and has state of its own.
    pub fn new(name: &str, habit: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            triggers: String::new(),
            permissions: "publish = [\"seen/#\", \"granted/#\"]\nkv = [\"rw:self\"]\n".to_owned(),
            limits: "memory = \"4MiB\"\ntimeout = \"300ms\"\nkv = \"64KiB\"\nlog = \"4KiB\"\n".to_owned(),
            parameters: vec![("habit".to_owned(), habit.to_owned()), ("name".to_owned(), name.to_owned())],
            more: String::new(),
        }
    }

    /// Another version than 1.0.0.
    pub fn version(mut self, version: &str) -> Self {
        self.version = version.to_owned();
        self
    }

    /// Started by messages on a topic.
    pub fn on(self, topic: &str) -> Self {
        self.trigger("mqtt", &format!("topics = [\"{topic}\"]"))
    }

    /// Another trigger: its kind, and the lines of its table.
    pub fn trigger(mut self, kind: &str, lines: &str) -> Self {
        self.triggers.push_str(&format!("[[trigger.{kind}]]\n{lines}\n"));
        self
    }

    /// A parameter.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.parameters.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Other lines of `[permissions]`.
    pub fn permissions(mut self, lines: &str) -> Self {
        self.permissions = format!("{lines}\n");
        self
    }

    /// Other lines of `[limits]`, instead of the tight ones.
    pub fn limits(mut self, lines: &str) -> Self {
        self.limits = format!("{lines}\n");
        self
    }

    /// More tables.
    pub fn more(mut self, lines: &str) -> Self {
        self.more.push_str(&format!("{lines}\n"));
        self
    }

    /// Its manifest.
    pub fn manifest(&self) -> String {
        let Self { name, version, triggers, permissions, limits, parameters, more } = self;
        let parameters: String = parameters
            .iter()
            .map(|(name, value)| format!("[config.{name}]\ntype = \"text\"\ndefault = \"{value}\"\n"))
            .collect();
        format!(
            "manifest_version = 1\n[function]\nname = \"{name}\"\nversion = \"{version}\"\n{triggers}[permissions]\n\
             {permissions}[limits]\n{limits}{parameters}[results.n]\n{more}"
        )
    }

    /// Its bundle.
    pub fn bundle(&self) -> Vec<u8> {
        self.bundle_of(guests())
    }

    /// A bundle with its manifest and any component.
    pub fn bundle_of(&self, component: &[u8]) -> Vec<u8> {
        holm_bundle::Bundle::pack(&self.manifest(), component).unwrap().bytes
    }
}
