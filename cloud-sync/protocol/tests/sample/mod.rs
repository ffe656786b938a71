//! Values that several tests use.

#![allow(dead_code, clippy::unwrap_used)]

use std::collections::BTreeMap;

use holm_bundle::Digest;
use holm_core::{FunctionName, Timestamp};
use holm_protocol::*;

pub fn thing() -> ThingName {
    ThingName::new("pump-7").unwrap()
}

pub fn start(first: u64) -> BatchStart {
    BatchStart {
        device: thing(),
        lane: Lane::Results,
        stream: StreamName::new("result.water-loss.flow").unwrap(),
        epoch: Epoch(0x0123_4567_89ab_cdef),
        first,
    }
}

pub fn record(time: i64, content_type: Option<&str>, data: &[u8]) -> Line {
    Line::Record(Record { time: Timestamp(time), content_type: content_type.map(str::to_owned), data: data.to_vec() })
}

pub fn gap(count: u64, reason: GapReason) -> Line {
    Line::Gap(Gap { count, reason, at: Timestamp(1_731_000_000_999) })
}

pub fn build(first: u64, lines: &[Line]) -> (BatchHeader, Vec<u8>) {
    let mut builder = BatchBuilder::new(start(first));
    let mut next = first;
    for line in lines {
        assert_eq!(builder.push(next, line).unwrap(), Push::Taken);
        next += line.covers();
    }
    builder.finish(Timestamp(1_731_000_001_000)).unwrap()
}

pub fn function(name: &str) -> DesiredFunction {
    DesiredFunction {
        name: FunctionName::new(name).unwrap(),
        version: "1.4.0".to_owned(),
        bundle: Artifact { sha256: Digest::of(name.as_bytes()), length: 102_400 },
        config: BTreeMap::new(),
        secrets: BTreeMap::new(),
        permit: None,
    }
}

pub fn desired_state() -> DesiredState {
    let mut water_loss = function("water-loss");
    water_loss.config = [("threshold", "2.5"), ("unit", "l/s")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    water_loss.secrets = BTreeMap::from([("api-key".to_owned(), "c2VhbGVk".to_owned())]);
    DesiredState {
        format: DESIRED_STATE_FORMAT,
        device: thing(),
        generation: 42,
        rollout: Some(JobId::new("r-7").unwrap()),
        issued: Timestamp(1_731_000_000_000),
        expires: Timestamp(1_731_604_800_000),
        policy: DeploymentPolicy {
            health_window_s: 300,
            deadline_s: 3_600,
            window: Some(UpdateWindow { start_minute: 1_320, minutes: 240 }),
        },
        agent: Some(DesiredAgent {
            version: "0.2.0-rc.1".to_owned(),
            artifact: Artifact { sha256: Digest::of(b"agent"), length: 9_000_000 },
        }),
        // Not in order, to see that writing sorts.
        functions: vec![water_loss, function("temp-alert")],
    }
}

pub fn envelope(payload_type: &str, payload: Vec<u8>) -> Envelope {
    let signature = Signature {
        key_id: Digest::of(b"key").to_string(),
        algorithm: Some(SignatureAlgorithm::Ed25519),
        bytes: vec![7; 64],
    };
    Envelope { payload_type: payload_type.to_owned(), payload, signatures: vec![signature] }
}

pub fn reported(functions: usize) -> Reported {
    let function = |n: usize| ReportedFunction {
        name: FunctionName::new(&format!("function-{n:03}")).unwrap(),
        version: "1.4.0".to_owned(),
        sha256: Digest::of(&n.to_le_bytes()),
        state: FunctionState::Confirmed,
        invocations: 0,
        faults: 0,
    };
    Reported {
        agent: "0.1.0".to_owned(),
        build: None,
        formats: Formats { desired_state: DESIRED_STATE_FORMAT, batch: BATCH_FORMAT },
        generation: 42,
        phase: Phase::RolledBack,
        reason: Some(ReasonCode::Trapped),
        sealing_key: Some("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a".to_owned()),
        functions: (0..functions).rev().map(function).collect(),
        functions_omitted: 0,
        health: Health { uptime_s: 86_400, memory_bytes: 9 << 20, clock_synced: true, ..Health::default() },
    }
}
