//! How far from what they can take are the destinations, and from what the source can give?

use etl_local_postgres::LocalPostgres;

use crate::busy::{self, Step};
use crate::engine::{PGBENCH, WIDE};
use crate::measured::Measured;
use crate::recorded::Recorded;
use crate::site::{Bench, CONNECTIONS, Site, median};
use crate::{Result, limit};

/// W4 alone: its table is empty when the pipelines begin.
const CHANGES: &str = "changes_pub";

/// A destination, and its section of a config for a place of its own.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    section: Box<dyn Fn(&str) -> String>,
}

impl Target {
    /// A pipeline into a place of its own.
    pub(crate) fn site<'s>(&self, id: String, publication: &'s str) -> Site<'s> {
        let destination = (self.section)(&id);
        Site { id, publication, destination, pipeline: "", source: "" }
    }
}

/// Those that are here, and a server for one of them.
pub(crate) struct Targets {
    pub(crate) all: Vec<Target>,
    pub(crate) server: LocalPostgres,
}

impl Targets {
    pub(crate) async fn find(bench: &Bench) -> Result<Self> {
        let server = LocalPostgres::builder().setting("shared_buffers", "1GB").setting("max_wal_size", "16GB");
        let server = server.notice(|text| eprintln!("{text}")).start().await?;
        let (dir, url) = (bench.dir.path().to_owned(), server.url());
        let at = move |name: String| dir.join(name);
        let lake = at.clone();
        let duckdb = move |id: &str| format!("duckdb: {{ path: {:?}, threads: 2 }}", at(format!("{id}.duckdb")));
        let parquet = move |id: &str| format!("parquet: {{ location: {:?} }}", lake(id.to_owned()));
        let database = move |id: &str| {
            let url = url.rsplit_once('/').map_or(url.clone(), |(server, _)| format!("{server}/{id}"));
            format!("postgres: {{ url: {url:?}, tls: {{ mode: disable }} }}")
        };
        let mut all = vec![
            Target { name: "duckdb", section: Box::new(duckdb) },
            Target { name: "parquet", section: Box::new(parquet) },
            Target { name: "postgres", section: Box::new(database) },
        ];
        if let Some(place) = harness::clickhouse::clickhouse().await {
            let section = move |id: &str| format!("clickhouse: {{ url: {:?}, database_prefix: {id}_ }}", place.url());
            all.push(Target { name: "clickhouse", section: Box::new(section) });
        }
        Ok(Self { all, server })
    }
}

impl Bench {
    /// W1 and W2 copied, W4 drained as upserts, by each destination.
    pub(crate) async fn destinations(&self, rows: u32) -> Result<()> {
        let targets = Targets::find(self).await?;
        self.page().head(HEAD);
        for (workload, label) in [(&PGBENCH, "W1 copy"), (&WIDE, "W2 copy")] {
            let id = format!("{}rec", workload.id);
            let recording = self.recording(&Site::into_null(id.clone(), workload.publication))?;
            recording.run().await?;
            self.drop_slot(&id).await?;
            let recorded = recording.finish();
            for target in &targets.all {
                let mut took = Took::default();
                for run in 0..self.runs {
                    let site = target.site(format!("{}{}{run}", workload.id, target.name), workload.publication);
                    took.source.push(busy::step(limit::copy(&self.server, workload.table, CONNECTIONS)).await?);
                    took.load.push(self.load_anew(target, &targets.server, &site.id, &recorded).await?);
                    targets.server.psql(&format!("create database {}", site.id)).await?;
                    took.ours.push(self.measure(&site)?);
                    self.drop_slot(&site.id).await?;
                    clear(&targets.server, &site.id).await?;
                }
                self.took(took, &format!("{label}, {}", target.name));
            }
        }
        self.drained(rows, &targets).await
    }

    /// Loads what was recorded into a place that nobody has seen.
    async fn load_anew(&self, target: &Target, server: &LocalPostgres, id: &str, recorded: &Recorded) -> Result<Step> {
        let id = format!("{id}mem");
        server.psql(&format!("create database {id}")).await?;
        let took = busy::step(self.load(&target.site(id.clone(), "none"), recorded)).await?;
        clear(server, &id).await?;
        Ok(took)
    }

    /// The pipelines begin while the table is empty, and drain the same backlog one after the other.
    async fn drained(&self, rows: u32, targets: &Targets) -> Result<()> {
        self.server.psql("drop publication if exists wide_pub").await?;
        self.server.psql("truncate wide_s").await?;
        self.server.psql(&format!("create publication {CHANGES} for table wide_s")).await?;
        let recording = self.recording(&Site::into_null("changesrec".to_owned(), CHANGES))?;
        recording.run().await?;
        for target in &targets.all {
            for run in 0..self.runs {
                let site = target.site(format!("changes{}{run}", target.name), CHANGES);
                targets.server.psql(&format!("create database {}", site.id)).await?;
                self.measure(&site)?;
            }
        }
        self.script(include_str!("wide_backlog.sql"), rows).await?;
        recording.run().await?;
        let recorded = recording.finish();
        let last = self.server.psql("select pg_current_wal_flush_lsn()").await?;
        for target in &targets.all {
            let mut took = Took::default();
            for run in 0..self.runs {
                let site = target.site(format!("changes{}{run}", target.name), CHANGES);
                let slot = format!("etl_{}", site.id);
                took.source.push(busy::step(limit::drain(&self.server, &slot, &last, CHANGES, true)).await?);
                took.load.push(self.load_anew(target, &targets.server, &site.id, &recorded).await?);
                took.ours.push(self.measure(&site)?);
                self.drop_slot(&site.id).await?;
                clear(&targets.server, &site.id).await?;
            }
            self.took(took, &format!("W4 drain, {}", target.name));
        }
        self.drop_slot("changesrec").await
    }

    fn took(&self, Took { source, load, ours }: Took, label: &str) {
        let of = |what: fn(&Measured) -> f64| median(ours.iter().map(what).collect());
        let (wall, cpu, peak) = (of(|run| run.wall), of(|run| run.cpu), of(|run| run.peak_mib));
        let middle = |steps: &[Step], what: fn(&Step) -> f64| median(steps.iter().map(what).collect());
        let (walls, cpus) =
            ([&source, &load].map(|of| middle(of, |s| s.wall)), [&source, &load].map(|of| middle(of, |s| s.cpu)));
        let ([source, load], both) = (walls, cpus.iter().sum::<f64>() / busy::processors());
        let slower = source.max(load);
        let (to_slower, to_both) = (wall / slower, wall / slower.max(both));
        let mut page = self.page();
        page.say(format!(
            "| {label} | {source:.2} | {load:.2} | {both:.2} | {wall:.2} | {to_slower:.2} | {to_both:.2} | {cpu:.2} | {peak:.0} |"
        ));
        page.bar(label, slower, wall);
    }
}

/// Makes room on the disk for the next run.
async fn clear(server: &LocalPostgres, database: &str) -> Result<()> {
    server.psql(&format!("drop database {database} with (force)")).await?;
    server.psql("checkpoint").await?;
    Ok(())
}

/// `both s` is the processor time that the machine spends while the source is read and while the destination is loaded, each
/// by itself, spread over all processors: about what remains where both need the same ones all the time.
const HEAD: &[&str] =
    &["workload", "source s", "load s", "both s", "etl s", "to the slower", "to both", "etl CPU s", "etl peak MiB"];

/// What the runs of one workload into one destination took.
#[derive(Default)]
struct Took {
    source: Vec<Step>,
    load: Vec<Step>,
    ours: Vec<Measured>,
}
