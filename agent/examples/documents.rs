//! What packages install beside `holmd`, made from its own command line: manual pages and completions, into the folder
//! that is named. An example, so that no node carries it.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use holm_agent::arguments::Arguments;

fn main() -> anyhow::Result<()> {
    let folder: PathBuf = std::env::args_os().nth(1).context("name a folder")?.into();
    let command = Arguments::command();
    let written = || -> std::io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
            clap_complete::generate_to(shell, &mut command.clone(), "holmd", &folder)?;
        }
        clap_mangen::generate_to(command.clone(), &folder)
    };
    written().with_context(|| format!("cannot write to {}", folder.display()))
}
