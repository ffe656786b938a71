//! The board's watchdog, from as early as there is one.
//!
//! Until somebody takes it over it is fed for a fixed time: a system that hangs while it comes up is reset, and has used up a try.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often it is fed; it waits for ten seconds or longer.
pub const FEED_EVERY: Duration = Duration::from_secs(2);

/// For so long it is fed without anybody looking: a data partition that is large may be replayed and grown meanwhile.
const COMES_UP_WITHIN: Duration = Duration::from_secs(300);

/// One that runs.
pub struct Watchdog {
    device: File,
    taken: Arc<AtomicBool>,
}

impl Watchdog {
    /// Starts the board's. `None` if there is none, or none yet.
    pub fn open() -> Option<Self> {
        Self::at(Path::new("/dev/watchdog0"), FEED_EVERY, COMES_UP_WITHIN)
    }

    fn at(path: &Path, every: Duration, within: Duration) -> Option<Self> {
        let device = File::options().write(true).open(path).ok()?;
        let taken = Arc::new(AtomicBool::new(false));
        let (mut fed, stop, began) = (device.try_clone().ok()?, taken.clone(), Instant::now());
        let feeder = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            while began.elapsed() < within && !stop.load(Ordering::Relaxed) {
                let _ = fed.write_all(&[0]);
                std::thread::sleep(every);
            }
        });
        feeder.ok()?;
        Some(Self { device, taken })
    }

    /// From now on nobody feeds it but who calls this.
    pub fn take(self) -> File {
        self.taken.store(true, Ordering::Relaxed);
        self.device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_for_a_time_or_until_somebody_takes_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let fed = || file.as_file().metadata().unwrap().len();
        let every = Duration::from_millis(5);
        let left = Watchdog::at(file.path(), every, every * 20).unwrap();
        std::thread::sleep(every * 60);
        let meals = fed();
        assert!((1..=20).contains(&meals), "{meals}");
        std::thread::sleep(every * 20);
        assert_eq!(fed(), meals, "a system that hangs is not fed for ever");
        drop(left);
        let mut taken = Watchdog::at(file.path(), every, Duration::from_secs(600)).unwrap().take();
        std::thread::sleep(every * 20);
        taken.write_all(&[0]).unwrap();
        let meals = fed();
        std::thread::sleep(every * 20);
        assert_eq!(fed(), meals);
        assert!(Watchdog::at(Path::new("/nowhere"), every, every).is_none());
    }
}
