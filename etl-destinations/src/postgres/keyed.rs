//! How do changes of a table with a key get into it? What old rows give is read first, then old rows go and new ones come.

use etl::data::RawValue;
use etl::error::EtlResult;
use etl::postgres::quote_ident;

use super::copy_in::{self, CopyIn};
use super::ddl::{columns_of, key_of, quoted_table};
use super::lines::Form;
use super::link::Link;
use crate::metadata_columns::MetadataColumns;
use crate::write_mode::WriteMode;
use crate::writer::{KeyedChanges, RowUpdate, StampedRow, TargetTable};

/// Whole rows on their way.
const ROWS: &str = "_etl_rows";
/// Rows that lack what was not sent.
const UPDATES: &str = "_etl_updates";
/// Keys of rows that are gone.
const GONE: &str = "_etl_gone";

/// A table whose changes are being applied.
struct Target<'a> {
    link: &'a mut Link,
    table: &'a TargetTable,
    name: String,
    columns: Vec<String>,
}

/// Applies the changes within the open transaction.
pub(super) async fn apply(link: &mut Link, table: &TargetTable, changes: &KeyedChanges) -> EtlResult<()> {
    let mut target = Target { link, table, name: quoted_table(&table.name), columns: columns_of(table) };
    target.stage(ROWS, &[]).await?;
    copy_in::stamped(target.link, (&staged(ROWS, table), table), &changes.upserts).await?;
    if !changes.updates.is_empty() {
        target.resolve(&changes.updates).await?;
    }
    if !changes.deletes.is_empty() {
        target.remove(&changes.deletes, table.write_mode == WriteMode::SoftDelete).await?;
    }
    if !changes.vacated.is_empty() {
        target.remove(&changes.vacated, false).await?;
    }
    if changes.upserts.is_empty() && changes.updates.is_empty() {
        return Ok(());
    }
    target.replace().await
}

/// The name of a table's own stage: its columns are the table's.
fn staged(what: &str, table: &TargetTable) -> String {
    format!("pg_temp.{}", stage_name(what, table))
}

fn stage_name(what: &str, table: &TargetTable) -> String {
    format!("{what}_{}", table.id)
}

/// That a table's row is older than the change.
pub(super) fn is_older(metadata: Option<&MetadataColumns>, change: &str) -> String {
    let Some(metadata) = metadata else { return "true".to_owned() };
    let (lsn, ordinal) = (quote_ident(&metadata.lsn), quote_ident(&metadata.ordinal));
    format!("(t.{lsn}, t.{ordinal}) < ({change}.{lsn}, {change}.{ordinal})")
}

impl Target<'_> {
    fn metadata(&self) -> Option<&MetadataColumns> {
        self.table.metadata.as_deref()
    }

    async fn run(&self, sql: &str, doing: &'static str) -> EtlResult<()> {
        self.link.run(sql, doing).await.map_err(|error| error.with("table", &self.table.name))
    }

    /// A stage with the table's columns, and more.
    async fn stage(&mut self, what: &str, more: &[String]) -> EtlResult<()> {
        // The types are not in the names: a stage is made anew where the table's are others.
        let types = self.table.source.columns.iter().map(|column| format!("{} {}", column.type_oid, column.modifier));
        let types: Vec<String> = types.collect();
        let columns = [&self.columns, more].concat().join(", ");
        let definition = format!("SELECT {columns} FROM {} /* {} */", self.name, types.join(", "));
        self.link.stage(&stage_name(what, self.table), definition).await
    }

    /// That both have the same key.
    fn same_key(&self, one: &str, other: &str) -> String {
        let equal = |name: String| format!("{one}.{name} = {other}.{name}");
        key_of(self.table).into_iter().map(equal).collect::<Vec<_>>().join(" AND ")
    }

    /// Completes rows from those in the table.
    async fn resolve(&mut self, updates: &[RowUpdate]) -> EtlResult<()> {
        let source = &self.table.source;
        let unknown = RowUpdate::unsent_places(updates, source.columns.len());
        let base = |place: usize| format!("_etl_base_{place}");
        let unchanged = |place: usize| format!("_etl_unchanged_{place}");
        let keys: Vec<usize> = source.key.iter().map(|place| usize::from(*place)).collect();
        let mut more: Vec<String> =
            keys.iter().map(|place| format!("{} AS {}", self.columns[*place], base(*place))).collect();
        more.extend(unknown.iter().map(|place| format!("NULL::boolean AS {}", unchanged(*place))));
        self.stage(UPDATES, &more).await?;
        self.copy_updates((&keys, &unknown), updates).await?;

        let value = |(place, name): (usize, &String)| {
            if unknown.contains(&place) {
                format!("CASE WHEN u.{} THEN t.{name} ELSE u.{name} END", unchanged(place))
            } else {
                format!("u.{name}")
            }
        };
        let values: Vec<String> = self.columns.iter().enumerate().map(value).collect();
        let found: Vec<String> =
            keys.iter().map(|place| format!("t.{} = u.{}", self.columns[*place], base(*place))).collect();
        let sql = format!(
            "INSERT INTO {} SELECT {} FROM {} u JOIN {} t ON {} WHERE {}",
            staged(ROWS, self.table),
            values.join(", "),
            staged(UPDATES, self.table),
            self.name,
            found.join(" AND "),
            is_older(self.metadata(), "u"),
        );
        self.run(&sql, "complete rows").await
    }

    /// The rows, the keys under which they are found, and which of their values were not sent.
    async fn copy_updates(&self, (keys, unknown): (&[usize], &[usize]), updates: &[RowUpdate]) -> EtlResult<()> {
        let mut columns = self.columns.clone();
        columns.extend(keys.iter().map(|place| format!("_etl_base_{place}")));
        columns.extend(unknown.iter().map(|place| format!("_etl_unchanged_{place}")));
        let rows = updates.iter().flat_map(|update| [&update.new.row, &update.base]);
        let form = Form::of(&self.table.source, rows);
        let mut copy = CopyIn::begin(self.link, &staged(UPDATES, self.table), &columns, form).await?;
        for RowUpdate { base, new, .. } in updates {
            copy.sent(&new.row, 0..self.table.columns.len())?;
            if self.table.metadata.is_some() {
                copy.stamps(new.change_type, new.position, new.at)?;
            }
            copy.values(base, keys.iter().copied())?;
            for place in unknown {
                copy.lines.boolean(new.row.raw(*place) == RawValue::Unchanged);
            }
            copy.flush().await?;
        }
        copy.finish().await
    }

    /// Removes rows, or marks them.
    async fn remove(&mut self, gone: &[StampedRow], marks: bool) -> EtlResult<()> {
        self.stage(GONE, &[]).await?;
        let stage = staged(GONE, self.table);
        let metadata = self.table.metadata.clone();
        let stamps: Vec<String> = metadata.iter().flat_map(|metadata| metadata.names().map(quote_ident)).collect();
        let columns = [key_of(self.table), stamps.clone()].concat();
        let keys: Vec<usize> = self.table.source.key.iter().map(|place| usize::from(*place)).collect();
        let form = Form::of(&self.table.source, gone.iter().map(|gone| &gone.row));
        let mut copy = CopyIn::begin(self.link, &stage, &columns, form).await?;
        for StampedRow { row, change_type, position, at } in gone {
            copy.values(row, keys.iter().copied())?;
            if metadata.is_some() {
                copy.stamps(*change_type, *position, *at)?;
            }
            copy.flush().await?;
        }
        copy.finish().await?;
        let (same, older) = (self.same_key("t", "g"), is_older(self.metadata(), "g"));
        let sql = if marks {
            let stamps: Vec<String> = stamps.iter().map(|name| format!("{name} = g.{name}")).collect();
            format!("UPDATE {} t SET {} FROM {stage} g WHERE {same} AND {older}", self.name, stamps.join(", "))
        } else {
            format!("DELETE FROM {} t USING {stage} g WHERE {same} AND {older}", self.name)
        };
        self.run(&sql, "delete rows").await
    }

    /// Puts the staged rows in the place of older ones; what is older than the table's stays out.
    async fn replace(&self) -> EtlResult<()> {
        let (list, key) = (self.columns.join(", "), key_of(self.table));
        // The key too: 1.0 and 1.00 are one key, and two values.
        let set: Vec<String> = self.columns.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let sql = format!(
            "INSERT INTO {} AS t ({list}) SELECT {list} FROM {} ON CONFLICT ({}) DO UPDATE SET {} WHERE {}",
            self.name,
            staged(ROWS, self.table),
            key.join(", "),
            set.join(", "),
            is_older(self.metadata(), "excluded")
        );
        self.run(&sql, "replace rows").await
    }
}
