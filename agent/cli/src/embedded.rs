//! What `holm new` writes: templates, the SDK and its WIT packages, of this release.

use crate::schema;

include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// What functions are written in. A template's name ends with it, and a folder of that name has what all of its templates
/// have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    C,
    Rust,
}

/// All of them, with their folders.
const LANGUAGES: [(Language, &str); 2] = [(Language::C, "c"), (Language::Rust, "rust")];

/// How the SDK is written.
const STYLE: &[u8] = include_bytes!("../../../rustfmt.toml");

/// A kind of function to begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Template {
    /// Such as `mqtt-rust`.
    pub(crate) name: &'static str,
}

/// All of them, by name.
pub(crate) fn templates() -> Vec<Template> {
    let mut names: Vec<&'static str> =
        FILES.iter().filter_map(|(path, _)| path.strip_prefix("templates/")?.split('/').next()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter(|name| LANGUAGES.iter().all(|(_, folder)| name != folder))
        .map(|name| Template { name })
        .collect()
}

impl Template {
    /// One line for people: the description in its manifest.
    pub(crate) fn about(&self) -> &'static str {
        let manifest = text(&format!("templates/{}/holm.toml", self.name)).unwrap_or_default();
        let line = manifest.lines().find_map(|line| line.strip_prefix("description = \""));
        line.and_then(|line| line.strip_suffix('"')).unwrap_or_default()
    }

    /// What its functions are written in.
    pub(crate) fn language(&self) -> Language {
        let (language, _) = self.written_in();
        language
    }

    fn written_in(&self) -> (Language, &'static str) {
        let last = self.name.rsplit('-').next().unwrap_or_default();
        LANGUAGES.into_iter().find(|(_, folder)| *folder == last).unwrap_or((Language::Rust, "rust"))
    }

    /// Every file of a new function's folder, with its path there.
    pub(crate) fn files(&self, function: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = Vec::new();
        for (path, bytes) in under(&format!("templates/{}/", self.name)) {
            files.push((path.to_owned(), fill(bytes, function)));
        }
        let (language, folder) = self.written_in();
        for (path, bytes) in under(&format!("templates/{folder}/")) {
            let path = match path {
                // Under its own name it would be one of this repository's.
                "gitignore" => ".gitignore".to_owned(),
                "sdk.toml" => ".holm/sdk/Cargo.toml".to_owned(),
                path => path.to_owned(),
            };
            files.push((path, fill(bytes, function)));
        }
        match language {
            Language::C => files.extend(sdk_c()),
            Language::Rust => {
                files.extend(sdk());
                // Or the author's `cargo fmt` would write the SDK anew.
                files.push((".holm/rustfmt.toml".to_owned(), STYLE.to_vec()));
            }
        }
        files.extend(schema::all().map(|(name, text)| (format!(".holm/schema/{name}"), text.as_bytes().to_vec())));
        files.sort();
        files
    }
}

/// The SDK's sources and the WIT packages that they are generated from.
fn sdk() -> impl Iterator<Item = (String, Vec<u8>)> {
    let sources = under("sdk/src/").map(|(path, bytes)| (format!(".holm/sdk/src/{path}"), bytes.to_vec()));
    sources.chain(under("wit/").map(|(path, bytes)| (format!(".holm/wit/{path}"), bytes.to_vec())))
}

/// The SDK for C, with the bindings that were generated from the WIT packages.
fn sdk_c() -> impl Iterator<Item = (String, Vec<u8>)> {
    ["include", "libc", "src"].into_iter().flat_map(|folder| {
        let files: Vec<_> = under(&["sdk-c/", folder, "/"].concat()).collect();
        files.into_iter().map(move |(path, bytes)| (format!(".holm/sdk/{folder}/{path}"), bytes.to_vec()))
    })
}

/// The WIT packages, each with its path under `functions/wit`.
pub(crate) fn wit() -> impl Iterator<Item = (&'static str, &'static str)> {
    let texts = under("wit/").filter(|(path, _)| path.ends_with(".wit"));
    texts.filter_map(|(path, bytes)| Some((path, std::str::from_utf8(bytes).ok()?)))
}

fn under(folder: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    FILES.iter().filter_map(move |(path, bytes)| Some((path.strip_prefix(folder)?, *bytes)))
}

fn text(path: &str) -> Option<&'static str> {
    let (_, bytes) = FILES.iter().find(|(name, _)| *name == path)?;
    std::str::from_utf8(bytes).ok()
}

/// A template's text with its names.
fn fill(bytes: &[u8], function: &str) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
    text.replace("{{name}}", function)
        .replace("{{crate}}", &function.replace('-', "_"))
        .replace("{{holm}}", env!("CARGO_PKG_VERSION"))
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_has_a_manifest_that_is_good_and_cases() {
        let all = templates();
        assert!(all.len() >= 5, "{all:?}");
        for template in all {
            let files = template.files("my-function");
            let file = |name: &str| {
                let found = files.iter().find(|(path, _)| path == name);
                found.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
            };
            let manifest = holm_core::Manifest::parse(template.name, &file("holm.toml"));
            assert!(manifest.is_ok(), "{manifest:?}");
            assert!(!template.about().is_empty(), "{}", template.name);
            assert!(file("tests/cases.toml").contains("[[case]]"), "{}", template.name);
            match template.language() {
                Language::C => {
                    assert!(file("src/handler.c").contains("holm_outcome handle"), "{}", template.name);
                    assert!(file(".holm/sdk/include/holm.h").contains("holm_outcome"), "{}", template.name);
                }
                Language::Rust => {
                    assert!(file("Cargo.toml").contains("name = \"my_function\""), "{}", template.name);
                    assert!(file(".holm/sdk/src/lib.rs").contains("export!"), "{}", template.name);
                }
            }
            assert!(!files.iter().any(|(_, bytes)| bytes.windows(2).any(|pair| pair == b"{{") && {
                let text = String::from_utf8_lossy(bytes);
                text.contains("{{name}}") || text.contains("{{crate}}") || text.contains("{{holm}}")
            }));
        }
    }
}
