//! `cargo xtask evidence deb`, `deb-arm64` and `deb-armhf`: the packages, as a Debian system takes them in and lets them go.
//!
//! The system is a folder that debootstrap fills. Nothing runs there but what the steps start: systemd is installed, so
//! that its own tools look at units and users, and is not running. The steps are `boards/packaging/debian/tested.sh`. On another
//! processor than this machine's all of that runs in qemu's user mode.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::deb::{self, Programs};
use crate::dist::{TARGETS, Target};
use crate::foreign::Foreign;
use crate::shell::{command, need_wasm, output, root, run as execute, target_folder, write_program};
use crate::test::need;

const RELEASE: &str = "bookworm";
/// What a Debian on a board has, and a system of debootstrap's has not by itself.
const WITH: &str = "--include=systemd,systemd-sysv,udev";
const STEPS: &str = "boards/packaging/debian/tested.sh";

/// Runs the steps on the processor of this Debian name. What there is to say, and whether all went well.
pub fn run(debian: &str) -> anyhow::Result<(String, bool)> {
    need_root()?;
    let folder = root().join("target/dist/install").join(debian);
    let system = folder.join("system");
    let _ = std::fs::remove_dir_all(&system);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (target, programs, _foreign) = programs(debian, &folder)?;
    let arch = format!("--arch={debian}");
    execute(command("cp").arg("-a").arg(pristine(&folder, RELEASE, &[&arch, WITH])?).arg(&system))?;

    let packages = system.join("packages");
    pack(target, &programs, &packages)?;
    let steps = std::fs::read_to_string(root().join(STEPS)).with_context(|| format!("cannot read {STEPS}"))?;
    write_program(&packages.join("steps"), &steps)?;
    // In name spaces of its own: what is mounted there is gone with the last process, and so are the processes.
    let enter = "mount -t proc proc \"$0/proc\" && mount -t tmpfs tmp \"$0/tmp\" && mount --rbind /dev \"$0/dev\" && \
                 exec chroot \"$0\" /packages/steps";
    let mut enter_it = command("unshare");
    enter_it.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", enter]).arg(&system);
    enter_it.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    let said = enter_it.output().context("cannot run unshare")?;
    let mut lines = vec![String::from_utf8_lossy(&said.stdout).trim_end().to_owned()];
    if !said.status.success() {
        lines.push(String::from_utf8_lossy(&said.stderr).into_owned());
    }
    Ok((lines.join("\n"), said.status.success()))
}

/// Who may make a system in a folder, and with what.
pub fn need_root() -> anyhow::Result<()> {
    ensure!(output(command("id").arg("-u"))?.trim() == "0", "a system in a folder is entered by root");
    need(&[("debootstrap", "debootstrap"), ("dpkg-deb", "dpkg")])
}

/// What is packed for the processor of this Debian name, and what lets the kernel run it. For this machine's own, it is what the tests have
/// built anyway, stripped into a folder; for another, what is shipped, without the optimisation over crates.
pub fn programs(debian: &str, folder: &Path) -> anyhow::Result<(&'static Target, Programs, Option<Foreign>)> {
    let target = TARGETS.iter().find(|target| target.debian == debian);
    let target = target.with_context(|| format!("nothing is packed for {debian}"))?;
    if !target.is_host()? {
        return Ok((target, deb::programs(target, Some("release"))?, Some(Foreign::new(debian)?)));
    }
    deb::programs_of_tests()?;
    let stripped = |name: &str| -> anyhow::Result<PathBuf> {
        let to = folder.join(name);
        execute(command("strip").arg("-o").arg(&to).arg(target_folder().join("debug").join(name)))?;
        Ok(to)
    };
    let programs =
        Programs { agent: stripped("holmd")?, command: stripped("holm")?, compiler: stripped("holm-compile")? };
    Ok((target, programs, None))
}

/// Two versions of the packages, and a function.
pub fn pack(target: &Target, programs: &Programs, packages: &Path) -> anyhow::Result<()> {
    for (name, version) in [("old", "0.1.0~1"), ("new", "0.1.0~2")] {
        let to = packages.join(name);
        std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
        for package in deb::pack(target, programs, version, "-Znone")? {
            execute(command("mv").arg(&package).arg(&to))?;
        }
    }
    bundle(&packages.join("counter.holm"))
}

/// A system that nothing was installed in yet, with these options of debootstrap's; made once.
pub fn pristine(folder: &Path, name: &str, with: &[&str]) -> anyhow::Result<PathBuf> {
    let system = folder.join(name);
    if !system.is_dir() {
        let partial = folder.join("partial");
        let _ = std::fs::remove_dir_all(&partial);
        execute(command("debootstrap").arg("--variant=minbase").args(with).arg(RELEASE).arg(&partial))?;
        std::fs::rename(&partial, &system).context("cannot keep what debootstrap has made")?;
    }
    Ok(system)
}

/// A function to run there.
fn bundle(to: &Path) -> anyhow::Result<()> {
    need_wasm()?;
    let holm = target_folder().join("debug/holm");
    execute(command(holm).args(["build", "functions/examples/counter", "--output"]).arg(to))
}
