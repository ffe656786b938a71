//! wasi:clocks and wasi:random: what differs from one run to the next, all of it past the recorder.

use std::time::{Duration, Instant};

use rand::{Rng, RngExt};
use wasmtime::component::Resource;

use crate::bindings::wasi::clocks::{monotonic_clock, wall_clock};
use crate::bindings::wasi::random::{insecure, insecure_seed, random};
use crate::fault::Stop;
use crate::io::Pollable;
use crate::recorder::Nature;
use crate::state::State;

/// Random bytes that a guest gets from one call.
const MAX_RANDOM: u64 = 64 << 10;

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        let started = self.started;
        Ok(self.recorder.answer(Nature::Plausible, "monotonic-clock.now", &(), || nanoseconds(started.elapsed()))?)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<Pollable>> {
        let when = self.started.checked_add(Duration::from_nanos(when));
        self.pollable(when)
    }

    fn subscribe_duration(&mut self, time: u64) -> wasmtime::Result<Resource<Pollable>> {
        let when = Instant::now().checked_add(Duration::from_nanos(time));
        self.pollable(when)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let now = self.ask(Nature::Plausible, "wall-clock.now", &(), |host| host.now())?;
        Ok(datetime(now))
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

/// WASI's form of a timestamp. Times before 1970, which a board without a clock may have, become 1970.
pub(crate) fn datetime(time: holm_core::Timestamp) -> wall_clock::Datetime {
    let milliseconds = u64::try_from(time.0).unwrap_or(0);
    // The remainder is below a thousand, so that the product fits.
    let nanoseconds = (milliseconds % 1000) as u32 * 1_000_000;
    wall_clock::Datetime { seconds: milliseconds / 1000, nanoseconds }
}

impl State {
    /// From this thread's generator, which is seeded by the system and never repeats: two instances never see the same.
    fn random_u64(&mut self, call: &'static str) -> wasmtime::Result<u64> {
        Ok(self.recorder.answer(Nature::Plausible, call, &(), || rand::rng().next_u64())?)
    }

    fn random_bytes(&mut self, call: &'static str, length: u64) -> wasmtime::Result<Vec<u8>> {
        if length > MAX_RANDOM {
            return Err(Stop::Exhausted("random bytes").into());
        }
        let bytes = usize::try_from(length)?;
        Ok(self.recorder.answer(Nature::Plausible, call, &length, || {
            let mut bytes = vec![0; bytes];
            rand::rng().fill(bytes.as_mut_slice());
            bytes
        })?)
    }
}

impl random::Host for State {
    fn get_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes("random.bytes", length)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64("random.u64")
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, length: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes("insecure.bytes", length)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_u64("insecure.u64")
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((self.random_u64("insecure-seed.first")?, self.random_u64("insecure-seed.second")?))
    }
}
