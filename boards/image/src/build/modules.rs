//! Kernel modules: which ones a board needs with all that those need, in the order in which they can be loaded.
//!
//! Debian's package has no `modules.dep`: that is made where it is installed. What a module depends on is in the module,
//! in its section `.modinfo`: `depends=jbd2,mbcache`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ImageError;

/// The modules of a kernel, by name.
pub(crate) struct Modules {
    files: BTreeMap<String, PathBuf>,
    package: String,
}

/// A module that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

impl Modules {
    /// Of an unpacked package.
    pub(crate) fn of(folder: &Path, package: &str) -> Result<Self, ImageError> {
        let mut files = BTreeMap::new();
        let mut folders = vec![folder.join("lib/modules")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(ImageError::file("list", &folder))?.flatten() {
                let path = entry.path();
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(path),
                    Ok(_) if path.extension().is_some_and(|extension| extension == "ko") => {
                        files.insert(name(&path.file_stem().unwrap_or_default().to_string_lossy()), path);
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { files, package: package.to_owned() })
    }

    /// These and all that they need, what is needed first.
    pub(crate) fn closure(&self, wanted: impl Iterator<Item = &'static str>) -> Result<Vec<Module>, ImageError> {
        let mut found = Vec::new();
        let mut wanted = wanted;
        wanted.try_for_each(|wanted| self.add(&name(wanted), &mut found, 0))?;
        Ok(found)
    }

    fn add(&self, name: &str, found: &mut Vec<Module>, depth: usize) -> Result<(), ImageError> {
        // Modules cannot need each other; a file that says so is damaged.
        if depth > 32 || found.iter().any(|module| module.name == name) {
            return Ok(());
        }
        let missing = || ImageError::Missing { package: self.package.clone(), what: format!("module {name}") };
        let path = self.files.get(name).ok_or_else(missing)?;
        let bytes = fs::read(path).map_err(ImageError::file("read", path))?;
        for needed in depends(&bytes) {
            self.add(&needed, found, depth + 1)?;
        }
        found.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

/// `virtio-rng` and `virtio_rng` are one.
fn name(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module says that it depends on.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default().split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|needed| !needed.is_empty()).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let kernel = folder.path().join("lib/modules/6.1/kernel");
        fs::create_dir_all(kernel.join("fs")).unwrap();
        for (path, needs) in [
            ("fs/ext4.ko", "jbd2,mbcache"),
            ("fs/jbd2.ko", ""),
            ("fs/mbcache.ko", ""),
            ("virtio-rng.ko", ""),
            ("lost.ko", "gone"),
        ] {
            fs::write(kernel.join(path), format!("\u{7f}ELF\0license=GPL\0depends={needs}\0name=x\0")).unwrap();
        }
        let modules = Modules::of(folder.path(), "linux").unwrap();
        let names = |wanted: &[&'static str]| -> Vec<String> {
            modules.closure(wanted.iter().copied()).unwrap().into_iter().map(|module| module.name).collect()
        };
        assert_eq!(names(&["virtio_rng", "ext4", "jbd2"]), ["virtio_rng", "jbd2", "mbcache", "ext4"]);
        let error = modules.closure(["lost"].into_iter()).unwrap_err();
        assert_eq!(error.to_string(), "linux has no module gone");
    }
}
