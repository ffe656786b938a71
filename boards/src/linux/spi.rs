//! SPI by `/dev/spidevB.C`: a transaction is one message, with the chip selected all along.

use std::path::Path;
use std::time::Duration;

use embedded_hal::spi::{ErrorType, Operation, SpiDevice};
use spidev::{SpiModeFlags, Spidev, SpidevOptions, SpidevTransfer};

use super::opening;
use crate::bindings::SpiBinding;
use crate::board::SpiPort;
use crate::{BoardError, BusFault};

pub(super) fn open(device: &SpiBinding, path: &Path) -> Result<SpiPort, BoardError> {
    let mode = match device.mode {
        0 => SpiModeFlags::SPI_MODE_0,
        1 => SpiModeFlags::SPI_MODE_1,
        2 => SpiModeFlags::SPI_MODE_2,
        _ => SpiModeFlags::SPI_MODE_3,
    };
    let options = SpidevOptions::new().bits_per_word(8).max_speed_hz(device.speed).mode(mode).build();
    let open = || {
        let mut opened = Spidev::open(path)?;
        opened.configure(&options)?;
        Ok(opened)
    };
    let opened = open().map_err(|error: std::io::Error| opening(device.name.as_str(), path, &error))?;
    Ok(Box::new(Device(opened)))
}

struct Device(Spidev);

impl ErrorType for Device {
    type Error = BusFault;
}

impl SpiDevice for Device {
    fn transaction(&mut self, operations: &mut [Operation<'_, u8>]) -> Result<(), BusFault> {
        let mut transfers: Vec<SpidevTransfer<'_, '_>> = operations
            .iter_mut()
            .map(|operation| match operation {
                Operation::Read(bytes) => SpidevTransfer::read(bytes),
                Operation::Write(bytes) => SpidevTransfer::write(bytes),
                Operation::Transfer(read, write) => {
                    let length = read.len().min(write.len());
                    let (read, _) = read.split_at_mut(length);
                    SpidevTransfer::read_write(write.get(..length).unwrap_or_default(), read)
                }
                Operation::TransferInPlace(bytes) => SpidevTransfer::read_write_in_place(bytes),
                Operation::DelayNs(time) => {
                    let microseconds = Duration::from_nanos(u64::from(*time)).as_micros().max(1);
                    SpidevTransfer::delay(u16::try_from(microseconds).unwrap_or(u16::MAX))
                }
            })
            .collect();
        let failed = |error: std::io::Error| BusFault::System(error.raw_os_error().unwrap_or_default());
        self.0.transfer_multiple(&mut transfers).map_err(failed)
    }
}
