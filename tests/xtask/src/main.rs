//! `cargo xtask`: the chores, the same by hand and in CI.
//!
//! Whoever tries Holm builds this first, so it has next to no dependencies, and asks cargo and our own programs for
//! everything that is more than a file.

mod ci;
mod conformance;
mod cross;
mod deb;
mod demo;
mod dist;
mod emulate;
mod evidence;
mod flags;
mod foreign;
mod guest;
mod image;
mod install;
mod layers;
mod shell;
mod test;

use std::process::ExitCode;

use flags::Flags;

const HELP: &str = "\
cargo xtask <chore>

  demo [--minutes N] [--headless] [--leaks] [--alone] [--data DIR] [--listen ADDR] [--rate N]
           build everything, start a control plane and three nodes, deploy over the air, feed one node, and watch it
           --minutes N    end by itself after so long [default: when you end it]
           --headless     one line of JSON every 5 seconds instead of a screen
           --leaks        put leaks into the water, and say how many were found
           --alone        one node, without a control plane
           --data DIR     the node's folder, for one that is alone [default: .holm/demo, fresh]
           --listen ADDR  where MQTT listens [default: 127.0.0.1:1883, or another port if that is taken]
           --rate N       readings of water flow a second [default: 200]
  test     get what the tests need, build the components, run all tests
  dist [TARGET...] [--profile NAME]
           build holmd as it is shipped, for aarch64 (static), armv7 and x86-64, into target/dist/TARGET; Debian's names
           for them do too: arm64, armhf, amd64
  dist deb [TARGET...] [--version V]
           Debian packages of all programs, into target/dist
  layers   check who depends on whom
  cross-check
           check Cross.toml with `cross` itself, without containers
  evidence NAME [COUNT]
           a proof that takes too long for CI: kills, deploy-kills, power, image-power,
           watchdog, raspi3b, tiny, tiny-raspi3b; writes docs/evidence/NAME.log
  evidence arm
           the node's way on every kind of ARM, under qemu's user mode
  evidence deb
           the packages in a Debian system of their own: installed, run, upgraded, removed, purged; as root
  evidence deb-arm64, evidence deb-armhf
           the same on an ARM, under qemu's user mode
  evidence guest
           the packages in a Debian that is booted in QEMU, under its systemd
  evidence guest-arm64
           the same in QEMU's `virt` machine, on an ARM
  evidence tuf-conformance DIR
           the public suite for TUF clients, of which DIR is a checkout with its Python environment
  bench [--quick] [--only PARTS]
           build what is shipped, measure holmd beside a native client behind mosquitto; writes target/bench.json
  ci       formatting, lints, layers, tests, Cross.toml, licences and advisories
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let chore = words.next().unwrap_or_default();
    let flags = Flags::new(words);
    let ended = match &*chore {
        "demo" => demo::run(flags),
        "test" => flags.finish().and_then(|()| test::run()),
        "layers" => flags.finish().and_then(|()| layers::run()),
        "cross-check" => flags.finish().and_then(|()| cross::run()),
        "dist" => dist::run(flags),
        "ci" => flags.finish().and_then(|()| ci::run()),
        "evidence" => evidence(flags),
        // The agent alone, so that no feature of the compiler gets into it.
        "bench" => bench(std::env::args().skip(2)),
        "" | "help" | "-h" | "--help" => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        other => {
            eprint!("xtask: there is no chore `{other}`\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures the whole node, and then the runtime alone: the arguments are holm-bench's.
fn bench(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    test::need_programs()?;
    shell::need_wasm()?;
    // The agent alone, so that no feature of the compiler gets into it.
    dist::agent_for_host()?;
    shell::run(&mut shell::cargo(&[
        "build",
        "--release",
        "-p",
        "holm-compiler",
        "-p",
        "holm-cli",
        "-p",
        "holm-bench",
    ]))?;
    shell::run(shell::command("target/release/holm-bench").args(arguments))?;
    let instantiate = ["run", "--release", "-p", "holm-runtime", "--example", "instantiate", "--"];
    let w1 = ["functions/examples/target/wasm32-wasip2/release/scale.wasm", "functions/examples/scale/holm.toml"];
    shell::run(&mut shell::cargo(&[&instantiate[..], &w1].concat()))
}

fn evidence(mut flags: Flags) -> anyhow::Result<()> {
    let (name, count) = (flags.word().unwrap_or_default(), flags.word());
    flags.finish()?;
    evidence::run(&name, count.as_deref())
}
