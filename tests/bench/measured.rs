//! What does a run of `etl` take: seconds, CPU seconds, memory at its peak?

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::Result;

/// Ticks a second in `/proc/PID/stat`, the same on every Linux that matters.
const TICKS: f64 = 100.0;

/// What one run took. CPU and memory are 0 where there is no `/proc`.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) peak_mib: f64,
}

/// Runs `etl run --until-caught-up` with a config, watching it from outside.
pub(crate) fn run(etl: &Path, config: &Path) -> Result<Measured> {
    let log = config.with_extension("log");
    let began = Instant::now();
    let mut child = Command::new(etl)
        .args(["run", "--until-caught-up", "--config"])
        .arg(config)
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log)?)
        .spawn()?;
    let mut measured = Measured::default();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        watch(child.id(), &mut measured);
        std::thread::sleep(Duration::from_millis(20));
    };
    measured.wall = began.elapsed().as_secs_f64();
    if status.success() { Ok(measured) } else { Err(format!("etl: {status}\n{}", fs::read_to_string(log)?).into()) }
}

fn watch(pid: u32, measured: &mut Measured) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    if let Some(peak) = peak.map(|kib: f64| kib / 1024.0) {
        measured.peak_mib = peak;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| after_name.get(at).and_then(|text| text.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (ticks(11), ticks(12)) {
        measured.cpu = (user + system) / TICKS;
    }
}
