//! A device is lied to, and says why it does not believe it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use holm_bundle::Digest;
use holm_core::{FunctionName, Timestamp};
use holm_protocol::*;
use holm_trust::*;

const DAY: i64 = 86_400_000;
const BUILD: Timestamp = Timestamp(1_731_000_000_000);

fn key() -> SigningKey {
    SigningKey::generate().unwrap().0
}

fn thing(name: &str) -> ThingName {
    ThingName::new(name).unwrap()
}

fn artifact() -> Artifact {
    Artifact { sha256: Digest::of(b"bundle"), length: 6 }
}

fn state(generation: u64) -> DesiredState {
    DesiredState {
        format: DESIRED_STATE_FORMAT,
        device: thing("pump-7"),
        generation,
        rollout: None,
        issued: BUILD,
        expires: Timestamp(BUILD.0 + 7 * DAY),
        policy: DeploymentPolicy { health_window_s: 300, deadline_s: 3_600, window: None },
        agent: None,
        functions: vec![DesiredFunction {
            name: FunctionName::new("water-loss").unwrap(),
            version: "1.4.0".to_owned(),
            bundle: artifact(),
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            permit: None,
        }],
    }
}

/// A device and those whom it trusts.
struct World {
    deployment: SigningKey,
    targets: [SigningKey; 3],
    device: ThingName,
    last: Option<LastAccepted>,
    time: TrustedTime,
    monotonic: Duration,
}

impl World {
    fn new() -> Self {
        Self {
            deployment: key(),
            targets: [key(), key(), key()],
            device: thing("pump-7"),
            last: None,
            time: TrustedTime::new(BUILD, None),
            monotonic: Duration::from_secs(60),
        }
    }

    fn document(&self, state: &DesiredState) -> String {
        sign(DESIRED_STATE_TYPE, state.write().unwrap(), &[&self.deployment]).write().unwrap()
    }

    fn judge<T>(&self, decide: impl FnOnce(&Judge<'_>) -> T) -> T {
        let deployment = Role::new([self.deployment.public()], 1).unwrap();
        let targets = Role::new(self.targets.iter().map(SigningKey::public), 2).unwrap();
        decide(&Judge {
            device: &self.device,
            deployment: &deployment,
            targets: &targets,
            last: self.last,
            time: &self.time,
            monotonic: self.monotonic,
        })
    }

    fn accept(&self, document: &str) -> Result<Acceptance, TrustError> {
        self.judge(|judge| judge.accept(document))
    }

    fn refused(&self, document: &str) -> ReasonCode {
        self.accept(document).unwrap_err().reason()
    }
}

#[test]
fn a_good_document_is_accepted_once_and_known_afterwards() {
    let mut world = World::new();
    let document = world.document(&state(1));
    let Acceptance::New { state: accepted, last, freshness } = world.accept(&document).unwrap() else { panic!() };
    assert_eq!((accepted, last.generation, freshness), (state(1), 1, Freshness::Unknown));
    world.last = Some(last);
    assert_eq!(world.accept(&document).unwrap(), Acceptance::Known(state(1)));
    // Long after it expired, too: it was accepted in time.
    world.time.told(Timestamp(BUILD.0 + 30 * DAY), world.monotonic);
    assert_eq!(world.accept(&document).unwrap(), Acceptance::Known(state(1)));
    world.time = TrustedTime::new(BUILD, None);
    world.time.told(Timestamp(BUILD.0 + DAY), world.monotonic);
    let next = world.accept(&world.document(&state(2))).unwrap();
    assert!(matches!(next, Acceptance::New { freshness: Freshness::Fresh, .. }));
}

#[test]
fn lies_are_refused_with_their_reason() {
    let mut world = World::new();
    let stranger = key();
    let payload = || state(5).write().unwrap();
    let with = |change: fn(&mut DesiredState)| {
        let mut changed = state(5);
        change(&mut changed);
        world.document(&changed)
    };
    let altered = |change: fn(&mut Envelope)| {
        let mut envelope = sign(DESIRED_STATE_TYPE, payload(), &[&world.deployment]);
        change(&mut envelope);
        envelope.write().unwrap()
    };
    let mut borrowed_name = sign(DESIRED_STATE_TYPE, payload(), &[&stranger]);
    borrowed_name.signatures[0].key_id = world.deployment.public().id();
    let later = br#"{"format":2,"device":"pump-7"}"#.to_vec();
    let odd = String::from_utf8(payload()).unwrap().replace("\"generation\"", "\"night\":true,\"generation\"");
    let cases = [
        ("nonsense", "nonsense".to_owned(), ReasonCode::Malformed),
        (
            "a stranger's key",
            sign(DESIRED_STATE_TYPE, payload(), &[&stranger]).write().unwrap(),
            ReasonCode::UnknownKey,
        ),
        (
            "a targets key",
            sign(DESIRED_STATE_TYPE, payload(), &[&world.targets[0]]).write().unwrap(),
            ReasonCode::UnknownKey,
        ),
        ("a stranger under a known id", borrowed_name.write().unwrap(), ReasonCode::WrongSignature),
        ("altered payload", altered(|envelope| envelope.payload[20] ^= 1), ReasonCode::WrongSignature),
        (
            "altered type",
            altered(|envelope| envelope.payload_type = ROLLBACK_PERMIT_TYPE.to_owned()),
            ReasonCode::WrongSignature,
        ),
        ("altered signature", altered(|envelope| envelope.signatures[0].bytes[3] ^= 1), ReasonCode::WrongSignature),
        ("cut signature", altered(|envelope| envelope.signatures[0].bytes.truncate(63)), ReasonCode::WrongSignature),
        ("empty signature", altered(|envelope| envelope.signatures[0].bytes.clear()), ReasonCode::WrongSignature),
        (
            "signed as another type",
            sign(ROLLBACK_PERMIT_TYPE, payload(), &[&world.deployment]).write().unwrap(),
            ReasonCode::Malformed,
        ),
        ("another device's", with(|state| state.device = thing("pump-8")), ReasonCode::WrongDevice),
        ("expired", with(|state| (state.issued, state.expires) = (Timestamp(0), BUILD)), ReasonCode::Expired),
        (
            "later format",
            sign(DESIRED_STATE_TYPE, later, &[&world.deployment]).write().unwrap(),
            ReasonCode::UnsupportedFormat,
        ),
        (
            "a field that is not known",
            sign(DESIRED_STATE_TYPE, odd.into_bytes(), &[&world.deployment]).write().unwrap(),
            ReasonCode::Malformed,
        ),
    ];
    for (what, document, reason) in cases {
        assert_eq!(world.refused(&document), reason, "{what}");
    }
    let accepted = world.document(&state(5));
    let Acceptance::New { last, .. } = world.accept(&accepted).unwrap() else { panic!() };
    world.last = Some(last);
    assert_eq!(world.refused(&world.document(&state(4))), ReasonCode::OlderGeneration, "replayed");
    let mut twin = state(5);
    twin.functions.clear();
    assert_eq!(world.refused(&world.document(&twin)), ReasonCode::OlderGeneration, "two truths of one generation");
}

#[test]
fn thresholds_count_different_keys() {
    let keys = [key(), key(), key()];
    let role = Role::new(keys.iter().map(SigningKey::public), 2).unwrap();
    let signed = |by: &[&SigningKey]| sign("t", b"payload".to_vec(), by);
    role.verify(&signed(&[&keys[0], &keys[2]])).unwrap();
    role.verify(&signed(&[&keys[0], &key(), &keys[1]])).unwrap();
    for by in [&[&keys[0]][..], &[&keys[0], &keys[0]], &[&keys[0], &key()]] {
        assert_eq!(role.verify(&signed(by)).unwrap_err().reason(), ReasonCode::TooFewSignatures);
    }
    // Nobody can spoil a good document by adding a bad signature to it.
    let mut spoilt = signed(&[&keys[0], &keys[1], &keys[2]]);
    spoilt.signatures[1].bytes.clear();
    role.verify(&spoilt).unwrap();
    let one = keys[0].public();
    for (keys, threshold) in [(vec![], 0), (vec![], 1), (vec![one], 0), (vec![one, one], 2)] {
        assert!(Role::new(keys, threshold).is_err());
    }
}

#[test]
fn only_the_targets_keys_permit_to_go_back() {
    let world = World::new();
    let permit = |expires: i64| RollbackPermit {
        format: ROLLBACK_PERMIT_FORMAT,
        function: FunctionName::new("water-loss").unwrap(),
        bundle: artifact(),
        why: "1.5.0 leaks".to_owned(),
        expires: Timestamp(BUILD.0 + expires),
    };
    let ask = |expires: i64, by: &[&SigningKey]| {
        let mut function = state(1).functions.remove(0);
        function.permit = Some(sign(ROLLBACK_PERMIT_TYPE, permit(expires).write().unwrap(), by));
        world.judge(|judge| judge.permit(&function)).map_err(|error| error.reason())
    };
    let [a, b, _] = &world.targets;
    assert_eq!(ask(DAY, &[a, b]), Ok(Some(permit(DAY))));
    assert_eq!(ask(DAY, &[&world.deployment]), Err(ReasonCode::UnknownKey), "not by an online key");
    assert_eq!(ask(DAY, &[a]), Err(ReasonCode::TooFewSignatures));
    assert_eq!(ask(0, &[a, b]), Err(ReasonCode::Expired));
    let without = state(1).functions.remove(0);
    assert_eq!(world.judge(|judge| judge.permit(&without)).unwrap(), None);
}

#[test]
fn bad_clocks_open_no_door_and_close_none() {
    let at = |day: i64| Timestamp(BUILD.0 + day * DAY);
    let boot = Duration::ZERO;
    // Nothing is known but the build: what expired before that has expired, of the rest nothing is said.
    let mut time = TrustedTime::new(BUILD, None);
    assert_eq!(time.freshness(at(0), boot), Freshness::Expired(BUILD));
    assert_eq!(time.freshness(at(1), boot), Freshness::Unknown);
    // A server tells the time; from then on it goes on by itself.
    assert_eq!(time.told(at(10), boot), Some(at(10)));
    assert_eq!(time.freshness(at(11), boot), Freshness::Fresh);
    let later = Duration::from_secs(2 * 86_400);
    assert_eq!(time.freshness(at(11), later), Freshness::Expired(at(12)));
    // Time does not go back: replayed or wrong.
    assert_eq!(time.told(at(11), later), None);
    assert_eq!(time.at_least(later), at(12));
    // A server that is a little behind is one that tells the time, and time does not go back for it.
    let mut rebooted = TrustedTime::new(BUILD, Some(at(12)));
    assert_eq!(rebooted.told(Timestamp(at(12).0 - 60_000), boot), None, "nothing to store");
    assert_eq!((rebooted.at_least(boot), rebooted.freshness(at(13), boot)), (at(12), Freshness::Fresh));
    // A wild future is not believed, told or stored.
    assert_eq!(time.told(Timestamp(i64::MAX), later), None);
    assert_eq!(time.told(Timestamp(BUILD.0 + 80 * 366 * DAY), later), None);
    assert_eq!(TrustedTime::new(BUILD, Some(Timestamp(i64::MAX))), TrustedTime::new(BUILD, None));
    // After a reboot the floor holds, and freshness is unknown again.
    let rebooted = TrustedTime::new(BUILD, Some(at(10)));
    assert_eq!(rebooted.freshness(at(10), boot), Freshness::Expired(at(10)));
    assert_eq!(rebooted.freshness(at(11), later), Freshness::Unknown);
    // A floor from before an update of the agent is no lower than the new build.
    assert_eq!(TrustedTime::new(BUILD, Some(Timestamp(0))).at_least(boot), BUILD);
}

#[test]
fn keys_are_those_of_the_standards() {
    // RFC 8032, section 7.1, test 1: the empty message.
    let public = PublicKey::parse("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a").unwrap();
    let hex = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
    let signature: Vec<u8> = (0..64).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect();
    assert!(public.verifies(b"", &signature));
    assert!(!public.verifies(b"\0", &signature));
    // The SHA-256 of {"keytype":"ed25519","keyval":{"public":"d75a..."},"scheme":"ed25519"}, by sha256sum.
    assert_eq!(public.id(), "74c181c7ad8a0855d4b55e44d2ba87aabdddb196832571f15f92fece332e4916");
    for bad in ["", "d75a", &"g".repeat(64), &"A".repeat(64)] {
        assert!(PublicKey::parse(bad).is_err(), "{bad:?}");
    }
    let (key, document) = SigningKey::generate().unwrap();
    assert_eq!(SigningKey::from_pkcs8(&document).unwrap().public(), key.public());
    assert!(SigningKey::from_pkcs8(&document[..40]).is_err());
    assert_eq!(format!("{key:?}"), format!("SigningKey(of {})", key.public()), "and nothing else of it");
}
