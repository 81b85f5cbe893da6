//! How many instructions does a path take? The difference between few and many rounds, so that what is done once is out.

use std::process::Command;

use etl_instructions::ROWS;

const FEW: usize = 2;
const MANY: usize = 12;

/// The instructions of a path for one row.
pub(crate) fn per_row(path: &str) -> Result<f64, String> {
    let (few, many) = (count(path, FEW)?, count(path, MANY)?);
    Ok(many.saturating_sub(few) as f64 / ((MANY - FEW) * ROWS) as f64)
}

fn count(path: &str, times: usize) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(["run", path, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{}\n{said}", output.status));
    }
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    collected.ok_or_else(|| format!("callgrind said no count:\n{said}"))
}

/// The compiler that is on this machine, which is the one that built this.
pub(crate) fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    version.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}
