//! What a Raspberry Pi needs beside the kernel: firmware and device trees, and what its radio needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::board::{Radio, Raspberry};
use super::debian::Debian;
use super::linked;
use super::system::Put;
use crate::{ImageError, Package};

/// Debian's package with the firmware, and with what some of the radios need.
const FIRMWARE: &str = "raspi-firmware";

/// The rest of what radios need.
const RADIO: &str = "firmware-brcm80211";

/// What may be sent where.
const RULES: &str = "wireless-regdb";

/// Files with their names.
pub(super) type Named = Vec<(String, Vec<u8>)>;

/// What of it is where.
#[derive(Default)]
pub(super) struct Parts {
    /// At the top of the FAT partition.
    pub(super) firmware: Named,
    /// In the folder of a slot.
    pub(super) trees: Named,
    /// In the system, for the radio.
    pub(super) radio: Vec<Put>,
    /// In the system: the program that joins a wireless network, with its libraries.
    pub(super) supplicant: Vec<Put>,
    /// In the system: what may be done with all of it.
    pub(super) licences: Vec<Put>,
    /// What it was taken from.
    pub(super) packages: Vec<Package>,
}

impl Parts {
    /// Firmware, and the device trees that are in a folder.
    pub(super) fn boot(&mut self, raspberry: &Raspberry, debian: &Debian, trees: &Path) -> Result<(), ImageError> {
        let (package, folder) = debian.files(FIRMWARE)?;
        for file in raspberry.firmware {
            self.firmware.push(((*file).to_owned(), read(&folder.join("usr/lib/raspi-firmware").join(file))?));
        }
        // It may be passed on with its licence, and not without.
        self.firmware.push(("LICENCE.broadcom".to_owned(), read(&copyright(&folder, FIRMWARE))?));
        for tree in raspberry.trees {
            self.trees.push(((*tree).to_owned(), read(&trees.join(tree))?));
        }
        self.take(package, &folder)
    }

    /// What the radio's driver asks for, and the program that joins a network.
    pub(super) fn radio(&mut self, radio: &Radio, debian: &Debian, architecture: &str) -> Result<(), ImageError> {
        let mut found = BTreeMap::new();
        for name in [RADIO, FIRMWARE] {
            let (package, folder) = debian.files(name)?;
            let brcm = folder.join("lib/firmware/brcm");
            for entry in fs::read_dir(&brcm).map_err(ImageError::file("list", &brcm))?.flatten() {
                let file = entry.file_name().to_string_lossy().into_owned();
                if radio.chips.iter().filter_map(|chip| file.strip_prefix(chip)).any(concerns_a_raspberry) {
                    // Links lead to another folder of the same package.
                    found.entry(file).or_insert(read(&entry.path())?);
                }
            }
            self.take(package, &folder)?;
        }
        let plain = |path: String, bytes| Put { path, bytes, program: false };
        let firmware = found.into_iter().map(|(name, bytes)| plain(format!("usr/lib/firmware/brcm/{name}"), bytes));
        self.radio.extend(firmware);
        // The signature is of Debian, whose kernel knows it.
        let (package, folder) = debian.files(RULES)?;
        for name in ["regulatory.db", "regulatory.db.p7s"] {
            let bytes = read(&folder.join("lib/firmware").join(format!("{name}-debian")))?;
            self.radio.push(plain(format!("usr/lib/firmware/{name}"), bytes));
        }
        self.take(package, &folder)?;
        let program = ("sbin/wpa_supplicant", "usr/sbin/wpa_supplicant");
        let (files, packages) = linked::program(debian, architecture, "wpasupplicant", program.0, program.1)?;
        self.supplicant = files;
        packages.into_iter().try_for_each(|(package, folder)| self.take(package, &folder))
    }

    /// Everything that goes into the system.
    pub(super) fn system(&self) -> impl Iterator<Item = &Put> {
        self.radio.iter().chain(&self.supplicant).chain(&self.licences)
    }

    fn take(&mut self, package: Package, folder: &Path) -> Result<(), ImageError> {
        if self.packages.contains(&package) {
            return Ok(());
        }
        let bytes = read(&copyright(folder, &package.name))?;
        self.licences.push(Put { path: format!("usr/share/doc/{}/copyright", package.name), bytes, program: false });
        self.packages.push(package);
        Ok(())
    }
}

/// Of the name of a file for one of its chips, what comes after the chip. Other boards with the same chip have files of
/// their own.
fn concerns_a_raspberry(rest: &str) -> bool {
    [".bin", ".clm_blob", ".txt"].contains(&rest) || rest.starts_with(".raspberrypi,")
}

fn copyright(folder: &Path, package: &str) -> std::path::PathBuf {
    folder.join("usr/share/doc").join(package).join("copyright")
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    fs::read(path).map_err(ImageError::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_radio_gets_the_files_of_its_own_boards_only() {
        for (rest, concerns) in [
            (".bin", true),
            (".clm_blob", true),
            (".raspberrypi,3-model-b.txt", true),
            (".pine64,quartz64-b.txt", false),
            (".AP6212.txt", false),
            ("a0-sdio.bin", false),
        ] {
            assert_eq!(concerns_a_raspberry(rest), concerns, "{rest}");
        }
    }
}
