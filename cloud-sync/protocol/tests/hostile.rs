//! Messages from somebody who means harm, or has a bug: refused with a reason, never a panic, never much memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod sample;

use holm_core::Timestamp;
use holm_protocol::limits::*;
use holm_protocol::*;
use proptest::prelude::*;
use sample::*;

/// A payload with any header and any frame.
fn forged(header: &str, frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(header.len()).unwrap();
    [&0x184D_2A58_u32.to_le_bytes()[..], &length.to_le_bytes(), header.as_bytes(), frame].concat()
}

fn header(first: u64, count: u64) -> String {
    format!(
        r#"{{"v":1,"device":"pump-7","lane":"results","stream":"s","epoch":"000000000000002a","first":{first},"count":{count},"sent":0}}"#
    )
}

fn zip(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(18).unwrap();
    std::io::Write::write_all(&mut encoder, text).unwrap();
    encoder.finish().unwrap()
}

fn refused(payload: &[u8]) -> ProtocolError {
    Batch::read(payload, &BatchLimits::default()).unwrap_err()
}

const ONE: &[u8] = b"{\"t\":0,\"v\":1}\n";

#[test]
fn the_forger_can_make_a_good_batch() {
    // Or none of the other tests would show anything.
    let batch = Batch::read(&forged(&header(1, 1), &zip(ONE)), &BatchLimits::default()).unwrap();
    assert_eq!(batch.lines, [(1, record(0, None, b"1"))]);
}

#[test]
fn bombs_are_refused() {
    let zeros = vec![b'\n'; 64 << 20];
    let bomb = zip(&zeros);
    assert!(bomb.len() < MAX_PAYLOAD_BYTES);
    let too_large = |error: ProtocolError| matches!(error, ProtocolError::TooLarge { .. });
    assert!(too_large(refused(&forged(&header(1, 1), &bomb))));
    // A window larger than what may come out is refused before it is held.
    let wide = zstd::encode_all(&zeros[..], 3).unwrap();
    let error = refused(&forged(&header(1, 1), &wide));
    assert!(matches!(error, ProtocolError::Decompress { .. }), "{error}");
    // Many records in little text.
    let lines = ONE.repeat(MAX_BATCH_LINES + 1);
    assert!(too_large(refused(&forged(&header(1, 1_000_000), &zip(&lines)))));
    assert!(too_large(refused(&vec![0; MAX_PAYLOAD_BYTES + 1])));
    let mut long_header = header(1, 1);
    long_header.push_str(&" ".repeat(MAX_BATCH_HEADER));
    assert!(too_large(refused(&forged(&long_header, &zip(ONE)))));
}

#[test]
fn claims_and_contents_must_agree() {
    for (what, payload) in [
        ("covers more", forged(&header(1, 1), &zip(&ONE.repeat(2)))),
        ("covers less", forged(&header(1, 3), &zip(&ONE.repeat(2)))),
        ("a gap that covers more", forged(&header(1, 5), &zip(b"{\"gap\":6,\"reason\":\"cap\",\"at\":0}\n"))),
        (
            "a gap past counting",
            forged(&header(2, 5), &zip(b"{\"gap\":18446744073709551615,\"reason\":\"cap\",\"at\":0}\n")),
        ),
    ] {
        let error = refused(&payload);
        assert!(matches!(error, ProtocolError::Mismatch { .. }), "{what}: {error}");
    }
    for (first, count) in [(0, 1), (1, 0), (u64::MAX, 1), (1, u64::MAX), (u64::MAX, u64::MAX), (MAX_SEQUENCE, 2)] {
        let error = refused(&forged(&header(first, count), &zip(ONE)));
        assert!(matches!(error, ProtocolError::Invalid { .. }), "{first} {count}: {error}");
    }
}

#[test]
fn lines_that_are_none_are_refused() {
    for line in [
        "",
        "{}",
        "[]",
        "1",
        "{\"t\":0}",
        "{\"v\":1}",
        "{\"t\":\"0\",\"v\":1}",
        "{\"t\":0,\"v\":1,\"x\":\"1\"}",
        "{\"t\":0,\"v\":1,\"v\":2}",
        "{\"t\":0,\"v\":1}{}",
        "{\"t\":0,\"b\":\"***\"}",
        "{\"t\":0,\"x\":\"\\ud800\"}",
        "{\"gap\":0,\"reason\":\"cap\",\"at\":0}",
        "{\"gap\":1,\"reason\":\"cap\"}",
        "{\"gap\":1,\"reason\":\"cap\",\"at\":0,\"v\":1}",
        "{\"gap\":-1,\"reason\":\"cap\",\"at\":0}",
    ] {
        let error = refused(&forged(&header(1, 1), &zip(format!("{line}\n").as_bytes())));
        assert_eq!(error.refusal(), RefusalReason::Malformed, "{line}: {error}");
    }
    let unended = refused(&forged(&header(1, 1), &zip(&ONE[..ONE.len() - 1])));
    assert!(matches!(unended, ProtocolError::Truncated { .. }));
    // Deep enough to exhaust a stack that recurses.
    let deep = format!("{{\"t\":0,\"v\":{}{}}}\n", "[".repeat(400_000), "]".repeat(400_000));
    let _ = Batch::read(&forged(&header(1, 1), &zip(deep.as_bytes())), &BatchLimits::default());
}

#[test]
fn what_follows_a_batch_is_refused() {
    let (_, payload) = build(1, &[record(0, None, b"1")]);
    for rest in [&b"x"[..], &payload, &zip(ONE)] {
        let error = refused(&[&payload, rest].concat());
        assert!(matches!(error, ProtocolError::Trailing { .. }), "{error}");
    }
}

#[test]
fn later_formats_are_told_from_nonsense() {
    let later = refused(&forged(r#"{"v":2,"origin":{"device":7}}"#, b"anything"));
    assert!(matches!(later, ProtocolError::FromTheFuture { found: 2, known: 1, .. }), "{later}");
    assert!(!later.refusal().is_final(), "the device keeps what a later control plane will read");
    let ack = Ack::read(br#"{"v":2,"marks":[]}"#).unwrap_err();
    assert!(matches!(ack, ProtocolError::FromTheFuture { .. }));
    let state = envelope(DESIRED_STATE_TYPE, br#"{"format":2,"everything":"else"}"#.to_vec());
    assert!(matches!(DesiredState::read(&state), Err(ProtocolError::FromTheFuture { .. })));
    // A field more in an unsigned message is fine.
    let more = header(1, 1).replace("\"v\":1", "\"v\":1,\"colour\":\"red\"");
    Batch::read(&forged(&more, &zip(b"{\"t\":0,\"v\":1,\"trace\":\"x\"}\n")), &BatchLimits::default()).unwrap();
}

/// The golden desired state with one text replaced.
fn altered(from: &str, to: &str) -> Result<DesiredState, ProtocolError> {
    let json = String::from_utf8(desired_state().write().unwrap()).unwrap();
    assert!(json.contains(from), "{from}");
    DesiredState::read(&envelope(DESIRED_STATE_TYPE, json.replace(from, to).into_bytes()))
}

#[test]
fn signed_payloads_are_read_strictly() {
    altered("water", "winter").unwrap();
    for (from, to) in [
        ("\"generation\":42", "\"generation\":42,\"only_at_night\":true"),
        ("\"generation\":42", "\"generation\":42,\"generation\":43"),
        ("\"generation\":42", "\"generation\":0"),
        ("\"generation\":42", "\"generation\":9007199254740992"),
        ("\"format\":1", "\"format\":0"),
        ("\"threshold\":\"2.5\"", "\"threshold\":\"2.5\",\"threshold\":\"9\""),
        ("\"threshold\":\"2.5\"", "\"threshold\":2.5"),
        ("\"length\":102400", "\"length\":102400,\"mirror\":\"http://example.com\""),
        ("\"length\":102400", "\"length\":-1"),
        ("\"version\":\"1.4.0\"", "\"version\":\"../1\""),
        ("temp-alert", "water-loss"),
        ("temp-alert", "Temp"),
        ("pump-7", "pump/7"),
        ("\"start_minute\":1320", "\"start_minute\":1440"),
        ("\"deadline_s\":3600", "\"deadline_s\":0"),
        ("\"expires\":1731604800000", "\"expires\":1"),
        ("c2VhbGVk", "sealed?"),
    ] {
        assert!(altered(from, to).is_err(), "{to}");
    }
}

#[test]
fn documents_of_another_type_are_refused() {
    let payload = desired_state().write().unwrap();
    let error = DesiredState::read(&envelope(ROLLBACK_PERMIT_TYPE, payload)).unwrap_err();
    assert!(matches!(error, ProtocolError::Mismatch { .. }), "{error}");
}

#[test]
fn permits_are_for_the_bundle_that_they_come_with() {
    let permit = |function: &DesiredFunction| RollbackPermit {
        format: ROLLBACK_PERMIT_FORMAT,
        function: function.name.clone(),
        bundle: function.bundle,
        why: "1.5.0 leaks".to_owned(),
        expires: Timestamp(1_731_604_800_000),
    };
    let mut state = desired_state();
    let (own, other) = (permit(&state.functions[0]), permit(&state.functions[1]));
    state.functions[0].permit = Some(envelope(ROLLBACK_PERMIT_TYPE, own.write().unwrap()));
    let payload = state.write().unwrap();
    DesiredState::read(&envelope(DESIRED_STATE_TYPE, payload)).unwrap();
    state.functions[0].permit = Some(envelope(ROLLBACK_PERMIT_TYPE, other.write().unwrap()));
    assert!(matches!(state.write(), Err(ProtocolError::Mismatch { .. })));
}

#[test]
fn the_largest_signed_document_is_a_job_document() {
    let signature = Signature {
        key_id: "k".repeat(MAX_KEY_ID),
        algorithm: Some(SignatureAlgorithm::Ed25519),
        bytes: vec![255; MAX_SIGNATURE_BYTES],
    };
    let mut largest = envelope(DESIRED_STATE_TYPE, vec![b' '; MAX_SIGNED_PAYLOAD]);
    largest.signatures = vec![signature; MAX_SIGNATURES];
    let document = largest.write().unwrap();
    assert!(document.len() <= MAX_JOB_DOCUMENT);
    JobDocument::new(document).unwrap();
    largest.payload.push(b' ');
    assert!(largest.write().is_err());
    let mut state = desired_state();
    state.functions = (0..MAX_FUNCTIONS).map(|n| function(&format!("function-{n}"))).collect();
    state.write().expect("as many functions as allowed, without configuration, fit");
    state.functions.push(function("one-more"));
    assert!(state.write().is_err());
}

#[test]
fn envelopes_are_bounded() {
    let good = envelope(DESIRED_STATE_TYPE, b"{}".to_vec()).write().unwrap();
    Envelope::read(&good).unwrap();
    Envelope::read(&good.replace("\"alg\":\"ed25519\",", "\"alg\":\"rot13\",\"more\":1,")).unwrap();
    let url_safe = good.replace("\"e30=\"", "\"_-8=\"");
    assert_eq!(Envelope::read(&url_safe).unwrap().payload, [0xff, 0xef], "either alphabet");
    for bad in [
        good.replace("\"payload\":\"e30=\"", "\"payload\":\"e30\""),
        good.replace("\"payload\":\"e30=\"", "\"payload\":\"e30=\",\"payload\":\"e30=\""),
        r#"{"payloadType":"t","payload":"e30=","signatures":[]}"#.to_owned(),
        format!(r#"{{"payloadType":"t","payload":"","signatures":[{}]}}"#, [r#"{"sig":""}"#; 5].join(",")),
        format!(r#"{{"payloadType":"{}","payload":"","signatures":[{{"sig":""}}]}}"#, "t".repeat(129)),
        " ".repeat(MAX_JOB_DOCUMENT + 1),
    ] {
        assert!(Envelope::read(&bad).is_err(), "{bad:.100}");
    }
}

#[test]
fn status_details_always_pass() {
    let mut details = StatusDetails::default();
    details.insert("message", &format!("a\u{0}\u{202e}b\n{}", "ü".repeat(2_000))).unwrap();
    let message = details.get("message").unwrap();
    assert!(message.starts_with("a  b ü") && message.chars().count() == MAX_DETAIL_VALUE);
    details.insert("empty", "\n\u{200b} ").unwrap();
    assert_eq!(details.get("empty"), None, "AWS refuses empty values");
    for key in ["", "a b", "ä", &"k".repeat(129)] {
        assert!(details.insert(key, "x").is_err(), "{key:?}");
    }
    for n in 1..MAX_STATUS_DETAILS {
        details.insert(&format!("key:{n}"), "x").unwrap();
    }
    assert!(details.insert("one-more", "x").is_err());
    details.insert("key:1", "y").expect("a pair that is there may change");
    details.check().unwrap();
    for bad in [r#"{"a":""}"#, r#"{"a b":"x"}"#, "{\"a\":\"\\u0007\"}"] {
        let details: StatusDetails = serde_json::from_str(bad).unwrap();
        assert!(details.check().is_err(), "{bad}");
    }
}

#[test]
fn reports_fit_whatever_runs() {
    let update = ShadowUpdate::report(reported(300), None);
    let payload = update.write().unwrap();
    assert!(payload.len() <= MAX_SHADOW_BYTES);
    let read = ShadowUpdate::read(&payload).unwrap();
    let told = read.reported().functions.len();
    assert!(told >= 40, "{told}");
    assert_eq!(told + read.reported().functions_omitted, 300);
    assert_eq!(read.reported().functions[0].name.as_str(), "function-000");
    let depth = payload.iter().scan(0_usize, |depth, byte| {
        *depth += usize::from(matches!(byte, b'{' | b'['));
        let now = *depth;
        *depth -= usize::from(matches!(byte, b'}' | b']'));
        Some(now)
    });
    assert!(depth.max().unwrap() <= MAX_SHADOW_DEPTH);
    let mut far = reported(1);
    for (generation, fits) in [(MAX_SEQUENCE, true), (MAX_SEQUENCE + 1, false), (u64::MAX, false)] {
        far.generation = generation;
        let read = ShadowUpdate::read(&ShadowUpdate::report(far.clone(), None).write().unwrap());
        assert_eq!(read.is_ok(), fits, "{generation}");
    }
    let mut long = reported(1);
    long.agent = "a".repeat(MAX_SHADOW_BYTES);
    assert!(ShadowUpdate::report(long, None).write().is_err());
}

#[test]
fn acknowledgements_are_bounded() {
    let BatchStart { stream, epoch, .. } = start(1);
    let mark = |upto| Watermark { stream: stream.clone(), epoch, upto };
    assert!(Ack::new(vec![mark(1); MAX_ACK_ENTRIES + 1], vec![]).write().is_err());
    assert!(Ack::new(vec![mark(MAX_SEQUENCE)], vec![]).write().is_ok());
    for payload in [
        r#"{"v":1,"watermarks":[{"stream":"s","epoch":"000000000000002a","upto":9007199254740992}]}"#,
        r#"{"v":1,"watermarks":[{"stream":"s","epoch":"2a","upto":1}]}"#,
        r#"{"v":1,"watermarks":[{"stream":"","epoch":"000000000000002a","upto":1}]}"#,
        r#"{"v":1,"refused":[{"stream":"s","epoch":"000000000000002a","first":1,"count":18446744073709551615,"reason":"x"}]}"#,
        r#"{"v":0}"#,
        r#"{"watermarks":[]}"#,
    ] {
        assert!(Ack::read(payload.as_bytes()).is_err(), "{payload}");
    }
}

#[test]
fn unknown_words_are_kept_and_taken_for_the_harmless_case() {
    let status = JobStatus::parse("PAUSED");
    assert_eq!(status.as_str(), "PAUSED");
    assert!(!status.is_terminal() && !status.may_become(&JobStatus::Succeeded, Party::Device));
    assert!(!Phase::parse("melted").is_final());
    assert_eq!(ReasonCode::parse("gremlins").explanation(), "gremlins");
    assert!(!RefusalReason::parse("full-moon").is_final());
    let long: ReasonCode = serde_json::from_str(&format!("\"\\u0007{}\"", "x".repeat(10_000))).unwrap();
    assert_eq!(long.as_str().chars().count(), MAX_UNKNOWN_CODE);
    assert!(!long.as_str().contains('\u{7}'));
    assert_eq!(serde_json::to_string(&ReasonCode::parse("gremlins")).unwrap(), "\"gremlins\"");
}

#[test]
fn codes_have_one_word_each() {
    fn distinct<'a>(words: impl Iterator<Item = &'a str>) {
        let mut words: Vec<&str> = words.collect();
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
    }
    distinct(Phase::KNOWN.iter().map(Phase::as_str));
    distinct(ReasonCode::KNOWN.iter().map(ReasonCode::as_str));
    distinct(ReasonCode::KNOWN.iter().map(ReasonCode::explanation));
    for reason in ReasonCode::KNOWN {
        assert_eq!(ReasonCode::parse(reason.as_str()), *reason);
    }
}

#[test]
fn statuses_change_as_documented() {
    use JobStatus::*;
    let allowed: Vec<(JobStatus, JobStatus, Party)> = [Party::Device, Party::Service]
        .into_iter()
        .flat_map(|by| JobStatus::KNOWN.iter().map(move |from| (from, by)))
        .flat_map(|(from, by)| JobStatus::KNOWN.iter().map(move |to| (from.clone(), to.clone(), by)))
        .filter(|(from, to, by)| from.may_become(to, *by))
        .collect();
    let (device, service) = (Party::Device, Party::Service);
    let expected = [
        (Queued, InProgress, device),
        (Queued, Succeeded, device),
        (Queued, Failed, device),
        (Queued, Rejected, device),
        (InProgress, InProgress, device),
        (InProgress, Succeeded, device),
        (InProgress, Failed, device),
        (InProgress, Rejected, device),
        (Queued, Removed, service),
        (Queued, Canceled, service),
        (InProgress, TimedOut, service),
        (InProgress, Removed, service),
        (InProgress, Canceled, service),
    ];
    assert_eq!(allowed, expected);
    for phase in Phase::KNOWN {
        assert_eq!(phase.is_final(), phase.job_status().is_terminal(), "{phase}");
    }
}

#[test]
fn large_messages_are_refused_before_they_are_parsed() {
    let huge = vec![b' '; MAX_PAYLOAD_BYTES + 1];
    assert!(matches!(NextJob::read(&huge), Err(ProtocolError::TooLarge { .. })));
    assert!(matches!(Ack::read(&huge), Err(ProtocolError::TooLarge { .. })));
    assert!(matches!(ShadowUpdate::read(&huge), Err(ProtocolError::TooLarge { .. })));
    let document = format!("\"{}\"", "x".repeat(MAX_JOB_DOCUMENT + 1));
    let job = format!(r#"{{"execution":{{"jobId":"j","status":"QUEUED","jobDocument":{document}}}}}"#);
    let document = NextJob::read(job.as_bytes()).unwrap().execution.unwrap().job_document.unwrap();
    assert!(matches!(document.text(), Err(ProtocolError::TooLarge { .. })));
}

fn read_everything(bytes: &[u8]) {
    let _ = Batch::read(bytes, &BatchLimits::default());
    let _ = Ack::read(bytes);
    let _ = GotJob::read(bytes);
    let _ = UpdateJob::read(bytes);
    let _ = JobRejected::read(bytes);
    let _ = ShadowUpdate::read(bytes);
    let _ = ShadowAccepted::read(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Address::parse(text);
        let _ = Envelope::read(text);
        let _ = DesiredState::read(&envelope(DESIRED_STATE_TYPE, text.as_bytes().to_vec()));
    }
}

proptest! {
    #[test]
    fn no_bytes_end_the_process(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn no_altered_batch_ends_the_process(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (_, mut payload) = build(1, &[record(1, Some("a/b"), b"{\"a\":1}"), gap(3, GapReason::Age)]);
        let index = at.index(payload.len());
        payload[index] = to;
        read_everything(&payload);
        payload.truncate(cut.index(payload.len()));
        prop_assert!(Batch::read(&payload, &BatchLimits::default()).is_err(), "a truncated batch is none");
    }

    #[test]
    fn no_altered_message_ends_the_process(which in 0..5_usize, at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let update = UpdateJob::read(br#"{"status":"IN_PROGRESS","statusDetails":{"a":"b"},"expectedVersion":1}"#).unwrap();
        let mut message = match which {
            0 => desired_state().write().unwrap(),
            1 => envelope(DESIRED_STATE_TYPE, b"{}".to_vec()).write().unwrap().into_bytes(),
            2 => ShadowUpdate::report(reported(1), None).write().unwrap(),
            3 => update.write().unwrap(),
            _ => Ack::new(vec![], vec![]).write().unwrap(),
        };
        let index = at.index(message.len());
        message[index] = to;
        read_everything(&message);
    }
}
