//! `holm schema WHICH`: the JSON Schemas of the files that people write, for their editors. `holm new` puts them into a
//! function's folder, where the `#:schema` line of each file names them.

use std::path::PathBuf;

use clap::ValueEnum as _;

use crate::failure::Failure;
use crate::screen::Screen;

/// See `holm schema --help`.
#[derive(clap::Args)]
pub(crate) struct Schema {
    /// Of which file
    which: Which,
    /// Write it there, instead of printing it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A file that has a schema.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Which {
    /// holm.toml
    Manifest,
    /// agent.toml and node.toml
    Agent,
    /// tests/*.toml
    Cases,
}

impl Which {
    fn text(self) -> &'static str {
        match self {
            Self::Manifest => include_str!("../../../docs/reference/schemas/manifest.json"),
            Self::Agent => include_str!("../../../docs/reference/schemas/agent.json"),
            Self::Cases => include_str!("../../../docs/reference/schemas/cases.json"),
        }
    }
}

/// All of them, as (file name, text).
pub(crate) fn all() -> impl Iterator<Item = (String, &'static str)> {
    let name = |which: &Which| Some((format!("{}.json", which.to_possible_value()?.get_name()), which.text()));
    Which::value_variants().iter().filter_map(name)
}

impl Schema {
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        match &self.output {
            None => screen.text(self.which.text()),
            Some(path) => std::fs::write(path, self.which.text())
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display()))),
        }
    }
}
