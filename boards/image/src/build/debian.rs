//! Packages from Debian: found, fetched and checked by apt with a folder of its own, so that the machine that builds is not
//! changed and needs no root.
//!
//! apt checks the archive's signature, the index against it, and the package against the index. What is in the folder
//! already is compared with the index again, so that a second build needs no network and gives the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::{ImageError, Package, hex};

/// The release of Debian that images are made of.
const SUITE: &str = "bookworm";

/// What is taken from it: firmware of boards and of their radios is not free.
const COMPONENTS: [&str; 2] = ["main", "non-free-firmware"];

/// What its archives are signed with; Debian and Ubuntu have it as a package.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// apt with a folder of its own.
pub(crate) struct Debian {
    folder: PathBuf,
    config: PathBuf,
    /// Held for as long as this is: two builds at once would fetch into each other's files.
    _lock: fs::File,
}

impl Debian {
    /// For an architecture, in a folder that is kept.
    pub(crate) fn new(folder: &Path, architecture: &str) -> Result<Self, ImageError> {
        need("apt-get", "apt")?;
        if !Path::new(KEYRING).exists() {
            return Err(ImageError::Program { program: KEYRING, package: "debian-archive-keyring" });
        }
        fs::create_dir_all(folder).map_err(ImageError::file("make the folder", folder))?;
        let folder = fs::canonicalize(folder).map_err(ImageError::file("find", folder))?;
        let lock = folder.join("lock");
        let held = fs::File::create(&lock).map_err(ImageError::file("create", &lock))?;
        held.lock().map_err(ImageError::file("lock", &lock))?;
        let apt = folder.join("apt");
        for name in ["etc/apt.conf.d", "etc/preferences.d", "state", "lists/partial", "cache/archives/partial"] {
            let name = apt.join(name);
            fs::create_dir_all(&name).map_err(ImageError::file("make the folder", &name))?;
        }
        let write = |name: &str, text: String| {
            let path = apt.join(name);
            fs::write(&path, text).map_err(ImageError::file("write", &path)).map(|()| path)
        };
        write("status", String::new())?;
        let components = COMPONENTS.join(" ");
        let archive = |url: &str, suite: &str| format!("deb [signed-by={KEYRING}] {url} {suite} {components}\n");
        let sources = archive("http://deb.debian.org/debian", SUITE)
            + &archive("http://deb.debian.org/debian-security", &format!("{SUITE}-security"));
        write("sources.list", sources)?;
        let (dir, a) = (apt.display(), architecture);
        let config = write(
            "apt.conf",
            format!(
                "Dir::Etc \"{dir}/etc\";\nDir::Etc::sourcelist \"{dir}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::State \"{dir}/state\";\nDir::State::lists \"{dir}/lists\";\nDir::State::status \"{dir}/status\";\n\
                 Dir::Cache \"{dir}/cache\";\nAPT::Architecture \"{a}\";\nAPT::Architectures {{ \"{a}\"; }};\n\
                 Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Sandbox::User \"\";\n"
            ),
        )?;
        Ok(Self { folder, config, _lock: held })
    }

    /// Gets the index, if there is none or a new one is asked for.
    pub(crate) fn index(&self, fresh: bool) -> Result<(), ImageError> {
        let lists = self.folder.join("apt/lists");
        let there = fs::read_dir(&lists).map_err(ImageError::file("list", &lists))?.flatten();
        let there = there.filter(|entry| entry.file_name().to_string_lossy().ends_with("_Packages")).count();
        // Of the release and of its security fixes.
        if there >= 2 * COMPONENTS.len() && !fresh {
            return Ok(());
        }
        self.run("apt-get", &["-q", "-y", "-o", "APT::Update::Error-Mode=any", "update"]).map(drop)
    }

    /// The package that a metapackage stands for now: `linux-image-arm64` is `linux-image-6.1.0-57-arm64`.
    pub(crate) fn depends(&self, package: &str) -> Result<String, ImageError> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", package])?;
        let found = field(&shown, "Depends").and_then(|names| names.split([' ', ',']).next().map(str::to_owned));
        found.ok_or_else(|| ImageError::Missing { package: package.to_owned(), what: "kernel to depend on".to_owned() })
    }

    /// All packages that a package needs, the first where there is a choice.
    pub(crate) fn needs(&self, package: &str) -> Result<Vec<String>, ImageError> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", package])?;
        let lists = ["Pre-Depends", "Depends"].map(|key| field(&shown, key).unwrap_or_default());
        let names = lists.iter().flat_map(|list| list.split(','));
        Ok(names.filter_map(|name| name.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// A package and the folder with its files.
    pub(crate) fn files(&self, name: &str) -> Result<(Package, PathBuf), ImageError> {
        let package = self.known(name)?;
        let folder = self.unpack(&package, &self.deb(&package)?)?;
        Ok((package, folder))
    }

    /// What the index says of a package, which is not fetched for that.
    pub(crate) fn known(&self, name: &str) -> Result<Package, ImageError> {
        let shown = self.run("apt-cache", &["show", "--no-all-versions", name])?;
        let value = |key: &str| {
            field(&shown, key)
                .map(str::to_owned)
                .ok_or_else(|| ImageError::Missing { package: name.to_owned(), what: format!("{key} in the index") })
        };
        Ok(Package { name: name.to_owned(), version: value("Version")?, sha256: value("SHA256")? })
    }

    /// Where a package's `.deb` is.
    pub(crate) fn deb(&self, package: &Package) -> Result<PathBuf, ImageError> {
        let name = &package.name;
        let path = self.folder.join(format!("{name}_{}.deb", package.sha256.get(..16).unwrap_or_default()));
        if path.exists() && digest(&path)? == package.sha256 {
            return Ok(path);
        }
        let incoming = self.folder.join("incoming");
        let _ = fs::remove_dir_all(&incoming);
        fs::create_dir_all(&incoming).map_err(ImageError::file("make the folder", &incoming))?;
        let wanted = format!("{name}={}", package.version);
        run(self.apt("apt-get").current_dir(&incoming).args(["-q", "download", &wanted]))?;
        let deb = fs::read_dir(&incoming).map_err(ImageError::file("list", &incoming))?.flatten().next();
        let deb = deb.ok_or_else(|| ImageError::Missing { package: name.to_owned(), what: "file".to_owned() })?.path();
        let found = digest(&deb)?;
        if found != package.sha256 {
            return Err(ImageError::Damaged { path: deb, expected: package.sha256.clone(), found });
        }
        fs::rename(&deb, &path).map_err(ImageError::file("rename", &deb))?;
        Ok(path)
    }

    /// A place for what is made of packages, in the folder that is kept.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A package's files, in a folder that is kept. Without root: owners are not kept, and do not matter here.
    fn unpack(&self, package: &Package, deb: &Path) -> Result<PathBuf, ImageError> {
        let folder = self.folder.join(format!("{}_{}", package.name, package.sha256.get(..16).unwrap_or_default()));
        if folder.exists() {
            return Ok(folder);
        }
        let part = folder.with_extension("part");
        let _ = fs::remove_dir_all(&part);
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&part))?;
        fs::rename(&part, &folder).map_err(ImageError::file("rename", &part))?;
        Ok(folder)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<String, ImageError> {
        run(self.apt(program).args(arguments))
    }
}

/// What a program prints, if it ends well.
pub(crate) fn run(command: &mut Command) -> Result<String, ImageError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(ImageError::file("run", Path::new(&program)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    Err(ImageError::Failed { program, said: if last.is_empty() { output.status.to_string() } else { last } })
}

/// Finds a program where daemons' are too, which are not on the path of every user.
pub(crate) fn need(program: &'static str, package: &'static str) -> Result<PathBuf, ImageError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    found.ok_or(ImageError::Program { program, package })
}

/// The first value of a field of a paragraph.
fn field<'a>(paragraph: &'a str, key: &str) -> Option<&'a str> {
    paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": ")).map(str::trim)
}

pub(crate) fn digest(path: &Path) -> Result<String, ImageError> {
    let mut file = fs::File::open(path).map_err(ImageError::file("open", path))?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest).map_err(ImageError::file("read", path))?;
    Ok(hex(&digest.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_paragraph_are_found() {
        let shown = "Package: linux-image-arm64\nDepends: linux-image-6.1.0-57-arm64 (= 6.1.192-3), x\nSHA256: ab\n";
        assert_eq!(field(shown, "SHA256"), Some("ab"));
        assert_eq!(field(shown, "Depends"), Some("linux-image-6.1.0-57-arm64 (= 6.1.192-3), x"));
        assert_eq!(field(shown, "Version"), None);
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let error = need("mksquashfs-of-tomorrow", "squashfs-tools").unwrap_err().to_string();
        assert!(error.ends_with("apt-get install squashfs-tools"), "{error}");
        let failed = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"])).unwrap_err();
        assert_eq!(failed.to_string(), "sh failed: no");
    }
}
