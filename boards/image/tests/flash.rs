//! Writing cards: files here, and a loop device where the machine has one to give.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use holm_image::build::small;
use holm_image::card_seed::{Enrol, Seed, Wifi};
use holm_image::disk::{Allowed, Disk, Roots};
use holm_image::flash::{Flash, Target};
use holm_image::{Image, ImageError, Manifest, Phase, seed};

const CARD: u64 = 400 << 20;

fn image(folder: &Path) -> PathBuf {
    let path = folder.join("holm.img");
    small(&path, "rpi4").unwrap();
    path
}

fn told() -> Seed {
    let text = str::to_owned;
    Seed {
        hostname: Some(text("pi3")),
        wifi: Some(Wifi { ssid: text("Farm"), psk: Some("ab".repeat(32)), country: text("DE") }),
        enrol: Some(Enrol { cloud: text("https://x"), token: text("t"), ca_hash: "0".repeat(64), thing: None }),
        ..Seed::default()
    }
}

fn flash(image: &Path, target: &Target, seed: &Seed) -> Result<Vec<Phase>, ImageError> {
    let roots = Roots::default();
    let mut phases = Vec::new();
    let allowed = Allowed { fixed: true, large: false };
    Flash { roots: &roots, target, allowed }.write(&mut Image::open(image)?, seed, &mut |progress| {
        assert!(progress.done <= progress.total);
        if phases.last() != Some(&progress.phase) {
            phases.push(progress.phase);
        }
    })?;
    Ok(phases)
}

fn file(path: PathBuf) -> Target {
    Target::File { path, bytes: CARD }
}

#[test]
fn a_card_is_the_image_with_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = folder.path().join("card.img");
    // What was there before must not show through.
    fs::write(&card, [0xff; 4096]).unwrap();
    let phases = flash(&image, &file(card.clone()), &told()).unwrap();
    assert_eq!(phases, [Phase::Check, Phase::Write, Phase::Verify]);
    let written = File::open(&card).unwrap();
    assert_eq!(written.metadata().unwrap().len(), CARD);
    let found = seed::read(&File::options().read(true).write(true).open(&card).unwrap(), &card).unwrap();
    assert_eq!(found, Some(told()));
    // Without a seed it is the image, byte by byte.
    flash(&image, &file(card.clone()), &Seed::default()).unwrap();
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let original = File::open(&image).unwrap();
    for at in (0..original.metadata().unwrap().len()).step_by(1 << 20) {
        original.read_exact_at(&mut a, at).unwrap();
        written.read_exact_at(&mut b, at).unwrap();
        assert!(a == b, "at {at}");
    }
}

#[test]
fn an_image_with_a_flipped_bit_is_refused_wherever_it_is_and_the_card_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = folder.path().join("card.img");
    fs::write(&card, "precious").unwrap();
    let length = fs::metadata(&image).unwrap().len();
    for at in [0, 446, 511, 4095, 4096, 4110, 4200, (1 << 20) - 1, 1 << 20, length / 2, length - 1] {
        let flip = || {
            let file = File::options().read(true).write(true).open(&image).unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        };
        flip();
        let error = flash(&image, &file(card.clone()), &told()).unwrap_err();
        assert!(matches!(error, ImageError::Damaged { .. } | ImageError::NotAnImage { .. }), "{at}: {error}");
        assert_eq!(fs::read_to_string(&card).unwrap(), "precious");
        flip();
    }
    flash(&image, &file(card), &told()).unwrap();
}

#[test]
fn an_image_that_is_cut_off_too_large_or_for_another_board_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let opened = Image::open(&image).unwrap();
    opened.is_for("rpi4").unwrap();
    let error = opened.is_for("rpi3").unwrap_err().to_string();
    assert!(error.contains("for the board rpi4, and you asked for rpi3"), "{error}");
    let card = folder.path().join("card.img");
    let small = Target::File { path: card.clone(), bytes: 1 << 20 };
    let error = flash(&image, &small, &told()).unwrap_err();
    assert!(matches!(&error, ImageError::Refused { reasons, .. } if reasons.len() == 1), "{error}");
    assert!(!card.exists());
    let itself = flash(&image, &file(image.clone()), &told()).unwrap_err().to_string();
    assert!(itself.contains("the image itself"), "{itself}");
    let length = fs::metadata(&image).unwrap().len();
    File::options().write(true).open(&image).unwrap().set_len(length - 512).unwrap();
    assert!(Image::open(&image).unwrap_err().to_string().contains("is the download complete"));
    fs::write(&image, "PK").unwrap();
    assert!(Image::open(&image).unwrap_err().to_string().contains("no Holm image"));
}

#[test]
fn an_image_that_changes_while_it_is_written_never_becomes_a_card_that_boots() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = folder.path().join("card.img");
    let roots = Roots::default();
    let target = file(card.clone());
    let flash = Flash { roots: &roots, target: &target, allowed: Allowed::default() };
    let mut changed = false;
    let error = flash
        .write(&mut Image::open(&image).unwrap(), &Seed::default(), &mut |progress| {
            if progress.phase == Phase::Write && !changed {
                changed = true;
                let mut file = File::options().write(true).open(&image).unwrap();
                file.seek(SeekFrom::Start(200 << 20)).unwrap();
                file.write_all(b"something else").unwrap();
            }
        })
        .unwrap_err();
    assert!(matches!(error, ImageError::Damaged { .. }), "{error}");
    let mut first = [1; 512];
    File::open(&card).unwrap().read_exact_at(&mut first, 0).unwrap();
    assert_eq!(first, [0; 512], "no table: nothing boots from it");
}

#[test]
fn a_card_that_keeps_something_else_than_it_was_given_is_bad_and_boots_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = folder.path().join("card.img");
    let (roots, target) = (Roots::default(), file(card.clone()));
    // Somewhere in the systems, and in the table that it would boot by.
    for at in [200 << 20, 446] {
        let mut turned = false;
        let allowed = Allowed { fixed: true, large: false };
        let written = Flash { roots: &roots, target: &target, allowed }.write(
            &mut Image::open(&image).unwrap(),
            &told(),
            &mut |progress| {
                // All of it is on the card, but for its begin, which has not been read yet.
                if progress.phase == Phase::Write && progress.done == progress.total && !turned {
                    turned = true;
                    File::options().write(true).open(&card).unwrap().write_all_at(&[0x5a], at).unwrap();
                }
                // The begin is written when all else has been read: it is turned right after that.
                let all_else = progress.total - (1 << 20);
                if progress.phase == Phase::Verify && progress.done == all_else && at < (1 << 20) {
                    File::options().write(true).open(&card).unwrap().write_all_at(&[0x5a; 512], 0).unwrap();
                }
            },
        );
        let error = written.unwrap_err();
        assert!(turned && (at < (1 << 20) || matches!(error, ImageError::BadCard { .. })), "{at}: {error}");
        let mut first = vec![1; 1 << 20];
        File::open(&card).unwrap().read_exact_at(&mut first, 0).unwrap();
        assert!(first.iter().all(|byte| *byte == 0), "{at}: it would boot");
    }
}

#[test]
fn a_card_that_is_pulled_out_before_it_was_read_back_boots_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let card = folder.path().join("card.img");
    let (roots, target) = (Roots::default(), file(card.clone()));
    for done in [1 << 20, 300 << 20] {
        let allowed = Allowed { fixed: true, large: false };
        let flash = Flash { roots: &roots, target: &target, allowed };
        let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            flash.write(&mut Image::open(&image).unwrap(), &told(), &mut |progress| {
                assert!(progress.phase != Phase::Verify || progress.done < done, "cut");
            })
        }));
        assert!(cut.is_err());
        let mut first = vec![1; 1 << 20];
        File::open(&card).unwrap().read_exact_at(&mut first, 0).unwrap();
        assert!(first.iter().all(|byte| *byte == 0), "{done}: it would boot");
    }
}

#[test]
fn a_seed_that_the_card_would_not_take_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path());
    let wrong = Seed { hostname: Some("A b".to_owned()), ..Seed::default() };
    let error = flash(&image, &file(folder.path().join("card.img")), &wrong).unwrap_err();
    assert!(matches!(error, ImageError::Seed { .. }), "{error}");
}

/// A loop device over a file, detached at the end.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Result<Self, String> {
        let output = std::process::Command::new("losetup").args(["--find", "--show"]).arg(file).output();
        let output = output.map_err(|error| format!("no losetup: {error}"))?;
        match output.status.success() {
            true => Ok(Self(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
fn a_block_device_is_written_alone_and_not_while_somebody_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let backing = folder.path().join("backing");
    File::create(&backing).unwrap().set_len(CARD).unwrap();
    let device = match Loop::attach(&backing) {
        Ok(device) => device,
        Err(why) => return holm_tests_skip(&why),
    };
    let image = image(folder.path());
    let roots = Roots::default();
    // By a link, as /dev/disk/by-id has them.
    let link = folder.path().join("my-card");
    std::os::unix::fs::symlink(&device.0, &link).unwrap();
    let disk = Disk::at(&roots, &link).unwrap().unwrap();
    assert_eq!((disk.path.to_str().unwrap(), disk.bytes), (&*device.0, CARD));
    let target = Target::Disk(Box::new(disk));
    assert!(target.refusals(&image, 1, Allowed::default())[0].contains("--allow-fixed"));
    let exclusive = {
        use std::os::unix::fs::OpenOptionsExt as _;
        File::options().read(true).custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed()).open(&device.0).unwrap()
    };
    let error = flash(&image, &target, &told()).unwrap_err();
    assert!(matches!(error, ImageError::InUse { .. }), "{error}");
    drop(exclusive);
    flash(&image, &target, &told()).unwrap();
    let card = File::options().read(true).write(true).open(&device.0).unwrap();
    assert_eq!(seed::read(&card, Path::new(&device.0)).unwrap(), Some(told()));
    // Another card in the same reader.
    let Target::Disk(mut disk) = target else { panic!() };
    disk.serial = "another".to_owned();
    let error = flash(&image, &Target::Disk(disk), &told()).unwrap_err();
    assert!(matches!(error, ImageError::Changed { what: "the serial number", .. }), "{error}");
}

/// As `holm_tests::skip`, which this crate cannot name.
fn holm_tests_skip(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test without a name");
    println!("skipped: {name}: {why}");
    if let Some(path) = std::env::var_os("HOLM_SKIPS") {
        let mut file = File::options().append(true).create(true).open(path).unwrap();
        file.write_all(format!("{name}: {why}\n").as_bytes()).unwrap();
    }
}

#[test]
fn the_manifest_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let manifest: Manifest = Image::open(&image(folder.path())).unwrap().manifest;
    assert_eq!((&*manifest.board, manifest.bytes), ("rpi4", 321 << 20));
}
