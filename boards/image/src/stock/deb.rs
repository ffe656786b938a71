//! A package of Debian, as far as it must be known before it is put on a card (deb(5)).

use std::io::Read as _;
use std::path::Path;

use crate::ImageError;

/// What is at the beginning of an archive of ar(1), and how long the head of each of its files is.
const MAGIC: &[u8] = b"!<arch>\n";
const HEAD: usize = 60;

/// The largest that is put on a card: the partition has 512 MB, and kernels in it.
const MOST: u64 = 64 << 20;

/// No package says more about itself.
const MOST_CONTROL: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deb {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// What it runs on.
    pub architecture: String,
    pub(crate) bytes: Vec<u8>,
}

impl Deb {
    /// Reads a package.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let wrong = |problem: &str| ImageError::NotAPackage { path: path.to_owned(), problem: problem.to_owned() };
        let length = std::fs::metadata(path).map_err(ImageError::file("read", path))?.len();
        if length > MOST {
            return Err(wrong(&format!("it has {length} bytes, and no more than {MOST} go on a card")));
        }
        let bytes = std::fs::read(path).map_err(ImageError::file("read", path))?;
        let (name, control) = control(&bytes).ok_or_else(|| wrong("it is no archive with a control file"))?;
        let text = unpack(name, control).map_err(|error| wrong(&format!("{name} cannot be read: {error}")))?;
        let field = |key: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            value.map(|value| value.trim().to_owned()).ok_or_else(|| wrong(&format!("it does not say its {key}")))
        };
        let (package, version, architecture) = (field("Package")?, field("Version")?, field("Architecture")?);
        Ok(Self { package, version, architecture, bytes })
    }
}

/// The file of the archive that says what it is, and its name.
fn control(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    loop {
        let (head, after) = rest.split_at_checked(HEAD)?;
        let name = std::str::from_utf8(head.get(..16)?).ok()?.trim_end().trim_end_matches('/');
        let length: usize = std::str::from_utf8(head.get(48..58)?).ok()?.trim_end().parse().ok()?;
        let (content, next) = after.split_at_checked(length)?;
        if name.starts_with("control.tar") {
            return Some((name, content));
        }
        // Each begins at an even place.
        rest = next.get(length % 2..)?;
    }
}

fn unpack(name: &str, bytes: &[u8]) -> std::io::Result<String> {
    let tar: Box<dyn std::io::Read> = match name.strip_prefix("control.tar").unwrap_or_default() {
        "" => Box::new(std::io::Cursor::new(bytes.to_vec())),
        ".xz" => Box::new(xz4rust::XzReader::new(std::io::Cursor::new(bytes.to_vec()))),
        ".zst" => Box::new(zstd::Decoder::new(std::io::Cursor::new(bytes.to_vec()))?),
        other => return Err(std::io::Error::other(format!("{other} is not unpacked here: pack it with -Zxz"))),
    };
    let mut archive = tar::Archive::new(tar.take(MOST_CONTROL));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.file_name().is_some_and(|name| name == "control") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(text);
        }
    }
    Err(std::io::Error::other("it has no file `control`"))
}
