//! Where does the ledger of copies live? In two tables of the schema, one row a leaf and one a key.

use super::PostgresStore;
use super::statements::{from_json, to_json};
use crate::error::EtlResult;
use crate::schema::TableId;
use crate::store::{BoxFuture, CopiedLeaf, CopyStore, RepairKey};

/// The keys as one argument.
fn listed(keys: &[RepairKey]) -> EtlResult<String> {
    let keys: Vec<String> = keys.iter().map(|key| to_json("key", key)).collect::<EtlResult<_>>()?;
    to_json("key", &keys)
}

impl CopyStore for PostgresStore {
    fn copied(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<CopiedLeaf>>> {
        Box::pin(async move {
            let query = "SELECT body::text FROM {schema}.copied WHERE pipeline = $1 AND id = $2::text::oid";
            let rows = self.texts("read what is copied", query, &[&table.0.to_string()]).await?.rows;
            rows.iter().map(|row| from_json("copied leaf", row.get(0))).collect()
        })
    }

    fn put_copied(&self, table: TableId, leaf: CopiedLeaf) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
INSERT INTO {schema}.copied VALUES ($1, $2::text::oid, $3::text::oid, $4::text::jsonb)
ON CONFLICT (pipeline, id, leaf) DO UPDATE SET body = excluded.body";
            let (id, part, body) = (table.0.to_string(), leaf.leaf.0.to_string(), to_json("copied leaf", &leaf)?);
            self.texts("store what is copied", statement, &[&id, &part, &body]).await.map(drop)
        })
    }

    fn repairs(&self, table: TableId) -> BoxFuture<'_, EtlResult<Vec<RepairKey>>> {
        Box::pin(async move {
            let query = "SELECT key FROM {schema}.repair WHERE pipeline = $1 AND id = $2::text::oid";
            let rows = self.texts("read what is to be repaired", query, &[&table.0.to_string()]).await?.rows;
            rows.iter().map(|row| from_json("key", row.get(0))).collect()
        })
    }

    fn add_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            // A key may be longer than an index takes.
            let statement = "
INSERT INTO {schema}.repair
SELECT $1, $2::text::oid, md5(word), word FROM json_array_elements_text($3::text::json) AS listed (word)
ON CONFLICT DO NOTHING";
            let (id, keys) = (table.0.to_string(), listed(&keys)?);
            self.texts("store what is to be repaired", statement, &[&id, &keys]).await.map(drop)
        })
    }

    fn remove_repairs(&self, table: TableId, keys: Vec<RepairKey>) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            // A column named as the table's would be the table's: every key would go.
            let statement = "
DELETE FROM {schema}.repair WHERE pipeline = $1 AND id = $2::text::oid
   AND digest IN (SELECT md5(word) FROM json_array_elements_text($3::text::json) AS listed (word))";
            let (id, keys) = (table.0.to_string(), listed(&keys)?);
            self.texts("store what is repaired", statement, &[&id, &keys]).await.map(drop)
        })
    }

    fn forget_copy(&self, table: TableId) -> BoxFuture<'_, EtlResult<()>> {
        Box::pin(async move {
            let statement = "
WITH gone AS (DELETE FROM {schema}.copied WHERE pipeline = $1 AND id = $2::text::oid)
DELETE FROM {schema}.repair WHERE pipeline = $1 AND id = $2::text::oid";
            self.texts("forget a copy", statement, &[&table.0.to_string()]).await.map(drop)
        })
    }
}
