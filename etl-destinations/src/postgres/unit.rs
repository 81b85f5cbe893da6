//! How is a unit applied? In one transaction, with its position or token.

use etl::clock::Timestamp;
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::{quote_ident, quote_literal};
use etl::schema::SchemaChange;

use super::ddl::{self, quoted_table};
use super::keyed::{self, is_older};
use super::link::Link;
use super::{copy_in, extras, keyless, ledger};
use crate::metadata_columns::ChangeType;
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, Step, TableBatch, TargetTable, Truncated, WriteUnit};

/// Applies the unit within the open transaction.
pub(super) async fn apply(link: &mut Link, owner: &str, unit: &WriteUnit) -> EtlResult<()> {
    let names = |step: &Step| matches!(step, Step::Ensure(_) | Step::Alter(_, SchemaChange::RenameTable { .. }));
    if unit.steps.iter().any(names) {
        ledger::lock_shapes(link).await?;
    }
    if let Some((table, chunk)) = unit.chunk
        && !unit.steps.iter().all(|step| matches!(step, Step::Ensure(_)))
        && !ledger::note_chunk(link, owner, table, chunk).await?
    {
        return Ok(());
    }
    if let Some(batch) = &unit.batch {
        ledger::expect_position(link, owner, batch.cursor, unit.stored).await?;
    }
    for step in &unit.steps {
        match step {
            Step::Ensure(table) => ddl::ensure(link, table).await?,
            Step::Alter(table, change) => ddl::alter(link, table, change).await?,
            Step::Fill(table, columns) => ddl::fill(link, table, columns).await?,
            Step::Truncate(tables) => {
                for table in tables {
                    truncate(link, table).await?;
                }
            }
            Step::Write(rows) => write(link, rows).await.map_err(|error| match error.context("table") {
                None => error.with("table", &rows.table.name),
                Some(_) => error,
            })?,
        }
    }
    match &unit.batch {
        Some(batch) => ledger::advance(link, owner, batch, unit.stored).await,
        None => Ok(()),
    }
}

async fn write(link: &mut Link, TableBatch { table, rows }: &TableBatch) -> EtlResult<()> {
    let name = quoted_table(&table.name);
    match rows {
        BatchRows::Copied { rows, position, at } => copy_in::copied(link, (&name, table), rows, (*position, *at)).await,
        BatchRows::Log(rows) => copy_in::stamped(link, (&name, table), rows).await,
        BatchRows::Keyed(changes) => keyed::apply(link, table, changes).await,
        BatchRows::Keyless(changes) => keyless::apply(link, table, changes).await,
    }
}

/// Rows that are newer than the truncate stay.
async fn truncate(link: &Link, Truncated { table, position, at }: &Truncated) -> EtlResult<()> {
    let name = quoted_table(&table.name);
    let run =
        async |sql: String| link.run(&sql, "truncate a table").await.map_err(|error| error.with("table", &table.name));
    let Some(metadata) = &table.metadata else { return run(format!("TRUNCATE {name}")).await };
    let [change_type, lsn, ordinal, timestamp] = metadata.names().map(quote_ident);
    let change =
        format!("(SELECT {}::bigint AS {lsn}, {}::bigint AS {ordinal}) c", position.commit.0, position.ordinal);
    let older = is_older(Some(metadata), "c");
    if table.write_mode == WriteMode::SoftDelete {
        let delete = ChangeType::Delete;
        return run(format!(
            "UPDATE {name} t SET {change_type} = '{delete}', {lsn} = c.{lsn}, {ordinal} = c.{ordinal},
                    {timestamp} = {} FROM {change} WHERE {older} AND t.{change_type} <> '{delete}'",
            moment(*at)
        ))
        .await;
    }
    let newer = format!("SELECT true FROM {name} t, {change} WHERE NOT ({older}) LIMIT 1");
    if link.rows(&newer, "truncate a table").await?.is_empty() {
        // Of a large table it leaves nothing behind to be cleaned up.
        return run(format!("TRUNCATE {name}")).await;
    }
    run(format!("DELETE FROM {name} t USING {change} WHERE {older}")).await
}

fn moment(at: Timestamp) -> String {
    let mut text = String::new();
    etl::data::decode::write_timestamptz(at.to_postgres(), &mut text);
    format!("{}::timestamptz", quote_literal(&text))
}

/// Empties the table and forgets what is stored about it; drops it where its shape is another now.
pub(super) async fn reset(link: &Link, owner: &str, table: &TargetTable) -> EtlResult<()> {
    if table.is_adopted {
        return Err(EtlError::new(ErrorKind::DestinationRejected, "a table that is taken as it is is not emptied")
            .with("table", &table.name)
            .hint("Leave out `copy: false` to have it copied"));
    }
    ledger::lock_shapes(link).await?;
    if !ddl::exists(link, &table.name).await? {
        return ledger::forget(link, owner, table.id).await;
    }
    ledger::expect_own_table(link, &table.name).await?;
    let name = quoted_table(&table.name);
    let run = async |sql: String, doing| link.run(&sql, doing).await.map_err(|error| error.with("table", &table.name));
    // A chunk that was begun before is waited for, so that its token is there to be forgotten.
    run(format!("LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE"), "empty a table").await?;
    ledger::forget(link, owner, table.id).await?;
    if ddl::is_in_shape(link, table).await? {
        extras::drop_indexes(link, table).await?;
        return run(format!("TRUNCATE {name}"), "empty a table").await;
    }
    run(format!("DROP TABLE {name}"), "drop a table").await?;
    ledger::disown_table(link, &table.name).await
}
