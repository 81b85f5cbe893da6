//! How busy was the machine? All of its processes together: source, destination and whoever moves rows between them.

use std::fs;

use crate::Result;

/// Ticks a second in `/proc/stat`, the same on every Linux that matters.
const TICKS: f64 = 100.0;

/// What a step took by itself: seconds, and seconds of all processors together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

/// The seconds that a step says it took, and what all processors did meanwhile.
pub(crate) async fn step(doing: impl Future<Output = Result<f64>>) -> Result<Step> {
    let before = cpu_seconds();
    let wall = doing.await?;
    Ok(Step { wall, cpu: cpu_seconds() - before })
}

/// What all processors have done since the machine was started; 0 where there is no `/proc`.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks: Vec<f64> = stat.lines().next().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq (proc_stat(5)).
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|place| ticks.get(*place));
    busy.sum::<f64>() / TICKS
}

/// How many processors there are.
pub(crate) fn processors() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |number| number.get() as f64)
}
