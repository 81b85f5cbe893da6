//! How do tables take the place of others at once? They are filled beside them, and renamed in one transaction.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::{quote_ident, quote_literal};
use etl::schema::TableName;

use super::ddl::{self, columns_of, oid, quoted_table};
use super::ledger;
use super::link::Link;
use super::unit;
use crate::writer::{Replacement, Step, WriteUnit};

/// The server cuts names after so many bytes.
const LONGEST_NAME: usize = 63;

/// What it adds to a table's name for its primary key.
const PRIMARY_KEY: &str = "_pkey";

/// Under what the run's own chunk tokens are kept.
fn owner_of(owner: &str, run: &str) -> String {
    format!("{owner}#{run}")
}

/// That every table may be replaced. What other runs have left is removed.
pub(super) async fn begin(link: &Link, owner: &str, run: &str, tables: &[Replacement]) -> EtlResult<()> {
    ledger::lock_shapes(link).await?;
    for Replacement { to, .. } in tables {
        if ddl::exists(link, &to.name).await? {
            ledger::expect_own_table(link, &to.name).await?;
        }
    }
    let others = format!("owner = {} AND run <> {}", quote_literal(owner), quote_literal(run));
    remove(link, owner, &others).await
}

/// Writes rows of the run into its own tables.
pub(super) async fn stage(link: &mut Link, owner: &str, run: &str, unit: &WriteUnit) -> EtlResult<()> {
    unit::apply(link, &owner_of(owner, run), unit).await?;
    for step in &unit.steps {
        if let Step::Ensure(table) = step {
            let sql = format!(
                "INSERT INTO _etl.staged VALUES ({}, {}, {}, {}) ON CONFLICT DO NOTHING",
                quote_literal(owner),
                quote_literal(run),
                quote_literal(&table.name.schema),
                quote_literal(&table.name.name)
            );
            link.run(&sql, "note a table of the run").await?;
        }
    }
    Ok(())
}

/// Removes what the run has staged.
pub(super) async fn abandon(link: &Link, owner: &str, run: &str) -> EtlResult<()> {
    ledger::lock_shapes(link).await?;
    remove(link, owner, &format!("owner = {} AND run = {}", quote_literal(owner), quote_literal(run))).await
}

/// Removes the staged tables that a condition holds for.
async fn remove(link: &Link, owner: &str, condition: &str) -> EtlResult<()> {
    let staged = format!("SELECT schema_name, table_name, run FROM _etl.staged WHERE {condition}");
    for row in link.rows(&staged, "look for what runs have left").await? {
        let text = |place| row.get(place).unwrap_or_default();
        let name = TableName::new(text(0), text(1));
        let sql = format!("DROP TABLE IF EXISTS {}", quoted_table(&name));
        link.run(&sql, "drop what a run has left").await.map_err(|error| error.with("table", &name))?;
        ledger::disown_table(link, &name).await?;
        forget_chunks(link, owner, text(2)).await?;
    }
    link.run(&format!("DELETE FROM _etl.staged WHERE {condition}"), "forget what runs have left").await
}

async fn forget_chunks(link: &Link, owner: &str, run: &str) -> EtlResult<()> {
    let owner = quote_literal(&owner_of(owner, run));
    link.run(&format!("DELETE FROM _etl.chunks WHERE owner = {owner}"), "forget the chunks of a run").await
}

/// Puts every staged table in the place of its own, all in this transaction. Does nothing where that was done.
pub(super) async fn publish(link: &Link, owner: &str, run: &str, tables: &[Replacement]) -> EtlResult<()> {
    ledger::lock_shapes(link).await?;
    let (own, this) = (quote_literal(owner), quote_literal(run));
    let done = format!("SELECT true FROM _etl.runs WHERE owner = {own} AND run = {this}");
    if !link.rows(&done, "ask whether the run is shown").await?.is_empty() {
        return Ok(());
    }
    let mut there = Vec::new();
    for Replacement { to, .. } in tables {
        if ddl::exists(link, &to.name).await? {
            ledger::expect_own_table(link, &to.name).await?;
            there.push(quoted_table(&to.name));
        }
    }
    if !there.is_empty() {
        // All at once, so that readers of several are waited for once.
        link.run(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", there.join(", ")), "wait for readers").await?;
    }
    for replaced in tables {
        replace(link, owner, replaced).await.map_err(|error| match error.context("table") {
            None => error.with("table", &replaced.to.name),
            Some(_) => error,
        })?;
    }
    forget_chunks(link, owner, run).await?;
    let shown = format!(
        "DELETE FROM _etl.staged WHERE owner = {own} AND run = {this};
         INSERT INTO _etl.runs VALUES ({own}, {this}) ON CONFLICT (owner) DO UPDATE SET run = excluded.run"
    );
    link.run(&shown, "note that the run is shown").await
}

async fn replace(link: &Link, owner: &str, Replacement { from, to }: &Replacement) -> EtlResult<()> {
    if !ddl::exists(link, &from.name).await? {
        return Err(EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
            .with("staged", &from.name)
            .hint("Somebody removed it: run again"));
    }
    ledger::forget(link, owner, to.id).await?;
    let (staged, own) = (quoted_table(&from.name), quoted_table(&to.name));
    let is_there = ddl::exists(link, &to.name).await?;
    if is_there && has_dependents(link, &to.name).await? {
        // Views and foreign keys are about that very table: it stays, and gets other rows.
        if !ddl::is_in_shape(link, to).await? {
            return Err(EtlError::new(
                ErrorKind::DestinationRejected,
                "views or foreign keys keep the table, which has another shape now",
            )
            .hint("Drop them, and make them again after the run"));
        }
        let columns = columns_of(to).join(", ");
        let sql = format!(
            "DELETE FROM {own}; INSERT INTO {own} ({columns}) SELECT {columns} FROM {staged}; DROP TABLE {staged}"
        );
        link.run(&sql, "replace a table's rows").await?;
        return ledger::disown_table(link, &from.name).await;
    }
    let (mut grants, mut key) = (Vec::new(), usual_key(link, &to.name).await?);
    if is_there {
        grants = grants_of(link, &to.name, &own).await?;
        key = key_name(link, &to.name).await?.or(key);
        link.run(&format!("DROP TABLE {own}"), "drop the table of before").await?;
        ledger::disown_table(link, &to.name).await?;
    }
    link.run(&format!("ALTER TABLE {staged} RENAME TO {}", quote_ident(&to.name.name)), "show a table").await?;
    if let (Some(from), Some(to)) = (key_name(link, &to.name).await?, key) {
        let sql = format!("ALTER TABLE {own} RENAME CONSTRAINT {from} TO {to}");
        link.run(&sql, "name a key as before").await?;
    }
    for grant in grants {
        link.run(&grant, "grant what was granted").await?;
    }
    ledger::rename_table(link, &from.name, &to.name).await
}

/// Whether views or foreign keys are about the table.
async fn has_dependents(link: &Link, name: &TableName) -> EtlResult<bool> {
    let table = oid(name);
    let sql = format!(
        "SELECT true FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON r.oid = d.objid
          WHERE d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
            AND d.refobjid = {table} AND r.ev_class <> {table}
         UNION ALL SELECT true FROM pg_catalog.pg_constraint c WHERE c.contype = 'f' AND c.confrelid = {table} LIMIT 1"
    );
    Ok(!link.rows(&sql, "look for views").await?.is_empty())
}

/// What makes the rights of others to a table, as statements about one of that name.
async fn grants_of(link: &Link, name: &TableName, quoted: &str) -> EtlResult<Vec<String>> {
    let sql = format!(
        "SELECT pg_catalog.format('GRANT %s ON %s TO %s%s', a.privilege_type, {}::text,
                CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END,
                CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
           FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a
          WHERE c.oid = {} AND a.grantee <> c.relowner",
        quote_literal(quoted),
        oid(name)
    );
    let rows = link.rows(&sql, "read who may read a table").await?;
    Ok(rows.iter().filter_map(|row| row.get(0).map(str::to_owned)).collect())
}

/// What the server calls the primary key of a new table, unless something has that name.
async fn usual_key(link: &Link, name: &TableName) -> EtlResult<Option<String>> {
    let longest = name.name.floor_char_boundary(LONGEST_NAME - PRIMARY_KEY.len());
    let key = format!("{}{PRIMARY_KEY}", &name.name[..longest]);
    let is_taken = ddl::exists(link, &TableName::new(&*name.schema, key.as_str())).await?;
    Ok((!is_taken).then(|| quote_ident(&key)))
}

/// The name of the primary key, as SQL takes it.
async fn key_name(link: &Link, name: &TableName) -> EtlResult<Option<String>> {
    let sql = format!("SELECT conname FROM pg_catalog.pg_constraint WHERE contype = 'p' AND conrelid = {}", oid(name));
    let rows = link.rows(&sql, "read a key's name").await?;
    Ok(rows.first().and_then(|row| row.get(0)).map(quote_ident))
}
