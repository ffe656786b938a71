//! What functions may ask of the board, and what it answers them.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use holm_core::{I2cPart, Level, Quality, Reading, SpiPart, Timestamp};
use holm_runtime::recorder::Order;
use holm_runtime::{Function, Hardware, HardwareError, Recorder};

use crate::support::*;

/// The component that uses the board, with [`MANIFEST`].
static BOARD: LazyLock<Function> = LazyLock::new(|| load(&built("tests/guests", "board_guests"), MANIFEST));

/// A board that keeps what it was told.
#[derive(Clone, Default)]
pub struct TestBoard {
    pub told: Arc<Mutex<Vec<String>>>,
    pub fails: Option<HardwareError>,
}

impl TestBoard {
    fn tell<T>(&self, told: String, timeout: Option<Duration>, answer: T) -> Result<T, HardwareError> {
        // Whoever waits may wait for as long as the function has left.
        assert!(timeout.is_none_or(|timeout| timeout <= Duration::from_millis(200)), "{timeout:?}");
        self.told.lock().unwrap().push(told);
        self.fails.clone().map_or(Ok(answer), Err)
    }
}

impl Hardware for TestBoard {
    fn read(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError> {
        let reading = Reading {
            channel: "temperature".into(),
            value: 21.5,
            unit: "°C".into(),
            time: Timestamp(1_700_000_000_123),
            quality: Quality::Suspect,
        };
        self.tell(format!("read {sensor}"), Some(timeout), vec![reading])
    }

    fn latest(&mut self, sensor: &str, timeout: Duration) -> Result<Vec<Reading>, HardwareError> {
        self.tell(format!("latest {sensor}"), Some(timeout), Vec::new())
    }

    fn level(&mut self, line: &str) -> Result<Level, HardwareError> {
        self.tell(format!("level {line}"), None, Level::High)
    }

    fn set(&mut self, line: &str, level: Level) -> Result<(), HardwareError> {
        self.tell(format!("set {line} {level:?}"), None, ())
    }

    fn i2c(
        &mut self,
        bus: &str,
        address: u8,
        parts: Vec<I2cPart>,
        timeout: Duration,
    ) -> Result<Vec<Vec<u8>>, HardwareError> {
        self.tell(format!("i2c {bus} {address:#04x} {parts:?}"), Some(timeout), vec![vec![7, 8]])
    }

    fn spi(&mut self, device: &str, parts: Vec<SpiPart>, timeout: Duration) -> Result<Vec<Vec<u8>>, HardwareError> {
        self.tell(format!("spi {device} {parts:?}"), Some(timeout), vec![vec![3, 4]])
    }
}

fn with(board: &TestBoard) -> TestNode {
    TestNode { board: Some(board.clone()), ..TestNode::default() }
}

const ALL: &str = r#"["attic"] Ok((21.5, "°C", Suspect)) Ok(High) Ok(()) Ok([7, 8]) Ok([3, 4])"#;

#[test]
fn what_is_granted_reaches_the_board() {
    let board = TestBoard::default();
    assert_eq!(answer(&run_on(&BOARD, with(&board), "board")), ALL);
    let told = board.told.lock().unwrap().clone();
    let expected = [
        "read attic",
        "level door",
        "set pump High",
        "i2c bus 0x20 [Write([1]), Read(2)]",
        "spi radio [Transfer([1, 2])]",
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_is_not_granted_or_too_much_does_not_reach_it() {
    let board = TestBoard::default();
    assert_eq!(answer(&run_on(&BOARD, with(&board), "board-denied")), "8");
    assert_eq!(answer(&run_on(&BOARD, with(&board), "board-greedy")), "5");
    assert_eq!(*board.told.lock().unwrap(), [""; 0]);
}

#[test]
fn every_failure_has_its_words() {
    for (fails, words) in [
        (None, "NotFound(\"pump\")"),
        (Some(HardwareError::NotFound), "NotFound(\"pump\")"),
        (Some(HardwareError::Denied("gone".into())), "Denied(\"gone\")"),
        (Some(HardwareError::Invalid("no".into())), "Invalid(\"no\")"),
        (Some(HardwareError::NoAnswer), "Unavailable(\"pump does not answer\")"),
        (Some(HardwareError::Bus("stuck".into())), "Unavailable(\"pump: stuck\")"),
        (Some(HardwareError::Timeout), "Unavailable(\"pump took too long\")"),
        (Some(HardwareError::Unavailable("in use".into())), "Unavailable(\"in use\")"),
    ] {
        // Without a board there is nothing of any name.
        let board = fails.map(|fails| TestBoard { fails: Some(fails), ..TestBoard::default() });
        let said = answer(&run_on(&BOARD, TestNode { board, ..TestNode::default() }, "board"));
        assert!(said.contains(&format!("Err({words})")), "{words} is not in {said}");
    }
}

#[test]
fn a_replay_answers_from_the_recording_and_drives_nothing() {
    let board = TestBoard::default();
    let event = event("board", "");
    let first = BOARD.prepare_with(Recorder::keep(Vec::new(), 1 << 16)).unwrap().call(&event, Box::new(with(&board)));
    let asked = board.told.lock().unwrap().len();
    let order = Order::Exact { out_of_time: false };
    let again = BOARD.replay(&event, first.recording.as_ref().unwrap(), order).unwrap().outcome.unwrap();
    assert_eq!((answer(&again), board.told.lock().unwrap().len()), (ALL.to_owned(), asked));
}
