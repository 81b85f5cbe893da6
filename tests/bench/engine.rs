//! How far from the physical limit are first copies and the drains of backlogs, with `null`?

use crate::measured::Measured;
use crate::site::{Bench, CONNECTIONS, Site, median};
use crate::{Result, limit};

/// A table that is copied, and then the backlog of its publication.
pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) table: &'static str,
    pub(crate) publication: &'static str,
    /// Whether the limit of the drain is read in binary, as `etl` reads it.
    pub(crate) binary: bool,
}

pub(crate) const PGBENCH: Workload =
    Workload { id: "narrow", table: "pgbench_accounts", publication: "bench_pub", binary: false };
pub(crate) const WIDE: Workload = Workload { id: "wide", table: "wide", publication: "wide_pub", binary: true };

const THROUGH_RELAY: &str = "  ack: relay\n";

impl Workload {
    fn site(&self, run: u32, pipeline: &'static str) -> Site<'static> {
        let of = if pipeline.is_empty() { "" } else { "disk" };
        Site { pipeline, ..Site::into_null(format!("{}{of}{run}", self.id), self.publication) }
    }
}

/// The columns of what has one limit.
pub(crate) const HEAD: &[&str] = &["workload", "limit s", "etl s", "ratio", "etl CPU s", "etl peak MiB"];

impl Bench {
    /// The limit and `etl` in turn; then through the relay's disk.
    pub(crate) async fn copy(&self, workload: &Workload, label: &str) -> Result<()> {
        let (mut limits, mut ours, mut on_disk) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..self.runs {
            limits.push(limit::copy(&self.server, workload.table, CONNECTIONS).await?);
            ours.push(self.measure(&workload.site(run, ""))?);
            on_disk.push(self.measure(&workload.site(run, THROUGH_RELAY))?);
        }
        self.report(label, median(limits), &ours, &on_disk);
        Ok(())
    }

    /// Each pipeline that has copied drains the same backlog once; its slot goes with it.
    pub(crate) async fn drain(&self, workload: &Workload, label: &str) -> Result<()> {
        let last = self.server.psql("select pg_current_wal_flush_lsn()").await?;
        let (mut limits, mut ours, mut on_disk) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..self.runs {
            let slot = format!("etl_{}", workload.site(run, "").id);
            limits.push(limit::drain(&self.server, &slot, &last, workload.publication, workload.binary).await?);
            for (pipeline, measured) in [("", &mut ours), (THROUGH_RELAY, &mut on_disk)] {
                let site = workload.site(run, pipeline);
                measured.push(self.measure(&site)?);
                self.drop_slot(&site.id).await?;
            }
        }
        self.report(label, median(limits), &ours, &on_disk);
        Ok(())
    }

    fn report(&self, label: &str, limit: f64, ours: &[Measured], on_disk: &[Measured]) {
        let plain = self.row(label, limit, ours);
        self.page().bar(label, limit, plain);
        // What it costs on top is what counts.
        self.row(&format!("{label}, through the relay's disk, to that before"), plain, on_disk);
    }

    /// A row of medians, of what has no limit where that is no number; returns the wall seconds.
    pub(crate) fn row(&self, label: &str, limit: f64, ours: &[Measured]) -> f64 {
        let of = |what: fn(&Measured) -> f64| median(ours.iter().map(what).collect());
        let (wall, cpu, peak) = (of(|run| run.wall), of(|run| run.cpu), of(|run| run.peak_mib));
        self.page().say(match limit.is_nan() {
            true => format!("| {label} | | {wall:.2} | | {cpu:.2} | {peak:.0} |"),
            false => format!("| {label} | {limit:.2} | {wall:.2} | {:.2} | {cpu:.2} | {peak:.0} |", wall / limit),
        });
        wall
    }
}
