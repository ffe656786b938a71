//! What this program is, for itself and for whoever holds its file.

use holm_protocol::{AgentBuild, BUILD_MARK};
use holm_runtime::WASMTIME_VERSION;

/// As [`holm_runtime::Profile::host`] has it.
const PROFILE: &str = if cfg!(target_arch = "x86_64") {
    "x64-v1"
} else if cfg!(target_arch = "aarch64") {
    "a64-small-v1"
} else if cfg!(target_pointer_width = "32") {
    "pulley32-v1"
} else {
    "pulley64-v1"
};

const WORDS: [&str; 9] =
    [BUILD_MARK, env!("CARGO_PKG_VERSION"), " ", std::env::consts::ARCH, " ", WASMTIME_VERSION, " ", PROFILE, "\n"];

/// One piece, so that `holm publish` finds it in a program that does not run where that does.
static SAID: [u8; length()] = joined();

#[allow(clippy::indexing_slicing)] // What is beyond an end does not compile.
const fn length() -> usize {
    let (mut at, mut length) = (0, 0);
    while at < WORDS.len() {
        length += WORDS[at].len();
        at += 1;
    }
    length
}

#[allow(clippy::indexing_slicing)] // What is beyond an end does not compile.
const fn joined<const N: usize>() -> [u8; N] {
    let (mut all, mut at, mut end) = ([0; N], 0, 0);
    while at < WORDS.len() {
        let word = WORDS[at].as_bytes();
        let mut byte = 0;
        while byte < word.len() {
            all[end] = word[byte];
            (byte, end) = (byte + 1, end + 1);
        }
        at += 1;
    }
    all
}

/// The build that this process is of.
pub fn build() -> AgentBuild {
    // What is read is what is in the file: the compiler must not make something of its own of it.
    let said = std::hint::black_box(&SAID);
    AgentBuild::in_program(said).unwrap_or_else(|| AgentBuild {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        arch: std::env::consts::ARCH.to_owned(),
        engine: WASMTIME_VERSION.to_owned(),
        profile: PROFILE.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use holm_runtime::Profile;

    use super::*;

    #[test]
    fn what_it_says_is_what_it_is() {
        let build = build();
        assert_eq!((build.version.as_str(), build.arch.as_str()), (env!("CARGO_PKG_VERSION"), std::env::consts::ARCH));
        assert_eq!(format!("wasmtime-{}-{}", build.engine, build.profile), Profile::host().version());
        assert_eq!(Profile::host().name(), PROFILE);
    }
}
