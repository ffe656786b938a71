//! Many devices at once: the real `holm cloud`, which was away, and everybody who comes back.

use std::time::{Duration, Instant};

use holm_core::Timestamp;
use holm_protocol::{Line, Record, ShadowName, subscriptions};
use holm_tests::control_plane::{ControlPlane, Start};
use holm_tests::device::{Device, Link};

const DEVICES: usize = 500;
const RECORDS: u64 = 10;
const STREAM: &str = "result.flow.mean";

/// A link, as soon as there is one: everybody else wants one too.
fn connect(cloud: &ControlPlane, device: &Device) -> Link {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        match device.try_connect(cloud, device.thing.as_str()) {
            Ok(mut link) => {
                let shadow = ShadowName::new("holm").unwrap();
                link.subscribe(&subscriptions(&device.thing, &shadow));
                return link;
            }
            Err(error) => assert!(Instant::now() < deadline, "{}: {error}", device.thing),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// For each of them, on some threads.
fn side_by_side<T: Sync, R: Send>(all: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let work = &work;
    std::thread::scope(|scope| {
        let parts = all.chunks(all.len().div_ceil(threads));
        let started: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<_>>())).collect();
        started.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn five_hundred_devices_that_come_back_at_once_are_all_heard() {
    let folder = tempfile::tempdir().unwrap();
    // As in a shell that is more sparing than most: every device is an open file.
    let mut start = Start::new(folder.path());
    start.under = ["sh", "-c", "ulimit -Sn 256; exec \"$@\"", "sh"].map(str::to_owned).into();
    let mut cloud = start.run();
    let names: Vec<String> = (0..DEVICES).map(|n| format!("pi{n}")).collect();
    let devices = side_by_side(&names, 8, |name| Device::enrol(&cloud, name));
    let links = side_by_side(&devices, 8, |device| connect(&cloud, device));
    assert_eq!(cloud.get("/v1/status")["connected"], DEVICES);
    cloud.kill_and_restart();
    drop(links);
    // No pause, no jitter: real ones are kinder.
    let records: Vec<Line> = (1..=RECORDS)
        .map(|n| {
            let time = Timestamp(1_790_000_000_000 + i64::try_from(n).unwrap());
            Line::Record(Record { time, content_type: None, data: n.to_string().into_bytes() })
        })
        .collect();
    let watermarks = side_by_side(&devices, DEVICES, |device| {
        let mut link = connect(&cloud, device);
        let (topic, payload) = device.batch(STREAM, 1, &records);
        link.publish(&topic, &payload, 1).unwrap();
        link.ack(&device.thing).watermarks[0].upto
    });
    assert_eq!(watermarks, vec![RECORDS; DEVICES]);
    let rows = cloud.get("/v1/results?series=flow.mean&limit=10000");
    assert_eq!(rows["rows"].as_array().unwrap().len(), DEVICES * RECORDS as usize);
    cloud.stop();
}
