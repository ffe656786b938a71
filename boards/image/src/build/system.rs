//! The two filesystems of an image that other programs make: the system, and the data's.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::Recipe;
use super::debian::{need, run};
use crate::ImageError;

/// The time of everything in an image, in seconds: that of Debian 12's release. Cards have no use for a time that changes.
const TIME: &str = "1686355200";

/// Identifies the data's filesystem, and seeds its hashes. The same for all cards: they are found by their table.
const UUID: &str = "484f4c4d-0000-4000-8000-686f6c6d0001";

/// How many blocks of 4 KiB the data may grow to: 1 TiB.
const MOST_BLOCKS: u64 = 1 << 28;

/// What the data's filesystem can do, whatever the machine that builds thinks.
const FEATURES: &str = "has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,\
                        huge_file,dir_nlink,extra_isize,metadata_csum";

/// A file of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Put {
    /// Where, from its root.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
    /// Whether it can be executed.
    pub(super) program: bool,
}

/// The read-only system: `holmd`, its configuration, places to mount things on, and what else the board needs.
pub(super) fn squashfs<'a>(
    recipe: &Recipe,
    work: &Path,
    more: impl Iterator<Item = &'a Put>,
) -> Result<Vec<u8>, ImageError> {
    let program = need("mksquashfs", "squashfs-tools")?;
    let root = work.join("system");
    for folder in
        ["", "usr", "usr/bin", "etc", "etc/holm", "etc/holm/plain", "dev", "proc", "sys", "run", "tmp", "data"]
    {
        let folder = root.join(folder);
        fs::create_dir(&folder).map_err(ImageError::file("make the folder", &folder))?;
        mode(&folder, 0o755)?;
    }
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::write(&path, text).map_err(ImageError::file("write", &path))?;
        mode(&path, 0o644)
    };
    let config = format!("[node]\ndata = \"/data/holm\"\n[board]\nprofile = \"{}\"\n", recipe.board.name);
    write("etc/holm/agent.toml", &config)?;
    // Without the layers that the card was given.
    write("etc/holm/plain/agent.toml", &config)?;
    let version = env!("CARGO_PKG_VERSION");
    write(
        "etc/os-release",
        &format!("NAME=Holm\nID=holm\nVERSION_ID={version}\nPRETTY_NAME=\"Holm {version} ({})\"\n", recipe.board.name),
    )?;
    for (link, to) in [("etc/holm/agent.d", "/data/config/agent.d"), ("etc/resolv.conf", "/run/resolv.conf")] {
        let link = root.join(link);
        symlink(to, &link).map_err(ImageError::file("link", &link))?;
    }
    let holmd = root.join("usr/bin/holmd");
    fs::copy(&recipe.holmd, &holmd).map_err(ImageError::file("copy", &recipe.holmd))?;
    mode(&holmd, 0o755)?;
    for file in more {
        let path = root.join(&file.path);
        for folder in Path::new(&file.path).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let folder = root.join(folder);
            if !folder.exists() {
                fs::create_dir(&folder).map_err(ImageError::file("make the folder", &folder))?;
                mode(&folder, 0o755)?;
            }
        }
        fs::write(&path, &file.bytes).map_err(ImageError::file("write", &path))?;
        mode(&path, if file.program { 0o755 } else { 0o644 })?;
    }
    // The kernel looks for firmware in /lib, and programs look for their loader there.
    if root.join("usr/lib").exists() {
        let link = root.join("lib");
        symlink("usr/lib", &link).map_err(ImageError::file("link", &link))?;
    }
    let output = work.join("system.squashfs");
    let mut command = Command::new(program);
    command.arg(&root).arg(&output).args([
        "-quiet",
        "-no-progress",
        "-noappend",
        "-all-root",
        "-no-xattrs",
        "-no-exports",
    ]);
    command.args(["-comp", "zstd", "-Xcompression-level", "19", "-b", "131072", "-mkfs-time", TIME, "-all-time", TIME]);
    run(command.env_remove("SOURCE_DATE_EPOCH"))?;
    fs::read(&output).map_err(ImageError::file("read", &output))
}

/// The data's filesystem, empty.
pub(super) fn ext4(work: &Path, bytes: u64) -> Result<Vec<u8>, ImageError> {
    let program = need("mke2fs", "e2fsprogs")?;
    let output = work.join("data.ext4");
    let config = work.join("mke2fs.conf");
    fs::write(&config, "[fs_types]\next4 = {\n}\nsmall = {\n}\n").map_err(ImageError::file("write", &config))?;
    let file = fs::File::create(&output).map_err(ImageError::file("create", &output))?;
    file.set_len(bytes).map_err(ImageError::file("make room in", &output))?;
    let more = format!(
        "hash_seed={UUID},resize={MOST_BLOCKS},lazy_itable_init=1,lazy_journal_init=0,nodiscard,root_owner=0:0"
    );
    let mut command = Command::new(program);
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "4096",
        "-I",
        "256",
        "-m",
        "1",
        "-O",
        FEATURES,
        "-J",
        "size=8",
        "-L",
        "holm-data",
        "-U",
        UUID,
    ]);
    command.args(["-E", &more]).arg(&output);
    run(command.env("E2FSPROGS_FAKE_TIME", TIME).env("SOURCE_DATE_EPOCH", TIME).env("MKE2FS_CONFIG", &config))?;
    fs::read(&output).map_err(ImageError::file("read", &output))
}

fn mode(path: &Path, mode: u32) -> Result<(), ImageError> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(ImageError::file("set the mode of", path))
}
