//! A device that sends in a loop, and one that does not: the real `holm cloud`.

use std::time::{Duration, Instant};

use holm_tests::control_plane::ControlPlane;
use holm_tests::device::Device;

/// As many as may come at once (1,000), and then three seconds' worth of a hundred a second.
const MESSAGES: u16 = 1_300;

#[test]
fn a_device_that_sends_in_a_loop_is_held_up_and_nobody_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let cloud = ControlPlane::start(folder.path());
    let [looping, calm] = ["looping", "calm"].map(|name| Device::enrol(&cloud, name));
    let mut other = calm.connect(&cloud);
    let held = |thing: &str| cloud.get(&format!("/v1/devices/{thing}"))["held_up"].as_u64().unwrap();
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut link = looping.try_connect(&cloud, looping.thing.as_str()).unwrap();
            // Nothing is stored of it: how fast this goes is not the disk's word.
            let (topic, begun) = ("$aws/things/looping/shadow/name/other/update", Instant::now());
            for id in 1..=MESSAGES {
                link.publish(topic, b"{}", id).unwrap();
                // Read along, so that the acknowledgements have somewhere to go.
                if id % 50 == 0 {
                    link.puback(id);
                }
            }
            begun.elapsed()
        });
        let topic = "$aws/things/calm/jobs/$next/get";
        let mut slowest = Duration::ZERO;
        while !sender.is_finished() {
            let begun = Instant::now();
            other.ask(topic, "{}", &format!("{topic}/accepted"));
            slowest = slowest.max(begun.elapsed());
            std::thread::sleep(Duration::from_millis(20));
        }
        // All of it is taken in the end, at its pace.
        let took = sender.join().unwrap();
        assert!(took >= Duration::from_millis(2_900), "{MESSAGES} messages within {took:?}");
        assert!(slowest < Duration::from_secs(2), "the other one waited for {slowest:?}");
    });
    assert!((1..=300).contains(&held("looping")), "{}", held("looping"));
    assert_eq!(held("calm"), 0);
    let all = cloud.get("/v1/status")["held_up"].clone();
    assert_eq!((all["messages"].as_u64(), all["devices"].as_u64()), (Some(held("looping")), Some(1)));
    cloud.stop();
}
