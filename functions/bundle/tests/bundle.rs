//! Bundles at the door: the same bytes, and nothing but them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::io::Write;

use holm_bundle::{Bundle, BundleError, BundleLimits, Digest, PackedBundle};
use proptest::prelude::*;

const MANIFEST: &str = r#"manifest_version = 1
[function]
name = "temp-alert"
version = "1.4.0"
[[trigger.mqtt]]
topics = ["sensors/+/temperature"]
"#;

/// Something that compresses about as well as code does.
fn component() -> Vec<u8> {
    let mut state = 1_u32;
    let noise = (0..9000).map(|n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if n % 3 == 0 { (state >> 24) as u8 } else { (n / 7) as u8 }
    });
    [0, b'a', b's', b'm', 0x0d, 0, 1, 0].into_iter().chain(noise).collect()
}

fn packed() -> PackedBundle {
    Bundle::pack(MANIFEST, &component()).unwrap()
}

fn open(bytes: &[u8]) -> Result<Bundle, BundleError> {
    Bundle::open(bytes, &BundleLimits::default())
}

/// A file of an archive, with a type.
type File<'a> = (&'a str, tar::EntryType, &'a [u8]);

/// An archive of any files, compressed: what an attacker can make.
fn forged(files: &[File<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, kind, bytes) in files {
        let mut header = tar::Header::new_ustar();
        // Not `set_path`, which refuses the names that matter here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        archive.append(&header, *bytes).unwrap();
    }
    compress(&archive.into_inner().unwrap())
}

fn compress(archive: &[u8]) -> Vec<u8> {
    zstd::encode_all(archive, 3).unwrap()
}

fn description(format: u64, name: &str, manifest: &[u8], component: &[u8]) -> Vec<u8> {
    let entry = |name: &str, bytes: &[u8]| {
        format!(
            "    {{\n      \"name\": \"{name}\",\n      \"bytes\": {},\n      \"sha256\": \"{}\"\n    }}",
            bytes.len(),
            Digest::of(bytes)
        )
    };
    let entries = [entry("holm.toml", manifest), entry("component.wasm", component)].join(",\n");
    format!("{{\n  \"format\": {format},\n  \"name\": \"{name}\",\n  \"version\": \"1.4.0\",\n  \"entries\": [\n{entries}\n  ]\n}}\n").into_bytes()
}

const FILE: tar::EntryType = tar::EntryType::Regular;

#[test]
fn opens_what_was_packed() {
    let packed = packed();
    let bundle = open(&packed.bytes).unwrap();
    assert_eq!(bundle.manifest_text, MANIFEST);
    assert_eq!(bundle.component, component());
    assert_eq!((bundle.digest, bundle.component_digest), (packed.digest, packed.component_digest));
    assert_eq!((packed.digest, packed.component_digest), (Digest::of(&packed.bytes), Digest::of(&component())));
    assert_eq!((bundle.manifest.name, bundle.manifest.version), (packed.name, packed.version));
}

#[test]
fn the_same_input_makes_the_same_bytes() {
    let first = packed();
    assert_eq!(first, packed());
    assert_ne!(first.digest, Bundle::pack(&MANIFEST.replace("1.4.0", "1.4.1"), &component()).unwrap().digest);
    // Held by a golden, so that a change of the format or the library does not go unnoticed: it makes every digest new.
    assert_eq!(first.digest.to_string(), include_str!("golden.sha256").trim());
}

#[test]
fn a_forger_with_the_right_checksums_makes_what_pack_makes() {
    // Only the compression differs, which is no content: shows that the forgeries below fail for the reason they name.
    let component = component();
    let files: [File<'_>; 3] = [
        ("bundle.json", FILE, &description(1, "temp-alert", MANIFEST.as_bytes(), &component)),
        ("holm.toml", FILE, MANIFEST.as_bytes()),
        ("component.wasm", FILE, &component),
    ];
    assert_eq!(open(&forged(&files)).unwrap().component, component);
}

#[test]
fn a_truncated_bundle_is_refused_wherever_it_ends() {
    let bytes = packed().bytes;
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(open(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
    assert!(matches!(open(&bytes[..bytes.len() / 2]), Err(BundleError::Truncated)));
    assert!(matches!(open(&[]), Err(BundleError::Truncated)));
}

#[test]
fn an_altered_byte_is_found_or_changes_nothing() {
    let bytes = packed().bytes;
    let bundle = open(&bytes).unwrap();
    for at in (0..bytes.len()).step_by(7) {
        for mask in [0x01, 0x80] {
            let mut altered = bytes.clone();
            altered[at] ^= mask;
            if let Ok(opened) = open(&altered) {
                assert_eq!(Bundle { digest: bundle.digest, ..opened }, bundle, "byte {at}");
            }
        }
    }
}

#[test]
fn other_data_behind_the_bundle_is_refused() {
    let bytes = packed().bytes;
    for tail in [&b"x"[..], &bytes, &compress(b"more")] {
        assert!(matches!(open(&[&bytes, tail].concat()), Err(BundleError::Trailing)));
    }
}

#[test]
fn a_bomb_stops_at_the_limit() {
    // 3 GiB of zeros in about 100 KiB.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..3072 {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let error = open(&bomb).unwrap_err();
    assert!(matches!(error, BundleError::TooLarge { what: "the archive inside", limit: 67_108_864 }), "{error}");
    let bytes = packed().bytes;
    let tight = BundleLimits { decompressed: 9000, ..BundleLimits::default() };
    assert!(matches!(Bundle::open(&bytes, &tight), Err(BundleError::TooLarge { limit: 9000, .. })));
    let tight = BundleLimits { compressed: bytes.len() - 1, ..BundleLimits::default() };
    assert!(matches!(Bundle::open(&bytes, &tight), Err(BundleError::TooLarge { what: "the file", .. })));
}

#[test]
fn a_frame_that_asks_for_a_large_window_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&[0; 100]).unwrap();
    assert!(matches!(open(&encoder.finish().unwrap()), Err(BundleError::Decompress { .. })));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for name in [
        "../component.wasm",
        "/etc/passwd",
        "./holm.toml",
        "a/../holm.toml",
        "holm.toml/",
        "HOLM.TOML",
        "",
        "bundle.json ",
    ] {
        let error = open(&forged(&[(name, FILE, b"x")])).unwrap_err();
        assert!(matches!(&error, BundleError::UnknownEntry { name: found } if found == name), "{name}: {error}");
    }
}

#[test]
fn what_is_no_file_is_refused_whatever_it_is_called() {
    use tar::EntryType::{Char, Directory, GNULongName, GNUSparse, Link, Symlink, XHeader};
    for kind in [Link, Symlink, Directory, Char, GNULongName, GNUSparse, XHeader] {
        let error = open(&forged(&[("holm.toml", kind, b"")])).unwrap_err();
        assert!(matches!(error, BundleError::UnknownEntry { .. }), "{kind:?}: {error}");
    }
}

#[test]
fn files_that_are_missing_twice_or_too_many_are_refused() {
    let component = component();
    let description = description(1, "temp-alert", MANIFEST.as_bytes(), &component);
    let all: [File<'_>; 3] = [
        ("bundle.json", FILE, &description),
        ("holm.toml", FILE, MANIFEST.as_bytes()),
        ("component.wasm", FILE, &component),
    ];
    for missing in 0..3 {
        let files: Vec<_> = (0..3).filter(|n| *n != missing).map(|n| all[n]).collect();
        let error = open(&forged(&files)).unwrap_err();
        assert!(matches!(error, BundleError::MissingEntry { name } if name == all[missing].0), "{error}");
    }
    let error = open(&forged(&[all[0], all[1], all[1], all[2]])).unwrap_err();
    assert!(matches!(error, BundleError::DuplicateEntry { name: "holm.toml" }), "{error}");
    let limits = BundleLimits { entries: 2, ..BundleLimits::default() };
    let error = Bundle::open(&forged(&all), &limits).unwrap_err();
    assert!(matches!(error, BundleError::TooManyEntries { limit: 2 }), "{error}");
    // In another order, the archive is not what `pack` writes.
    let error = open(&forged(&[all[0], all[2], all[1]])).unwrap_err();
    assert!(matches!(error, BundleError::NotCanonical), "{error}");
}

#[test]
fn wrong_checksums_and_names_are_told_apart() {
    let component = component();
    let check = |description: &[u8], manifest: &str| {
        let files: [File<'_>; 3] = [
            ("bundle.json", FILE, description),
            ("holm.toml", FILE, manifest.as_bytes()),
            ("component.wasm", FILE, &component),
        ];
        open(&forged(&files)).unwrap_err()
    };
    let error = check(&description(1, "temp-alert", MANIFEST.as_bytes(), b"another"), MANIFEST);
    assert!(matches!(error, BundleError::Checksum { name: "component.wasm" }), "{error}");
    let error = check(&description(1, "temp-alert", b"another", &component), MANIFEST);
    assert!(matches!(error, BundleError::Checksum { name: "holm.toml" }), "{error}");
    let error = check(&description(1, "another", MANIFEST.as_bytes(), &component), MANIFEST);
    assert!(matches!(error, BundleError::Mismatch { field: "name", .. }), "{error}");
    let error = check(&description(2, "temp-alert", MANIFEST.as_bytes(), &component), MANIFEST);
    assert!(matches!(error, BundleError::FromTheFuture { found: 2, known: 1 }), "{error}");
    let error = check(b"{\"format\": 2, \"of the\": \"future\"}", MANIFEST);
    assert!(matches!(error, BundleError::FromTheFuture { .. }), "{error}");
    let error = check(b"{}", MANIFEST);
    assert!(matches!(error, BundleError::Description { .. }), "{error}");
    let error = check(&[&description(1, "temp-alert", MANIFEST.as_bytes(), &component)[..], b" "].concat(), MANIFEST);
    assert!(matches!(error, BundleError::NotCanonical), "{error}");
}

#[test]
fn a_bundle_of_a_later_format_with_other_files_says_so() {
    let error = open(&forged(&[("bundle.json", FILE, b"{\"format\": 3}"), ("signature", FILE, b"x")])).unwrap_err();
    assert!(matches!(error, BundleError::FromTheFuture { found: 3, .. }), "{error}");
}

#[test]
fn all_problems_of_a_manifest_come_out_at_once() {
    let text = MANIFEST.replace("1.4.0", "one").replace("temp-alert", "Temp Alert");
    let Err(BundleError::Manifest(problems)) = Bundle::pack(&text, b"") else { panic!("packed") };
    assert_eq!(problems.problems.len(), 2, "{problems}");
    let files: [File<'_>; 3] = [
        ("bundle.json", FILE, &description(1, "Temp Alert", text.as_bytes(), b"")),
        ("holm.toml", FILE, text.as_bytes()),
        ("component.wasm", FILE, b""),
    ];
    let Err(BundleError::Manifest(problems)) = open(&forged(&files)) else { panic!("opened") };
    assert_eq!(problems.problems.len(), 2, "{problems}");
}

#[test]
fn a_digest_has_one_text() {
    let digest = Digest::of(b"");
    let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(digest.to_string(), text);
    assert_eq!(text.parse(), Ok(digest));
    for bad in ["", &text[1..], &text.to_uppercase(), &text.replace('e', "g"), &format!("{text}0"), &"é".repeat(32)] {
        assert!(bad.parse::<Digest>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(open(&bytes).is_err());
        // The same inside a frame that is in order.
        prop_assert!(open(&compress(&bytes)).is_err());
    }

    #[test]
    fn a_damaged_archive_in_a_sound_frame_never_panics_and_never_passes(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..8)
    ) {
        let sound = zstd::decode_all(&packed().bytes[..]).unwrap();
        let mut archive = sound.clone();
        for (at, mask) in changes {
            archive[at.index(sound.len())] ^= mask;
        }
        prop_assert_eq!(open(&compress(&archive)).is_ok(), archive == sound);
    }
}
