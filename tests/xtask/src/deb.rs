//! `cargo xtask dist deb`: Debian packages, from `boards/packaging` and the programs.
//!
//! `holm` is the node and the command. `holm-compiler` makes native code on the device: it is recommended, and a node that
//! takes only what was compiled and signed elsewhere does without it. `dpkg-deb` packs them, and not cargo-deb: that takes
//! minutes to build, and what it would save are the lines below. The same commit gives the same bytes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::dist::{AGENT, COMMAND, COMPILER, Program, Target, program};
use crate::shell::{cargo, command, metadata, output, root, run as execute, target_folder, write_program};
use crate::test::MUTANTS;

const SOURCES: &str = "boards/packaging";

/// Files of `holm` that go in as they are: from where, to where.
const FILES: [(&str, &str); 8] = [
    ("holmd.service", "lib/systemd/system/holmd.service"),
    // After the rules that name devices (50), so that ours are the last word.
    ("holm.udev", "lib/udev/rules.d/60-holm.rules"),
    ("holm.sysusers", "usr/lib/sysusers.d/holm.conf"),
    ("agent.toml", "etc/holm/agent.toml"),
    ("debian/copyright", "usr/share/doc/holm/copyright"),
    // For editors: the first line of agent.toml names its own.
    ("../../docs/reference/schemas/agent.json", "usr/share/holm/schema/agent.json"),
    ("../../docs/reference/schemas/manifest.json", "usr/share/holm/schema/manifest.json"),
    ("../../docs/reference/schemas/cases.json", "usr/share/holm/schema/cases.json"),
];

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

const ABOUT: &str = "runs sandboxed functions on the events of a device\n holmd brings an MQTT broker, runs each event in \
                     a fresh WebAssembly instance, and\n commits what the function did together with the event's \
                     completion before it\n acknowledges the message. holm is the command that people type.";

const ABOUT_COMPILER: &str = "compiles functions for holm on the device\n A node that is only given native code that \
                              was compiled and signed elsewhere\n does without it.";

/// What goes into packages.
pub struct Programs {
    /// `holmd`.
    pub agent: PathBuf,
    /// `holm`.
    pub command: PathBuf,
    /// `holm-compile`.
    pub compiler: PathBuf,
}

/// Builds the programs and packs them; `profile` instead of the programs' own, `version` instead of the workspace's.
pub fn build(target: &Target, profile: Option<&str>, version: Option<&str>) -> anyhow::Result<()> {
    let version = version.map_or_else(workspace_version, |version| Ok(version.to_owned()))?;
    for package in pack(target, &programs(target, profile)?, &version, "-Zxz")? {
        println!("{}", describe(&package)?);
    }
    Ok(())
}

/// Builds the programs; `profile` instead of their own.
pub fn programs(target: &Target, profile: Option<&str>) -> anyhow::Result<Programs> {
    let build = |what: Program| program(target, what, profile.unwrap_or(what.profile));
    Ok(Programs { agent: build(AGENT)?, command: build(COMMAND)?, compiler: build(COMPILER)? })
}

/// The packages of these programs, `holm` first; `compression` is a flag of dpkg-deb's.
pub fn pack(target: &Target, programs: &Programs, version: &str, compression: &str) -> anyhow::Result<[PathBuf; 2]> {
    let Programs { agent, command: holm, compiler } = programs;
    let package = Package::new("holm", target, version, compression)?;
    let sources = root().join(SOURCES);
    for (from, to) in FILES {
        package.file(&sources.join(from), to)?;
    }
    for (from, to) in documentation()? {
        package.file(&from, &to)?;
    }
    for script in SCRIPTS {
        let path = sources.join("debian").join(script);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        write_program(&package.folder.join("DEBIAN").join(script), &text)?;
    }
    package.text("DEBIAN/conffiles", "/etc/holm/agent.toml\n")?;
    package.folder("etc/holm/agent.d")?;
    package.programs(&[agent, holm])?;
    let depends = format!("{}, systemd | systemd-standalone-sysusers", libraries(&[agent, holm])?);
    let depends = depends.trim_start_matches([',', ' ']);
    let holm = package.pack(&[("Depends", depends), ("Recommends", "holm-compiler, udev"), ("Description", ABOUT)])?;

    let package = Package::new("holm-compiler", target, version, compression)?;
    package.programs(&[compiler])?;
    package.file(&sources.join("debian/copyright"), "usr/share/doc/holm-compiler/copyright")?;
    let depends = libraries(&[compiler])?;
    let compiler = package.pack(&[("Depends", &depends), ("Enhances", "holm"), ("Description", ABOUT_COMPILER)])?;
    Ok([holm, compiler])
}

/// A package in the making.
struct Package<'a> {
    name: &'a str,
    target: &'a Target,
    version: &'a str,
    compression: &'a str,
    folder: PathBuf,
}

impl<'a> Package<'a> {
    fn new(name: &'a str, target: &'a Target, version: &'a str, compression: &'a str) -> anyhow::Result<Self> {
        // Not beside the programs: one has the same name.
        let folder = root().join("target/dist").join(target.triple).join("packages").join(name);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        let this = Self { name, target, version, compression, folder };
        this.folder("DEBIAN")?;
        Ok(this)
    }

    fn folder(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.folder.join(path);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Whatever the mode of the source is, which depends on who checked it out.
    fn file(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let bytes = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.folder(Path::new(to).parent().and_then(Path::to_str).unwrap_or_default())?;
        let to = self.folder.join(to);
        std::fs::write(&to, bytes).with_context(|| format!("cannot write {}", to.display()))
    }

    fn text(&self, to: &str, text: &str) -> anyhow::Result<()> {
        write(&self.folder.join(to), text)
    }

    fn programs(&self, files: &[&Path]) -> anyhow::Result<()> {
        let folder = self.folder("usr/bin")?;
        for file in files {
            let to = folder.join(file.file_name().unwrap_or_default());
            std::fs::copy(file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        Ok(())
    }

    fn pack(&self, fields: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
        let document = self.folder(&format!("usr/share/doc/{}", self.name))?.join("changelog");
        write(&document, &changelog(self.name, self.version)?)?;
        execute(command("gzip").arg("-9n").arg(&document))?;
        // For `dpkg --verify`; dpkg-deb makes none.
        let sums = "find . -path ./DEBIAN -prune -o -type f ! -path './etc/*' -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 md5sum > DEBIAN/md5sums";
        execute(command("sh").args(["-euc", sums]).current_dir(&self.folder))?;
        execute(command("chmod").args(["-R", "u=rwX,go=rX"]).arg(&self.folder))?;
        let size = output(command("du").args(["-sk", "--apparent-size", "--exclude=DEBIAN"]).arg(&self.folder))?;
        let size = size.split_whitespace().next().unwrap_or("0").to_owned();
        let mut control = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: The Holm maintainers <maintainers@holm-edge.invalid>\n\
             Installed-Size: {size}\nSection: net\nPriority: optional\nHomepage: https://github.com/holm-edge/holm\n",
            self.name, self.version, self.target.debian
        );
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            control.push_str(&format!("{name}: {value}\n"));
        }
        self.text("DEBIAN/control", &control)?;
        let file =
            root().join("target/dist").join(format!("{}_{}_{}.deb", self.name, self.version, self.target.debian));
        execute(
            command("dpkg-deb")
                .args(["--root-owner-group", self.compression, "--build"])
                .arg(&self.folder)
                .arg(&file)
                // No file is younger than the commit.
                .env("SOURCE_DATE_EPOCH", commit_time("%ct")?),
        )?;
        Ok(file)
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What is in a package, and what it weighs.
pub fn describe(package: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::metadata(package).with_context(|| format!("cannot read {}", package.display()))?.len();
    let fields = output(command("dpkg-deb").arg("--field").arg(package).args(["Depends", "Installed-Size"]))?;
    let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(format!("{name}: {:.1} MB; {}", bytes as f64 / 1e6, fields.trim().replace('\n', "; ")))
}

/// Builds the programs of this machine as the tests build them, so that whoever has tested has them: with what only tests
/// depend on, for else cargo would choose other features of half of the tree.
pub fn programs_of_tests() -> anyhow::Result<()> {
    let what = ["build", "--workspace", "--bins", "--example", "documents", "--features", MUTANTS];
    execute(&mut cargo(&what))
}

/// Manual pages and completions, made by the programs' own command lines: from where, to where.
fn documentation() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let folder = root().join("target/dist/documentation");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    programs_of_tests()?;
    for program in ["holm", "examples/documents"] {
        let arguments: &[&str] = if program == "holm" { &["documents"] } else { &[] };
        execute(command(target_folder().join("debug").join(program)).args(arguments).arg(&folder))?;
    }
    execute(command("sh").args(["-euc", "gzip -9n \"$0\"/*.1"]).arg(&folder))?;
    let mut files = Vec::new();
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let to = match name.rsplit_once('.') {
            Some((_, "gz")) => format!("usr/share/man/man1/{name}"),
            Some((stem, "bash")) => format!("usr/share/bash-completion/completions/{stem}"),
            Some((_, "fish")) => format!("usr/share/fish/vendor_completions.d/{name}"),
            // What zsh's is called.
            _ => format!("usr/share/zsh/vendor-completions/{name}"),
        };
        files.push((entry.path(), to));
    }
    Ok(files)
}

/// The packages of the libraries that programs are linked with: none for those that are static.
fn libraries(programs: &[&PathBuf]) -> anyhow::Result<String> {
    let (mut minor, mut unwinds) = (None, false);
    for program in programs {
        let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        minor = minor.max(newest_glibc(&bytes));
        unwinds |= bytes.windows(13).any(|window| window == b"libgcc_s.so.1");
    }
    let libc = minor.map(|minor| format!("libc6 (>= 2.{minor})"));
    let libgcc = unwinds.then(|| "libgcc-s1".to_owned());
    Ok(libc.into_iter().chain(libgcc).collect::<Vec<_>>().join(", "))
}

/// The newest version of a symbol of glibc that a program asks for: it is text in its table of names.
fn newest_glibc(program: &[u8]) -> Option<u32> {
    const START: &[u8] = b"GLIBC_2.";
    let starts = program.windows(START.len()).enumerate().filter(|(_, window)| *window == START);
    let minor = |(at, _): (usize, &[u8])| {
        let rest = program.get(at + START.len()..)?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
    };
    starts.filter_map(minor).max()
}

fn workspace_version() -> anyhow::Result<String> {
    let metadata = metadata(&["--no-deps"])?;
    let packages = metadata.get("packages").and_then(Value::as_array).cloned().unwrap_or_default();
    let agent = packages.iter().find(|package| package.get("name").is_some_and(|name| name == "holm-agent"));
    let version = agent.and_then(|agent| agent.get("version")?.as_str().map(str::to_owned));
    version.context("cargo metadata does not tell the version")
}

/// Of the commit that is packed, in one of git's formats.
fn commit_time(format: &str) -> anyhow::Result<String> {
    let log = output(command("git").args(["log", "-1", "--date=rfc", &format!("--format={format}")]))?;
    Ok(log.trim().to_owned())
}

/// What Debian wants to read; what has changed is in ours.
fn changelog(package: &str, version: &str) -> anyhow::Result<String> {
    Ok(format!(
        "{package} ({version}) stable; urgency=medium\n\n  * See https://github.com/holm-edge/holm/blob/main/CHANGELOG.md\n\n \
         -- The Holm maintainers <maintainers@holm-edge.invalid>  {}\n",
        commit_time("%cd")?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_decides_and_a_static_program_needs_none() {
        assert_eq!(newest_glibc(b"\0GLIBC_2.4\0GLIBC_2.34\0GLIBC_2.17\0"), Some(34));
        assert_eq!(newest_glibc(b"GLIBC_2."), None);
        assert_eq!(newest_glibc(b"GLIBC_PRIVATE"), None);
    }
}
