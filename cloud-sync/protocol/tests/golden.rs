//! What AWS documents is read, and what we write does not change by accident.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod sample;

use std::path::{Path, PathBuf};

use holm_core::{FunctionName, LogLevel, Timestamp};
use holm_protocol::*;
use sample::*;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn aws(name: &str) -> Vec<u8> {
    std::fs::read(path("aws").join(name)).unwrap()
}

/// Compares with the file, or writes it where that was asked for.
fn check(name: &str, written: &[u8]) {
    let path = path("holm").join(name);
    if std::env::var_os("HOLM_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, written).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(written), String::from_utf8_lossy(&golden), "{name}");
}

fn milliseconds(time: Option<WireTime>) -> i64 {
    time.unwrap().timestamp().0
}

#[test]
fn notifications_of_the_next_job_are_read() {
    for (file, job, status, version, queued, document) in [
        ("notify-next.json", "other-job", JobStatus::InProgress, 1, 10_009_000, "{\"c\":\"d\"}"),
        ("notify-next-first.json", "job1", JobStatus::Queued, 1, 1_517_016_947_000, "\"operation\": \"test\""),
        ("notify-next-overtaken.json", "job3", JobStatus::InProgress, 2, 1_517_017_905_000, "\"operation\": \"test\""),
    ] {
        let execution = NextJob::read(&aws(file)).unwrap().execution.unwrap();
        assert_eq!(execution.job_id.as_str(), job, "{file}");
        assert_eq!(execution.status, status, "{file}");
        assert_eq!(execution.version_number, Some(version), "{file}");
        assert_eq!(milliseconds(execution.queued_at), queued, "{file}");
        assert!(execution.job_document.unwrap().text().unwrap().contains(document), "{file}");
    }
}

#[test]
fn no_next_job_has_three_faces() {
    let documented = aws("notify-next-empty.json");
    for payload in
        [&documented[..], br#"{"execution":{},"timestamp":1}"#, br#"{"execution": { }}"#, br#"{"execution":null}"#]
    {
        assert_eq!(NextJob::read(payload).unwrap().execution, None);
        assert_eq!(GotJob::read(payload).unwrap().execution, None);
    }
    assert!(NextJob::read(br#"{"execution":{"status":"QUEUED"}}"#).is_err(), "half an execution is none");
}

#[test]
fn executions_are_read_in_either_notation() {
    let text = GotJob::read(&aws("get-accepted-text-document.json")).unwrap();
    assert!(text.answers(&ClientToken::new("client-1").unwrap()));
    assert!(!text.answers(&ClientToken::new("client-2").unwrap()), "came unasked");
    assert_eq!(milliseconds(text.timestamp), 1_489_088_524_284);
    let execution = text.execution.unwrap();
    assert_eq!(execution.execution_number, Some(1_234_567_890));
    assert_eq!(milliseconds(execution.queued_at), 1_489_096_123_309);
    assert_eq!(execution.job_document.unwrap().text().unwrap(), r#"{"operation":"test"}"#);

    let quoted = GotJob::read(&aws("get-accepted-quoted-numbers.json")).unwrap().execution.unwrap();
    assert_eq!(quoted.version_number, Some(1));
    assert_eq!(milliseconds(quoted.started_at), 1_489_096_123_309);
    assert_eq!(quoted.status_details.unwrap().get("step"), Some("one"));
}

#[test]
fn requests_and_answers_are_read() {
    let get = GetJob::read(&aws("get-request.json")).unwrap();
    assert_eq!(get.include_job_document, Some(true));
    let update = UpdateJob::read(&aws("update-request.json")).unwrap();
    assert_eq!((update.status, update.expected_version), (JobStatus::InProgress, Some(1)));
    let updated = UpdatedJob::read(&aws("update-accepted.json")).unwrap();
    assert_eq!(updated.execution_state.unwrap().version_number, Some(2));
    let rejected = JobRejected::read(&aws("rejected.json")).unwrap();
    assert_eq!(rejected.code, JobErrorCode::VersionMismatch);
    assert_eq!(rejected.execution_state.unwrap().version_number, Some(3));
}

#[test]
fn shadows_are_read() {
    let document = ShadowAccepted::read(&aws("shadow-document.json")).unwrap();
    assert_eq!(document.version, Some(10));
    assert!(document.state.unwrap().reported.unwrap().get().contains("GREEN"));
    assert!(ShadowAccepted::read(&aws("shadow-empty.json")).unwrap().state.is_none());
    let rejected = ShadowRejected::read(&aws("shadow-rejected.json")).unwrap();
    assert_eq!((rejected.code, rejected.is_retryable()), (409, false));
}

#[test]
fn jobs_of_ours_are_stable() {
    let token = Some(ClientToken::new("pump-7-19").unwrap());
    check("job-get.json", &GetJob { client_token: token.clone(), ..GetJob::default() }.write().unwrap());
    let details = StatusDetails::of_deployment(
        42,
        &Phase::RolledBack,
        Some(&ReasonCode::Trapped),
        Some("water-loss: division\nby 0"),
    );
    let update = UpdateJob {
        status: Phase::RolledBack.job_status(),
        status_details: Some(details),
        expected_version: Some(3),
        execution_number: None,
        include_job_execution_state: Some(true),
        include_job_document: None,
        step_timeout_in_minutes: None,
        client_token: token,
    };
    let written = update.write().unwrap();
    check("job-update.json", &written);
    assert_eq!(UpdateJob::read(&written).unwrap(), update);
    let execution = JobExecution {
        job_id: JobId::new("r-7").unwrap(),
        thing_name: None,
        status: JobStatus::Queued,
        status_details: None,
        queued_at: Some(WireTime::new(Timestamp(1_731_000_000_999))),
        started_at: None,
        last_updated_at: None,
        version_number: Some(1),
        execution_number: Some(1),
        job_document: Some(JobDocument::new(r#"{"payloadType":"..."}"#.to_owned()).unwrap()),
    };
    let got = GotJob { execution: Some(execution), timestamp: None, client_token: Some("pump-7-19".to_owned()) };
    let written = got.write().unwrap();
    check("job-got.json", &written);
    assert_eq!(GotJob::read(&written).unwrap().execution.unwrap().job_id.as_str(), "r-7");
}

#[test]
fn desired_states_are_stable() {
    let payload = desired_state().write().unwrap();
    check("desired-state.json", &payload);
    let envelope = envelope(DESIRED_STATE_TYPE, payload);
    let document = envelope.write().unwrap();
    check("desired-state.envelope.json", document.as_bytes());
    let read = Envelope::read(&document).unwrap();
    assert_eq!(read, envelope);
    let mut expected = desired_state();
    expected.functions.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(DesiredState::read(&read).unwrap(), expected);
}

#[test]
fn the_signed_bytes_are_those_of_dsse() {
    // The example of https://github.com/secure-systems-lab/dsse/blob/master/protocol.md.
    let envelope = envelope("http://example.com/HelloWorld", b"hello world".to_vec());
    assert_eq!(envelope.signed_bytes(), b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

#[test]
fn reports_are_stable() {
    let update = ShadowUpdate::report(reported(2), Some(ClientToken::new("pump-7-20").unwrap()));
    let written = update.write().unwrap();
    check("shadow-update.json", &written);
    assert_eq!(ShadowUpdate::read(&written).unwrap(), update);
    let mut healthy = reported(0);
    healthy.reason = None;
    let written = String::from_utf8(ShadowUpdate::report(healthy, None).write().unwrap()).unwrap();
    assert!(written.contains("\"reason\":null"), "a reason that is left out would stay in the shadow: {written}");
}

#[test]
fn asks_are_stable_and_unknown_ones_are_passed_over() {
    let id = ClientToken::new("ask-1").unwrap();
    for (ask, text) in [
        (Ask::Logs { level: LogLevel::Info, for_s: 60 }, r#"{"what":"logs","level":"info","for_s":60}"#),
        (Ask::Report { id: id.clone() }, r#"{"what":"report","id":"ask-1"}"#),
        (Ask::DeadLetters { id: id.clone() }, r#"{"what":"dead-letters","id":"ask-1"}"#),
        (Ask::DeadLetter { id: id.clone(), letter: 5 }, r#"{"what":"dead-letter","id":"ask-1","letter":5}"#),
        (
            Ask::ReplayDeadLetters { id: id.clone(), letters: vec![5, 7] },
            r#"{"what":"replay-dead-letters","id":"ask-1","letters":[5,7]}"#,
        ),
        (
            Ask::ReplayFunction { id: id.clone(), function: FunctionName::new("scale").unwrap(), until: 9 },
            r#"{"what":"replay-function","id":"ask-1","function":"scale","until":9}"#,
        ),
        (
            Ask::DropDeadLetters { id: id.clone(), letters: vec![5] },
            r#"{"what":"drop-dead-letters","id":"ask-1","letters":[5]}"#,
        ),
    ] {
        let written = Ack::asking(ask.clone()).write().unwrap();
        assert_eq!(String::from_utf8_lossy(&written), format!(r#"{{"v":1,"asks":[{text}]}}"#));
        assert_eq!(Ack::read(&written).unwrap().asks, [ask]);
    }
    let later = br#"{"v":1,"asks":[{"what":"dance","how":"wildly"}]}"#;
    assert_eq!(Ack::read(later).unwrap().asks, [Ask::Unknown]);
    let many = format!(r#"{{"v":1,"asks":[{}]}}"#, [r#"{"what":"x"}"#; 9].join(","));
    assert!(Ack::read(many.as_bytes()).is_err());
    // One ask moves so many letters and no more, whoever writes it.
    let letters: Vec<i64> = (1..=101).collect();
    for ask in [
        Ask::ReplayDeadLetters { id: id.clone(), letters: letters.clone() },
        Ask::DropDeadLetters { id: id.clone(), letters: letters.clone() },
    ] {
        assert!(Ack::asking(ask.clone()).write().is_err());
        assert!(
            Ack::read(format!(r#"{{"v":1,"asks":[{}]}}"#, serde_json::to_string(&ask).unwrap()).as_bytes()).is_err()
        );
    }
    let (done, gone) = (vec![5], vec![7]);
    let moved = MovedLetters { id, way: LetterWay::Replay, done, gone, more: false, left: 3, declined: None };
    let text = r#"{"id":"ask-1","way":"replay","done":[5],"gone":[7],"more":false,"left":3}"#;
    assert_eq!(serde_json::to_string(&moved).unwrap(), text);
    assert_eq!(serde_json::from_str::<MovedLetters>(text).unwrap(), moved);
    for (record, text) in [
        (LogRecord::Gap { gap: 7, reason: "rate".to_owned() }, r#"{"gap":7,"reason":"rate"}"#),
        (
            LogRecord::Line { level: LogLevel::Warn, context: "stderr".to_owned(), message: "hot".to_owned() },
            r#"{"level":"warn","context":"stderr","message":"hot"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<LogRecord>(text).unwrap(), record);
    }
}

#[test]
fn acknowledgements_are_stable() {
    let BatchStart { stream, epoch, .. } = start(1);
    let watermark = Watermark { stream: stream.clone(), epoch, upto: 500 };
    let refusal = Refusal { stream, epoch, first: 501, count: 20, reason: RefusalReason::Malformed };
    let ack = Ack::new(vec![watermark], vec![refusal]);
    let written = ack.write().unwrap();
    check("ack.json", &written);
    assert_eq!(Ack::read(&written).unwrap(), ack);
}

fn lines() -> Vec<Line> {
    vec![
        record(1_731_000_000_000, None, b"21.5"),
        record(1_731_000_000_100, None, br#"{"flow": 3.50, "unit": "l/s"}"#),
        gap(1_000, GapReason::Cap),
        record(1_731_000_000_200, Some("text/plain"), b"two\nlines"),
        record(1_731_000_000_300, Some("application/octet-stream"), &[0, 0xff, 0xfe]),
        record(1_731_000_000_400, None, b"null"),
        record(1_731_000_000_500, None, b""),
    ]
}

#[test]
fn batches_are_stable() {
    let (header, payload) = build(7, &lines());
    let limits = BatchLimits::default();
    let (read, frame) = BatchHeader::read(&payload, &limits).unwrap();
    assert_eq!(read, header);
    check("batch-header.json", &serde_json::to_vec(&header).unwrap());
    check("batch.ndjson", &zstd::decode_all(frame).unwrap());
    // The header is a skippable frame, so any zstd shows the lines.
    assert_eq!(zstd::decode_all(&payload[..]).unwrap(), zstd::decode_all(frame).unwrap());

    let old = Batch::read(&std::fs::read(path("holm").join("batch.bin")).unwrap(), &limits).unwrap();
    assert_eq!(old.header, header);
    assert_eq!(old.lines.iter().map(|(_, line)| line.clone()).collect::<Vec<_>>(), lines());
    assert_eq!(old.lines.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [7, 8, 9, 1009, 1010, 1011, 1012]);
}
