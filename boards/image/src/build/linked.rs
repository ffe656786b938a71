//! Programs of Debian with the libraries that they are linked against, and nothing else of their packages.
//!
//! Which libraries those are is in the programs themselves (`DT_NEEDED`, System V gABI, chapter 5); which package has one is
//! found among those that the program's own package depends on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::debian::Debian;
use super::system::Put;
use crate::{ImageError, Package};

/// Packages, and where they lie.
type Sources = Vec<(Package, PathBuf)>;

/// The packages that were looked into so far.
struct Shelf<'a> {
    debian: &'a Debian,
    /// Where libraries are on this architecture: `aarch64-linux-gnu`.
    triplet: String,
    packages: BTreeMap<String, (Package, PathBuf)>,
}

/// A program of a package with its libraries, each at its place in a system whose `/lib` leads to `usr/lib`; and the packages
/// that they are from.
pub(super) fn program(
    debian: &Debian,
    architecture: &str,
    package: &str,
    program: &str,
    to: &str,
) -> Result<(Vec<Put>, Sources), ImageError> {
    let mut shelf = Shelf { debian, triplet: format!("{architecture}-linux-gnu"), packages: BTreeMap::new() };
    let folder = shelf.open(package)?;
    let path = folder.join(program);
    let bytes = fs::read(&path).map_err(ImageError::file("read", &path))?;
    let mut used = vec![package.to_owned()];
    let mut waiting = vec![(package.to_owned(), needed(&bytes))];
    let mut put = vec![Put { path: to.to_owned(), bytes, program: true }];
    while let Some((of, names)) = waiting.pop() {
        for name in names {
            let place = match name.starts_with("ld-linux") {
                true => format!("usr/lib/{name}"),
                false => format!("usr/lib/{}/{name}", shelf.triplet),
            };
            if put.iter().any(|there| there.path == place) {
                continue;
            }
            let (from, bytes) = shelf.find(&of, &name)?;
            waiting.push((from.clone(), needed(&bytes)));
            put.push(Put { path: place, bytes, program: true });
            used.push(from);
        }
    }
    put.sort_by(|a, b| a.path.cmp(&b.path));
    let packages = shelf.packages.into_iter().filter(|(name, _)| used.contains(name));
    Ok((put, packages.map(|(_, package)| package).collect()))
}

impl Shelf<'_> {
    fn open(&mut self, name: &str) -> Result<PathBuf, ImageError> {
        if let Some((_, folder)) = self.packages.get(name) {
            return Ok(folder.clone());
        }
        let (package, folder) = self.debian.files(name)?;
        self.packages.insert(name.to_owned(), (package, folder.clone()));
        Ok(folder)
    }

    /// A library of an unpacked package. It may be a link to another file of it.
    fn library(&self, folder: &Path, library: &str) -> Option<Vec<u8>> {
        let places = [format!("lib/{}", self.triplet), format!("usr/lib/{}", self.triplet), "lib".to_owned()];
        places.iter().find_map(|place| fs::read(folder.join(place).join(library)).ok())
    }

    /// The package that has a library that something of the package `of` is linked against, and the library.
    fn find(&mut self, of: &str, library: &str) -> Result<(String, Vec<u8>), ImageError> {
        if let Some(found) =
            self.packages.iter().find_map(|(name, (_, folder))| Some((name.clone(), self.library(folder, library)?)))
        {
            return Ok(found);
        }
        for name in self.debian.needs(of)? {
            // Others of what it needs are programs that install it.
            if name.starts_with("lib") && !self.packages.contains_key(&name) {
                let folder = self.open(&name)?;
                if let Some(bytes) = self.library(&folder, library) {
                    return Ok((name, bytes));
                }
            }
        }
        Err(ImageError::Missing { package: of.to_owned(), what: format!("package for {library}") })
    }
}

/// The libraries that a program or a library is linked against. Nothing of what is no such file.
fn needed(elf: &[u8]) -> Vec<String> {
    read(elf).unwrap_or_default()
}

/// `DT_NEEDED`.
const NEEDED: u64 = 1;

/// `SHT_DYNAMIC`.
const DYNAMIC: u32 = 6;

fn read(elf: &[u8]) -> Option<Vec<String>> {
    let at = |offset: u64, length: usize| {
        let begin = usize::try_from(offset).ok()?;
        elf.get(begin..begin.checked_add(length)?)
    };
    let long = |offset: u64| at(offset, 8)?.try_into().ok().map(u64::from_le_bytes);
    let int = |offset: u64| at(offset, 4)?.try_into().ok().map(u32::from_le_bytes);
    let short = |offset: u64| at(offset, 2)?.try_into().ok().map(u16::from_le_bytes);
    // 64 bits, little-endian.
    if at(0, 6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    // Where the sections are, how long an entry is, and how many there are.
    let (table, entry, count) = (long(0x28)?, u64::from(short(0x3a)?), u64::from(short(0x3c)?));
    let section = |index: u64| table.checked_add(entry.checked_mul(index)?);
    let mut sections = (0..count).filter_map(section);
    let dynamic = sections.find(|section| int(section.saturating_add(4)) == Some(DYNAMIC))?;
    let (begin, length) = (long(dynamic.checked_add(0x18)?)?, long(dynamic.checked_add(0x20)?)?);
    let strings = long(section(u64::from(int(dynamic.checked_add(0x28)?)?))?.checked_add(0x18)?)?;
    let mut names = Vec::new();
    for index in 0..length / 16 {
        let item = begin.checked_add(index * 16)?;
        if long(item)? == NEEDED {
            let name = usize::try_from(strings.checked_add(long(item.checked_add(8)?)?)?).ok()?;
            let name = elf.get(name..)?.split(|byte| *byte == 0).next()?;
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_the_libraries_that_it_is_linked_against() {
        // This test is linked against the C library of the machine that it runs on.
        let program = fs::read(std::env::current_exe().unwrap()).unwrap();
        let names = needed(&program);
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
        for cut in [0, 5, 63, 4096, program.len() / 2] {
            assert_eq!(needed(&program[..cut]), Vec::<String>::new(), "{cut}");
        }
    }
}
