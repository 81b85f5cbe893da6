//! Would a pipeline run on this source? What is wrong and what to do about it, before anything is changed.

use super::catalog::named_tables;
use super::failover::check_failover;
use super::origin::check_origin;
use super::publication::{refuse_state, wanted_tables};
use super::slot::can_failover;
use super::slot_status::slot_status;
use super::standby::{can_read_standby, is_standby};
use super::{PublishedTable, SourceConfig, published_tables};
use crate::byte_size::ByteSize;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{Connection, Session, query_error};
use crate::schema::{ReplicaIdentity, TableName, TablePatterns, TableSchema};
use crate::transform::{Forecast, OnValue, Transform};

/// Whether a finding keeps a pipeline from running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but somebody should know.
    Warning,
    /// It does not, and it is as it was asked for, or hardly ever of importance.
    Note,
}

/// Something that was found at the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether a pipeline can run all the same.
    pub severity: Severity,
    /// What was found, and where.
    pub what: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Finding {
    pub(super) fn error(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Error, what: what.into(), hint: hint.into() }
    }

    pub(super) fn warning(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), hint: hint.into() }
    }

    fn of(error: &EtlError) -> Self {
        Self::error(error.to_string(), "")
    }
}

/// Looks at server, rights, publication and tables; changes nothing.
///
/// # Errors
/// Where the server cannot be asked at all.
pub async fn check(source: &SourceConfig, slot: &str) -> EtlResult<Vec<Finding>> {
    let session = Session::connect(&source.connect).await?;
    let client = session.client();
    let mut findings = Vec::new();
    let row = client.query_one("SHOW wal_level", &[]).await.map_err(|e| query_error("ask for wal_level", e))?;
    let level: String = row.get(0);
    if level != "logical" {
        let hint = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server";
        findings.push(Finding::error(format!("wal_level is {level}"), hint));
    }
    if let Err(error) = Connection::connect_replication(&source.connect).await {
        findings.push(Finding::of(&error));
    }
    findings.extend(check_slot(client, slot).await?);
    let is_standby = is_standby(client).await?;
    if is_standby {
        findings.extend(check_standby(client, source, session.server_version()).await?);
    }
    findings.extend(check_origin(source.origin, session.server_version()).err().map(|error| Finding::of(&error)));
    if source.failover == Some(true) {
        match can_failover(session.server_version(), is_standby) {
            Ok(()) => findings.extend(check_failover(&source.connect, client, slot).await?),
            Err(error) => findings.push(Finding::of(&error)),
        }
    }
    findings.extend(check_published(&session, source).await?);
    Ok(findings)
}

/// Looks at publication and tables alone, for runs that copy and do not follow; changes nothing.
///
/// # Errors
/// Where the server cannot be asked at all.
pub async fn check_copies(source: &SourceConfig, slot: &str) -> EtlResult<Vec<Finding>> {
    let session = Session::connect(&source.connect).await?;
    let mut findings = check_published(&session, source).await?;
    if let Some(status) = slot_status(session.client(), slot).await? {
        let kept = ByteSize(status.retained_bytes);
        findings.push(Finding::warning(
            format!("the slot {slot} of an earlier run keeps WAL, now {kept}, and a full refresh does not read it"),
            "Let `stream` or `incremental` go on with it, or drop it: SELECT pg_drop_replication_slot(...)",
        ));
    }
    Ok(findings)
}

async fn check_published(session: &Session, source: &SourceConfig) -> EtlResult<Vec<Finding>> {
    let client = session.client();
    match &source.publication {
        Some(publication) => check_publication(session, publication, &source.transform).await,
        None => match wanted_tables(client, &TablePatterns::new(&source.tables)).await {
            Ok(names) => {
                let tables = named_tables(client, &names, session.server_version()).await?;
                check_tables(session, &tables, &source.transform, true).await
            }
            Err(error) => Ok(vec![Finding::of(&error)]),
        },
    }
}

async fn check_standby(
    client: &tokio_postgres::Client,
    source: &SourceConfig,
    server_version: u32,
) -> EtlResult<Option<Finding>> {
    if let Err(error) = can_read_standby(source, server_version) {
        return Ok(Some(Finding::of(&error)));
    }
    let row = client.query_one("SHOW hot_standby_feedback", &[]).await;
    let row = row.map_err(|e| query_error("ask for hot_standby_feedback", e))?;
    let hint = "ALTER SYSTEM SET hot_standby_feedback = on; then SELECT pg_reload_conf() on the standby";
    Ok((row.get::<_, &str>(0) != "on").then(|| {
        Finding::warning("the primary does not know what this standby still reads: the slot may be invalidated", hint)
    }))
}

async fn check_slot(client: &tokio_postgres::Client, slot: &str) -> EtlResult<Option<Finding>> {
    let query = "SELECT active_pid FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(query, &[&slot]).await.map_err(|e| query_error("look for the slot", e))?;
    let pid: Option<i32> = row.and_then(|row| row.get(0));
    Ok(pid.map(|pid| {
        let hint = "The pipeline may be running already; else give this one another id";
        Finding::warning(format!("the slot {slot} is in use by the server's process {pid}"), hint)
    }))
}

async fn check_publication(session: &Session, publication: &str, transform: &Transform) -> EtlResult<Vec<Finding>> {
    let query = "SELECT pubupdate OR pubdelete FROM pg_catalog.pg_publication WHERE pubname = $1";
    let row = session.client().query_opt(query, &[&publication]).await;
    let Some(row) = row.map_err(|e| query_error("look for the publication", e))? else {
        let hint = format!("Create it: CREATE PUBLICATION {publication} FOR TABLE ...;");
        return Ok(vec![Finding::error(format!("the publication {publication} does not exist"), hint)]);
    };
    let has_changes: bool = row.get(0);
    if let Err(error) = refuse_state(session.client(), publication, session.server_version()).await {
        return Ok(vec![Finding::of(&error)]);
    }
    let tables = published_tables(session.client(), publication, session.server_version()).await?;
    if tables.is_empty() {
        return Ok(vec![Finding::warning(format!("the publication {publication} has no tables"), "")]);
    }
    check_tables(session, &tables, transform, has_changes).await
}

async fn check_tables(
    session: &Session,
    tables: &[PublishedTable],
    transform: &Transform,
    has_changes: bool,
) -> EtlResult<Vec<Finding>> {
    let mut findings = choices(transform, tables);
    findings.extend(foreign_partitions(session, tables).await?);
    for table in tables {
        findings.extend(identity(&table.schema).filter(|_| has_changes));
        findings.extend(rights(session, table.schema.id.0, &table.schema).await?);
        if !table.generated.is_empty() {
            let columns = table.generated.join(", ");
            findings.push(Finding::warning(
                format!("{}: the stream does not carry the generated columns {columns}", table.schema.name),
                "They are left out of the copy too",
            ));
        }
    }
    Ok(findings)
}

/// Of partitioned tables, what holds its rows at another server.
const FOREIGN: &str = "
WITH RECURSIVE parts AS (
  SELECT r.root AS part FROM unnest($1::oid[]) AS r(root)
  UNION
  SELECT i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.part
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition)
SELECT n.nspname, c.relname FROM parts p
  JOIN pg_catalog.pg_class c ON c.oid = p.part JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'f' ORDER BY 1, 2";

async fn foreign_partitions(session: &Session, tables: &[PublishedTable]) -> EtlResult<Vec<Finding>> {
    let roots: Vec<u32> = tables.iter().map(|table| table.schema.id.0).collect();
    let rows = session.client().query(FOREIGN, &[&roots]).await;
    let rows = rows.map_err(|e| query_error("look for foreign partitions", e))?;
    let finding = |row: &tokio_postgres::Row| {
        let name = TableName::new(row.get::<_, String>(0), row.get::<_, String>(1));
        Finding::warning(
            format!("{name} is a foreign partition: its rows are at another server, and neither copied nor followed"),
            "Read that server too, with a pipeline of its own",
        )
    };
    Ok(rows.iter().map(finding).collect())
}

/// What is wrong with the choice of columns and names.
fn choices(transform: &Transform, tables: &[PublishedTable]) -> Vec<Finding> {
    let schemas = || tables.iter().map(|table| &table.schema);
    let mut findings: Vec<Finding> =
        schemas().filter_map(|schema| transform.select(schema).err()).map(|error| Finding::of(&error)).collect();
    if findings.is_empty() {
        findings.extend(transform.select_all(schemas()).err().map(|error| Finding::of(&error)));
    }
    let names: Vec<_> = schemas().map(|schema| &schema.name).collect();
    findings.extend(schemas().flat_map(|schema| forecasts(transform, schema)));
    findings.extend(transform.idle_rules(&names).map(|rule| {
        Finding::warning(format!("no published table matches `{}`", rule.tables), "Look at `match` in `tables`")
    }));
    findings
}

/// What the destination cannot hold of a table; one finding for the columns to which the same happens.
fn forecasts(transform: &Transform, schema: &TableSchema) -> Vec<Finding> {
    let mut said: Vec<(OnValue, Vec<String>, Vec<Box<str>>)> = Vec::new();
    for Forecast { column, cannot, policy } in transform.forecast(schema) {
        match said.iter_mut().find(|(other, classes, _)| (*other, &**classes) == (policy, &*cannot)) {
            Some((.., columns)) => columns.push(column),
            None => said.push((policy, cannot, vec![column])),
        }
    }
    let finding = |(policy, cannot, columns): (OnValue, Vec<String>, Vec<Box<str>>)| {
        let (columns, cannot) = (columns.join(", "), cannot.join("; "));
        let what = format!("{}: the destination cannot hold everything of {columns}: {cannot}", schema.name);
        let then = match policy {
            OnValue::Error => "Such a value stops the table; `on_value` can be null, clamp or text instead",
            OnValue::Null => "By `on_value`, such a value is null there",
            OnValue::Clamp => "By `on_value`, such a value is the nearest one there; one that has none stops the table",
            OnValue::Text => "By `on_value`, the column is text there, and nothing is lost",
        };
        Finding { severity: Severity::Note, what, hint: then.to_owned() }
    };
    said.into_iter().map(finding).collect()
}

/// Postgres refuses updates and deletes of a published table whose rows it cannot tell apart.
fn identity(schema: &TableSchema) -> Option<Finding> {
    let has_identity = schema.identity == ReplicaIdentity::Full || schema.has_key();
    (!has_identity).then(|| {
        Finding::warning(
            format!("{} has no replica identity: Postgres refuses its updates and deletes, inserts flow", schema.name),
            "Give it a primary key, or ALTER TABLE ... REPLICA IDENTITY FULL, or publish inserts only",
        )
    })
}

async fn rights(session: &Session, table: u32, schema: &TableSchema) -> EtlResult<Option<Finding>> {
    let query = "SELECT has_any_column_privilege($1::oid, 'SELECT'), row_security_active($1::oid)";
    let row = session.client().query_one(query, &[&table]).await;
    let row = match row.map_err(|e| query_error("ask for rights", e)) {
        Ok(row) => row,
        Err(error) if error.kind() == ErrorKind::SourcePermission => return Ok(Some(Finding::of(&error))),
        Err(error) => return Err(error),
    };
    Ok(match (row.get::<_, bool>(0), row.get::<_, bool>(1)) {
        (false, _) => Some(Finding::error(
            format!("{}: the user may not read it", schema.name),
            format!("GRANT SELECT ON {} TO <user>", schema.name),
        )),
        (true, true) => Some(Finding::error(
            format!("{}: row security would hide rows from the copy", schema.name),
            "Use a role with BYPASSRLS, or the table's owner",
        )),
        (true, false) => None,
    })
}
