//! The example functions and the misbehaving guests as bundles.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The bundle of an example, with `change` applied to its manifest's text.
pub fn example(name: &str, change: impl FnOnce(String) -> String) -> Vec<u8> {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = repository().join("functions/examples");
    BUILT.get_or_init(|| {
        let status = Command::new("cargo")
            .args(["build", "--quiet", "--release", "--target", "wasm32-wasip2"])
            .current_dir(&folder)
            .status()
            .unwrap();
        assert!(status.success(), "the examples do not build");
    });
    let manifest = std::fs::read_to_string(folder.join(name).join("holm.toml")).unwrap();
    let file = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
    let component = std::fs::read(folder.join(file)).unwrap();
    holm_bundle::Bundle::pack(&change(manifest), &component).unwrap().bytes
}
