//! Functions that use the board; the parameter `habit` says how, or else the event's subject.

use holm_function::prelude::*;
use holm_function::{i2c, spi};

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let habit = config::text("habit")?.unwrap_or_else(|| event.subject.clone());
    match habit.as_str() {
        // What the board answers to what is granted, and to what is not.
        "board" => say(format_args!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            sensors::names(),
            sensors::channel("attic", "temperature").map(|reading| (reading.value, reading.unit, reading.quality)),
            gpio::get("door"),
            gpio::set("pump", true),
            i2c::write_read("bus", 0x20, [1], 2),
            spi::transfer("radio", [1, 2]),
        )),
        "board-denied" => {
            let denied = [
                sensors::read("cellar").err(),
                sensors::latest("cellar").err(),
                gpio::get("window").err(),
                gpio::set("door", true).err(),
                gpio::set("heater", true).err(),
                i2c::read("bus", 0x21, 1).err(),
                i2c::read("other", 0x20, 1).err(),
                spi::transfer("other", [1]).err(),
            ];
            let is_denied = |error: &Option<Error>| matches!(error, Some(Error::Denied(_)));
            say(denied.iter().filter(|error| is_denied(error)).count())
        }
        "board-greedy" => {
            let invalid = [
                i2c::read("bus", 0x20, u32::MAX).err(),
                i2c::transaction("bus", 0x20, vec![i2c::Operation::Read(8192), i2c::Operation::Write(vec![0])]).err(),
                i2c::transaction("bus", 0x20, vec![i2c::Operation::Read(1); 43]).err(),
                spi::transfer("radio", vec![0; 8193]).err(),
                spi::transaction("radio", vec![spi::Operation::Delay(u32::MAX); 42]).err(),
            ];
            let is_invalid = |error: &Option<Error>| matches!(error, Some(Error::Invalid(_)));
            say(invalid.iter().filter(|error| is_invalid(error)).count())
        }
        // Drives what it may, and says so; then fails if the event says so.
        "drive" => {
            let level = event.text().ok().filter(|text| !text.is_empty()).unwrap_or("high");
            gpio::set(&target()?, level.starts_with("high"))?;
            publish("seen/drive", format!("\"{level}\""))?;
            if level.ends_with("then-fail") { Err(Failure::reject("as told")) } else { Ok(None) }
        }
        // Drives for as long as it may run.
        "drive-on" => loop {
            if let Err(error) = gpio::set(&target()?, true) {
                publish("seen/drive-on", format!("\"{error}\""))?;
                return Ok(None);
            }
        },
        other => Err(Failure::reject(format!("no such habit: {other}"))),
    }
}
holm_function::export!(handle);

fn target() -> Result<String, Failure> {
    config::text("to")?.ok_or_else(|| Failure::reject("the parameter `to` is not set"))
}

fn say(what: impl std::fmt::Display) -> Result<Option<Payload>, Failure> {
    Ok(Some(Payload::bytes(what.to_string())))
}
