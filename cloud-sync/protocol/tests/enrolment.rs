//! What travels when a device enrols and renews: golden files, and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::path::Path;

use holm_protocol::limits::*;
use holm_protocol::*;

/// Compares with the file, or writes it where that was asked for.
fn check(name: &str, written: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/holm").join(name);
    if std::env::var_os("HOLM_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, written).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(written), String::from_utf8_lossy(&golden), "{name}");
}

fn agent() -> AgentBuild {
    let word = |word: &str| word.to_owned();
    AgentBuild {
        version: word("0.1.0"),
        arch: word("aarch64"),
        engine: word("48.0.8"),
        profile: word("aarch64-generic"),
    }
}

fn enrol() -> EnrolRequest {
    EnrolRequest {
        token: "hZ3uJ0nO".to_owned(),
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n...\n".to_owned(),
        thing: Some(ThingName::new("pi3").unwrap()),
        agent: agent(),
    }
}

fn renew() -> RenewRequest {
    RenewRequest {
        csr_pem: "-----BEGIN CERTIFICATE REQUEST-----\n...\n".to_owned(),
        certificate_pem: "-----BEGIN CERTIFICATE-----\n...\n".to_owned(),
        signature: vec![0x30, 0x45, 0xff],
        agent: None,
    }
}

fn enrolled() -> Enrolled {
    let root = r#"{"signed": {"_type": "root", "version": 1}, "signatures": []}"#;
    Enrolled {
        thing: ThingName::new("pi3").unwrap(),
        groups: vec![GroupName::new("greenhouse").unwrap()],
        certificate_pem: "-----BEGIN CERTIFICATE-----\n...\n".to_owned(),
        root_pem: "-----BEGIN CERTIFICATE-----\n...\n".to_owned(),
        mqtt: MqttAddress { host: "cloud.example".to_owned(), port: 8883 },
        tuf: TufAddress {
            metadata_url: "https://cloud.example/tuf/metadata/".to_owned(),
            targets_url: "https://cloud.example/tuf/targets/".to_owned(),
            root_json: Some(serde_json::value::RawValue::from_string(root.to_owned()).unwrap()),
        },
    }
}

#[test]
fn enrolment_is_stable() {
    let written = enrol().write().unwrap();
    check("enrol.json", &written);
    assert_eq!(EnrolRequest::read(&written).unwrap(), enrol());
    let written = renew().write().unwrap();
    check("renew.json", &written);
    assert_eq!(RenewRequest::read(&written).unwrap(), renew());
    let written = enrolled().write().unwrap();
    check("enrolled.json", &written);
    let read = Enrolled::read(&written).unwrap();
    assert_eq!(read.tuf.root_json.as_ref().unwrap().get(), enrolled().tuf.root_json.unwrap().get(), "to the byte");
    assert_eq!(read.write().unwrap(), written);
    let anchor = TrustAnchor { root_pem: "-----BEGIN CERTIFICATE-----\n...\n".to_owned() };
    check("ca.json", &anchor.write().unwrap());
    let error = ApiError::new(ApiErrorCode::TokenUsed, "the token was used before")
        .with_problems(vec!["pi3 used it".to_owned()]);
    let written = error.write().unwrap();
    check("api-error.json", &written);
    assert_eq!(ApiError::read(&written).unwrap(), error);
}

#[test]
fn a_name_and_a_repository_may_be_missing_or_null() {
    let json = String::from_utf8(enrol().write().unwrap()).unwrap();
    for json in [json.replace("\"pi3\"", "null"), json.replace("\"thing\":\"pi3\",", "")] {
        assert_eq!(EnrolRequest::read(json.as_bytes()).unwrap().thing, None, "{json}");
    }
    let none = Enrolled { tuf: TufAddress { root_json: None, ..enrolled().tuf }, ..enrolled() };
    assert!(Enrolled::read(&none.write().unwrap()).unwrap().tuf.root_json.is_none());
}

#[test]
fn what_a_later_release_adds_is_ignored() {
    let with = |written: Vec<u8>| String::from_utf8(written).unwrap().replacen('{', "{\"later\":[1],", 1).into_bytes();
    EnrolRequest::read(&with(enrol().write().unwrap())).unwrap();
    RenewRequest::read(&with(renew().write().unwrap())).unwrap();
    Enrolled::read(&with(enrolled().write().unwrap())).unwrap();
    let error = ApiError::read(br#"{"error":{"code":"moon-is-full","message":"wait","more":1},"x":2}"#).unwrap();
    assert_eq!(error.code.as_str(), "moon-is-full");
    assert!(error.code.is_retryable() && error.problems.is_empty());
}

#[test]
fn what_is_out_of_bounds_is_refused_in_both_directions() {
    let check = |what: &str, request: EnrolRequest| {
        assert!(request.write().is_err(), "{what} is written");
        assert!(EnrolRequest::read(&serde_json::to_vec(&request).unwrap()).is_err(), "{what} is read");
    };
    check("a long token", EnrolRequest { token: "x".repeat(MAX_TOKEN + 1), ..enrol() });
    check("a long request", EnrolRequest { csr_pem: "x".repeat(MAX_CSR_PEM + 1), ..enrol() });
    check("no version", EnrolRequest { agent: AgentBuild { version: String::new(), ..agent() }, ..enrol() });
    check("a space", EnrolRequest { agent: AgentBuild { arch: "a b".to_owned(), ..agent() }, ..enrol() });
    let long = RenewRequest { signature: vec![0; MAX_SIGNATURE_BYTES + 1], ..renew() };
    assert!(RenewRequest::read(&serde_json::to_vec(&long).unwrap()).is_err());
    let json = String::from_utf8(renew().write().unwrap()).unwrap().replace("MEX/", "?");
    assert!(RenewRequest::read(json.as_bytes()).is_err(), "no base64");
    let json = String::from_utf8(enrol().write().unwrap()).unwrap().replace("\"pi3\"", "\"../pi3\"");
    assert!(EnrolRequest::read(json.as_bytes()).is_err(), "no name");
    let group = GroupName::new("g").unwrap();
    assert!(Enrolled { groups: vec![group; MAX_GROUPS + 1], ..enrolled() }.write().is_err());
    let problems = (0..1_000).map(|n| n.to_string()).collect();
    let error = ApiError::new(ApiErrorCode::BadRequest, "no").with_problems(problems);
    assert_eq!((error.problems.len(), error.problems[MAX_PROBLEMS - 1].as_str()), (MAX_PROBLEMS, "and 901 more"));
}

#[test]
fn a_token_is_not_shown() {
    assert!(!format!("{:?}", enrol()).contains("hZ3uJ0nO"));
}

#[test]
fn a_program_says_what_it_is_and_the_mark_alone_is_not_enough() {
    let said =
        format!("..{BUILD_MARK}\0..{BUILD_MARK}0.2.0 aarch64\n..{BUILD_MARK}0.2.0 aarch64 48.0.8 a64-small-v1\n..");
    let build = AgentBuild::in_program(said.as_bytes()).unwrap();
    let words = [build.version, build.arch, build.engine, build.profile];
    assert_eq!(words, ["0.2.0", "aarch64", "48.0.8", "a64-small-v1"]);
    for other in [
        "",
        BUILD_MARK,
        "0.2.0 aarch64 48.0.8 a64-small-v1\n",
        &format!("{BUILD_MARK}0.2.0 aarch64 48.0.8 a64-small-v1"),
        &format!("{BUILD_MARK}0.2.0 aarch64 48.0.8 a64-small-v1 more\n"),
        &format!("{BUILD_MARK}0.2.0  48.0.8 a64-small-v1\n"),
        &format!("{BUILD_MARK}{} aarch64 48.0.8 a64-small-v1\n", "0".repeat(65)),
    ] {
        assert_eq!(AgentBuild::in_program(other.as_bytes()), None, "{other:?}");
    }
}
