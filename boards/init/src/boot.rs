//! The order of a boot, from the first instruction of `/init` to the end of the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot, sethostname};

use crate::console::{complain, say, warn};
use crate::led::{Led, Pattern};
use crate::link::Links;
use crate::mounts::{self, Card, DATA, MODULES, RADIO_MODULES};
use crate::slots::{Decision, Slot, Slots};
use crate::supervise::{End, Supervisor, Trial};
use crate::watchdog::Watchdog;
use crate::{InitError, kernel, network, radio, seed, sntp};

/// How long a system that is on trial must run in one piece.
const HEALTHY_FOR: Duration = Duration::from_secs(60);

/// When it must have.
const HEALTHY_WITHIN: Duration = Duration::from_secs(600);

/// A board that cannot start waits so long before it tries again, so that what it says can be read.
const PAUSE: Duration = Duration::from_secs(10);

/// The file on the FAT partition that says which slot the firmware boots, and the one for a trial.
pub const CHOICE: &str = "config.txt";

/// See [`CHOICE`].
pub const TRIAL_CHOICE: &str = "tryboot.txt";

/// The file there that asks for a trial of the slot that it names.
pub const TRIAL: &str = "holm-trial.txt";

/// What the command line says to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Which slot was booted.
    pub slot: Slot,
    /// How long a system on trial must run in one piece.
    pub healthy_for: Duration,
    /// When it must have.
    pub healthy_within: Duration,
    /// Whether the board's watchdog is used. An emulator may have one that bites at once.
    pub watchdog: bool,
}

impl Told {
    /// Reads a kernel command line.
    pub fn parse(line: &str) -> Self {
        let value = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key));
        let slot = value("holm.slot=").and_then(|name| Slot::parse(name).ok()).unwrap_or_default();
        let time = |key| value(key).and_then(|text| holm_core::parse_duration(text).ok());
        let healthy_for = time("holm.healthy=").unwrap_or(HEALTHY_FOR);
        let healthy_within = time("holm.healthy-within=").unwrap_or(HEALTHY_WITHIN.max(healthy_for * 10));
        let watchdog = value("holm.watchdog=") != Some("off");
        Self { slot, healthy_for, healthy_within, watchdog }
    }
}

/// Everything. Returns only when there is nothing to return to.
pub fn run() {
    if let Err(error) = start() {
        Led::of_board().show(Pattern::Failed);
        complain(error.chain());
        complain(format_args!("this board cannot start; it is restarted in {} s", PAUSE.as_secs()));
        std::thread::sleep(PAUSE);
    }
    end(None);
}

fn start() -> Result<(), InitError> {
    mounts::early()?;
    // Lines of the node are not dropped for being many.
    let _ = fs::write("/proc/sys/kernel/printk_devkmsg", "on");
    let path = Path::new("/proc/cmdline");
    let told = Told::parse(&fs::read_to_string(path).map_err(InitError::file("read", path))?);
    say(format_args!("holm-init {}, slot {}", env!("CARGO_PKG_VERSION"), told.slot));
    mounts::load_modules(MODULES);
    let watch = || told.watchdog.then(Watchdog::open).flatten();
    let watchdog = watch();
    let mut card = Card::wait()?;
    mounts::switch(&mut card, told.slot)?;
    let data = Path::new(DATA);
    mounts::load_modules(MODULES);
    let watchdog = watchdog.or_else(watch);
    say(match (told.watchdog, &watchdog) {
        (true, Some(_)) => "the board's watchdog runs",
        (true, None) => "the board has no watchdog",
        (false, _) => "the board's watchdog is not used",
    });
    if radio::is_wanted(data) {
        mounts::load_modules(RADIO_MODULES);
    }
    mounts::close_modules();
    let mut led = Led::of_board();
    led.show(Pattern::Starting);
    sntp::raise_to_floor(data);
    let mut slots = Slots::read(data, told.slot);
    let decision = slots.at_boot(told.slot);
    match decision {
        // The count is synced before anything is tried.
        Decision::Try(slot) => {
            slots.write(data)?;
            say(format_args!("slot {slot} is on trial"));
            end(Some(slot));
        }
        Decision::Run if slots.failed.is_some() => slots.write(data)?,
        Decision::Run | Decision::Watch => {}
    }
    let hostname = fs::read_to_string(data.join("config/hostname")).unwrap_or_else(|_| "holm".to_owned());
    let hostname = hostname.trim().to_owned();
    if let Err(error) = sethostname(hostname.as_bytes()).map_err(InitError::kernel("take the host's name")) {
        warn(error.chain());
    }
    give_devices();
    if let Err(error) = Links::open().and_then(|links| links.up(1)) {
        warn(error.chain());
    }
    let addresses = network::start(hostname, data);
    let supervisor = Supervisor::new(led, addresses, watchdog)?;
    let mut confirm = || {
        let confirmed = confirm(&card, told.slot, &mut slots, data);
        confirmed
            .unwrap_or_else(|error| complain(format_args!("slot {} stays on trial: {}", told.slot, error.chain())));
    };
    let trial = (decision == Decision::Watch).then_some(Trial {
        healthy_for: told.healthy_for,
        within: told.healthy_within,
        confirm: &mut confirm,
    });
    match supervisor.run(trial) {
        End::Restart => {}
        End::TrialFailed => complain(format_args!("slot {} did not become healthy: back to the other", told.slot)),
        End::PowerOff => {
            let _ = sntp::keep_floor(data, seed::write);
            power_off();
        }
    }
    let _ = sntp::keep_floor(data, seed::write);
    Ok(())
}

/// The firmware's choice first: after a cut in between, the slot boots again as one on trial, and is confirmed again.
fn confirm(card: &Card, slot: Slot, slots: &mut Slots, data: &Path) -> Result<(), InitError> {
    card.with_boot(|boot| {
        for (file, slot) in [(CHOICE, slot), (TRIAL_CHOICE, slot.other())] {
            let path = boot.join(file);
            let text = fs::read_to_string(&path).map_err(InitError::file("read", &path))?;
            seed::write(&path, choose(&text, slot).as_bytes())?;
        }
        Ok(())
    })?;
    slots.confirm(slot);
    slots.write(data)?;
    say(format_args!("slot {slot} is confirmed"));
    Ok(())
}

/// The firmware's configuration with another slot.
pub fn choose(text: &str, slot: Slot) -> String {
    let line = |line: &str| match line.starts_with("os_prefix=") {
        true => format!("os_prefix={slot}/\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Pins and buses are for the node's user.
fn give_devices() {
    for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if ["gpiochip", "i2c-", "spidev"].iter().any(|kind| name.starts_with(kind))
            && let Err(error) = std::os::unix::fs::chown(entry.path(), Some(mounts::HOLM), Some(mounts::HOLM))
        {
            warn(format_args!("{name} stays root's: {error}"));
        }
    }
}

/// Writes everything out and restarts, into a slot that is on trial if one is named.
fn end(slot: Option<Slot>) {
    rustix::fs::sync();
    if let Some(slot) = slot {
        // What a Raspberry Pi's firmware takes; elsewhere whoever boots the machine reads the line.
        say(format_args!("restarting into slot {slot}, once"));
        if let Err(errno) = kernel::restart(c"0 tryboot") {
            warn(format_args!("cannot restart: {errno}"));
        }
    }
    say("restarting");
    if let Err(errno) = reboot(RebootCommand::Restart) {
        warn(format_args!("cannot restart: {errno}"));
    }
}

fn power_off() {
    say("powering off");
    rustix::fs::sync();
    if let Err(errno) = reboot(RebootCommand::PowerOff) {
        warn(format_args!("cannot power off: {errno}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_for_what_concerns_us() {
        let told = Told::parse("console=ttyAMA0 holm.slot=b holm.healthy=5s holm.watchdog=off quiet");
        let [healthy_for, healthy_within] = [5, 600].map(Duration::from_secs);
        assert_eq!(told, Told { slot: Slot::B, healthy_for, healthy_within, watchdog: false });
        let told = Told::parse("holm.slot=c holm.healthy-within=20s");
        assert_eq!((told.slot, told.watchdog, told.healthy_within), (Slot::A, true, Duration::from_secs(20)));
    }

    #[test]
    fn another_slot_changes_one_line_of_the_firmwares_configuration() {
        let text = "arm_64bit=1\nos_prefix=a/\nkernel=vmlinuz\n";
        assert_eq!(choose(text, Slot::B), "arm_64bit=1\nos_prefix=b/\nkernel=vmlinuz\n");
    }
}
