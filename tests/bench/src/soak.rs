//! Ten minutes of load, with a persistent session and with ids, while the node's memory is watched. Only when it is asked
//! for: `--only soak`.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::generator::{Dialect, Generator, Until, Work};
use crate::holmd::Holmd;
use crate::report::{Figure, Report, Target};
use crate::{Scale, node, process};

const WINDOW: u64 = 64;

/// Of the load. A quick look takes a tenth.
const TIME: Duration = Duration::from_secs(600);

/// Between two looks at the memory.
const STEP: Duration = Duration::from_secs(5);

/// Loads a node with ten functions, and compares the second tenth of the time with the last.
pub fn run(folder: &Path, scale: Scale, report: &mut Report) -> anyhow::Result<()> {
    let data = node::prepare(folder, "soak", &node::ten(1)?)?;
    let holmd = Holmd::start(&data)?;
    let dialect = Dialect { v5: true, durable: true, named: true };
    let mut generator = Generator::connect(&holmd.mqtt, "soak", 1, dialect)?;
    let time = if scale.rounds < 7 { TIME / 10 } else { TIME };
    let (began, mut sizes, mut events) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < time {
        events += generator.drive(Work::Readings, WINDOW, Until::Time(STEP))?.events;
        sizes.push(process::pss(holmd.pid)?);
    }
    let tenth = (sizes.len() / 10).max(1);
    let early = sizes.get(tenth..2 * tenth).unwrap_or_default().to_vec();
    let late = sizes.get(sizes.len() - tenth..).unwrap_or_default().to_vec();
    eprintln!("{events} events in {:?}", began.elapsed());
    report.add(Figure::pair(
        "soak: PSS in the last tenth (beside: the second)",
        "MiB",
        late,
        early,
        Target::RatioAtMost(1.1),
    ));
    report.add(Figure::alone("soak: peak RSS", "MiB", vec![process::rss(holmd.pid)?.1], Target::AtMost(20.0)));
    holmd.stop()
}
