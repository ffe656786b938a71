//! `holm login`: which control plane the other commands talk to.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::remote::{Profile, Remote};
use crate::screen::Screen;

/// See `holm login --help`.
#[derive(clap::Args)]
pub(crate) struct Login {
    /// Its address, such as https://localhost:8443
    url: String,
    /// Its root certificate: ca/root.crt in its data folder
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
}

impl Login {
    /// The token comes from stdin. It is kept only if the control plane takes it.
    pub(crate) async fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let root_pem = std::fs::read_to_string(&self.ca)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", self.ca.display())))?;
        let token = crate::password::read(screen, "The token")?.trim().to_owned();
        let profile = Profile { url: self.url.clone(), token, root_pem };
        Remote::of(&profile)?.get("/v1/status").await?;
        let path = Profile::path().ok_or_else(|| Failure::new("there is no home folder to keep it in"))?;
        let text =
            toml::to_string(&profile).map_err(|error| Failure::new(format!("cannot write the profile: {error}")))?;
        write(&path, &text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        screen.note(format_args!("{} is known now, by {}", self.url, path.display()));
        Ok(())
    }
}

/// For its owner's eyes only: there is a token in it. Whole or not at all.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    let new = folder.join("cloud.toml.new");
    // One that is left from before may be open to others.
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::File::options().create_new(true).write(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}
