//! Where does the engine stand now? A destination in memory that can be held, and remembers what it was told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etl::data::{Change, CopiedRows, Event, Op, RawValue, TableRow};
use etl::destination::{Batch, Capabilities, CopyChunk, Destination, MemoryDestination, StagedRun, TextRow};
use etl::schema::{TableId, TableSchema};
use etl::{CursorId, ErrorKind, EtlError, EtlResult, Position};
use tokio::sync::watch;

/// Nothing takes longer, on a slow machine neither.
const LONG: Duration = Duration::from_secs(180);

/// What a destination is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// A table is emptied: its cursor is fixed, its snapshot is not yet taken.
    Truncate,
    /// The first call of a copy, without rows: the snapshot is taken, nothing is read.
    CopyBegins,
    /// Copied rows.
    CopyRows,
    /// Copied rows, after so many as are [enough](Watched::hold_copy_after).
    CopyGoesOn,
    /// Copied rows that [lag](Watched::let_a_copy_lag).
    CopyLags,
    /// A batch, be it of joining tables alone.
    Batch,
    /// A batch with changes.
    Changes,
    /// A batch with changes of a table that has a cursor of its own.
    OwnChanges,
    /// A run is shown.
    Finalize,
    /// Nothing more comes.
    Shutdown,
}

/// What goes wrong with a call, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing.
    Refused,
    /// It does what it should, and nobody hears of it.
    Unheard,
}

/// A change as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) cursor: CursorId,
    pub(crate) table: TableId,
    pub(crate) position: Position,
    /// `insert`, `update` or `delete`.
    pub(crate) op: &'static str,
    /// The new row, or the old one of a delete; what is unknown reads `<unchanged>`.
    pub(crate) row: TextRow,
}

/// Which calls wait.
#[derive(Debug, Default)]
struct Hold {
    calls: Vec<Call>,
    /// Those of which one goes on all the same.
    passes: Vec<Call>,
    /// How many have.
    passed: usize,
}

impl Hold {
    fn lets(&self, call: Call) -> bool {
        !self.calls.contains(&call) || self.passes.contains(&call)
    }

    /// Whether the call goes on, and whether it took a pass for that.
    fn take(&mut self, call: Call) -> (bool, bool) {
        let pass = self.passes.iter().position(|passing| *passing == call).filter(|_| self.calls.contains(&call));
        let goes_on = self.lets(call);
        (goes_on, pass.map(|place| self.passes.swap_remove(place)).is_some())
    }
}

/// Clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    memory: MemoryDestination,
    hold: watch::Sender<Hold>,
    /// The call that waits now, the last one of several.
    waiting: watch::Sender<Option<Call>>,
    /// All that wait.
    all_waiting: watch::Sender<Vec<Call>>,
    told: Arc<Mutex<Vec<Told>>>,
    copied: Arc<AtomicUsize>,
    enough: Arc<AtomicUsize>,
    faults: Arc<Mutex<Vec<(Call, Fault)>>>,
    shutdowns: Arc<AtomicUsize>,
    runs: Arc<Mutex<Vec<String>>>,
    atomic: bool,
    /// The next write of copied rows waits, and comes to its end although nobody may wait for it by then.
    lags: Arc<AtomicBool>,
}

/// A call that waits, until this is dropped.
struct Waits<'a> {
    all: &'a watch::Sender<Vec<Call>>,
    call: Call,
}

impl<'a> Waits<'a> {
    fn new(all: &'a watch::Sender<Vec<Call>>, call: Call) -> Self {
        all.send_modify(|waiting| waiting.push(call));
        Self { all, call }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.all.send_modify(|waiting| {
            waiting.iter().position(|held| *held == self.call).map(|place| waiting.swap_remove(place));
        });
    }
}

impl Watched {
    pub(crate) fn new(memory: MemoryDestination, atomic: bool) -> Self {
        let (hold, waiting) = (watch::Sender::new(Hold::default()), watch::Sender::new(None));
        let enough = Arc::new(AtomicUsize::new(usize::MAX));
        let all_waiting = watch::Sender::new(Vec::new());
        let (told, copied, faults, shutdowns) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let runs = Arc::default();
        Self {
            memory,
            hold,
            waiting,
            all_waiting,
            told,
            copied,
            enough,
            faults,
            shutdowns,
            runs,
            atomic,
            lags: Arc::default(),
        }
    }

    /// The next write of copied rows waits, and comes to its end although nobody may wait for it by then.
    pub(crate) fn let_a_copy_lag(&self) {
        self.lags.store(true, Ordering::SeqCst);
        self.hold(Call::CopyLags);
    }

    /// From now on, calls for this wait.
    pub(crate) fn hold(&self, call: Call) {
        self.hold.send_modify(|hold| hold.calls.push(call));
    }

    /// Once so many rows have come, the next ones wait.
    pub(crate) fn hold_copy_after(&self, rows: usize) {
        self.enough.store(self.copied() + rows, Ordering::SeqCst);
        self.hold(Call::CopyGoesOn);
    }

    /// So many batches from now on are refused.
    pub(crate) fn fail_batches(&self, count: usize) {
        (0..count).for_each(|_| self.fail(Call::Batch, Fault::Refused));
    }

    /// Every call goes on.
    pub(crate) fn release(&self) {
        self.hold.send_modify(|hold| hold.calls.clear());
        self.waiting.send_replace(None);
    }

    /// Calls for this go on.
    pub(crate) fn release_one(&self, call: Call) {
        self.hold.send_modify(|hold| hold.calls.retain(|held| *held != call));
    }

    /// The call for this that waits goes on, and the next one waits again.
    pub(crate) async fn let_one_pass(&self, call: Call) {
        self.are_held(call, 1).await;
        let mut hold = self.hold.subscribe();
        let passed = hold.borrow().passed;
        self.hold.send_modify(|hold| hold.passes.push(call));
        hold.wait_for(|hold| hold.passed > passed).await.unwrap();
        self.are_held(call, 1).await;
    }

    /// Waits until such a call waits.
    pub(crate) async fn is_held(&self, call: Call) {
        let mut waiting = self.waiting.subscribe();
        let held = waiting.wait_for(|waiting| *waiting == Some(call));
        let held = tokio::time::timeout(LONG, held).await;
        held.unwrap_or_else(|_| panic!("no call for {call:?}")).unwrap();
    }

    /// Waits until so many such calls wait.
    pub(crate) async fn are_held(&self, call: Call, count: usize) {
        let mut waiting = self.all_waiting.subscribe();
        let held = waiting.wait_for(|waiting| waiting.iter().filter(|held| **held == call).count() >= count);
        let held = tokio::time::timeout(LONG, held).await;
        held.unwrap_or_else(|_| panic!("not {count} calls for {call:?}")).unwrap();
    }

    /// Waits until no call waits any more: those of a run that was aborted are dropped a little later than it ends.
    pub(crate) async fn nobody_waits(&self) {
        let mut waiting = self.all_waiting.subscribe();
        let gone = tokio::time::timeout(LONG, waiting.wait_for(Vec::is_empty)).await;
        gone.expect("a call waits on although its run has ended").unwrap();
    }

    /// The next call for this goes wrong.
    pub(crate) fn fail(&self, call: Call, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push((call, fault));
    }

    /// From now on every call for this goes wrong, and nothing else does.
    pub(crate) fn fail_each(&self, call: Call, fault: Fault) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = vec![(call, fault); 1000];
    }

    /// Whether everything that was to go wrong has.
    pub(crate) fn has_failed(&self) -> bool {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// How often it was told that nothing more comes.
    pub(crate) fn shutdowns(&self) -> usize {
        self.shutdowns.load(Ordering::SeqCst)
    }

    /// How runs began and ended that are staged.
    pub(crate) fn runs(&self) -> Vec<String> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn fault(&self, call: Call) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let place = faults.iter().position(|(failing, _)| *failing == call)?;
        Some(faults.remove(place).1)
    }

    async fn go_wrong(&self, call: Call, work: impl Future<Output = EtlResult<()>>) -> EtlResult<()> {
        let fault = self.fault(call);
        if fault != Some(Fault::Refused) {
            work.await?;
        }
        match fault {
            Some(fault) => Err(EtlError::new(ErrorKind::DestinationUnavailable, format!("on purpose: {fault:?}"))),
            None => Ok(()),
        }
    }

    /// How many copied rows have come.
    pub(crate) fn copied(&self) -> usize {
        self.copied.load(Ordering::SeqCst)
    }

    /// All changes so far, repeated ones too.
    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn pass(&self, call: Call) {
        let mut hold = self.hold.subscribe();
        if !hold.borrow().calls.contains(&call) {
            return;
        }
        self.waiting.send_replace(Some(call));
        let waits = Waits::new(&self.all_waiting, call);
        let has_pass = loop {
            let _ = hold.wait_for(|hold| hold.lets(call)).await;
            let (mut goes_on, mut has_pass) = (false, false);
            self.hold.send_if_modified(|hold| {
                (goes_on, has_pass) = hold.take(call);
                has_pass
            });
            if goes_on {
                break has_pass;
            }
        };
        drop(waits);
        if has_pass {
            self.hold.send_modify(|hold| hold.passed += 1);
        }
    }

    async fn copy(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        let before = self.copied.fetch_add(table_rows.len(), Ordering::SeqCst);
        let call = if table_rows.is_empty() { Call::CopyBegins } else { Call::CopyRows };
        self.pass(call).await;
        if before >= self.enough.load(Ordering::SeqCst) {
            self.pass(Call::CopyGoesOn).await;
        }
        self.go_wrong(call, self.memory.write_copy_chunk(table_id, chunk, table_rows)).await
    }

    fn note(&self, cursor: CursorId, events: &[Event]) {
        let changes = events.iter().filter_map(|event| match event {
            Event::Change(change) => Some(told(cursor, change)),
            _ => None,
        });
        self.told.lock().unwrap_or_else(PoisonError::into_inner).extend(changes);
    }
}

fn told(cursor: CursorId, change: &Change) -> Told {
    let (op, row) = match &change.op {
        Op::Insert { new } => ("insert", new),
        Op::Update { new, .. } => ("update", new),
        Op::Delete { old } => ("delete", old.row()),
    };
    let value = |column| match row.raw(column) {
        RawValue::Unchanged => Some("<unchanged>".to_owned()),
        _ => row.text(column).unwrap().map(Into::into),
    };
    let row = (0..row.schema().columns.len()).map(value).collect();
    Told { cursor, table: change.table_id, position: change.position, op, row }
}

impl Destination for Watched {
    async fn truncate_table(&self, table_id: TableId) -> EtlResult<()> {
        self.pass(Call::Truncate).await;
        self.go_wrong(Call::Truncate, self.memory.truncate_table(table_id)).await
    }

    async fn write_table_rows(&self, table_id: TableId, table_rows: Vec<TableRow>) -> EtlResult<()> {
        self.memory.write_table_rows(table_id, table_rows).await
    }

    async fn write_events(&self, events: Vec<Event>) -> EtlResult<()> {
        self.memory.write_events(events).await
    }

    fn capabilities(&self) -> Capabilities {
        if self.atomic { self.memory.capabilities() } else { Capabilities::default().with_schema_changes() }
    }

    fn replaces_copied_rows(&self, schema: &Arc<TableSchema>) -> bool {
        self.memory.replaces_copied_rows(schema)
    }

    async fn write_copy_chunk(&self, table_id: TableId, chunk: CopyChunk, table_rows: CopiedRows) -> EtlResult<()> {
        if table_rows.is_empty() || !self.lags.swap(false, Ordering::SeqCst) {
            return self.copy(table_id, chunk, table_rows).await;
        }
        let watched = self.clone();
        let lagging = tokio::spawn(async move {
            watched.pass(Call::CopyLags).await;
            watched.copy(table_id, chunk, table_rows).await
        });
        lagging.await.unwrap()
    }

    async fn write_batch(&self, batch: Batch, events: Vec<Event>) -> EtlResult<()> {
        self.note(batch.cursor, &events);
        self.pass(Call::Batch).await;
        if events.iter().any(|event| matches!(event, Event::Change(_))) {
            self.pass(Call::Changes).await;
            if matches!(batch.cursor, CursorId::Table(_)) {
                self.pass(Call::OwnChanges).await;
            }
        }
        self.go_wrong(Call::Batch, self.memory.write_batch(batch, events)).await
    }
    async fn shutdown(&self) -> EtlResult<()> {
        self.shutdowns.fetch_add(1, Ordering::SeqCst);
        self.go_wrong(Call::Shutdown, self.memory.shutdown()).await
    }

    async fn begin_run(&self, run: StagedRun) -> EtlResult<()> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(format!("begin {}", run.id));
        self.memory.begin_run(run).await
    }

    async fn finalize_run(&self, run: StagedRun) -> EtlResult<()> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(format!("finalize {}", run.id));
        self.pass(Call::Finalize).await;
        self.go_wrong(Call::Finalize, self.memory.finalize_run(run)).await
    }

    async fn abandon_run(&self, run: StagedRun) -> EtlResult<()> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(format!("abandon {}", run.id));
        self.memory.abandon_run(run).await
    }

    async fn go_back(&self, to: Position) -> EtlResult<()> {
        self.memory.go_back(to).await
    }

    async fn durable_position(&self, cursor: CursorId) -> EtlResult<Option<Position>> {
        if self.atomic { self.memory.durable_position(cursor).await } else { Ok(None) }
    }
}
