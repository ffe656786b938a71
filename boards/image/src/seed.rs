//! The seed on its way to the card.

use std::fs::File;
use std::path::Path;

use holm_init::seed::{FILE, MOST_BYTES, Seed};

use crate::window::Window;
use crate::{ImageError, fat};

/// The pre-shared key of a wireless network, 64 hexadecimal digits: PBKDF2 with HMAC-SHA1, 4096 rounds, salted with the
/// network's name (IEEE 802.11-2020, J.4.1). The card gets this and not the password.
pub fn psk(ssid: &str, passphrase: &str) -> Result<String, ImageError> {
    let printable = passphrase.bytes().all(|byte| (32..127).contains(&byte));
    if !(8..=63).contains(&passphrase.len()) || !printable {
        let problem = "the password of a wireless network has 8 to 63 characters of ASCII".to_owned();
        return Err(ImageError::Seed { problem });
    }
    let mut key = [0; 32];
    let rounds = std::num::NonZeroU32::new(4096).unwrap_or(std::num::NonZeroU32::MIN);
    ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA1, rounds, ssid.as_bytes(), passphrase.as_bytes(), &mut key);
    Ok(crate::hex(&key))
}

/// Writes it to the FAT partition of a card that has no table yet, but will get this one. An empty one is none.
pub(crate) fn put(card: &File, path: &Path, table: &[u8], seed: &Seed) -> Result<(), ImageError> {
    if *seed == Seed::default() {
        return Ok(());
    }
    let text = seed.render();
    let wrong = |problem: String| ImageError::Seed { problem };
    if text.len() as u64 > MOST_BYTES {
        return Err(wrong(format!("it has {} bytes, and no more than {MOST_BYTES} are read", text.len())));
    }
    // What init would refuse is refused here, where somebody can do something about it.
    Seed::parse(FILE, &text).map_err(|problems| wrong(problems.to_string()))?;
    fat::put(fat::by(table, card, path)?, [(FILE, text.as_bytes())])
        .map_err(ImageError::file("write the seed to", path))
}

/// Reads it again.
pub(crate) fn compare(card: &File, path: &Path, table: &[u8], seed: &Seed) -> Result<(), ImageError> {
    match (read_in(fat::by(table, card, path)?, path)?, *seed == Seed::default()) {
        (None, true) => Ok(()),
        (Some(found), false) if found == *seed => Ok(()),
        _ => Err(ImageError::Seed { problem: format!("{} does not keep it as it was written", path.display()) }),
    }
}

/// The seed of a card that has not booted yet.
pub fn read(card: &File, path: &Path) -> Result<Option<Seed>, ImageError> {
    read_in(fat::of(card, path)?, path)
}

fn read_in(partition: Window<File>, path: &Path) -> Result<Option<Seed>, ImageError> {
    let bytes = fat::get(partition, FILE).map_err(ImageError::file("read the seed of", path))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let text = String::from_utf8(bytes).map_err(|_| ImageError::Seed { problem: "it is no text".to_owned() })?;
    Seed::parse(FILE, &text).map(Some).map_err(|problems| ImageError::Seed { problem: problems.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_one_of_the_standard() {
        // IEEE 802.11-2020, J.4.2.
        let cases = [
            ("IEEE", "password", "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"),
            ("ThisIsASSID", "ThisIsAPassword", "0dc0d6eb90555ed6419756b9a15ec3e3209b63df707dd508d14581f8982721af"),
        ];
        for (ssid, passphrase, key) in cases {
            assert_eq!(psk(ssid, passphrase).unwrap(), key);
        }
        for passphrase in ["short", "sch\u{f6}nes Passwort", &"x".repeat(64)] {
            assert!(psk("IEEE", passphrase).is_err(), "{passphrase}");
        }
    }
}
