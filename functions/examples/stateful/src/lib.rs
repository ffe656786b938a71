//! Counts payloads and keeps the last one's digest: the workload W2, state for every event.

use holm_function::prelude::*;

/// FNV-1a, 64 bits: enough to tell payloads apart in a benchmark.
fn digest(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn handle(event: Event) -> Result<Option<Payload>, Failure> {
    let state = kv::own()?;
    state.increment("n", 1)?;
    state.set("last", &digest(&event.data))?;
    Ok(None)
}
holm_function::export!(handle);

#[cfg(test)]
mod tests {
    use super::*;
    use holm_function::testing::TestHost;

    #[test]
    fn counts_and_keeps_the_last_digest() {
        let mut host = TestHost::new();
        host.run(handle, Event::mqtt("w2/a", vec![1; 4096])).unwrap();
        let first = host.key("self", "last").unwrap().to_vec();
        host.run(handle, Event::mqtt("w2/a", vec![2; 4096])).unwrap();
        assert_eq!(host.key("self", "n"), Some(b"2".as_slice()));
        assert_ne!(host.key("self", "last").unwrap(), first);
    }
}
