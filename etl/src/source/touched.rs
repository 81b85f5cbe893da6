//! Up to where does each table have something? So that a source which lost its last changes costs few tables.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::judgement::{Break, Extent};
use crate::clock::Timestamp;
use crate::data::Event;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::relay::Transaction;
use crate::schema::{TableId, TableName};
use crate::store::{Phase, SharedStore};

const TOUCHED: &str = "tables.touched";

/// How many tables a diagnosis names.
const MOST_NAMES: usize = 50;

/// The last commit of which each table of the main cursor has something.
#[derive(Debug, Default)]
pub(crate) struct Touched(Mutex<Known>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// What the main cursor had written when this was noted.
    upto: u64,
    tables: BTreeMap<u32, u64>,
    /// The last transaction that was received: commit, end, xid, and when.
    #[serde(default)]
    last: Option<(u64, u64, u32, i64)>,
}

impl Known {
    async fn read(store: &SharedStore, main: Lsn) -> EtlResult<Self> {
        let stored = store.fact(TOUCHED).await?;
        // What cannot be read is not known: then every table counts.
        let known: Self = stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(known.at(main))
    }

    /// What was written after it was noted may be any table's.
    fn at(mut self, main: Lsn) -> Self {
        if main.0 > self.upto {
            self.tables.values_mut().for_each(|last| *last = main.0.max(*last));
            self.upto = main.0;
        }
        self
    }

    /// A table that nothing is known about has everything.
    fn last(&self, table: TableId) -> Lsn {
        Lsn(self.tables.get(&table.0).copied().unwrap_or(u64::MAX))
    }
}

impl Touched {
    /// What was noted before, where the main cursor has written everything up to `main`.
    pub(crate) async fn read(store: &SharedStore, main: Lsn) -> EtlResult<Self> {
        Ok(Self(Mutex::new(Known::read(store, main).await?)))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are about to be written.
    pub(crate) fn writes(&self, events: &[Event]) {
        let mut known = self.known();
        let mut before = None;
        let mut touch = |table: TableId, commit: Lsn| {
            if before != Some((table, commit)) {
                before = Some((table, commit));
                if let Some(last) = known.tables.get_mut(&table.0) {
                    *last = commit.0.max(*last);
                }
            }
        };
        for event in events {
            match event {
                Event::Change(change) => touch(change.table_id, change.position.commit),
                Event::Truncate { tables, positions, .. } => {
                    tables.iter().zip(positions).for_each(|(table, position)| touch(*table, position.commit));
                }
                _ => {}
            }
        }
    }

    /// The table is copied, and has nothing from beyond.
    pub(crate) async fn is_copied(&self, store: &SharedStore, table: TableId, upto: Lsn) -> EtlResult<()> {
        // Where something ends is no commit of its own.
        self.known().tables.insert(table.0, upto.0.saturating_sub(1));
        let main = Lsn(self.known().upto);
        self.store(store, main).await
    }

    /// Notes what is known; everything that the main cursor wrote up to `main` was told before. `last` is the last
    /// transaction that was received.
    pub(crate) async fn note(&self, store: &SharedStore, main: Lsn, last: Option<Transaction>) -> EtlResult<()> {
        let is_new = {
            let mut known = self.known();
            let last = last.map(|last| (last.commit.0, last.end.0, last.xid, last.at.0));
            let is_new = main.0 > known.upto || last > known.last;
            known.last = last.max(known.last);
            is_new
        };
        if is_new { self.store(store, main).await } else { Ok(()) }
    }

    async fn store(&self, store: &SharedStore, main: Lsn) -> EtlResult<()> {
        let known = {
            let mut known = self.known();
            known.upto = main.0.max(known.upto);
            known.clone()
        };
        let text = serde_json::to_string(&known)
            .map_err(|e| EtlError::new(ErrorKind::Internal, "what tables have cannot be written down").because(e))?;
        store.set_fact(TOUCHED, text).await
    }
}

/// The last transaction that was received, when that was noted.
pub(super) async fn last_received(store: &SharedStore) -> EtlResult<Option<Transaction>> {
    let last = Known::read(store, Lsn::ZERO).await?.last;
    Ok(last.map(|(commit, end, xid, at)| Transaction { commit: Lsn(commit), end: Lsn(end), xid, at: Timestamp(at) }))
}

/// Forgets what was received: the source has another history.
pub(crate) async fn forget_touched(store: &SharedStore, affected: &[Affected], to: Lsn) -> EtlResult<()> {
    let mut known = Known::read(store, Lsn::ZERO).await?;
    (known.last, known.upto) = (None, known.upto.min(to.0));
    for table in affected {
        known.tables.remove(&table.id.0);
    }
    let known = Touched(Mutex::new(known));
    known.store(store, Lsn::ZERO).await
}

/// A table that has to be copied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Affected {
    pub(crate) id: TableId,
    pub(crate) name: TableName,
}

/// The smallest set of tables that have to be copied again because of a break.
pub(crate) async fn affected(store: &SharedStore, extent: Extent, main: Lsn) -> EtlResult<Vec<Affected>> {
    let known = Known::read(store, main).await?;
    let mut affected = Vec::new();
    for (id, state) in store.table_states().await? {
        let is_wrong = match (&state.phase, extent) {
            // They are copied anyway, or will not be.
            (Phase::Pending | Phase::Removed, _) => false,
            (waiting, _) if waiting.held().is_some_and(|held| held.cursor.is_none()) => false,
            (Phase::Copying { so_far: None, .. }, _) => false,
            (Phase::Ready, Extent::Since(at)) => known.last(id) >= at,
            _ => true,
        };
        if is_wrong {
            let schema = store.schema_at(id, Position::after(Lsn(u64::MAX))).await?;
            let name = schema.map_or_else(|| TableName::new("", id.to_string()), |schema| schema.source_name().clone());
            affected.push(Affected { id, name });
        }
    }
    affected.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(affected)
}

impl Break {
    /// The diagnosis, with the tables to copy again.
    pub(crate) fn into_error(self, affected: &[Affected]) -> EtlError {
        let Self { what, context, hint, .. } = self;
        let mut error = EtlError::new(ErrorKind::SourceIdentity, what);
        for (key, value) in context {
            error = error.with(key, value);
        }
        if affected.is_empty() {
            return error.hint(format!("No table has to be copied again: the next start goes on by itself. {hint}"));
        }
        let names: Vec<String> = affected.iter().take(MOST_NAMES).map(|table| table.name.to_string()).collect();
        let more = affected.len().saturating_sub(MOST_NAMES);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        error = error.with("copy again", format!("{}{more}", names.join(", ")));
        error.hint(format!("`etl run --resync-affected` copies these tables again, and no other. {hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_after_the_note_may_be_any_tables() {
        let noted = Known { upto: 50, tables: BTreeMap::from([(1, 20), (2, 50)]), last: None };
        let same = noted.clone().at(Lsn(50));
        assert_eq!((same.last(TableId(1)), same.last(TableId(2))), (Lsn(20), Lsn(50)));
        let later = noted.at(Lsn(60));
        assert_eq!((later.last(TableId(1)), later.last(TableId(2))), (Lsn(60), Lsn(60)));
        assert_eq!(later.last(TableId(3)), Lsn(u64::MAX), "nobody knows");
    }

    #[test]
    fn a_diagnosis_names_the_tables_and_what_to_do() {
        let table = |n: u32| Affected { id: TableId(n), name: TableName::new("public", format!("t{n}")) };
        let broken = || Break {
            what: "the slot is gone".to_owned(),
            context: vec![("read up to", "0/64".to_owned())],
            hint: "Somebody dropped it",
            extent: Extent::Gap,
            keeps_slot: false,
        };
        let text = broken().into_error(&[table(1), table(2)]).to_string();
        for part in ["read up to=0/64", "copy again=public.t1, public.t2", "--resync-affected", "Somebody dropped"] {
            assert!(text.contains(part), "{text}");
        }
        let none = broken().into_error(&[]).to_string();
        assert!(none.contains("goes on by itself") && !none.contains("resync"), "{none}");
        let many: Vec<Affected> = (0..60).map(table).collect();
        assert!(broken().into_error(&many).to_string().contains("and 10 more"));
    }
}
