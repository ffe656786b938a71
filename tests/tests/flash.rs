//! `holm flash` before a disk: what it asks, and what it does not write. The disk is a file that the kernel shows as one.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use holm_tests::node::binary;
use holm_tests::skip;

const BYTES: u64 = 400 << 20;

/// In its middle, before anything is written.
const PRECIOUS: &[u8] = b"somebody's photographs";

struct Card {
    device: String,
    backing: PathBuf,
}

impl Card {
    fn new(folder: &Path) -> Result<Self, String> {
        let backing = folder.join("backing");
        let file = File::create(&backing).unwrap();
        file.set_len(BYTES).unwrap();
        file.write_all_at(PRECIOUS, 1_000).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        let output = output.map_err(|error| format!("no losetup: {error}"))?;
        match output.status.success() {
            true => Ok(Self { device: String::from_utf8_lossy(&output.stdout).trim().to_owned(), backing }),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    fn is_untouched(&self) -> bool {
        let mut found = vec![0; PRECIOUS.len()];
        // By the device: the file may be behind.
        File::open(&self.device).unwrap().read_exact_at(&mut found, 1_000).unwrap();
        assert_eq!(std::fs::metadata(&self.backing).unwrap().len(), BYTES);
        found == PRECIOUS
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
    }
}

fn holm(words: &[&str]) -> Output {
    Command::new(binary("holm")).args(words).stdin(Stdio::null()).output().unwrap()
}

/// The same where somebody sits, who types this. What is shown, and the code.
fn typed(words: &[&str], text: &str) -> (String, i32) {
    let line = format!("{} {}", binary("holm").display(), words.join(" "));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code().unwrap())
}

#[test]
fn a_disk_is_written_when_somebody_says_what_it_is_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("holm.img");
    holm_image::build::small(&image, "rpi4").unwrap();
    let card = match Card::new(folder.path()) {
        Ok(card) => card,
        Err(why) => return skip(&why),
    };
    let device = card.device.as_str();
    let words = |more: &[&'static str]| -> Vec<String> {
        let first = ["flash", "--image", image.to_str().unwrap(), "--device", device, "--hostname", "pi1"];
        first.iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let check = |more: &[&'static str], code: i32, said: &str| {
        let words = words(more);
        let output = holm(&words.iter().map(String::as_str).collect::<Vec<_>>());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && told.contains(said), "{more:?}: {told}");
        assert!(card.is_untouched(), "{more:?}");
    };
    let listed = holm(&["flash", "--list"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.starts_with("DISK"), "{listed}");
    check(&["--board", "rpi3"], 1, "for the board rpi4, and you asked for rpi3");
    // The kernel says that it is built in.
    check(&[], 1, "--allow-fixed");
    check(&["--allow-fixed"], 1, "nobody is there to be asked");
    check(&["--allow-fixed", "--yes"], 1, "--yes alone could mean any disk");
    check(&["--allow-fixed", "--yes", "--expect-serial", "0815"], 1, "and not 0815");
    check(&["--allow-fixed", "--wifi-ssid", "Farm"], 1, "cannot use wireless networks");
    check(&["--allow-fixed", "--dry-run"], 0, "nothing was");
    // At a terminal.
    let shown = words(&["--allow-fixed"]);
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    let (told, code) = typed(&shown, "no idea\n");
    assert!(code == 1 && told.contains("that is not what it is; nothing was written"), "{told}");
    assert!(card.is_untouched());
    let known = told.split("type what it is: ").nth(1).unwrap().lines().next().unwrap().trim().to_owned();
    let (told, code) = typed(&shown, &format!("{known}\n"));
    assert!(code == 0 && told.contains("is written and was read back"), "{told}");
    assert!(!card.is_untouched());
    let file = File::options().read(true).write(true).open(device).unwrap();
    let seed = holm_image::seed::read(&file, Path::new(device)).unwrap().unwrap();
    assert_eq!(seed.hostname.as_deref(), Some("pi1"));
}
