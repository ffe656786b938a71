//! What an image for a kind of board is made with.

use holm_init::slots::Slot;

use super::{COMMAND_LINE, INITRAMFS, KERNEL};
use crate::ImageError;

/// A kind of board that images are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Board {
    /// Its name, as in `boards/profiles`.
    pub name: &'static str,
    /// Debian's name for its architecture.
    pub debian: &'static str,
    /// The processor's architecture, as Rust calls it.
    pub architecture: &'static str,
    /// The serial line.
    pub console: &'static str,
    /// Modules that it needs to find its card, in the initramfs; what those need comes along.
    pub modules: &'static [&'static str],
    /// Modules for all the rest, in the system: what the firmware has to load before the kernel begins stays small.
    pub later: &'static [&'static str],
    /// What a Raspberry Pi boots with; QEMU's machine has no firmware of that kind.
    pub raspberry: Option<Raspberry>,
    /// Its radio, if it has one.
    pub radio: Option<Radio>,
}

/// What the boot ROM of a Raspberry Pi and its firmware load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raspberry {
    /// Files of `raspi-firmware`, at the top of the FAT partition.
    pub firmware: &'static [&'static str],
    /// Device trees of the models, as Linux calls them. The firmware takes the one of the model that it runs on.
    pub trees: &'static [&'static str],
}

/// A radio, by what its driver asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Radio {
    /// Modules, which are loaded only where there is a wireless network to join.
    pub modules: &'static [&'static str],
    /// Beginnings of the names of its firmware.
    pub chips: &'static [&'static str],
}

/// What every board needs: the filesystems of the card, with what ext4 and vfat ask for by themselves.
const FILESYSTEMS: [&str; 6] = ["crc32c_generic", "squashfs", "ext4", "vfat", "nls_cp437", "nls_ascii"];

/// What restarts a Raspberry Pi: Linux has no other way. So it is there before the card is: a board whose system cannot be
/// mounted restarts, and boots the other.
const WATCHDOG: &str = "bcm2835_wdt";

pub(super) const VIRT: Board = Board {
    name: "qemu-virt",
    debian: "arm64",
    architecture: "aarch64",
    console: "ttyAMA0",
    modules: &["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "i6300esb"],
    later: &[],
    raspberry: None,
    radio: None,
};

/// The serial line is the one at pins 8 and 10 of the header: the other one is the radio's.
const RPI3: Board = Board {
    name: "rpi3",
    debian: "arm64",
    architecture: "aarch64",
    console: "ttyS1",
    modules: &[WATCHDOG, "bcm2835"],
    later: &[
        "bcm2835_rng",
        // Ethernet is behind USB: chip and its PHY of the B, and of the B+; then adapters, for the A+ has none.
        "phy_generic",
        "smsc",
        "microchip",
        "smsc95xx",
        "lan78xx",
        "cdc_ether",
        "rndis_host",
        "r8152",
        "asix",
        "ax88179_178a",
        "dwc2",
        "leds_gpio",
        "ledtrig_timer",
        "i2c_bcm2835",
        "i2c_dev",
        "spi_bcm2835",
        "w1_gpio",
        "w1_therm",
        "bcm2835_thermal",
        "cpufreq_dt",
        "raspberrypi_cpufreq",
    ],
    raspberry: Some(Raspberry {
        firmware: &["bootcode.bin", "start.elf", "fixup.dat"],
        trees: &[
            "bcm2837-rpi-3-b.dtb",
            "bcm2837-rpi-3-b-plus.dtb",
            "bcm2837-rpi-3-a-plus.dtb",
            "bcm2837-rpi-cm3-io3.dtb",
        ],
    }),
    radio: Some(Radio { modules: &["sdhci_iproc", "brcmfmac"], chips: &["brcmfmac43430-sdio", "brcmfmac43455-sdio"] }),
};

const RPI4: Board = Board {
    name: "rpi4",
    debian: "arm64",
    architecture: "aarch64",
    console: "ttyS1",
    // The card's power and its voltage are regulators.
    modules: &[WATCHDOG, "fixed", "gpio_regulator", "sdhci_iproc"],
    later: &[
        "iproc_rng200",
        "broadcom",
        "mdio_bcm_unimac",
        "genet",
        "reset_raspberrypi",
        "cdc_ether",
        "rndis_host",
        "r8152",
        "asix",
        "ax88179_178a",
        "xhci_pci",
        "leds_gpio",
        "ledtrig_timer",
        "i2c_bcm2835",
        "i2c_dev",
        "spi_bcm2835",
        "w1_gpio",
        "w1_therm",
        "bcm2711_thermal",
        "cpufreq_dt",
        "raspberrypi_cpufreq",
    ],
    raspberry: Some(Raspberry {
        firmware: &["start4.elf", "fixup4.dat"],
        trees: &["bcm2711-rpi-4-b.dtb", "bcm2711-rpi-400.dtb", "bcm2711-rpi-cm4-io.dtb"],
    }),
    radio: Some(Radio { modules: &["brcmfmac"], chips: &["brcmfmac43455-sdio", "brcmfmac43456-sdio"] }),
};

pub(super) const BOARDS: [Board; 3] = [VIRT, RPI3, RPI4];

impl Board {
    /// By its name.
    pub fn named(name: &str) -> Result<Self, ImageError> {
        BOARDS.into_iter().find(|board| board.name == name).ok_or_else(|| ImageError::NoSuchBoard {
            board: name.to_owned(),
            known: BOARDS.map(|board| board.name).join(", "),
        })
    }

    /// What the firmware of a Raspberry Pi reads, and QEMU's harness in its place. `upstream_kernel` has it look for device
    /// trees by the names that Linux has for them, and not by those of Raspberry Pi's own kernel.
    pub(crate) fn choice(&self, slot: Slot, console: bool) -> String {
        let raspberry = match (self.raspberry, console) {
            (None, _) => "",
            (Some(_), false) => "upstream_kernel=1\n",
            // Without it, the clock of the serial line changes with that of the processor.
            (Some(_), true) => "upstream_kernel=1\nenable_uart=1\n",
        };
        format!(
            "# Which system is booted; holm-init changes it when one on trial is confirmed.\narm_64bit=1\n{raspberry}\
             os_prefix={slot}/\nkernel={KERNEL}\ninitramfs {INITRAMFS} followkernel\ncmdline={COMMAND_LINE}\n"
        )
    }

    /// All modules of the initramfs, without what those need.
    pub(crate) fn all_modules(&self) -> impl Iterator<Item = &'static str> {
        self.modules.iter().copied().chain(FILESYSTEMS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_init_confirms_is_what_an_image_of_that_slot_would_say() {
        for board in BOARDS {
            let (a, b) = (board.choice(Slot::A, true), board.choice(Slot::B, true));
            assert_eq!(holm_init::boot::choose(&a, Slot::B), b);
            assert_eq!(a.contains("upstream_kernel=1\n"), board.raspberry.is_some(), "{a}");
        }
    }

    #[test]
    fn a_raspberry_can_restart_before_its_system_is_mounted() {
        for board in BOARDS.iter().filter(|board| board.raspberry.is_some()) {
            assert!(board.all_modules().any(|module| module == WATCHDOG), "{}", board.name);
        }
    }

    #[test]
    fn a_board_is_found_by_its_name_and_loads_nothing_twice() {
        for board in BOARDS {
            assert_eq!(Board::named(board.name).unwrap(), board);
            let mut modules: Vec<&str> = board.all_modules().chain(board.later.iter().copied()).collect();
            modules.sort_unstable();
            let count = modules.len();
            modules.dedup();
            assert_eq!(modules.len(), count, "{}", board.name);
        }
        let error = Board::named("rpi5").unwrap_err().to_string();
        assert_eq!(error, "no image is made for the board rpi5: qemu-virt, rpi3, rpi4");
    }
}
