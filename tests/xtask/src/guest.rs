//! `cargo xtask evidence guest`: the packages in a Debian that is booted, under a systemd that runs, in a machine of QEMU's.
//!
//! The system is a folder that debootstrap fills, with Debian's kernel in it, and then a disk. It is of this machine's own processor,
//! so that the programs are those that the tests have built, and emulated all the same: KVM within a machine that is one itself
//! hangs more often than not. The steps are `boards/packaging/debian/booted.sh`; what they print comes
//! through a serial port.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::install::{need_root, pack, pristine};
use crate::shell::{command, root, run as execute, write_program};
use crate::test::need;

/// What is there before the packages are.
const WITH: &str = "--include=systemd,systemd-sysv,udev,dbus,linux-image-cloud-amd64,initramfs-tools,mosquitto-clients";
const STEPS: &str = "boards/packaging/debian/booted.sh";

/// Started by systemd when all else is.
const UNIT: &str = "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/packages/steps\n\
                    TimeoutStartSec=30min\n[Install]\nWantedBy=multi-user.target\n";

/// The steps take some minutes.
const PATIENCE: Duration = Duration::from_secs(2_400);

/// Runs the steps. What there is to say, and whether all went well.
pub fn run() -> anyhow::Result<(String, bool)> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guest is an amd64 one, and so must this machine be");
    }
    need_root()?;
    need(&[("qemu-system-x86_64", "qemu-system-x86"), ("/usr/sbin/mke2fs", "e2fsprogs"), ("timeout", "coreutils")])?;
    let folder = root().join("target/dist/guest");
    let system = folder.join("system");
    let _ = std::fs::remove_dir_all(&system);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    execute(command("cp").arg("-a").arg(pristine(&folder, "booted", WITH)?).arg(&system))?;
    let packages = system.join("packages");
    pack(&folder, &packages)?;
    let steps = std::fs::read_to_string(root().join(STEPS)).with_context(|| format!("cannot read {STEPS}"))?;
    write_program(&packages.join("steps"), &steps)?;
    let units = system.join("etc/systemd/system");
    let unit = units.join("steps.service");
    std::fs::write(&unit, UNIT).with_context(|| format!("cannot write {}", unit.display()))?;
    let wanted = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wanted).with_context(|| format!("cannot make {}", wanted.display()))?;
    execute(command("ln").args(["-sf", "../steps.service"]).arg(wanted.join("steps.service")))?;

    let disk = folder.join("disk.img");
    let _ = std::fs::remove_file(&disk);
    execute(command("/usr/sbin/mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&system).arg(&disk).arg("4G"))?;
    let (said, kernel) = (folder.join("said"), folder.join("kernel.log"));
    let drive = format!("file={},format=raw,if=virtio", disk.display());
    let mut machine = command("timeout");
    machine.arg(PATIENCE.as_secs().to_string()).arg("qemu-system-x86_64");
    machine.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "2048", "-display", "none"]);
    machine.args(["-no-reboot", "-nic", "none", "-drive", &drive]);
    machine.arg("-kernel").arg(boot(&system, "vmlinuz")?).arg("-initrd").arg(boot(&system, "initrd.img")?);
    machine.args(["-append", "root=/dev/vda rw console=ttyS1 quiet systemd.show_status=0"]);
    for port in [&said, &kernel] {
        machine.arg("-serial").arg(format!("file:{}", port.display()));
    }
    let ended = machine.status().context("cannot run qemu-system-x86_64")?;
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
