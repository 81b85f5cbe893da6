//! Who sees that tables come, go, and change without a word in the stream? One task that looks from time to time.

mod copied;
mod found;
mod since;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub(super) use self::copied::CopiedFiles;
pub(super) use self::found::is_of_partitions;
use self::found::{ATTACHED, Found, REPARTITIONED, REWRITTEN, What, compare};
pub(super) use self::since::{Stale, stale_since_last_run};
use self::since::{kept, needs_another_stream, remember};
use super::control::Stop;
use super::run::Run;
use crate::error::{ErrorKind, EtlError, EtlResult, RetryClass};
use crate::lsn::Lsn;
use crate::postgres::Session;
use crate::retry;
use crate::schema::{TableId, TableName, TablePatterns, TableSchema};
use crate::source::{
    Leaf, Look, PublishedTable, Sight, are_empty, extend_own, has_confirmed, look, published_table, wal_end,
};
use crate::store::Phase;

/// How long a look may wait for the next word of a table that nobody knows.
const NOT_SOONER: Duration = Duration::from_millis(200);

/// How long what could not be acted on waits at most.
const NOT_LATER: Duration = Duration::from_secs(2);

/// What the task of the tables is told.
#[derive(Debug)]
pub(super) enum Finding {
    /// A table is published.
    Added(Box<PublishedTable>),
    /// A table is published no more, and everything before that is durable.
    Gone(TableId),
    /// What the destination has of a table may be wrong since a position, for this reason; the copy of this generation was
    /// its last one before somebody looked.
    Stale { table: TableId, why: &'static str, since: Lsn, generation: u64 },
    /// A table is called so, and all that was written before is durable.
    Renamed { table: TableId, name: TableName },
}

/// A finding, and who waits until something was done about it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) finding: Finding,
    pub(super) answer: oneshot::Sender<EtlResult<()>>,
}

/// Looks and tells.
struct Watcher {
    run: Arc<Run>,
    tables: mpsc::Sender<Told>,
    session: Option<Session>,
    /// What was seen, as far as it was acted on.
    acted: Look,
    /// Whether that is not everything.
    is_owing: bool,
    /// Where the last look was taken.
    at: Lsn,
    /// Which copies there were then.
    generations: HashMap<TableId, u64>,
    /// Tables that are published no more, and where the WAL ended when that was seen.
    leaving: HashMap<TableId, Lsn>,
    /// The same of tables whose partitions came or went, while the stream has to pass that.
    repartitioned: HashMap<TableId, Lsn>,
    /// What tables are called now, and where the WAL ended when that was seen.
    renamed: HashMap<TableId, (TableName, Lsn)>,
    /// Tables about which it was said why they cannot be taken in.
    refused: HashSet<TableName>,
}

/// Watches until the pipeline ends. `acted` is what the tables were begun with, seen at `at`.
///
/// # Errors
/// [`SourceSetup`](ErrorKind::SourceSetup) where the publication is gone.
pub(super) async fn watch(
    run: Arc<Run>,
    tables: mpsc::Sender<Told>,
    (at, acted): (Lsn, Look),
    mut over: watch::Receiver<bool>,
) -> EtlResult<()> {
    let mut stop = run.stop.subscribe();
    let mut watcher = Watcher {
        run: Arc::clone(&run),
        tables,
        session: None,
        acted,
        is_owing: false,
        at,
        generations: HashMap::new(),
        leaving: HashMap::new(),
        repartitioned: HashMap::new(),
        renamed: HashMap::new(),
        refused: HashSet::new(),
    };
    let patience = run.source.connect.connect_timeout.max(Duration::from_secs(30));
    loop {
        tokio::select! {
            () = next_look(&run, watcher.is_owing) => {}
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
            _ = over.wait_for(|over| *over) => return Ok(()),
        }
        let seen = tokio::select! {
            seen = tokio::time::timeout(patience, watcher.look()) => seen,
            _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
        };
        let acted = match seen {
            Ok(Ok((at, now))) => tokio::select! {
                acted = watcher.act(at, now) => acted,
                _ = stop.wait_for(|stop| *stop != Stop::No) => return Ok(()),
            },
            Ok(Err(error)) => Err(error),
            Err(_) => Err(EtlError::new(ErrorKind::SourceUnavailable, "the source does not answer")),
        };
        match acted {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Cancelled => return Ok(()),
            Err(error) if error.kind() == ErrorKind::SourceSetup => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "the publication could not be looked at");
                watcher.session = None;
            }
        }
    }
}

/// Waits for the next look: for a while, or until rows of a table come that nobody knows.
async fn next_look(run: &Run, is_owing: bool) {
    let every = match is_owing {
        _ if run.board.is_owing() => NOT_SOONER,
        true => run.source.watch_every.min(NOT_LATER),
        false => run.source.watch_every,
    };
    retry::pause(NOT_SOONER.min(every)).await;
    let rest = every.saturating_sub(NOT_SOONER);
    tokio::select! {
        () = retry::pause(rest) => {}
        () = run.strangers.notified() => {}
    }
}

impl Watcher {
    async fn look(&mut self) -> EtlResult<(Lsn, Look)> {
        let run = Arc::clone(&self.run);
        self.generations = run.states.generations();
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&run.source.connect.for_purpose("watch")).await?,
        };
        if run.source.publication.is_none() {
            let patterns = TablePatterns::new(&run.source.tables);
            let refused = extend_own(session.client(), &patterns, &run.publication).await?;
            // Where somebody alters the table, the next look tries again.
            let is_for_good = |error: &EtlError| error.retry_class() != RetryClass::Transient;
            for (table, error) in refused.into_iter().filter(|(_, error)| is_for_good(error)) {
                self.refuse(table, &error);
            }
        }
        let seen = look(session.client(), &run.publication, session.server_version()).await?;
        self.session = Some(session);
        Ok(seen)
    }

    /// Says once why a table is not taken in.
    fn refuse(&mut self, table: TableName, error: &EtlError) {
        if self.refused.insert(table) {
            tracing::warn!(%error, "a table is left out");
            self.run.board.failed(error);
        }
    }

    /// Acts on all that has happened since the last look.
    async fn act(&mut self, at: Lsn, now: Look) -> EtlResult<()> {
        if now.publication.is_none() {
            return Err(dropped(&self.run.publication));
        }
        let found = renames_in_order(compare(&self.acted, &now), &self.acted, &now);
        let mut next = now.clone();
        self.is_owing = false;
        let mut keeps_waiting = false;
        let gone = |table| found.iter().any(|found| found.table == table && found.what == What::Gone);
        self.leaving.retain(|table, _| gone(*table));
        for found in &found {
            if self.act_on(found, &now).await? {
                continue;
            }
            // It is found again by the next look.
            self.is_owing = true;
            let waits = self.run.states.get(found.table).phase.held().is_some();
            keeps_waiting |= matches!(found.what, What::Renamed | What::Gone) && !waits;
            let id = found.table.0;
            match self.acted.tables.get(&id) {
                Some(before) => next.tables.insert(id, before.clone()),
                None => next.tables.remove(&id),
            };
            if !matches!(found.what, What::Added | What::Gone | What::Renamed) {
                next.publication.clone_from(&self.acted.publication);
            }
        }
        self.at = at;
        if !keeps_waiting {
            self.run.board.owes(false);
        }
        if next != self.acted {
            remember(&self.run.store, &next).await?;
            self.acted = next;
        }
        Ok(())
    }

    /// Whether it is done.
    async fn act_on(&mut self, Found { table, what }: &Found, now: &Look) -> EtlResult<bool> {
        let version = self.session.as_ref().map_or(0, Session::server_version);
        match &kept(what.clone(), self.run.source.on_partition_gone, version) {
            What::Added => self.added(*table, now).await,
            What::Gone => self.gone(*table).await,
            What::Stale(why) => self.stale(*table, why).await,
            What::Emptied(attached) if !attached.is_empty() => self.repartitioned(*table, REPARTITIONED).await,
            What::Rewritten | What::Emptied(_) => match now.tables.get(&table.0) {
                Some(sight) if self.run.copied_files.are_those_of(*table, sight) => Ok(true),
                _ => self.stale(*table, REWRITTEN).await,
            },
            What::Attached(leaves) => {
                if self.is_empty(leaves).await {
                    tracing::info!(table = %self.run.name(*table), partitions = leaves.len(), "there are new partitions");
                    self.moved(*table, now).await?;
                    return Ok(true);
                }
                self.repartitioned(*table, ATTACHED).await
            }
            What::Repartitioned | What::Lost(_) => self.repartitioned(*table, REPARTITIONED).await,
            What::Renamed => {
                let is_done = self.renamed(*table, now).await?;
                if is_done {
                    self.moved(*table, now).await?;
                }
                Ok(is_done)
            }
            What::Moved => self.moved(*table, now).await.map(|()| true),
        }
    }

    /// Notes which files hold the table's rows: whoever compares them later finds what was written anew since.
    async fn moved(&self, table: TableId, now: &Look) -> EtlResult<()> {
        let (Some(session), Some(sight)) = (&self.session, now.tables.get(&table.0)) else { return Ok(()) };
        let described =
            published_table(session.client(), &self.run.publication, session.server_version(), table).await?;
        if let Some(described) = described {
            let file = |leaf: Leaf| sight.leaves.get(&leaf.id.0).map(|place| (leaf, Some(place.file)));
            self.run.published.is_in(table, described.leaves.into_iter().filter_map(file));
        }
        Ok(())
    }

    /// Rows that were written before come under the old name; those of later tell of the new one themselves.
    async fn renamed(&mut self, table: TableId, now: &Look) -> EtlResult<bool> {
        let (Some(session), Some(sight)) = (&self.session, now.tables.get(&table.0)) else { return Ok(false) };
        let name = sight.table_name();
        let is_told = self.run.table(table).is_ok_and(|known| known.schema.name == name);
        if is_told || !self.run.published.ids().contains(&table) {
            self.renamed.remove(&table);
            return Ok(true);
        }
        let end = match self.renamed.get(&table) {
            Some((same, end)) if *same == name => *end,
            _ => wal_end(session.client()).await?,
        };
        self.renamed.insert(table, (name.clone(), end));
        let is_ready = self.run.states.get(table).phase == Phase::Ready;
        if !is_ready || self.run.progress.reached_now() < end || self.is_left(&name) {
            return Ok(false);
        }
        self.done(table, Finding::Renamed { table, name }).await
    }

    /// Whether a table of this name is about to go.
    fn is_left(&self, name: &TableName) -> bool {
        let has_name = |id: &TableId| self.acted.tables.get(&id.0).is_some_and(|sight| sight.table_name() == *name);
        self.leaving.keys().any(has_name)
    }

    /// Where the stream has to begin anew for it, it does so beyond, and the copy after that.
    async fn repartitioned(&mut self, table: TableId, why: &'static str) -> EtlResult<bool> {
        let Some(session) = &self.session else { return Ok(false) };
        if needs_another_stream(session.server_version()) {
            let end = match self.repartitioned.get(&table) {
                Some(end) => *end,
                None => wal_end(session.client()).await?,
            };
            self.repartitioned.insert(table, end);
            if !has_confirmed(session.client(), &self.run.slot, end).await? {
                return Ok(false);
            }
            self.run.streams.reopen().await;
        }
        let is_done = self.stale(table, why).await?;
        if is_done {
            self.repartitioned.remove(&table);
        }
        Ok(is_done)
    }

    async fn is_empty(&self, leaves: &[TableId]) -> bool {
        let Some(session) = &self.session else { return false };
        // Copied for nothing, at worst.
        are_empty(session.client(), leaves, session.server_version()).await.unwrap_or(false)
    }

    async fn added(&mut self, id: TableId, now: &Look) -> EtlResult<bool> {
        let Some(name) = now.tables.get(&id.0).map(|sight| sight.table_name()) else { return Ok(true) };
        // Whoever had the name is to be gone before, or to have another one, unless it waits for somebody's word.
        let waits = |id| self.run.states.get(id).phase.held().is_some();
        let has_name = |schema: &TableSchema| schema.id != id && schema.name == name && !waits(schema.id);
        let is_held = self.run.published.all().iter().any(|other| has_name(&other.table.schema));
        if is_held || self.is_left(&name) || self.session.is_none() {
            return Ok(false);
        }
        let described = match &self.session {
            Some(session) => {
                published_table(session.client(), &self.run.publication, session.server_version(), id).await?
            }
            None => None,
        };
        let Some(described) = described else { return Ok(false) };
        match self.tell(Finding::Added(Box::new(described))).await {
            Err(error) if error.kind() != ErrorKind::Cancelled => {
                self.refuse(name, &error);
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    /// Changes up to there still come.
    async fn gone(&mut self, table: TableId) -> EtlResult<bool> {
        let end = match (self.leaving.get(&table), &self.session) {
            (Some(end), _) => *end,
            (None, Some(session)) => wal_end(session.client()).await?,
            (None, None) => return Ok(false),
        };
        self.leaving.insert(table, end);
        let is_catching_up = matches!(self.run.states.get(table).phase, Phase::CatchingUp { .. });
        if self.run.progress.reached_now() < end || is_catching_up {
            return Ok(false);
        }
        let is_done = self.done(table, Finding::Gone(table)).await?;
        if is_done {
            self.leaving.remove(&table);
        }
        Ok(is_done)
    }

    async fn stale(&self, table: TableId, why: &'static str) -> EtlResult<bool> {
        let generation = self.generations.get(&table).copied().unwrap_or_default();
        self.done(table, Finding::Stale { table, why, since: self.at, generation }).await
    }

    /// Whether the tables' task has done it. What it could not do now, it is told again.
    async fn done(&self, table: TableId, finding: Finding) -> EtlResult<bool> {
        match self.tell(finding).await {
            Err(error) if error.kind() != ErrorKind::Cancelled => {
                tracing::warn!(table = %self.run.name(table), %error, "what was found of a table waits for the next look");
                Ok(false)
            }
            done => done.map(|()| true),
        }
    }

    async fn tell(&self, finding: Finding) -> EtlResult<()> {
        let over = || EtlError::new(ErrorKind::Cancelled, "the pipeline ended");
        let (answer, answered) = oneshot::channel();
        self.tables.send(Told { finding, answer }).await.map_err(|_| over())?;
        answered.await.map_err(|_| over())?
    }
}

/// A table that takes another one's name comes after that one has got its new name.
fn renames_in_order(found: Vec<Found>, before: &Look, now: &Look) -> Vec<Found> {
    let name = |look: &Look, table: TableId| look.tables.get(&table.0).map(Sight::table_name);
    let (mut renames, mut ordered): (Vec<Found>, Vec<Found>) =
        found.into_iter().partition(|found| found.what == What::Renamed);
    while !renames.is_empty() {
        let wants = |found: &Found| name(now, found.table);
        let is_free = |found: &Found| !renames.iter().any(|other| name(before, other.table) == wants(found));
        // Names that go in a circle begin anywhere.
        let next = renames.iter().position(is_free).unwrap_or(0);
        ordered.push(renames.swap_remove(next));
    }
    ordered.sort_by_key(|found| found.what == What::Added);
    ordered
}

/// Up to 17 the server ends the stream there, from 18 on it passes over what was written meanwhile (`SOURCE.md` R11).
fn dropped(publication: &str) -> EtlError {
    EtlError::new(ErrorKind::SourceSetup, "the publication was dropped or renamed: changes since then are not sent")
        .with("publication", publication)
        .hint(
            "Create it again (or rename it back) and start: every table is copied again. Where the server refuses to go \
               on with the slot because the publication did not exist, drop the slot and remove the data_dir",
        )
}
