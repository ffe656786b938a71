//! `holm documents DIR`: what packages install beside the command, made from its own command line.

use std::path::PathBuf;

use clap_complete::Shell;

use crate::failure::Failure;

/// Hidden: for who packs `holm`.
#[derive(clap::Args)]
pub(crate) struct Documents {
    /// Where the files go.
    folder: PathBuf,
}

impl Documents {
    /// Writes a manual page per command, and completions for three shells.
    pub(crate) fn run(self, command: clap::Command) -> Result<(), Failure> {
        let failed =
            |error: std::io::Error| Failure::new(format!("cannot write to {}: {error}", self.folder.display()));
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut command.clone(), "holm", &self.folder).map_err(failed)?;
        }
        clap_mangen::generate_to(command, &self.folder).map_err(failed)
    }
}
