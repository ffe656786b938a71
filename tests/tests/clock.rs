//! A clock that jumps under a node that runs: schedules go by what it says now, and neither wait for what will not come nor fire twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use holm_tests::clock::{Clock, library};
use holm_tests::functions::Guest;
use holm_tests::node::Start;
use holm_tests::watcher::Watcher;

/// What fires until it has been quiet about everything but `tick` for some seconds, and how often.
fn fired(watcher: &mut Watcher) -> BTreeMap<String, u32> {
    let mut fired = BTreeMap::new();
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(4) {
        let Some((_, report)) = watcher.next_within(Duration::from_secs(1)) else { continue };
        let subject = report["subject"].as_str().unwrap().to_owned();
        if subject != "tick" {
            last = Instant::now();
        }
        *fired.entry(subject).or_default() += 1;
    }
    fired
}

#[test]
fn schedules_go_by_what_the_clock_says_now_whichever_way_it_jumps() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(folder.path());
    // Half past.
    clock.jump(1_800 - clock.past_hour());
    let data = folder.path().join("data");
    let under = clock.under(&library);
    let node = Start { config: "[functions]\nhealth_window = \"0ms\"\n", under: &under, ..Start::new(&data) }.run();
    let mut watcher = Watcher::new(&node, "seen/clock");
    let hourly = |missed: &str| format!("name = \"{missed}\"\ncron = \"0 0 * * * *\"\nmissed = \"{missed}\"");
    let guest = Guest::new("clock", "witness")
        .trigger("schedule", "name = \"tick\"\ninterval = \"500ms\"")
        .trigger("schedule", &hourly("run-once"))
        .trigger("schedule", &hourly("skip"));
    node.admin.deploy(&guest.bundle());
    let ticks = |fired: &BTreeMap<String, u32>| {
        let ticks = fired.get("tick").copied().unwrap_or_default();
        assert!((3..=20).contains(&ticks), "{fired:?}: two a second, and none made up");
    };
    let once = |fired: &BTreeMap<String, u32>, names: &[&str]| {
        ticks(fired);
        let found: Vec<(&str, u32)> =
            fired.iter().filter(|(name, _)| *name != "tick").map(|(name, times)| (name.as_str(), *times)).collect();
        assert_eq!(found, names.iter().map(|name| (*name, 1)).collect::<Vec<_>>());
    };
    once(&fired(&mut watcher), &[]);
    // Three firings are missed: the clock was set.
    clock.jump(3 * 3_600);
    once(&fired(&mut watcher), &["run-once"]);
    // It was wrong. Nobody waits two hours for what an interval of half a second is due for.
    clock.jump(-2 * 3_600);
    once(&fired(&mut watcher), &[]);
    // A full hour comes in its ordinary course, though the clock has been beyond it before.
    clock.jump(3_598 - clock.past_hour());
    once(&fired(&mut watcher), &["run-once", "skip"]);
    // And once more, because the clock is set back a little: what has fired has fired.
    clock.jump(-20);
    once(&fired(&mut watcher), &[]);
    clock.jump(3_598 - clock.past_hour());
    once(&fired(&mut watcher), &[]);
    clock.jump(3_598 - clock.past_hour());
    once(&fired(&mut watcher), &["run-once", "skip"]);
    node.stop();
}
