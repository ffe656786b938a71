//! What a manifest says about files and requests.

use std::sync::Arc;

use crate::{Label, Section};

/// The methods that a route may be for.
pub const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];

/// The longest route.
const MAX_PATH: usize = 256;

/// The longest suffix.
const MAX_SUFFIX: usize = 64;

const MIB: u64 = 1 << 20;

/// New files in a folder as events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileTrigger {
    /// Which folder, by the name that the node's configuration gives it.
    pub folder: Label,
    /// What the name of a file ends with.
    pub suffix: Arc<str>,
    /// Whether the event carries what is in the file; else it says where the file is.
    pub content: bool,
    /// The largest file whose content an event carries, in bytes.
    pub max_bytes: u64,
}

/// Requests on a route as events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpTrigger {
    /// An absolute path; one that ends with `/*` is for all paths below it.
    pub path: Arc<str>,
    /// Of [`METHODS`].
    pub methods: Vec<&'static str>,
}

impl HttpTrigger {
    /// Whether a request's path is on this route. The longer the answer, the closer it is.
    pub fn matches(&self, path: &str) -> Option<usize> {
        match self.path.strip_suffix('*') {
            Some(folder) => path.starts_with(folder).then_some(folder.len()),
            None => (*path == *self.path).then_some(usize::MAX),
        }
    }
}

pub(super) fn file(section: &mut Section<'_>) -> Option<FileTrigger> {
    let folder = section.require("folder", Label::new);
    let suffix = section.require("suffix", |text| {
        let good = (1..=MAX_SUFFIX).contains(&text.len()) && !text.contains(['/', '\0']);
        if good {
            Ok(Arc::from(text))
        } else {
            Err(format!("`{text}` is not the end of a file's name, such as `.jpg`"))
        }
    });
    let content = section.choice("deliver", &[("content", true), ("path", false)]).unwrap_or(true);
    let max_bytes = section.bytes("max_bytes", 1..=4 * MIB);
    if max_bytes.is_some() && !content {
        section.problem("max_bytes", "is for `deliver = \"content\"`");
    }
    Some(FileTrigger { folder: folder?, suffix: suffix?, content, max_bytes: max_bytes.unwrap_or(MIB) })
}

pub(super) fn http(section: &mut Section<'_>) -> Option<HttpTrigger> {
    let path = section.require("path", route);
    let there = section.has("methods");
    let methods = section.texts("methods", |text| {
        let known = METHODS.iter().find(|method| **method == text).copied();
        known.ok_or_else(|| format!("`{text}` is not one of {}", METHODS.join(", ")))
    });
    if there && methods.is_empty() {
        section.problem("methods", "names at least one");
    }
    let methods = if methods.is_empty() { vec!["POST"] } else { methods };
    Some(HttpTrigger { path: path?, methods })
}

/// A path as it stands in a request (RFC 3986, 3.3), without what could be written in two ways.
fn route(text: &str) -> Result<Arc<str>, String> {
    let wrong = || format!("`{text}` is not a route: an absolute path such as `/hooks/door`, or `/hooks/*`");
    let plain = text.strip_suffix("/*").unwrap_or(text);
    let good = |segment: &str| {
        !segment.is_empty()
            && segment != "."
            && segment != ".."
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'))
    };
    let rest = plain.strip_prefix('/').ok_or_else(wrong);
    // The root itself, and all that is below it.
    if text == "/" || text == "/*" {
        return Ok(text.into());
    }
    if text.len() <= MAX_PATH && rest?.split('/').all(good) { Ok(text.into()) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, TriggerKind};

    fn read(lines: &str) -> Result<TriggerKind, Vec<String>> {
        let text = format!("manifest_version = 1\n[function]\nname = \"f\"\nversion = \"1.0.0\"\n{lines}\n");
        match Manifest::parse("holm.toml", &text) {
            Ok(manifest) => Ok(manifest.triggers[0].kind.clone()),
            Err(found) => Err(found.problems.into_iter().map(|problem| problem.key).collect()),
        }
    }

    #[test]
    fn routes_are_paths_and_the_closest_one_wins() {
        let trigger = |path: &str| HttpTrigger { path: path.into(), methods: vec!["POST"] };
        assert_eq!(trigger("/a/b").matches("/a/b"), Some(usize::MAX));
        assert_eq!(trigger("/a/b").matches("/a/b/"), None);
        assert!(trigger("/a/b/*").matches("/a/b/c") > trigger("/a/*").matches("/a/b/c"));
        assert_eq!(trigger("/a/*").matches("/ab"), None);
        for path in ["/", "/*", "/a", "/a.b/c-d/*"] {
            assert!(route(path).is_ok(), "{path}");
        }
        for path in ["", "a", "/a//b", "/a/../b", "/a?b", "/a/*/b", "/ä", "/a%20b", "*"] {
            assert!(route(path).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        let kind = read("[[trigger.http]]\npath = \"/x\"\nmethods = [\"GET\", \"POST\"]").unwrap();
        assert!(matches!(kind, TriggerKind::Http(trigger) if trigger.methods == ["GET", "POST"]));
        let kind = read("[[trigger.file]]\nfolder = \"camera\"\nsuffix = \".jpg\"").unwrap();
        assert!(matches!(kind, TriggerKind::File(trigger) if trigger.content && trigger.max_bytes == 1 << 20));
        let wrong = |lines: &str| read(lines).unwrap_err();
        assert_eq!(wrong("[[trigger.http]]\npath = \"x\"\nmethods = [\"get\"]").len(), 3);
        assert_eq!(wrong("[[trigger.file]]\nfolder = \"camera\"\nsuffix = \"/x\""), ["trigger.file[0].suffix"]);
        let path = "[[trigger.file]]\nfolder = \"a\"\nsuffix = \"x\"\ndeliver = \"path\"\nmax_bytes = \"1KiB\"";
        assert_eq!(wrong(path), ["trigger.file[0].max_bytes"]);
    }
}
