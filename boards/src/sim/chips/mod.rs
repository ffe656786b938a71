//! Models of chips, from their datasheets and not from our drivers: what a model sends is computed by other formulas
//! than the driver reads it by, and the tests of the models use the datasheets' own examples.

mod ads1115;
mod bh1750;
mod bme280;
mod files;
mod registers;
mod sht;

pub(crate) use ads1115::Ads1115;
pub(crate) use bh1750::Bh1750;
pub(crate) use bme280::Bme280;
pub(crate) use files::{Attribute, Ds18b20};
pub(crate) use registers::Registers;
pub(crate) use sht::Sht;

#[cfg(test)]
pub(crate) mod bench {
    //! A driver and a model on a bus, for their tests.

    use std::sync::Arc;
    use std::time::Duration;

    use holm_core::Document;

    use crate::bindings::Bindings;
    use crate::bus::I2cHandle;
    use crate::drivers::{Sample, Tools};
    use crate::{Board, BoardError, Clock, Sim};

    /// Reads the one sensor of a configuration, `times` times, and keeps the last.
    pub(crate) fn read(text: &str, times: usize) -> Result<Vec<Sample>, BoardError> {
        read_at(text, times, Duration::ZERO).0
    }

    /// The same, beginning at a time, with what time it is afterwards.
    pub(crate) fn read_at(text: &str, times: usize, at: Duration) -> (Result<Vec<Sample>, BoardError>, Duration) {
        let (document, mut root) = Document::parse("test", text).unwrap();
        let mut bindings = Bindings::default();
        bindings.apply(&mut root);
        drop(root);
        document.finish().unwrap();
        let clock = Clock::manual();
        let board: Arc<dyn Board> = Arc::new(Sim::new(&bindings, clock.clone()).unwrap());
        clock.advance(at);
        let sensor = &bindings.sensors[0];
        let i2c = sensor.driver.i2c().map(|(bus, _)| I2cHandle::new(board.open_i2c(&bus).unwrap(), clock.clone()));
        let tools = Tools { sensor: sensor.name.as_str(), board: &board, i2c };
        let result = sensor.driver.kind.open(&tools).and_then(|mut driver| {
            let mut samples = Vec::new();
            for _ in 0..times {
                samples.clear();
                driver.read(&mut samples)?;
            }
            Ok(samples)
        });
        (result, clock.now())
    }
}
