//! Somebody with a laptop: the real `holm`, with keys in a folder, against a control plane.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::node::binary;

/// See the module.
pub struct Publisher {
    /// Where everything is: `keys`, `seen` (what `holm tuf` believes) and `got` (what it downloads).
    pub folder: PathBuf,
}

impl Publisher {
    /// With a folder of its own under `folder`.
    pub fn new(folder: &Path) -> Self {
        let folder = folder.join("laptop");
        for folder in [folder.clone(), folder.join("seen"), folder.join("got")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        Self { folder }
    }

    /// `holm` with these words, logged in.
    pub fn command(&self, cloud: &ControlPlane, words: &[&str]) -> Command {
        let mut command = Command::new(binary("holm"));
        command.args(words).env("HOLM_CLOUD", format!("https://{}", cloud.https)).env("HOLM_TOKEN", &cloud.token);
        command.env("HOLM_CA", cloud.data().join("ca/root.crt")).env("XDG_CONFIG_HOME", &self.folder);
        command.env("HOLM_SYMBOLS", self.folder.join("symbols")).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, cloud: &ControlPlane, words: &[&str]) -> Output {
        self.command(cloud, words).output().unwrap()
    }

    /// Runs it, which must go well; what it wrote on stdout.
    pub fn ok(&self, cloud: &ControlPlane, words: &[&str]) -> String {
        let output = self.run(cloud, words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, which must fail with this code; what it wrote on stderr.
    pub fn fails(&self, cloud: &ControlPlane, code: i32, words: &[&str]) -> String {
        let output = self.run(cloud, words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Begins to run it.
    pub fn begin(&self, cloud: &ControlPlane, words: &[&str]) -> Child {
        self.command(cloud, words).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Writes a bundle to a file.
    pub fn bundle(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Publishes a bundle; what was signed. Without native code unless `more` names a profile: it is not made once for each test.
    pub fn publish(&self, cloud: &ControlPlane, bundle: &str, more: &[&str]) -> Value {
        let none = if more.contains(&"--profile") { &[][..] } else { &["--profile", "none"] };
        let words: Vec<&str> = ["publish", "--json", bundle].iter().chain(more).chain(none).copied().collect();
        serde_json::from_str(&self.ok(cloud, &words)).unwrap()
    }

    /// `holm tuf`, the client, with what follows the folder.
    pub fn tuf(&self, cloud: &ControlPlane, words: &[&str]) -> Output {
        let (metadata, targets) =
            (format!("https://{}/tuf/metadata/", cloud.https), format!("https://{}/tuf/targets/", cloud.https));
        let mut command = Command::new(binary("holm"));
        command.args(["tuf", "--metadata-dir"]).arg(self.folder.join("seen")).args(words);
        command.args(["--metadata-url", &metadata, "--target-base-url", &targets, "--target-dir"]);
        command.arg(self.folder.join("got")).arg("--ca").arg(cloud.data().join("ca/root.crt"));
        command.output().unwrap()
    }

    /// Makes the client believe the first root.
    pub fn believe(&self, cloud: &ControlPlane) {
        let root = cloud.ask("GET", "/tuf/metadata/1.root.json", None, b"");
        assert_eq!(root.status, 200);
        let path = self.folder.join("1.root.json");
        std::fs::write(&path, root.body).unwrap();
        let output = self.tuf(cloud, &["init", path.to_str().unwrap()]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Downloads a target as a client would; its bytes, or what it says against it.
    pub fn download(&self, cloud: &ControlPlane, name: &str) -> Result<Vec<u8>, String> {
        let output = self.tuf(cloud, &["download", "--target-name", name]);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let file = self.folder.join("got").join(name.replace('/', "%2F"));
        Ok(std::fs::read(file).unwrap())
    }
}
