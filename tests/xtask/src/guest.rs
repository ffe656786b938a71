//! `cargo xtask evidence guest` and `guest-arm64`: the packages in a Debian that is booted, under a systemd that runs, in a machine of QEMU's.
//!
//! The system is a folder that debootstrap fills, with Debian's kernel in it, and then a disk. The first is of this machine's own processor,
//! so that the programs are those that the tests have built, and emulated all the same: KVM within a machine that is one itself
//! hangs more often than not. The other one is an ARM, with the programs as they are shipped for it but for the optimisation over crates; its
//! packages are set up by qemu's user mode, which the kernel is told of for as long as that takes. The steps are
//! `boards/packaging/debian/booted.sh`; what they print comes through a port of the machine.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::install;
use crate::shell::{command, root, run as execute, write_program};
use crate::test::need;

/// A machine, and the Debian in it.
pub struct Guest {
    /// Debian's name for its processor.
    debian: &'static str,
    kernel: &'static str,
    qemu: &'static str,
    /// The package of that.
    package: &'static str,
    machine: &'static [&'static str],
    /// Where the kernel talks, and the steps.
    console: &'static str,
    out: &'static str,
}

/// Of this machine's kind.
pub const AMD64: Guest = Guest {
    debian: "amd64",
    kernel: "linux-image-cloud-amd64",
    qemu: "qemu-system-x86_64",
    package: "qemu-system-x86",
    machine: &["-M", "q35", "-cpu", "max"],
    console: "ttyS1",
    out: "/dev/ttyS0",
};

/// What a board is, with 64 bits. Its machine has one serial port, which is the kernel's.
pub const ARM64: Guest = Guest {
    debian: "arm64",
    kernel: "linux-image-arm64",
    qemu: "qemu-system-aarch64",
    package: "qemu-system-arm",
    machine: &["-M", "virt", "-cpu", "cortex-a72", "-device", "virtio-serial-device"],
    console: "ttyAMA0",
    out: "/dev/hvc0",
};

/// What is there before the packages are, beside the kernel.
const WITH: &str = "systemd,systemd-sysv,udev,dbus,initramfs-tools,mosquitto-clients";
const STEPS: &str = "boards/packaging/debian/booted.sh";

/// The steps take some minutes, and much longer on a foreign processor.
const PATIENCE: Duration = Duration::from_secs(5_400);

/// Runs the steps. What there is to say, and whether all went well.
pub fn run(guest: &Guest) -> anyhow::Result<(String, bool)> {
    install::need_root()?;
    need(&[(guest.qemu, guest.package), ("/usr/sbin/mke2fs", "e2fsprogs"), ("timeout", "coreutils")])?;
    let folder = root().join("target/dist/guest").join(guest.debian);
    let system = folder.join("system");
    let _ = std::fs::remove_dir_all(&system);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (include, arch) = (format!("--include={WITH},{}", guest.kernel), format!("--arch={}", guest.debian));
    if guest.debian == AMD64.debian && std::env::consts::ARCH != "x86_64" {
        bail!("the guest is an amd64 one, and so must this machine be");
    }
    let (target, programs, _foreign) = install::programs(guest.debian, &folder)?;
    execute(command("cp").arg("-a").arg(install::pristine(&folder, "booted", &[&arch, &include])?).arg(&system))?;
    let packages = system.join("packages");
    install::pack(target, &programs, &packages)?;
    let steps = std::fs::read_to_string(root().join(STEPS)).with_context(|| format!("cannot read {STEPS}"))?;
    write_program(&packages.join("steps"), &steps)?;
    let units = system.join("etc/systemd/system");
    let unit = units.join("steps.service");
    // Started by systemd when all else is.
    let text = format!(
        "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nEnvironment=OUT={}\nExecStart=/packages/steps\n\
         TimeoutStartSec={}\n[Install]\nWantedBy=multi-user.target\n",
        guest.out,
        PATIENCE.as_secs()
    );
    std::fs::write(&unit, text).with_context(|| format!("cannot write {}", unit.display()))?;
    let wanted = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wanted).with_context(|| format!("cannot make {}", wanted.display()))?;
    execute(command("ln").args(["-sf", "../steps.service"]).arg(wanted.join("steps.service")))?;

    let disk = folder.join("disk.img");
    let _ = std::fs::remove_file(&disk);
    execute(command("/usr/sbin/mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&system).arg(&disk).arg("4G"))?;
    let (said, kernel) = (folder.join("said"), folder.join("kernel.log"));
    let mut machine = command("timeout");
    machine.arg(PATIENCE.as_secs().to_string()).arg(guest.qemu).args(guest.machine);
    machine.args(["-accel", "tcg", "-smp", "2", "-m", "2048", "-display", "none", "-no-reboot", "-nic", "none"]);
    machine.args(["-drive", &format!("file={},format=raw,if=virtio", disk.display())]);
    machine.arg("-kernel").arg(boot(&system, "vmlinuz")?).arg("-initrd").arg(boot(&system, "initrd.img")?);
    let console = guest.console;
    machine.args(["-append", &format!("root=/dev/vda rw console={console} quiet systemd.show_status=0")]);
    if guest.out == "/dev/hvc0" {
        machine.args(["-serial", &format!("file:{}", kernel.display())]);
        machine.args([
            "-chardev",
            &format!("file,id=said,path={}", said.display()),
            "-device",
            "virtconsole,chardev=said",
        ]);
    } else {
        for port in [&said, &kernel] {
            machine.args(["-serial", &format!("file:{}", port.display())]);
        }
    }
    let ended = machine.status().with_context(|| format!("cannot run {}", guest.qemu))?;
    let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).replace('\r', ""));
    let lines = read(&said).context("the guest has said nothing")?;
    let _ = std::fs::remove_file(&disk);
    let passed = ended.success() && lines.trim_end().ends_with("# done");
    let more = if passed { String::new() } else { format!("\n{}", read(&kernel).unwrap_or_default()) };
    Ok((lines.trim_end().trim_end_matches("# done").trim_end().to_owned() + &more, passed))
}

/// The newest file of this name in `/boot`.
fn boot(system: &Path, name: &str) -> anyhow::Result<std::path::PathBuf> {
    let folder = system.join("boot");
    let listed = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let paths = listed.flatten().map(|entry| entry.path());
    let named = paths.filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name)));
    named.max().with_context(|| format!("there is no {name} in {}", folder.display()))
}
