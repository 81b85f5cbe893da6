//! Where do operations and dead letters live? In two tables of the file, one row each.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{SqliteStore, json, to_json};
use crate::error::EtlResult;
use crate::schema::TableId;
use crate::store::operation::conflict;
use crate::store::{BoxFuture, DeadLetter, DeadLetterId, DeadLetterStore, Operation, OperationId, OperationStore};

impl OperationStore for SqliteStore {
    fn operations(&self) -> BoxFuture<'_, EtlResult<Vec<Operation>>> {
        self.call("read the operations", |connection| {
            let mut query = connection.prepare_cached("SELECT body FROM operation")?;
            let operations = query.query_map([], |row| json(&row.get::<_, String>(0)?))?;
            let mut operations = operations.collect::<rusqlite::Result<Vec<Operation>>>()?;
            operations.sort_by_key(|operation| operation.sequence);
            Ok(Ok(operations))
        })
    }

    fn put_operation(
        &self,
        expect: Option<u64>,
        operation: Operation,
        dead: Vec<DeadLetter>,
    ) -> BoxFuture<'_, EtlResult<u64>> {
        self.call("store an operation", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let query = "SELECT revision FROM operation WHERE id = ?1";
            let found: Option<i64> =
                transaction.query_row(query, params![operation.id.0], |row| row.get(0)).optional()?;
            let found = found.map(|revision| u64::try_from(revision).unwrap_or(0));
            if found != expect {
                return Ok(Err(conflict(&operation.id, expect, found)));
            }
            let revision = found.unwrap_or(0) + 1;
            let body = to_json(&Operation { revision, ..operation.clone() })?;
            let number = i64::try_from(revision).unwrap_or(i64::MAX);
            transaction.prepare_cached("INSERT OR REPLACE INTO operation VALUES (?1, ?2, ?3)")?.execute(params![
                operation.id.0,
                number,
                body
            ])?;
            put(&transaction, &dead)?;
            transaction.commit()?;
            Ok(Ok(revision))
        })
    }

    fn forget_operation(&self, id: OperationId) -> BoxFuture<'_, EtlResult<()>> {
        self.call("forget an operation", move |connection| {
            connection.execute("DELETE FROM operation WHERE id = ?1", params![id.0])?;
            Ok(Ok(()))
        })
    }
}

impl DeadLetterStore for SqliteStore {
    fn dead_letters(
        &self,
        table: Option<TableId>,
        after: Option<DeadLetterId>,
        limit: u32,
    ) -> BoxFuture<'_, EtlResult<Vec<DeadLetter>>> {
        self.call("read the dead letters", move |connection| {
            let sql = "SELECT body FROM dead_letter
                        WHERE (?1 IS NULL OR id = ?1) AND (?2 IS NULL OR (operation, ordinal) > (?2, ?3))
                        ORDER BY operation, ordinal LIMIT ?4";
            let (table, after) = (table.map(|table| table.0), after.as_ref());
            let (operation, ordinal) = (after.map(|id| &*id.operation.0), after.map(|id| id.ordinal));
            let mut query = connection.prepare_cached(sql)?;
            let letters =
                query.query_map(params![table, operation, ordinal, limit], |row| json(&row.get::<_, String>(0)?))?;
            Ok(Ok(letters.collect::<rusqlite::Result<_>>()?))
        })
    }

    fn put_dead_letters(&self, letters: Vec<DeadLetter>) -> BoxFuture<'_, EtlResult<()>> {
        self.call("store dead letters", move |connection| in_one(connection, |transaction| put(transaction, &letters)))
    }

    fn remove_dead_letters(&self, ids: Vec<DeadLetterId>) -> BoxFuture<'_, EtlResult<()>> {
        self.call("remove dead letters", move |connection| {
            in_one(connection, |transaction| {
                let sql = "DELETE FROM dead_letter WHERE operation = ?1 AND ordinal = ?2";
                for id in &ids {
                    transaction.prepare_cached(sql)?.execute(params![id.operation.0, id.ordinal])?;
                }
                Ok(())
            })
        })
    }
}

/// All or nothing.
fn in_one(
    connection: &mut Connection,
    work: impl Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<EtlResult<()>> {
    let transaction = connection.transaction()?;
    work(&transaction)?;
    transaction.commit()?;
    Ok(Ok(()))
}

fn put(transaction: &Transaction<'_>, letters: &[DeadLetter]) -> rusqlite::Result<()> {
    for letter in letters {
        transaction.prepare_cached("INSERT OR REPLACE INTO dead_letter VALUES (?1, ?2, ?3, ?4)")?.execute(params![
            letter.id.operation.0,
            letter.id.ordinal,
            letter.table.0,
            to_json(letter)?
        ])?;
    }
    Ok(())
}
