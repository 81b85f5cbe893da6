//! How does a pipeline begin? It finds out what is there, decides for each table, and sets everything to work.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::allowed::{Allowed, Wished};
use super::apply::{Applier, LeftChanged, LeftFailed, start_after};
use super::backlog;
use super::board::{Board, Target};
use super::builder::Pipeline;
use super::continuity::Continuity;
use super::control::{PipelineHandle, Stop};
use super::data_dir::DataDir;
use super::describe::{copy_half_followed, describe_all};
use super::end::{end_at, end_of, flushed};
use super::guard::give_up_slot;
use super::idle_connections::IdleConnections;
use super::leaving::{Leaving, keep_states};
use super::memory_budget::{relay_tail, relieve};
use super::pace::Pace;
use super::prepared;
use super::progress::{Progress, confirm};
use super::published::{Published, PublishedTables};
use super::quarantine::Quarantines;
use super::receive::receive;
use super::report::report;
use super::run::{Run, States};
use super::running::{Finished, RunningPipeline};
use super::settings::Ack;
use super::staged_run::settle_last;
use super::status::TableStatus;
use super::streams::Streams;
use super::table_state::{Begin, Known, begin, reads_on_from};
use super::tables::{Order, Tables};
use super::watch::{CopiedFiles, Stale, Told, stale_since_last_run, watch as watch_tables};
use crate::destination::{AnyDestination, Batch, Destination, Metered};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::postgres::{Connection, Session, query_error};
use crate::relay::{Reader, Relay, RelayWriter};
use crate::retry::{RetryPolicy, retry};
use crate::schema::TableId;
use crate::source::{
    Assembler, Follow, Look, PublishedTable, Touched, can_read_standby, check_origin, check_two_phase,
    ensure_publication, heartbeat, is_standby, look, published_tables,
};
use crate::store::CursorId;
use crate::store::{PIPELINE_FACT, Phase, SharedStore, TableState};

/// Connects, checks, decides, and spawns the run.
pub(super) async fn start(mut pipeline: Pipeline) -> EtlResult<RunningPipeline> {
    let data_dir = DataDir::lock(&pipeline.data_dir, &pipeline.id)?;
    let store = pipeline.take_store().await?;
    let connect = &mut pipeline.source.connect;
    connect.application_name = connect.for_purpose(&pipeline.id).application_name;
    store.set_fact(PIPELINE_FACT, pipeline.id.clone()).await?;
    pipeline.destination.startup().await?;
    settle_last(&store, &pipeline.destination).await?;
    let slot = pipeline.slot();
    let mut source = Source::connect(&pipeline, &store, &data_dir, &slot).await?;
    let mut states = keep_states(&store, &source.tables, &source.leaving).await?;
    let is_owing = source.stale.is_owing || !source.leaving.is_empty();
    let wished = Wished::read(&store).await?;
    let allowed = Allowed { destination: &pipeline.destination, wished: &wished };
    let mut acted = source.stale.mark(&store, &mut states, &allowed).await?;
    source.leaving.show(&mut acted);
    let successors = source.leaving.take_successors(&mut source.tables, &mut acted);
    let missed = prepared::mark(&store, &mut states).await?;
    let mut published = describe_all(&store, &pipeline.source.transform, source.tables, &mut states, &allowed).await?;
    published.extend(source.leaving.into_tables());
    let main = main_position(&store, &pipeline.destination, &states).await?;
    copy_half_followed(&store, &pipeline.destination, main, &published, &mut states).await?;

    let confirmed = store.progress().await?.confirmed.unwrap_or_default();
    let behind = backlog::reached_before(&store).await?;
    let found = Found { states: &mut states, main, begins: source.begins, confirmed, missed, behind };
    let Opened { relay, writer, plan, holds, behind } = open_relay(&pipeline, &store, &data_dir, found).await?;
    relay.require_durable(pipeline.settings.ack == Ack::Relay);
    let touched = Touched::read(&store, main.commit).await?;
    let notes = backlog::Notes::open(&store, pipeline.settings.ack).await?;
    let board = Arc::new(Board::new(&pipeline.id, &slot, &pipeline.settings));
    show(&board, table_statuses(&published, &successors, &states), main, confirmed);
    board.owes(is_owing);
    board.ends_at(source.until);
    let stop = Arc::new(watch::Sender::new(Stop::No));
    let (requests, main_ear) = mpsc::channel(16);
    let (orders, wishes) = mpsc::channel(16);
    let (changed, left_changed) = mpsc::unbounded_channel();
    let (failed, left_failed) = mpsc::unbounded_channel();
    board.reached(behind.unwrap_or(confirmed));
    let pace = Pace::new(&pipeline.settings.copy, &pipeline.source.wal_guard);
    let run = Arc::new(Run {
        source: pipeline.source,
        settings: pipeline.settings,
        store,
        destination: AnyDestination::new(Metered::new(pipeline.destination, &pipeline.id)),
        relay,
        progress: Progress::new(confirmed, behind.unwrap_or(confirmed)),
        pace,
        board: Arc::clone(&board),
        stop: Arc::clone(&stop),
        requests,
        streams: Streams::of(&published),
        published: PublishedTables::new(published),
        changed,
        failed,
        quarantines: Quarantines::of(&states),
        states: States::new(states),
        wished,
        copied_files: CopiedFiles::default(),
        idle: IdleConnections::default(),
        strangers: Notify::new(),
        settling: AsyncMutex::default(),
        notes: AsyncMutex::new(notes),
        touched,
        publication: source.publication,
        slot,
        until: source.until,
        _data_dir: data_dir,
    });
    leave_main(&run, &plan, main).await?;
    say_if_shown_in_parts(&run);
    let handle = PipelineHandle { stop, board, orders };
    // What was confirmed may come again, but is durable, unless the relay has it alone.
    let durable = main.max(Position::new(behind.unwrap_or(confirmed), 0));
    let assembler = Assembler::new(shared_tables(&run, &plan, durable));
    let applier = Applier::open(&run, CursorId::Main, main, assembler, main_ear)?;
    let (seen, until) = ((source.looked_at, acted), source.until);
    let work = Work { plan, holds, wishes, left_changed, left_failed, seen, until };
    let task = tokio::spawn(supervise(run, applier, writer, work));
    Ok(RunningPipeline { handle, task })
}

/// Whoever reads the destination sees a run that ends by itself come bit by bit, where the destination cannot do better.
fn say_if_shown_in_parts(run: &Run) {
    if run.until.is_some() && run.shown_whole(CursorId::Main).is_none() {
        tracing::warn!(
            destination = run.destination.name(),
            "the destination cannot show all changes of a run at once: they are shown commit by commit"
        );
    }
}

/// Shows what was found.
fn show(board: &Board, tables: Vec<TableStatus>, main: Position, confirmed: Lsn) {
    board.update(|status| {
        status.tables = tables;
        status.durable = Some(main).filter(|main| *main > Position::ZERO);
        status.confirmed = confirmed;
    });
}

/// What was found at the source.
struct Source {
    publication: String,
    tables: Vec<PublishedTable>,
    leaving: Leaving,
    /// Where the stream will begin.
    begins: Lsn,
    /// Where the run ends by itself.
    until: Option<Lsn>,
    /// What happened to publication and tables since the last run, and where that was looked at.
    stale: Stale,
    looked_at: Lsn,
}

impl Source {
    async fn connect(pipeline: &Pipeline, store: &SharedStore, data_dir: &DataDir, slot: &str) -> EtlResult<Self> {
        let options = pipeline.source.connect.for_purpose("start");
        let session = Session::connect(&options).await?;
        let client = session.client();
        let server_version = session.server_version();
        check_two_phase(pipeline.source.two_phase, server_version)?;
        check_origin(pipeline.source.origin, server_version)?;
        let level = client.query_one("SHOW wal_level", &[]).await.map_err(|e| query_error("ask for wal_level", e))?;
        let level: String = level.get(0);
        if level != "logical" {
            return Err(EtlError::new(
                ErrorKind::SourceSetup,
                "the server does not write its WAL for logical decoding",
            )
            .with("wal_level", level)
            .hint("ALTER SYSTEM SET wal_level = 'logical'; then restart the server"));
        }
        if is_standby(client).await? {
            can_read_standby(&pipeline.source, server_version)?;
        }
        let publication = ensure_publication(client, &pipeline.source, &pipeline.id, server_version).await?;
        // Before the tables are described: what changes in between is found by the next look.
        let (looked_at, seen) = look(client, &publication, server_version).await?;
        let stale =
            stale_since_last_run(client, store, seen, server_version, pipeline.source.on_partition_gone).await?;
        let tables = published_tables(client, &publication, server_version).await?;
        let leaving = Leaving::find(client, store, &pipeline.source.transform, &tables, server_version).await?;
        let mut replication = Connection::connect_replication(&options).await?;
        let continuity = Continuity {
            pipeline,
            store,
            session: &session,
            replication: &mut replication,
            slot,
            publication: &publication,
            relay: data_dir.relay(),
        };
        let begins = continuity.settle().await?;
        let until = end_of(pipeline.settings.mode, &session).await?;
        Ok(Self { publication, tables, leaving, begins, until, stale, looked_at })
    }
}

/// Where the main cursor stands: what the destination stored with its data counts, where it stores anything.
async fn main_position(
    store: &SharedStore,
    destination: &impl Destination,
    states: &HashMap<TableId, TableState>,
) -> EtlResult<Position> {
    let stored = store.progress().await?.cursor(CursorId::Main);
    if !destination.capabilities().atomic {
        return Ok(stored.unwrap_or_default());
    }
    let durable = destination.durable_position(CursorId::Main).await?;
    let has_ready = states.values().any(|state| state.phase == Phase::Ready);
    match (durable, stored) {
        (None, Some(stored)) if has_ready => Err(EtlError::new(
            ErrorKind::SourceIdentity,
            "the destination does not know this pipeline: it was replaced, or its state was removed",
        )
        .with("destination", destination.name())
        .with("stored position", stored)
        .hint("Bring the old destination back, or remove the data_dir and the slot to copy everything again")),
        (durable, _) => Ok(durable.unwrap_or_default()),
    }
}

/// A table that had joined the main cursor, durably, may go on with one of its own: nobody heard of it, or it joined before
/// its copy's position. It leaves before anything is written, as any other does: from here on the destination knows its
/// place by itself, and does not take what the main cursor writes for written of this table, too (`SOURCE.md` R17).
async fn leave_main(run: &Run, plan: &Plan, main: Position) -> EtlResult<()> {
    if !run.destination.capabilities().atomic {
        return Ok(());
    }
    // The place of one that had not joined is another, or the same already.
    let has_joined = |begin: &Begin| matches!(begin, Begin::CatchUp { from, .. } if *from == main);
    let joined = plan.iter().filter(|(_, begin)| has_joined(begin)).map(|(table, _)| (*table, CursorId::Table(*table)));
    let batch = Batch { cursor: CursorId::Main, from: main, upto: main, moves: joined.collect(), is_piece: false };
    if batch.moves.is_empty() {
        return Ok(());
    }
    retry(RetryPolicy::default(), async || run.destination.write_batch(batch.clone(), Vec::new()).await).await
}

type Plan = HashMap<TableId, Begin>;

/// Readers of the tables that go on catching up.
type Holds = HashMap<TableId, Reader>;

/// What is known when the relay is opened.
struct Found<'a> {
    states: &'a mut HashMap<TableId, TableState>,
    main: Position,
    begins: Lsn,
    /// What the source was told.
    confirmed: Lsn,
    /// The end of the last prepared transaction that nobody needs any more although it was lost.
    missed: Lsn,
    /// How far the main cursor is at least, where that is less.
    behind: Option<Lsn>,
}

struct Opened {
    relay: Relay,
    writer: RelayWriter,
    plan: Plan,
    holds: Holds,
    /// As it was found, unless the relay was lost.
    behind: Option<Lsn>,
}

/// Nothing of the tables' copies counts any more. Of one that is not published the state would say for ever that there is
/// something to wait for before it goes.
pub(super) async fn forget_copies(
    store: &SharedStore,
    states: &mut HashMap<TableId, TableState>,
    tables: &[TableId],
) -> EtlResult<()> {
    for (id, state) in states.iter_mut().filter(|(id, _)| tables.contains(id)) {
        let (revision, pending) = (state.revision, TableState { phase: Phase::Pending, ..state.clone() });
        let revision = store.set_table_state(*id, Some(revision), pending.clone()).await?;
        *state = TableState { revision, ..pending };
    }
    Ok(())
}

/// Opens the relay with what the tables still need of it, and decides what each table begins with.
async fn open_relay(
    pipeline: &Pipeline,
    store: &SharedStore,
    data_dir: &DataDir,
    found: Found<'_>,
) -> EtlResult<Opened> {
    let tail_bytes = relay_tail(&pipeline.settings);
    let open = || Relay::open(data_dir.relay(), pipeline.settings.relay.clone(), tail_bytes);
    let (relay, mut writer) = match open().await {
        Err(error) if error.kind() == ErrorKind::Relay => {
            tracing::warn!(%error, "the relay is damaged: tables that have not caught up are copied again");
            Relay::remove(data_dir.relay()).await?;
            open().await?
        }
        opened => opened?,
    };
    let mut behind = found.behind;
    // What it holds no more was durable for everybody.
    let reaches = relay.head().end >= found.confirmed;
    writer.begin_at(found.begins);
    relay.confirmed(found.confirmed.max(found.missed));
    if behind.is_some() && !reaches {
        backlog::is_lost(store, found.states, found.confirmed).await?;
        behind = None;
    }
    let progress = store.progress().await?;
    // Up to here all counts as durable of the tables that share the main cursor.
    let passed = behind.unwrap_or(found.confirmed);
    let last = relay.head().last.map_or(Lsn::ZERO, |last| last.commit);
    let (mut plan, mut holds, mut lost) = (Plan::new(), HashMap::new(), Vec::new());
    for (id, state) in &*found.states {
        let durable = pipeline.destination.durable_position(CursorId::Table(*id)).await?;
        let own = durable.or_else(|| progress.cursor(CursorId::Table(*id)));
        let from = reads_on_from(&state.phase, own);
        let relay_holds = relay.holds(start_after(from.unwrap_or_default()));
        let is_replaced = pipeline.destination.capabilities().atomic && durable.is_none();
        let is_level = own.is_none_or(|own| passed.0 <= own.commit.0.saturating_add(1) || last <= own.commit);
        let begin = begin(state, Known { main: found.main, own, relay_holds, is_level, is_replaced });
        match (&state.phase, &begin) {
            (waiting, Begin::Rest) if waiting.held().is_some_and(|held| held.cursor.is_some()) => {
                tracing::warn!(table = %id, phase = waiting.name(), "the relay does not hold what the table has to read: it is copied once it goes on");
            }
            (Phase::CatchingUp { .. } | Phase::Copying { so_far: Some(_), .. }, Begin::Copy { .. }) => {
                tracing::warn!(table = %id, is_replaced, relay_holds, "relay or destination lost what the table has to go on with: it is copied again");
                lost.push(*id);
            }
            // Nothing is freed before the table reads: its reader is there before any other.
            (_, Begin::CatchUp { .. } | Begin::Resume | Begin::Wait) => {
                let mut hold = relay.reader_of(CursorId::Table(*id), start_after(from.unwrap_or_default()))?;
                hold.stay();
                holds.insert(*id, hold);
            }
            _ => {}
        }
        plan.insert(*id, begin);
    }
    forget_copies(store, found.states, &lost).await?;
    let has_backlog = behind.is_some() || pipeline.settings.ack == Ack::Relay;
    if has_backlog || relay.has_prepared() || plan.values().any(Begin::needs_relay) {
        return Ok(Opened { relay, writer, plan, holds, behind });
    }
    drop((relay, writer));
    Relay::remove(data_dir.relay()).await?;
    let (relay, mut writer) = open().await?;
    writer.begin_at(found.begins);
    relay.confirmed(found.confirmed.max(found.missed));
    Ok(Opened { relay, writer, plan, holds, behind })
}

/// What the main cursor follows from the start, after what is durable.
fn shared_tables(run: &Run, plan: &Plan, durable: Position) -> Vec<(TableId, Follow)> {
    let shared = plan.iter().filter_map(|(id, begin)| match begin {
        Begin::Share { after, snapshot } => {
            let selection = run.selection(*id).ok()?;
            let after = if snapshot.is_none() { durable } else { *after };
            Some((*id, Follow { selection, after, seen: snapshot.clone() }))
        }
        _ => None,
    });
    shared.collect()
}

fn table_statuses(
    tables: &[Published],
    successors: &[PublishedTable],
    states: &HashMap<TableId, TableState>,
) -> Vec<TableStatus> {
    let mut statuses: Vec<TableStatus> = tables
        .iter()
        .map(|published| &*published.table)
        .chain(successors)
        .map(|table| {
            let mut status = TableStatus::of(table, Phase::Pending.name());
            if let Some(state) = states.get(&table.schema.id) {
                status.shows(&state.phase);
            }
            status
        })
        .collect();
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    statuses
}

/// What there is to do for the tables.
struct Work {
    plan: Plan,
    holds: Holds,
    wishes: mpsc::Receiver<Order>,
    left_changed: mpsc::UnboundedReceiver<LeftChanged>,
    left_failed: mpsc::UnboundedReceiver<LeftFailed>,
    /// What the tables were begun with.
    seen: (Lsn, Look),
    /// Where the run ends by itself.
    until: Option<Lsn>,
}

/// Runs all parts until one fails or all are told to stop; the first error ends them all.
async fn supervise(run: Arc<Run>, mut main: Applier, writer: RelayWriter, work: Work) -> EtlResult<Finished> {
    let Work { mut plan, mut holds, wishes, left_changed, left_failed, seen, until } = work;
    let (over, is_over) = watch::channel(false);
    let mut writers = JoinSet::new();
    let mut keepers = JoinSet::new();
    let (tell, told) = mpsc::channel::<Told>(1);
    let mut tables = Tables::new(&run, wishes, told, left_changed, left_failed);
    for id in run.published.ids() {
        let begin = plan.remove(&id).unwrap_or(Begin::Copy { generation: 1 });
        match begin {
            Begin::Share { after, .. } if after > Position::ZERO => main.joins_after(id, after.commit),
            _ => {}
        }
        tables.begin(id, begin, holds.remove(&id));
    }
    writers.spawn(Box::pin(tables.work()));
    writers.spawn(Box::pin(async move { main.work().await }));
    keepers.spawn(Box::pin(receive(Arc::clone(&run), writer, is_over.clone())));
    keepers.spawn(Box::pin(confirm(Arc::clone(&run), is_over.clone())));
    keepers.spawn(Box::pin(relieve(Arc::clone(&run), is_over.clone())));
    keepers.spawn(Box::pin(report(Arc::clone(&run), is_over.clone())));
    keepers.spawn(Box::pin(watch_tables(Arc::clone(&run), tell, seen, is_over.clone())));
    if let Some(until) = until {
        keepers.spawn(Box::pin(end_at(Arc::clone(&run), until, is_over.clone())));
    }
    keepers.spawn(Box::pin(pulse(Arc::clone(&run), is_over.clone())));
    keepers.spawn(Box::pin(answer_targets(Arc::clone(&run), is_over)));

    let mut failed = first_failure(&run, &mut writers, &mut keepers).await;
    // Everything is written; what is left is to confirm it and to say goodbye.
    over.send_replace(true);
    while let Some(ended) = keepers.join_next().await {
        failed = failed.and(flatten(ended));
    }
    let given_up = give_up_slot(&run, &failed).await;
    let shut = run.destination.shutdown().await;
    let finished = Finished { quarantined: run.states.quarantined(), ..Finished::default() };
    failed.and(given_up).and(shut).map(|()| finished)
}

type Ended = Result<EtlResult<()>, tokio::task::JoinError>;

/// Waits until all writers are done; on the first failure tells everybody to end.
async fn first_failure(
    run: &Run,
    writers: &mut JoinSet<EtlResult<()>>,
    keepers: &mut JoinSet<EtlResult<()>>,
) -> EtlResult<()> {
    let mut failed = Ok(());
    while !writers.is_empty() {
        let ended = tokio::select! {
            Some(ended) = writers.join_next() => flatten(ended),
            Some(ended) = keepers.join_next() => flatten(ended),
        };
        if let Err(error) = ended
            && failed.is_ok()
        {
            if error.kind() != ErrorKind::Cancelled {
                tracing::error!(%error, "the pipeline cannot go on");
                run.board.failed(&error);
            }
            failed = Err(error);
            run.stop.send_replace(Stop::Abort);
            writers.abort_all();
        }
    }
    failed
}

fn flatten(ended: Ended) -> EtlResult<()> {
    match ended {
        Ok(done) => done,
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(EtlError::new(ErrorKind::Internal, "a part of the pipeline was cut short").because(error)),
    }
}

async fn pulse(run: Arc<Run>, over: watch::Receiver<bool>) -> EtlResult<()> {
    match run.source.heartbeat {
        Some(interval) => heartbeat(&run.source.connect, interval, &run.slot, over).await,
        None => Ok(()),
    }
}

/// Asks the source how far it has flushed whenever somebody wants to know when that is caught up.
async fn answer_targets(run: Arc<Run>, mut over: watch::Receiver<bool>) -> EtlResult<()> {
    let mut targets = run.board.targets();
    loop {
        tokio::select! {
            wanted = targets.wait_for(|target| *target == Target::Wanted) => if wanted.is_err() { return Ok(()) },
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
        let options = run.source.connect.for_purpose("status");
        let ask = async || flushed(&Session::connect(&options).await?).await;
        run.board.set_target(retry(RetryPolicy::default(), ask).await?);
    }
}
