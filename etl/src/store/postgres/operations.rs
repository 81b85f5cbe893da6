//! Where do operations and dead letters live? In two tables of the schema, one row each.

use serde::Serialize;

use super::PostgresStore;
use super::statements::{from_json, to_json};
use crate::error::EtlResult;
use crate::schema::TableId;
use crate::store::operation::conflict;
use crate::store::{BoxFuture, DeadLetter, DeadLetterId, DeadLetterStore, Operation, OperationId, OperationStore};

/// A letter as an argument of a statement. Its body goes as a text: the server's functions refuse a document in which a
/// character is escaped that it has no text for, though it stores one.
#[derive(Serialize)]
struct Listed<'l> {
    operation: &'l str,
    ordinal: u32,
    id: u32,
    body: String,
}

fn listed(letters: &[DeadLetter]) -> EtlResult<String> {
    let listed = letters.iter().map(|letter| {
        let DeadLetterId { operation, ordinal } = &letter.id;
        let body = to_json("dead letter", letter)?;
        Ok(Listed { operation: &operation.0, ordinal: *ordinal, id: letter.table.0, body })
    });
    to_json("dead letter", &listed.collect::<EtlResult<Vec<_>>>()?)
}

/// Stores the letters of an argument where the condition holds.
fn put_letters(argument: &str, condition: &str) -> String {
    format!(
        "INSERT INTO {{schema}}.dead_letter
         SELECT $1, l.operation, l.ordinal, l.id::text::oid, l.body::json
           FROM json_to_recordset({argument}::text::json) AS l (operation text, ordinal bigint, id bigint, body text)
          WHERE {condition}
         ON CONFLICT (pipeline, operation, ordinal) DO UPDATE SET id = excluded.id, body = excluded.body"
    )
}

impl PostgresStore {
    async fn operation(&self, id: &OperationId) -> EtlResult<Option<Operation>> {
        let query = "SELECT body::text FROM {schema}.operation WHERE pipeline = $1 AND id = $2";
        let rows = self.texts("read an operation", query, &[&id.0]).await?.rows;
        rows.first().map(|row| from_json("operation", row.get(0))).transpose()
    }

    async fn store_operation(
        &self,
        expect: Option<u64>,
        operation: Operation,
        dead: Vec<DeadLetter>,
    ) -> EtlResult<u64> {
        let revision = expect.unwrap_or(0) + 1;
        let operation = Operation { revision, ..operation };
        let stored = if expect.is_some() {
            "UPDATE {schema}.operation SET revision = $3::text::bigint, body = $4::text::json
              WHERE pipeline = $1 AND id = $2 AND revision = $3::text::bigint - 1 RETURNING 1"
        } else {
            "INSERT INTO {schema}.operation VALUES ($1, $2, $3::text::bigint, $4::text::json)
             ON CONFLICT DO NOTHING RETURNING 1"
        };
        let letters = put_letters("$5", "EXISTS (SELECT FROM stored)");
        let statement = format!("WITH stored AS ({stored}), letters AS ({letters}) SELECT 1 FROM stored");
        let (number, body) = (revision.to_string(), to_json("operation", &operation)?);
        let arguments = [&*operation.id.0, &number, &body, &listed(&dead)?];
        let answer = self.texts("store an operation", &statement, &arguments).await?;
        if !answer.rows.is_empty() {
            return Ok(revision);
        }
        let found = self.operation(&operation.id).await?;
        // An attempt whose answer was lost may have been carried out.
        if answer.is_repeated && found.as_ref() == Some(&operation) {
            return Ok(revision);
        }
        Err(conflict(&operation.id, expect, found.map(|found| found.revision)))
    }
}

impl OperationStore for PostgresStore {
    fn operations(&self) -> BoxFuture<'_, EtlResult<Vec<Operation>>> {
        Box::pin(async move {
            let query = "SELECT body::text FROM {schema}.operation WHERE pipeline = $1";
            let rows = self.texts("read the operations", query, &[]).await?.rows;
            let operations = rows.iter().map(|row| from_json("operation", row.get(0)));
            let mut operations = operations.collect::<EtlResult<Vec<Operation>>>()?;
            operations.sort_by_key(|operation| operation.sequence);
            Ok(operations)
        })
    }

    fn put_operation(
        &self,
        expect: Option<u64>,
        operation: Operation,
        dead: Vec<DeadLetter>,
    ) -> BoxFuture<'_, EtlResult<u64>> {
        Box::pin(self.store_operation(expect, operation, dead))
    }

    fn forget_operation(&self, id: OperationId) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "DELETE FROM {schema}.operation WHERE pipeline = $1 AND id = $2";
            self.texts("forget an operation", statement, &[&id.0]).await.map(drop)
        })
    }
}

impl DeadLetterStore for PostgresStore {
    fn dead_letters(
        &self,
        table: Option<TableId>,
        after: Option<DeadLetterId>,
        limit: u32,
    ) -> BoxFuture<'_, EtlResult<Vec<DeadLetter>>> {
        Box::pin(async move {
            // No operation has an empty name, and no table the id 0.
            let query = "
SELECT body::text FROM {schema}.dead_letter
 WHERE pipeline = $1 AND ($2::text IN ('0', id::text)) AND (operation, ordinal) > ($3, $4::text::bigint)
 ORDER BY operation, ordinal LIMIT $5::text::bigint";
            let table = table.map_or(0, |table| table.0).to_string();
            let (operation, ordinal) = after.map_or((Box::default(), -1), |id| (id.operation.0, i64::from(id.ordinal)));
            let arguments = [&*table, &operation, &ordinal.to_string(), &limit.to_string()];
            let rows = self.texts("read the dead letters", query, &arguments).await?.rows;
            rows.iter().map(|row| from_json("dead letter", row.get(0))).collect()
        })
    }

    fn put_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            self.texts("store dead letters", &put_letters("$2", "true"), &[&listed(&letters)?]).await.map(drop)
        })
    }

    fn remove_dead_letters(&self, ids: Vec<DeadLetterId>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
DELETE FROM {schema}.dead_letter d
 USING json_to_recordset($2::text::json) AS l (operation text, ordinal bigint)
 WHERE d.pipeline = $1 AND d.operation = l.operation AND d.ordinal = l.ordinal";
            self.texts("remove dead letters", statement, &[&to_json("dead letter", &ids)?]).await.map(drop)
        })
    }
}
