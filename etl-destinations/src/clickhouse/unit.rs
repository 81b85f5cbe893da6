//! How is a unit applied? Step by step; each is harmless when it is done again.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use etl::clock::Timestamp;
use etl::destination::CopyChunk;
use etl::error::{ErrorKind, EtlError, EtlResult, ResultExt};
use etl::schema::TableId;
use etl::{Lsn, Position};

use super::arrow_rows::{LIMITS, flagged, stream};
use super::gates::{Held, Known};
use super::places::Places;
use super::server::text;
use super::sql::{DELETED, VERSION, columns_of, quoted, quoted_table, version, version_of};
use super::{ddl, keyed, view};
use crate::blame::may_be_of_one;
use crate::columnar::{ArrowTable, copied_pieces, pieces};
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, KeylessChanges, StampedRow, Step, TableBatch, TargetTable, Truncated, WriteUnit};

/// From where to where the rows of a block go.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Span {
    first: Option<Position>,
    last: Option<Position>,
    count: u64,
}

impl Span {
    pub(super) fn add(&mut self, position: Position) {
        self.first = Some(self.first.map_or(position, |first| first.min(position)));
        self.last = Some(self.last.map_or(position, |last| last.max(position)));
        self.count += 1;
    }
}

/// What a block is known by when it comes again.
pub(super) fn token(what: &str, Span { first, last, count }: Span, rows: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(rows);
    let place = |at: Option<Position>| at.map_or(String::new(), |at| format!("{:x}.{:x}", at.commit.0, at.ordinal));
    format!("{what}:{}:{}:{count}:{:016x}", place(first), place(last), hasher.finish())
}

/// What statements about a table are known by while they run.
pub(super) fn run_by(owner: &str, table: TableId) -> String {
    format!("etl-{owner}-{table}-")
}

/// Applies the unit, whose tables are held.
pub(super) async fn apply(places: &Places<'_>, unit: &WriteUnit, held: &mut Held) -> EtlResult<()> {
    // Tables whose views are yet to be made anew.
    let mut altered: Vec<Arc<TargetTable>> = Vec::new();
    for step in &unit.steps {
        if !matches!(step, Step::Alter(..)) {
            show(places, &mut altered).await?;
        }
        match step {
            // What was done before the table got its shape was done in the other one, and is there.
            Step::Alter(table, _) | Step::Fill(table, _) if is_done(places, table) => {}
            Step::Write(TableBatch { table, .. }) if is_done(places, table) => {}
            Step::Alter(table, change) => {
                ddl::alter(places, &found(places, table), change).await.map_err(|error| of(table, error))?;
                altered.retain(|other| other.id != table.id);
                altered.push(Arc::clone(table));
            }
            Step::Ensure(table) => ddl::ensure(places, table).await.map_err(|error| of(table, error))?,
            Step::Fill(table, columns) => {
                let filled = ddl::fill_columns(places, &found(places, table), columns).await;
                filled.map_err(|error| of(table, error))?;
            }
            Step::Truncate(tables) => {
                for truncated in tables.iter().filter(|truncated| !is_done(places, &truncated.table)) {
                    let table = found(places, &truncated.table);
                    let done = truncate(places, held, &Truncated { table, ..truncated.clone() }).await;
                    done.map_err(|error| of(&truncated.table, error))?;
                }
            }
            Step::Write(rows) => {
                let chunk = unit.chunk.map(|(_, chunk)| chunk);
                write(places, held, rows, chunk).await.map_err(|error| of(&rows.table, error))?;
            }
        }
    }
    show(places, &mut altered).await
}

/// Whether the table has got another shape since.
fn is_done(places: &Places<'_>, table: &TargetTable) -> bool {
    table.source.since < places.gates.of(table.id).shaped()
}

async fn show(places: &Places<'_>, altered: &mut Vec<Arc<TargetTable>>) -> EtlResult<()> {
    for table in altered.drain(..) {
        view::show(places, &found(places, &table)).await.map_err(|error| of(&table, error))?;
    }
    Ok(())
}

/// An error about the table; one that waiting does not help against is its alone.
fn of(table: &TargetTable, error: EtlError) -> EtlError {
    let error = match error.context("table") {
        None => error.with("table", &table.name),
        Some(_) => error,
    };
    if may_be_of_one(&error) && error.table().is_none() { error.of_table(table.id) } else { error }
}

/// The table as it is called here.
fn found(places: &Places<'_>, table: &Arc<TargetTable>) -> Arc<TargetTable> {
    match places.gates.of(table.id).name() {
        Some(name) if name != table.name => Arc::new(TargetTable { name, ..TargetTable::clone(table) }),
        _ => Arc::clone(table),
    }
}

async fn write(
    places: &Places<'_>,
    held: &mut Held,
    TableBatch { table, rows }: &TableBatch,
    chunk: Option<CopyChunk>,
) -> EtlResult<()> {
    let table = &found(places, table);
    match rows {
        BatchRows::Copied { rows, position, at } => {
            let arrow = ArrowTable::new(table, LIMITS);
            let batches = copied_pieces(rows).map(|piece| arrow.copied(piece, *position, *at));
            let rows = stream(&batches.collect::<EtlResult<Vec<_>>>()?)?;
            // Rows without a key may be equal: only their chunk says that they are the same ones.
            let token = chunk.map(|chunk| format!("copy:{:x}:{:x}", chunk.generation, chunk.index));
            insert(places, table, &columns_of(table), rows, token).await
        }
        BatchRows::Keyed(changes) => keyed::apply(places.server, table, changes, &run_by(places.owner, table.id)).await,
        BatchRows::Log(rows) => {
            let reached = reached(places, held, table).await?;
            let new: Vec<StampedRow> = after(rows, reached).cloned().collect();
            let arrow = ArrowTable::new(table, LIMITS);
            let batches = pieces(&new, |row| &row.row).map(|piece| arrow.stamped(piece));
            let rows = stream(&batches.collect::<EtlResult<Vec<_>>>()?)?;
            insert_changes(places, held, table, (&columns_of(table), rows), &new).await
        }
        BatchRows::Keyless(changes) => write_keyless(places, held, table, changes).await,
    }
}

/// Rows come, and rows go as rows that say so.
async fn write_keyless(
    places: &Places<'_>,
    held: &mut Held,
    table: &Arc<TargetTable>,
    changes: &KeylessChanges,
) -> EtlResult<()> {
    let reached = reached(places, held, table).await?;
    let new = |rows: &[StampedRow]| after(rows, reached).cloned().collect::<Vec<_>>();
    let (removals, marks, inserts) = (new(&changes.removals), new(&changes.marks), new(&changes.inserts));
    let arrow = ArrowTable::new(table, LIMITS);
    let mut batches = Vec::new();
    for (rows, is_gone) in [(&removals, true), (&marks, true), (&marks, false), (&inserts, false)] {
        for piece in pieces(rows, |row: &StampedRow| &row.row) {
            batches.push(flagged(&arrow.stamped(piece)?, is_gone)?);
        }
    }
    let columns = [&columns_of(table)[..], &[quoted(DELETED)]].concat();
    let all = [removals, marks, inserts].concat();
    insert_changes(places, held, table, (&columns, stream(&batches)?), &all).await
}

/// The rows that are not there yet.
fn after(rows: &[StampedRow], reached: Option<Position>) -> impl Iterator<Item = &StampedRow> {
    rows.iter().filter(move |row| reached.is_none_or(|reached| row.position > reached))
}

/// Inserts the rows of these changes in one block, of which nothing is there yet.
async fn insert_changes(
    places: &Places<'_>,
    held: &mut Held,
    table: &TargetTable,
    (columns, rows): (&[String], Vec<u8>),
    changes: &[StampedRow],
) -> EtlResult<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut span = Span::default();
    changes.iter().for_each(|row| span.add(row.position));
    let token = token("log", span, &rows);
    insert(places, table, columns, rows, Some(token)).await?;
    if let Some(Known { reached: Some(reached) }) = held.known(table.id) {
        *reached = (*reached).max(span.last);
    }
    Ok(())
}

async fn insert(
    places: &Places<'_>,
    table: &TargetTable,
    columns: &[String],
    rows: Vec<u8>,
    token: Option<String>,
) -> EtlResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = format!("INSERT INTO {} ({})", quoted_table(&table.name), columns.join(", "));
    places.server.insert(&sql, token, rows, &run_by(places.owner, table.id)).await
}

/// The last change that the table holds. What an earlier process or a lost answer began is over by then.
async fn reached(places: &Places<'_>, held: &mut Held, table: &TargetTable) -> EtlResult<Option<Position>> {
    let Some(metadata) = table.metadata.as_deref() else { return Ok(None) };
    if let Some(Known { reached: Some(reached) }) = held.known(table.id) {
        return Ok(*reached);
    }
    places.server.end_what_runs(&run_by(places.owner, table.id)).await?;
    let (lsn, ordinal) = (quoted(&metadata.lsn), quoted(&metadata.ordinal));
    let sql = format!(
        "SELECT toString({lsn}), toString({ordinal}) FROM {} ORDER BY {lsn} DESC, {ordinal} DESC LIMIT 1",
        quoted_table(&table.name)
    );
    let rows = places.server.rows(&sql, "read how far a table has come").await?;
    let reached = match rows.first() {
        Some(row) => {
            let number = |place| {
                let parsed = text(row, place)?.parse();
                parsed.or_etl(ErrorKind::DestinationRejected, "read a position in the table's metadata columns")
            };
            Some(Position::new(Lsn(number(0)?), number(1)?))
        }
        None => None,
    };
    if let Some(known) = held.known(table.id) {
        known.reached = Some(reached);
    }
    Ok(reached)
}

/// Rows that are newer than the truncate stay.
async fn truncate(
    places: &Places<'_>,
    held: &mut Held,
    Truncated { table, position, at }: &Truncated,
) -> EtlResult<()> {
    let name = quoted_table(&table.name);
    let is_soft = table.write_mode == WriteMode::SoftDelete;
    if !table.is_keyed() {
        let reached = reached(places, held, table).await?;
        if reached.is_some_and(|reached| reached >= *position) {
            return Ok(());
        }
        if is_soft {
            let Some(sql) = mark_all(table, *position, *at) else { return Ok(()) };
            held.forget();
            return places.run(&sql, "truncate a table", &table.name).await;
        }
        held.forget();
        return places.run(&format!("TRUNCATE TABLE {name}"), "truncate a table", &table.name).await;
    }
    if is_soft {
        let Some(sql) = mark_all(table, *position, *at) else { return Ok(()) };
        return places.run(&sql, "truncate a table", &table.name).await;
    }
    let newest = number(*position);
    let newer = format!("SELECT 1 FROM {name} WHERE {} >= {newest} LIMIT 1", quoted(VERSION));
    let sql = match places.server.rows(&newer, "truncate a table").await?.is_empty() {
        true => format!("TRUNCATE TABLE {name}"),
        false => format!("ALTER TABLE {name} DELETE WHERE {} < {newest}", quoted(VERSION)),
    };
    places.run(&sql, "truncate a table", &table.name).await
}

fn number(position: Position) -> String {
    version_of(&position.commit.0.to_string(), &position.ordinal.to_string())
}

/// Writes what is there once more, marked.
fn mark_all(table: &TargetTable, position: Position, at: Timestamp) -> Option<String> {
    let metadata = table.metadata.as_deref()?;
    let count = table.columns.len();
    let columns = columns_of(table);
    let change_type = quoted(&metadata.change_type);
    let (values, delete) = (columns[..count].join(", "), ChangeType::Delete);
    let stamps = format!(
        "'{delete}', toInt64({}), toInt64({}), fromUnixTimestamp64Micro(toInt64({}), 'UTC')",
        position.commit.0, position.ordinal, at.0
    );
    let own: Vec<String> = table.columns.iter().map(|name| name.to_string()).collect();
    let current = view::query(table, &own);
    let is_older = match table.is_keyed() {
        true => format!(" AND {} < {}", version(table), number(position)),
        false => String::new(),
    };
    // Without a key, what was there goes, and comes back marked.
    let gone = if table.is_keyed() { "[0]" } else { "[1, 0]" };
    Some(format!(
        "INSERT INTO {} ({}, {}) SELECT {values}, {stamps}, `_etl_gone` FROM ({current}) AS t \
         ARRAY JOIN {gone} AS `_etl_gone` WHERE {change_type} <> '{delete}'{is_older} {}",
        quoted_table(&table.name),
        columns.join(", "),
        quoted(DELETED),
        ddl::IN_BLOCKS
    ))
}

/// Empties the table; drops it where its shape is another now.
pub(super) async fn reset(places: &Places<'_>, table: &TargetTable) -> EtlResult<()> {
    places.server.end_what_runs(&run_by(places.owner, table.id)).await?;
    if !places.begin_anew(table).await? {
        return Ok(());
    }
    if ddl::is_in_shape(places, table).await? {
        let sql = format!("TRUNCATE TABLE {}", quoted_table(&table.name));
        return places.run(&sql, "empty a table", &table.name).await;
    }
    places.drop(&table.name).await?;
    places.gates.of(table.id).is_called(None);
    Ok(())
}
