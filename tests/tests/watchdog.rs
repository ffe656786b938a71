//! The last thing that may help a board: its hardware watchdog, in QEMU's own machine.

use std::time::{Duration, Instant};

use holm_tests::card::{self, Card};

/// A node that has not lived for fifteen minutes is given up, and the watchdog waits for half a minute; the machine is emulated.
const PATIENCE: Duration = Duration::from_secs(2 * 900);

#[test]
#[ignore = "waits for a quarter of an hour"]
fn a_board_whose_node_never_lives_is_reset_by_its_watchdog() {
    if let Some(why) = card::missing() {
        return holm_tests::skip(&why);
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("holm.img");
    card::image_with(&image, &card::dying_agent(folder.path(), "0.1.8"), &["--console"]);
    let mut card = Card::plain(folder.path(), &image);
    card.boot();
    let deadline = Instant::now() + PATIENCE;
    while !card.has_ended() {
        assert!(Instant::now() < deadline, "it was not reset:\n{}", card.said());
        std::thread::sleep(Duration::from_secs(1));
    }
    let said = card.said();
    let ends = said.matches("holm-init: holmd ended after").count();
    assert!(said.contains("the board's watchdog runs") && ends > 10, "{said}");
    // Nobody asked for it: it was neither a restart nor an end.
    assert!(!said.contains("restarting") && !said.contains("powering off"), "{said}");
    let last = card.seconds_to_last().unwrap();
    assert!((900.0..1_100.0).contains(&last), "{last}");
    println!(
        "guest: holmd ended {ends} times, and {last:.0} s after init's first word the watchdog had reset the board"
    );
}
