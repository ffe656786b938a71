//! `holm new`: a function to begin with, from a template of this release. Needs no network and no account.

use std::path::{Path, PathBuf};

use holm_core::FunctionName;

use crate::embedded::{Template, templates};
use crate::failure::Failure;
use crate::look::{Look, Tone};
use crate::screen::Screen;
use crate::table::list;
use crate::toolchain::{self, Finding};

/// The template that is meant where none is named.
const DEFAULT: &str = "mqtt-rust";

/// See `holm new --help`.
#[derive(clap::Args)]
pub(crate) struct New {
    /// What the function is called, and its folder: a-z, 0-9 and `-`
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// What it begins as
    #[arg(short, long, value_name = "TEMPLATE", default_value = DEFAULT)]
    template: String,
    /// The folder, instead of ./NAME
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// List the templates, and do nothing else
    #[arg(long)]
    list: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl New {
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        if self.list {
            return self.show(screen);
        }
        let name = self.name.as_deref().unwrap_or_default();
        let function = FunctionName::new(name).map_err(|error| {
            Failure::new(error.to_string()).next(format!("holm new {} -t {}", better(name), self.template))
        })?;
        let template = templates().into_iter().find(|template| template.name == self.template).ok_or_else(|| {
            let names: Vec<&str> = templates().iter().map(|template| template.name).collect();
            Failure::new(format!("there is no template `{}`; there are {}", self.template, names.join(", ")))
                .next("see what each is with `holm new --list`")
        })?;
        let folder = self.dir.clone().unwrap_or_else(|| PathBuf::from(function.as_str()));
        let files = template.files(function.as_str());
        write(&folder, &files)?;
        let findings = toolchain::of(template.language());
        if self.json {
            let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
            return screen.json(&serde_json::json!({
                "name": function.as_str(), "template": template.name, "folder": folder, "files": paths,
                "toolchain": findings,
            }));
        }
        let text = render(&folder, &template, &files, &findings, &screen.look);
        screen.text(&text)
    }

    fn show(&self, screen: &mut Screen) -> Result<(), Failure> {
        let all = templates();
        if self.json {
            let rows: Vec<_> =
                all.iter().map(|one| serde_json::json!({ "name": one.name, "about": one.about() })).collect();
            return screen.json(&serde_json::json!({ "templates": rows }));
        }
        let rows: Vec<(&str, String)> = all.iter().map(|one| (one.name, one.about().to_owned())).collect();
        let text = list(&screen.look, &rows);
        screen.text(&text)
    }
}

/// A name that would do, near one that does not.
fn better(name: &str) -> String {
    let lower = name.to_lowercase();
    let text: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let text = text.trim_matches('-').trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    if FunctionName::new(text).is_ok() { text.to_owned() } else { "my-function".to_owned() }
}

/// Writes the files into a folder that is not there, or empty.
fn write(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), Failure> {
    let shown = folder.display();
    let taken = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(Failure::new(format!("cannot make a function in {shown}: {error}"))),
    };
    if taken {
        return Err(Failure::new(format!("{shown} is not empty, and nothing in it is overwritten"))
            .next("choose another name, or another folder with --dir"));
    }
    for (path, bytes) in files {
        let path = folder.join(path);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, bytes));
        made.map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(())
}

fn render(
    folder: &Path,
    template: &Template,
    files: &[(String, Vec<u8>)],
    findings: &[Finding],
    look: &Look,
) -> String {
    let mut text = format!("{}  {}\n", look.paint(Tone::Strong, &folder.display().to_string()), template.about());
    let mut hidden = false;
    for (path, _) in files {
        let about = match path.as_str() {
            "holm.toml" => "what starts it, what it may do and use",
            "src/lib.rs" => "the function, and its unit tests",
            "src/handler.c" => "the function",
            "tests/cases.toml" => "cases for `holm test`",
            "node.toml" => "the simulated board of `holm test` and `holm dev`",
            path if path.starts_with(".holm/") => {
                if !std::mem::replace(&mut hidden, true) {
                    let about = format!("the SDK and the schemas, of release {}", env!("CARGO_PKG_VERSION"));
                    text.push_str(&format!("  {:<18}{}\n", ".holm/", look.paint(Tone::Dim, &about)));
                }
                continue;
            }
            _ => "",
        };
        text.push_str(format!("  {path:<18}{}", look.paint(Tone::Dim, about)).trim_end());
        text.push('\n');
    }
    text.push('\n');
    for finding in findings {
        let (tone, fix) = match &finding.fix {
            None => (Tone::Good, String::new()),
            Some(fix) => (Tone::Bad, format!("  {} {fix}", look.paint(Tone::Strong, "next:"))),
        };
        text.push_str(&format!("{:<15}{}{fix}\n", finding.what, look.paint(tone, &finding.found)));
    }
    let cd = format!("cd {}", folder.display());
    text.push_str(&format!(
        "\n{} {cd} && holm test\n{} holm dev\n",
        look.paint(Tone::Strong, "next:"),
        look.paint(Tone::Strong, "then:")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_will_not_do_is_mended() {
        for (name, mended) in [
            ("Temp_Alert", "temp-alert"),
            ("9lives", "lives"),
            ("ÄÖ", "my-function"),
            ("", "my-function"),
            ("a b", "a-b"),
        ] {
            assert_eq!(better(name), mended, "{name}");
        }
    }
}
