//! Is the publication there, and if it is ours, does it hold the tables it should?

use tokio_postgres::Client;

use super::SourceConfig;
use super::leftovers::KEPT;
use super::membership::asked_of_members;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{query_error, quote_ident, quote_literal};
use crate::schema::{TableName, TablePatterns};
use crate::store::STATE_MARK;

/// The name of the publication to read. One that the pipeline keeps itself is created or extended first.
pub(crate) async fn ensure_publication(
    client: &Client,
    source: &SourceConfig,
    pipeline: &str,
    server_version: u32,
) -> EtlResult<String> {
    match &source.publication {
        Some(name) => {
            require(client, name, server_version).await?;
            Ok(name.clone())
        }
        None => keep_own(client, &TablePatterns::new(&source.tables), &format!("etl_{pipeline}")).await,
    }
}

async fn exists(client: &Client, name: &str) -> EtlResult<bool> {
    let query = "SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = $1";
    Ok(client.query_opt(query, &[&name]).await.map_err(|e| query_error("look for the publication", e))?.is_some())
}

async fn require(client: &Client, name: &str, server_version: u32) -> EtlResult<()> {
    if exists(client, name).await? {
        return refuse_state(client, name, server_version).await;
    }
    Err(EtlError::new(ErrorKind::SourceSetup, "the publication does not exist")
        .with("publication", name)
        .hint(format!("Create it: CREATE PUBLICATION {} FOR TABLE ...;", quote_ident(name))))
}

/// Refuses a publication that holds the state of a pipeline.
pub(super) async fn refuse_state(client: &Client, publication: &str, server_version: u32) -> EtlResult<()> {
    let row = client.query_opt(&asked_of_members(STATE, server_version), &[&publication, &STATE_MARK]).await;
    let Some(row) = row.map_err(|e| query_error("look into the publication", e))? else { return Ok(()) };
    Err(EtlError::new(ErrorKind::SourceSetup, "the publication holds the tables in which a pipeline keeps its state")
        .with("publication", publication)
        .with("schema", row.get::<_, String>(0))
        .hint(
            "Each position stored would be a change to stream: keep the state in another database, or publish \
               other schemas only (FOR TABLES IN SCHEMA, or the key `tables`)",
        ))
}

const ALL_TABLES: &str = "
SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND pg_catalog.obj_description(c.oid, 'pg_class') IS DISTINCT FROM $1 ORDER BY 1, 2";

/// A table of a state store that is published, so that every position stored is a change again.
const STATE: &str = "
SELECT n.nspname FROM published p JOIN pg_catalog.pg_class c ON c.oid = p.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE pg_catalog.obj_description(c.oid, 'pg_class') = $2 LIMIT 1";

const PUBLISHED: &str = "
SELECT n.nspname, c.relname FROM pg_catalog.pg_publication_rel r
  JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid
  JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE p.pubname = $1";

/// The tables that a publication of the pipeline's own would hold.
pub(super) async fn wanted_tables(client: &Client, patterns: &TablePatterns) -> EtlResult<Vec<TableName>> {
    let all = names(client, ALL_TABLES, &[&STATE_MARK]).await?;
    let wanted: Vec<_> = all.into_iter().filter(|table| patterns.matches(table)).collect();
    if wanted.is_empty() {
        return Err(EtlError::new(ErrorKind::SourceSetup, "no table of the source matches `tables`")
            .with("tables", patterns)
            .hint("Patterns match `schema.table`, such as public.*; one that begins with ! excludes"));
    }
    Ok(wanted)
}

async fn keep_own(client: &Client, patterns: &TablePatterns, name: &str) -> EtlResult<String> {
    let wanted = wanted_tables(client, patterns).await?;
    let there = exists(client, name).await?;
    let published = if there { names(client, PUBLISHED, &[&name]).await? } else { Vec::new() };
    let missing: Vec<_> = wanted.iter().filter(|table| !published.contains(table)).map(quoted).collect();
    let surplus: Vec<_> = published.iter().filter(|table| !wanted.contains(table)).map(quoted).collect();
    let publication = quote_ident(name);
    let mut statements = Vec::new();
    if !there {
        let tables = missing.join(", ");
        statements
            .push(format!("CREATE PUBLICATION {publication} FOR TABLE {tables} WITH (publish_via_partition_root)"));
        // By this `etl gc` knows it.
        statements.push(format!("COMMENT ON PUBLICATION {publication} IS {}", quote_literal(KEPT)));
    } else if !missing.is_empty() {
        statements.push(format!("ALTER PUBLICATION {publication} ADD TABLE {}", missing.join(", ")));
    }
    if !surplus.is_empty() {
        statements.push(format!("ALTER PUBLICATION {publication} DROP TABLE {}", surplus.join(", ")));
    }
    for statement in statements {
        client.batch_execute(&statement).await.map_err(|e| {
            query_error("keep the publication", e)
                .with("publication", name)
                .hint("The user must own the tables and may CREATE in the database; or name an existing publication")
        })?;
    }
    Ok(name.to_owned())
}

/// Brings a publication of the pipeline's own up to date while it is read: one table at a time, so that one that cannot
/// be published does not keep the others out. Returns the tables that cannot. Nobody who alters a table is waited for.
pub(crate) async fn extend_own(
    client: &Client,
    patterns: &TablePatterns,
    name: &str,
) -> EtlResult<Vec<(TableName, EtlError)>> {
    let all = names(client, ALL_TABLES, &[&STATE_MARK]).await?;
    let published = names(client, PUBLISHED, &[&name]).await?;
    let is_wanted = |table: &&TableName| patterns.matches(table);
    let missing = all.iter().filter(is_wanted).filter(|table| !published.contains(table)).map(|table| ("ADD", table));
    let surplus = published.iter().filter(|table| !is_wanted(table)).map(|table| ("DROP", table));
    let mut refused = Vec::new();
    for (verb, table) in missing.chain(surplus) {
        let statement = format!(
            "SET LOCAL lock_timeout = '1s'; ALTER PUBLICATION {} {verb} TABLE {}",
            quote_ident(name),
            quoted(table)
        );
        if let Err(error) = client.batch_execute(&statement).await {
            let error = query_error("keep the publication", error).with("publication", name).with("table", table);
            refused.push((table.clone(), error.hint("The user must own the table; or leave it out of `tables`")));
        }
    }
    Ok(refused)
}

async fn names(
    client: &Client,
    query: &str,
    arguments: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> EtlResult<Vec<TableName>> {
    let rows = client.query(query, arguments).await.map_err(|e| query_error("list the tables", e))?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, String>(0), row.get::<_, String>(1))).collect())
}

fn quoted(table: &TableName) -> String {
    format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name))
}
