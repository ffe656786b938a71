//! What recording costs: W1 on a node that records nothing, on one that records for the case of a trap, as all do by default, and
//! on one that keeps all recordings for `holm replay`.

use std::path::Path;

use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::w1::Side;
use crate::{Scale, node, process};

/// Bytes of recordings that the last node keeps.
const KEPT: &str = "8MiB";

/// The usual rounds so many times: what is asked about is smaller than what two rounds of the same node may be apart.
const MORE: usize = 3;

/// The part of the throughput that must be left.
const LEFT: f64 = 0.95;

/// Both qualities.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    for qos in [0, 1] {
        one(folder, qos, scale, report)?;
    }
    Ok(())
}

fn one(folder: &Path, qos: u8, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let kept = format!("record = \"{KEPT}\"\n");
    let ways = [("off", "traps = \"0B\"\n"), ("traps", ""), ("all", kept.as_str())];
    let mut nodes = Vec::new();
    for (way, lines) in ways {
        let data = node::prepare(folder, &format!("record-{way}{qos}"), &[node::w1()?])?;
        let holmd = Holmd::start_functions(&data, lines)?;
        let side = Side::new(&holmd.mqtt, qos, vec![holmd.pid])?;
        nodes.push((holmd, side));
    }
    let rounds = scale.rounds * MORE;
    for round in 0..rounds {
        eprintln!("recording at QoS {qos}, round {} of {rounds}", round + 1);
        // Each of them begins in its turn: who follows whom must not matter.
        for turn in 0..nodes.len() {
            let at = (turn + round) % nodes.len();
            if let Some((_, side)) = nodes.get_mut(at) {
                side.round(scale)?;
            }
        }
    }
    let [off, traps, all] = nodes.as_slice() else { return Ok(()) };
    for (name, (holmd, side)) in [("for traps", traps), ("all kept", all)] {
        let (rates, cpu) = (side.rates.clone(), side.cpu.clone());
        let least = Target::RatioAtLeast(LEFT);
        let name = |figure: &str| format!("W1 q{qos}, recording {name}, beside none: {figure}");
        report.add(Figure::pair(name("throughput, 64 in flight"), "1/s", rates, off.1.rates.clone(), least));
        report.add(Figure::pair(name("CPU per 10,000"), "s", cpu, off.1.cpu.clone(), Target::None));
        let (pss, beside) = (process::pss(holmd.pid)?, process::pss(off.0.pid)?);
        report.add(Figure::pair(name("PSS after the load"), "MiB", vec![pss], vec![beside], Target::None));
    }
    for (holmd, side) in nodes {
        drop(side);
        holmd.stop()?;
    }
    Ok(())
}
