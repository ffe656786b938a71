//! What /proc tells of a process.

use std::path::PathBuf;

use anyhow::Context as _;

/// Clock ticks a second: USER_HZ is 100 on every Linux.
const TICKS: f64 = 100.0;

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = PathBuf::from(format!("/proc/{pid}/{file}"));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// User and system time of all its threads, in seconds.
pub fn cpu(pid: u32) -> anyhow::Result<f64> {
    let stat = read(pid, "stat")?;
    // The name in parentheses may hold spaces.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<f64>().unwrap_or_default());
    Ok((fields.next().unwrap_or_default() + fields.next().unwrap_or_default()) / TICKS)
}

/// A line `NAME: 123 kB`, in MiB.
fn kib_line(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(f64::NAN)
        / 1024.0
}

/// Proportional set size, in MiB.
pub fn pss(pid: u32) -> anyhow::Result<f64> {
    Ok(kib_line(&read(pid, "smaps_rollup")?, "Pss"))
}

/// Resident set size, in MiB: now, and the highest since the start.
pub fn rss(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = read(pid, "status")?;
    Ok((kib_line(&status, "VmRSS"), kib_line(&status, "VmHWM")))
}

/// Bytes that it caused to be written to disks.
pub fn written(pid: u32) -> anyhow::Result<u64> {
    let io = read(pid, "io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).unwrap_or_default();
    line.trim().parse().context("no write_bytes")
}

/// Times that its threads gave up the processor: by waiting, and because their time was over.
pub fn switches(pid: u32) -> anyhow::Result<(u64, u64)> {
    let mut sum = (0, 0);
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = std::fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().parse().unwrap_or_default()
        };
        sum.0 += number("voluntary_ctxt_switches:");
        sum.1 += number("nonvoluntary_ctxt_switches:");
    }
    Ok(sum)
}
