//! What does the process show of its pipeline, to probes, pages and sockets alike?

use std::sync::{Arc, OnceLock};

use etl::pipeline::PipelineHandle;
use etl_config::Desk;
use serde_json::{Value, json};

/// The pipeline of this process, once it has started. Clones show the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<OnceLock<(PipelineHandle, Desk)>>);

impl Shown {
    /// The pipeline has started.
    pub(crate) fn started(&self, handle: PipelineHandle, desk: Desk) {
        // There is one a process.
        let _already = self.0.set((handle, desk));
    }

    pub(crate) fn handle(&self) -> Option<&PipelineHandle> {
        self.0.get().map(|(handle, _)| handle)
    }

    /// Where its operations and dead letters are looked after.
    pub(crate) fn desk(&self) -> Option<&Desk> {
        self.0.get().map(|(_, desk)| desk)
    }

    /// Why it is not ready, if so: it is once the replication stream is open.
    pub(crate) fn not_ready(&self) -> Option<String> {
        let Some(handle) = self.handle() else { return Some("the pipeline is starting".to_owned()) };
        let status = handle.status();
        if status.streaming {
            return None;
        }
        let error = status.last_error.map_or_else(String::new, |error| format!(": {error}"));
        Some(format!("the replication stream is not open{error}"))
    }

    /// The whole status; nothing before the pipeline has started.
    pub(crate) fn status(&self) -> Option<Value> {
        let status = self.handle()?.status();
        let mut value = serde_json::to_value(status).ok()?;
        value["process"] = json!({ "version": env!("CARGO_PKG_VERSION"), "resident_bytes": resident_bytes() });
        Some(value)
    }

    /// Shows in the metrics what only the process knows.
    pub(crate) fn publish(&self) {
        if let (Some(handle), Some(bytes)) = (self.handle(), resident_bytes()) {
            etl::metrics::process_resident_bytes(&handle.status().id, bytes);
        }
    }
}

/// The memory of this process that is in use, where the system says it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
