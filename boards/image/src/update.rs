//! A new system for a card, into the slot that it does not boot. The next boot tries it; see `holm_init::slots`.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

use holm_init::boot::{CHOICE, TRIAL};
use holm_init::slots::Slot;

use crate::build::{COMMAND_LINE, INITRAMFS, KERNEL};
use crate::image::{CHUNK, Image};
use crate::layout::{SYSTEM, table};
use crate::{ImageError, Manifest, Phase, Progress, fat};

/// Puts the system of an image into the other slot, and says which that is. The word that it is to be tried comes last: a
/// card that was cut off before boots what it did.
pub fn update(card: &Path, image: &mut Image, tell: &mut dyn FnMut(Progress)) -> Result<Slot, ImageError> {
    let failed = |action| ImageError::file(action, card);
    let wrong = |problem: String| ImageError::Card { path: card.to_owned(), problem };
    // A disk that is mounted is refused: its file system would be written back over what is written here.
    let exclusive = i32::try_from(OFlags::EXCL.bits()).unwrap_or_default();
    let file = File::options().read(true).write(true).custom_flags(exclusive).open(card);
    let file = file.map_err(|source| match source.raw_os_error() {
        Some(code) if code == rustix::io::Errno::BUSY.raw_os_error() => ImageError::InUse { path: card.to_owned() },
        _ => ImageError::File { action: "open", path: card.to_owned(), source },
    })?;
    let old = Manifest::of(&file, card)?;
    image.is_for(&old.board)?;
    if old.wifi && !image.manifest.wifi {
        return Err(wrong("its system joins wireless networks, and the image's does not".to_owned()));
    }
    image.check(tell)?;
    let choice = fat::get(fat::of(&file, card)?, CHOICE).map_err(failed("read"))?.unwrap_or_default();
    let choice = String::from_utf8_lossy(&choice).into_owned();
    let booted = choice.lines().find_map(|line| line.strip_prefix("os_prefix=")?.trim_end().strip_suffix('/'));
    let booted = booted.and_then(|name| Slot::parse(name).ok());
    let slot = booted.ok_or_else(|| wrong(format!("{CHOICE} names no slot")))?.other();
    let [_, first, second, _] = table().entries;
    let to = if slot == Slot::A { first.start() } else { second.start() };
    let mut buffer = vec![0; CHUNK];
    for at in (0..SYSTEM).step_by(CHUNK) {
        image.file.read_exact_at(&mut buffer, first.start() + at).map_err(ImageError::file("read", &image.path))?;
        file.write_all_at(&buffer, to + at).map_err(failed("write"))?;
        tell(Progress { phase: Phase::Write, done: at + CHUNK as u64, total: SYSTEM });
    }
    file.sync_all().map_err(failed("sync"))?;
    // All that the firmware takes from the folder of a slot: on a Raspberry Pi, the device trees too.
    let from = || fat::of(&image.file, &image.path);
    let read = || ImageError::file("read", &image.path);
    let mut files = Vec::new();
    for name in fat::list(from()?, Slot::A.name()).map_err(read())? {
        let mut bytes = fat::get(from()?, &format!("{}/{name}", Slot::A)).map_err(read())?.unwrap_or_default();
        if name == COMMAND_LINE {
            let line = String::from_utf8_lossy(&bytes).replace("holm.slot=a", &format!("holm.slot={slot}"));
            bytes = line.into_bytes();
        }
        files.push((format!("{slot}/{name}"), bytes));
    }
    for needed in [KERNEL, INITRAMFS, COMMAND_LINE] {
        if !files.iter().any(|(path, _)| path.strip_suffix(needed).is_some()) {
            let problem = format!("it has no {}/{needed}", Slot::A);
            return Err(ImageError::NotAnImage { path: image.path.clone(), problem });
        }
    }
    let files = files.iter().map(|(path, bytes)| (&**path, &**bytes));
    fat::put(fat::of(&file, card)?, files).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    fat::put(fat::of(&file, card)?, [(TRIAL, slot.name().as_bytes())]).map_err(failed("write"))?;
    file.sync_all().map_err(failed("sync"))?;
    Ok(slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::MANIFEST;

    #[test]
    fn a_board_on_a_wireless_network_is_not_given_a_system_without() {
        let folder = tempfile::tempdir().unwrap();
        let (card, image) = (folder.path().join("card.img"), folder.path().join("holm.img"));
        for path in [&card, &image] {
            crate::build::small(path, "rpi4").unwrap();
        }
        let file = File::options().read(true).write(true).open(&card).unwrap();
        let manifest = Manifest { wifi: true, ..Manifest::of(&file, &card).unwrap() };
        file.write_all_at(&manifest.bytes().unwrap(), MANIFEST.start).unwrap();
        let error = update(&card, &mut Image::open(&image).unwrap(), &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("wireless"), "{error}");
    }
}
