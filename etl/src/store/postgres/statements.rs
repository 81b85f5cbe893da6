//! What does each call of a store do to the tables?

use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Answer, PostgresStore, damaged};
use crate::error::EtlResult;
use crate::lsn::{Lsn, Position};
use crate::schema::{TableId, TableSchema};
use crate::store::memory::conflict;
use crate::store::{BoxFuture, CursorId, Progress, SchemaStore, StateStore, TableState};

/// The main cursor's id; no table has this oid.
const MAIN: &str = "main";

fn cursor_text(cursor: CursorId) -> String {
    match cursor {
        CursorId::Main => MAIN.to_owned(),
        CursorId::Table(table) => table.0.to_string(),
    }
}

fn read_cursor(text: &str) -> EtlResult<CursorId> {
    match text {
        MAIN => Ok(CursorId::Main),
        oid => oid.parse().map(|oid| CursorId::Table(TableId(oid))).map_err(|error| damaged("cursor", error)),
    }
}

fn read_lsn(row: &Row, place: usize) -> EtlResult<Lsn> {
    row.get::<_, String>(place).parse().map_err(|error| damaged("position", error))
}

fn read_position(row: &Row, place: usize) -> EtlResult<Position> {
    let ordinal = row.get::<_, String>(place + 1).parse().map_err(|error| damaged("position", error))?;
    Ok(Position::new(read_lsn(row, place)?, ordinal))
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> EtlResult<T> {
    serde_json::from_str(text).map_err(|error| damaged(what, error))
}

pub(super) fn to_json<T: serde::Serialize>(what: &'static str, value: &T) -> EtlResult<String> {
    serde_json::to_string(value).map_err(|error| damaged(what, error))
}

impl PostgresStore {
    /// Runs a statement whose arguments are texts; the first is the pipeline.
    pub(super) async fn texts(&self, doing: &'static str, statement: &str, arguments: &[&str]) -> EtlResult<Answer> {
        let mut typed: Vec<super::Argument<'_>> = vec![(&self.home.pipeline, Type::TEXT)];
        typed.extend(arguments.iter().map(|text| (text as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)));
        self.run(doing, statement, &typed).await
    }

    async fn table_state(&self, table: TableId) -> EtlResult<Option<TableState>> {
        let query = "SELECT revision, state::text FROM {schema}.table_state WHERE pipeline = $1 AND id = $2::text::oid";
        let rows = self.texts("read a table's state", query, &[&table.0.to_string()]).await?.rows;
        rows.first().map(|row| read_state(row, 0)).transpose()
    }

    async fn store_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> EtlResult<u64> {
        let revision = expect.unwrap_or(0) + 1;
        let state = TableState { revision, ..state };
        let insert = "INSERT INTO {schema}.table_state VALUES ($1, $2::text::oid, $3::text::bigint, $4::text::jsonb)
                      ON CONFLICT DO NOTHING RETURNING 1";
        let update = "UPDATE {schema}.table_state SET revision = $3::text::bigint, state = $4::text::jsonb
                       WHERE pipeline = $1 AND id = $2::text::oid AND revision = $3::text::bigint - 1 RETURNING 1";
        let statement = if expect.is_some() { update } else { insert };
        let (id, number, body) = (table.0.to_string(), revision.to_string(), to_json("table state", &state)?);
        let answer = self.texts("store a table's state", statement, &[&id, &number, &body]).await?;
        if !answer.rows.is_empty() {
            return Ok(revision);
        }
        let found = self.table_state(table).await?;
        // An attempt whose answer was lost may have been carried out.
        if answer.is_repeated && found.as_ref() == Some(&state) {
            return Ok(revision);
        }
        Err(conflict(table, expect, found.map(|state| state.revision)))
    }
}

fn read_state(row: &Row, place: usize) -> EtlResult<TableState> {
    let state: TableState = from_json("table state", row.get(place + 1))?;
    Ok(TableState { revision: u64::try_from(row.get::<_, i64>(place)).unwrap_or(0), ..state })
}

impl StateStore for PostgresStore {
    fn table_states(&self) -> BoxFuture<'_, EtlResult<Vec<(TableId, TableState)>>> {
        Box::pin(async move {
            let query = "SELECT id, revision, state::text FROM {schema}.table_state WHERE pipeline = $1 ORDER BY id";
            let rows = self.texts("read the table states", query, &[]).await?.rows;
            rows.iter().map(|row| Ok((TableId(row.get(0)), read_state(row, 1)?))).collect()
        })
    }

    fn set_table_state(&self, table: TableId, expect: Option<u64>, state: TableState) -> BoxFuture<'_, EtlResult<u64>> {
        Box::pin(self.store_state(table, expect, state))
    }

    fn advance(&self, cursor: CursorId, to: Position) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
INSERT INTO {schema}.cursor AS c VALUES ($1, $2, $3::text::pg_lsn, $4::text::numeric)
ON CONFLICT (pipeline, id) DO UPDATE SET commit = excluded.commit, ordinal = excluded.ordinal
 WHERE (c.commit, c.ordinal) < (excluded.commit, excluded.ordinal)";
            let arguments = [cursor_text(cursor), to.commit.to_string(), to.ordinal.to_string()];
            self.texts("store a position", statement, &arguments.each_ref().map(String::as_str)).await.map(drop)
        })
    }

    fn forget_cursor(&self, cursor: CursorId) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "DELETE FROM {schema}.cursor WHERE pipeline = $1 AND id = $2";
            self.texts("forget a position", statement, &[&cursor_text(cursor)]).await.map(drop)
        })
    }

    fn confirm(&self, end: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "UPDATE {schema}.pipeline SET confirmed = $2::text::pg_lsn
                              WHERE id = $1 AND (confirmed IS NULL OR confirmed < $2::text::pg_lsn)";
            self.texts("store what is confirmed", statement, &[&end.to_string()]).await.map(drop)
        })
    }

    fn set_back(&self, confirmed: Lsn) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "UPDATE {schema}.pipeline SET confirmed = $2::text::pg_lsn WHERE id = $1";
            self.texts("store what is confirmed", statement, &[&confirmed.to_string()]).await.map(drop)
        })
    }

    fn progress(&self) -> BoxFuture<'_, EtlResult<Progress>> {
        Box::pin(async move {
            let query = "SELECT id, commit::text, ordinal::text FROM {schema}.cursor WHERE pipeline = $1";
            let rows = self.texts("read the positions", query, &[]).await?.rows;
            let cursor = |row: &Row| Ok((read_cursor(row.get(0))?, read_position(row, 1)?));
            let mut cursors = rows.iter().map(cursor).collect::<EtlResult<Vec<_>>>()?;
            cursors.sort_unstable();
            let query = "SELECT confirmed::text FROM {schema}.pipeline WHERE id = $1 AND confirmed IS NOT NULL";
            let rows = self.texts("read what is confirmed", query, &[]).await?.rows;
            let confirmed = rows.first().map(|row| read_lsn(row, 0)).transpose()?;
            Ok(Progress { cursors, confirmed })
        })
    }

    fn fact(&self, name: &'static str) -> BoxFuture<'_, EtlResult<Option<String>>> {
        Box::pin(async move {
            let query = "SELECT value FROM {schema}.fact WHERE pipeline = $1 AND name = $2";
            let rows = self.texts("read a fact", query, &[name]).await?.rows;
            Ok(rows.first().map(|row| row.get(0)))
        })
    }

    fn set_fact(&self, name: &'static str, value: String) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "INSERT INTO {schema}.fact VALUES ($1, $2, $3)
                             ON CONFLICT (pipeline, name) DO UPDATE SET value = excluded.value";
            self.texts("store a fact", statement, &[name, &value]).await.map(drop)
        })
    }
}

impl SchemaStore for PostgresStore {
    fn schema_at(&self, table: TableId, at: Position) -> BoxFuture<'_, EtlResult<Option<Arc<TableSchema>>>> {
        Box::pin(async move {
            let query = "
SELECT body::text FROM {schema}.table_schema
 WHERE pipeline = $1 AND id = $2::text::oid AND (commit, ordinal) <= ($3::text::pg_lsn, $4::text::numeric)
 ORDER BY commit DESC, ordinal DESC LIMIT 1";
            let arguments = [table.0.to_string(), at.commit.to_string(), at.ordinal.to_string()];
            let rows = self.texts("read a schema", query, &arguments.each_ref().map(String::as_str)).await?.rows;
            rows.first().map(|row| from_json("schema", row.get(0)).map(Arc::new)).transpose()
        })
    }

    fn put_schema(&self, schema: Arc<TableSchema>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
INSERT INTO {schema}.table_schema VALUES ($1, $2::text::oid, $3::text::pg_lsn, $4::text::numeric, $5::text::jsonb)
ON CONFLICT (pipeline, id, commit, ordinal) DO UPDATE SET body = excluded.body";
            let since = schema.since;
            let body = to_json("schema", &*schema)?;
            let arguments = [schema.id.0.to_string(), since.commit.to_string(), since.ordinal.to_string(), body];
            self.texts("store a schema", statement, &arguments.each_ref().map(String::as_str)).await.map(drop)
        })
    }

    fn prune_schemas(&self, table: TableId, before: Position) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
DELETE FROM {schema}.table_schema s
 WHERE pipeline = $1 AND id = $2::text::oid
   AND EXISTS (SELECT 1 FROM {schema}.table_schema n
                WHERE n.pipeline = s.pipeline AND n.id = s.id AND (n.commit, n.ordinal) > (s.commit, s.ordinal)
                  AND (n.commit, n.ordinal) <= ($3::text::pg_lsn, $4::text::numeric))";
            let arguments = [table.0.to_string(), before.commit.to_string(), before.ordinal.to_string()];
            self.texts("forget old schemas", statement, &arguments.each_ref().map(String::as_str)).await.map(drop)
        })
    }
}
