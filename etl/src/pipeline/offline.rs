//! What can be decided about a pipeline that does not run?

use std::path::Path;

use super::allowed::Wished;
use super::data_dir::DataDir;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableName};
use crate::store::{Phase, SharedStore, TableState};

/// Lets the next run copy these tables anew, whatever they look like by then; `schema.table`, or the name alone where
/// only one schema has it.
///
/// # Errors
/// [`Locked`](ErrorKind::Locked) while the pipeline runs; [`Config`](ErrorKind::Config) for a name that it does not
/// know, and then nothing is changed.
pub async fn resync_next_time(
    data_dir: &Path,
    pipeline: &str,
    store: &SharedStore,
    names: &[String],
) -> EtlResult<Vec<TableName>> {
    let _lock = DataDir::lock(data_dir, pipeline)?;
    let known = known_tables(store).await?;
    let found: Vec<&Known> = names.iter().map(|name| find(&known, name)).collect::<EtlResult<_>>()?;
    let wished = Wished::read(store).await?;
    for table in &found {
        wished.add(store, table.id).await?;
        let state = TableState { phase: Phase::Pending, ..table.state.clone() };
        store.set_table_state(table.id, Some(table.state.revision), state).await?;
    }
    Ok(found.into_iter().map(|table| table.name.clone()).collect())
}

struct Known {
    id: TableId,
    name: TableName,
    state: TableState,
}

async fn known_tables(store: &SharedStore) -> EtlResult<Vec<Known>> {
    let mut known = Vec::new();
    for (id, state) in store.table_states().await? {
        if let Some(schema) = store.schema_at(id, Position::after(Lsn(u64::MAX))).await? {
            known.push(Known { id, name: schema.source_name().clone(), state });
        }
    }
    Ok(known)
}

fn find<'k>(known: &'k [Known], name: &str) -> EtlResult<&'k Known> {
    if let Some(whole) = known.iter().find(|table| table.name.to_string() == name) {
        return Ok(whole);
    }
    let mut alone = known.iter().filter(|table| &*table.name.name == name);
    match (alone.next(), alone.next()) {
        (Some(table), None) => Ok(table),
        (Some(_), Some(_)) => Err(EtlError::new(ErrorKind::Config, "several schemas have a table of that name")
            .with("table", name)
            .hint("Write it with its schema, such as public.users")),
        (None, _) => {
            let names: Vec<String> = known.iter().map(|table| table.name.to_string()).collect();
            Err(EtlError::new(ErrorKind::Config, "the pipeline has no such table")
                .with("table", name)
                .with("tables", names.join(", ")))
        }
    }
}
