//! How are all tables shown anew at once? A run copies them under one snapshot, out of sight, and publishes them when all
//! is there. It needs no slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::allowed::{Allowed, Wished};
use super::board::Board;
use super::builder::Pipeline;
use super::control::{PipelineHandle, Stop, tell};
use super::data_dir::DataDir;
use super::describe::describe_all;
use super::pace::Pace;
use super::published::Published;
use super::running::{Finished, RunningPipeline};
use super::settings::Settings;
use super::staged_run;
use super::status::TableStatus;
use super::tables::Order;
use crate::destination::{AnyDestination, Destination, Metered, StagedRun};
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::failpoint;
use crate::postgres::Session;
use crate::retry::{RetryPolicy, pause, retry};
use crate::source::{PublishedTable, SourceConfig, ensure_publication, published_tables, table_extras};
use crate::store::{Phase, SharedStore, TableState};

/// How often gauges move.
const TICK: Duration = Duration::from_secs(1);

/// What every part of the run works with.
pub(super) struct Refresh {
    pub(super) id: String,
    pub(super) source: SourceConfig,
    pub(super) settings: Settings,
    pub(super) store: SharedStore,
    pub(super) destination: AnyDestination,
    pub(super) board: Arc<Board>,
    pub(super) pace: Pace,
    stop: Arc<watch::Sender<Stop>>,
    /// Held for as long as anything runs.
    _data_dir: DataDir,
}

/// The tables, as they are described now.
pub(super) struct Found {
    pub(super) session: Session,
    pub(super) publication: String,
    /// As the source described them.
    pub(super) described: Vec<PublishedTable>,
    pub(super) tables: Vec<Published>,
}

/// Connects, checks, finishes what a run before has left, and spawns the run.
pub(super) async fn start(mut pipeline: Pipeline) -> EtlResult<RunningPipeline> {
    let data_dir = DataDir::lock(&pipeline.data_dir, &pipeline.id)?;
    let store = pipeline.take_store().await?;
    let connect = &mut pipeline.source.connect;
    connect.application_name = connect.for_purpose(&pipeline.id).application_name;
    let destination = pipeline.destination;
    if !destination.capabilities().staged_runs {
        return Err(EtlError::new(ErrorKind::DestinationUnsupported, "the destination cannot show all tables at once")
            .with("destination", destination.name())
            .with("mode", "full_refresh")
            .hint("Use `stream` or `incremental`, or a destination that stages what is copied"));
    }
    destination.startup().await?;
    staged_run::settle_last(&store, &destination).await?;
    let board = Arc::new(Board::new(&pipeline.id, "", &pipeline.settings));
    let stop = Arc::new(watch::Sender::new(Stop::No));
    let (orders, wishes) = mpsc::channel(16);
    let pace = Pace::new(&pipeline.settings.copy, &pipeline.source.wal_guard);
    let destination = AnyDestination::new(Metered::new(destination, &pipeline.id));
    let refresh = Arc::new(Refresh {
        id: pipeline.id,
        source: pipeline.source,
        settings: pipeline.settings,
        store,
        destination,
        board: Arc::clone(&board),
        pace,
        stop: Arc::clone(&stop),
        _data_dir: data_dir,
    });
    // What is wrong with the source is said before anything runs.
    drop(refresh.look().await?);
    let task = tokio::spawn(supervise(refresh, wishes));
    Ok(RunningPipeline { handle: PipelineHandle { stop, board, orders }, task })
}

/// Runs until everything is shown; answers whoever wishes something meanwhile.
async fn supervise(refresh: Arc<Refresh>, mut wishes: mpsc::Receiver<Order>) -> EtlResult<Finished> {
    let mut work = Box::pin(refresh.work());
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            Some(order) = wishes.recv() => {
                let refused = EtlError::new(ErrorKind::Config, "this run copies every table, and ends by itself");
                // Whoever asked may be gone.
                let _ = order.answer.send(Err(refused.with("mode", "full_refresh")));
            }
            () = pause(TICK) => refresh.board.publish(),
        }
    };
    if let Err(error) = &done
        && error.kind() != ErrorKind::Cancelled
    {
        tracing::error!(%error, "nothing is shown: what was there stays");
        refresh.board.failed(error);
    }
    let shut = refresh.destination.shutdown().await;
    tell(&refresh.stop, Stop::Drain);
    done.and(shut).map(|()| Finished::default())
}

impl Refresh {
    /// A run, and another one where that failed for something that passes.
    async fn work(self: &Arc<Self>) -> EtlResult<()> {
        let mut waits = RetryPolicy::default().waits();
        loop {
            let error = match self.once().await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.retry_class() == RetryClass::Transient {
                self.board.failed(&error);
            }
            tokio::select! {
                waited = waits.after(error) => waited?,
                () = self.told() => return Err(cancelled()),
            }
        }
    }

    async fn once(self: &Arc<Self>) -> EtlResult<()> {
        let found = self.look().await?;
        let tables: Vec<_> = found.tables.iter().map(|published| published.table.schema.id).collect();
        let run = staged_run::begin(&self.store, tables).await?;
        self.board.update(|status| {
            status.run = Some(run.id.to_string());
            let shown = |found: &Published| TableStatus::of(&found.table, Phase::Pending.name());
            status.tables = found.tables.iter().map(shown).collect();
            status.tables.sort_by(|a, b| a.name.cmp(&b.name));
        });
        tracing::info!(run = %run.id, tables = run.tables.len(), "all tables are copied out of sight");
        let staged = async {
            self.destination.begin_run(run.clone()).await?;
            self.stage(found).await?;
            failpoint::visit("run.staged").await
        };
        let staged = tokio::select! {
            staged = Box::pin(staged) => staged,
            () = self.told() => Err(cancelled()),
        };
        if let Err(error) = staged {
            self.give_up(&run).await;
            return Err(error);
        }
        self.publish(&run).await
    }

    /// What cannot be removed now, the next run removes.
    async fn give_up(&self, run: &StagedRun) {
        if let Err(error) = staged_run::abandon(&self.store, &self.destination, run).await {
            tracing::warn!(%error, run = %run.id, "what the run has staged is left to the next one to remove");
        }
    }

    /// Everything is there: it is shown.
    async fn publish(&self, run: &StagedRun) -> EtlResult<()> {
        staged_run::seal(&self.store, run).await?;
        failpoint::visit("run.sealed").await?;
        let shown = tokio::select! {
            shown = retry(RetryPolicy::default(), || self.destination.finalize_run(run.clone())) => shown,
            // The next start goes on with it.
            () = self.told() => return Err(cancelled()),
        };
        if let Err(error) = shown {
            self.give_up(run).await;
            return Err(error);
        }
        failpoint::visit("run.published").await?;
        staged_run::is_over(&self.store, run).await?;
        for id in &run.tables {
            self.board.table(*id, |status| status.phase = Phase::Ready.name());
        }
        tracing::info!(run = %run.id, tables = run.tables.len(), "all tables are shown as they were at the snapshot");
        if self.destination.capabilities().table_extras { self.complete().await } else { Ok(()) }
    }

    /// Makes what the source's tables have besides their rows.
    async fn complete(&self) -> EtlResult<()> {
        let Found { session, tables, .. } = self.look().await?;
        for Published { selection, .. } in tables {
            let id = selection.schema.id;
            let extras = table_extras(session.client(), id, &selection).await?;
            self.destination.complete_table(id, extras).await?;
        }
        Ok(())
    }

    /// Describes the published tables, and stores what they look like.
    async fn look(&self) -> EtlResult<Found> {
        let session = Session::connect(&self.source.connect.for_purpose("start")).await?;
        let (client, version) = (session.client(), session.server_version());
        let publication = ensure_publication(client, &self.source, &self.id, version).await?;
        let described = published_tables(client, &publication, version).await?;
        self.refuse_uncopied(&described)?;
        let mut states = HashMap::new();
        for (id, state) in self.store.table_states().await? {
            // By their names of now, whatever a stream would still be told of.
            states.insert(id, TableState { phase: state.phase.begun_anew(), ..state });
        }
        let wished = Wished::read(&self.store).await?;
        let allowed = Allowed { destination: &self.destination, wished: &wished };
        let found = described.clone();
        let tables = describe_all(&self.store, &self.source.transform, found, &mut states, &allowed).await?;
        for Published { table, .. } in &tables {
            match states.get(&table.schema.id).map(|state| &state.phase) {
                Some(Phase::Quarantined(why)) if why.kind == ErrorKind::SchemaChanged.name() => {
                    return Err(EtlError::new(ErrorKind::SchemaChanged, why.reason.clone())
                        .with("table", &table.schema.name)
                        .hint("`etl tables resync` lets the next run copy it as it is now"));
                }
                Some(_) => {}
                None => {
                    self.store.set_table_state(table.schema.id, None, TableState::PENDING).await?;
                }
            }
        }
        Ok(Found { session, publication, described, tables })
    }

    fn refuse_uncopied(&self, tables: &[PublishedTable]) -> EtlResult<()> {
        let is_uncopied = |table: &&PublishedTable| !self.source.transform.copies(&table.schema.name);
        let Some(table) = tables.iter().find(is_uncopied) else { return Ok(()) };
        Err(EtlError::new(ErrorKind::Config, "a table that is not to be copied cannot be refreshed")
            .with("table", &table.schema.name)
            .hint("Leave out `copy: false`, or take the table out of the publication of this pipeline"))
    }

    /// Returns once the run is to end.
    async fn told(&self) {
        let mut stop = self.stop.subscribe();
        if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
            std::future::pending().await
        }
    }
}

pub(super) fn cancelled() -> EtlError {
    EtlError::new(ErrorKind::Cancelled, "the run ended before everything was copied: nothing is shown")
}
