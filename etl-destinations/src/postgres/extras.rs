//! What does a table of the source have that is made here on request? Indexes, defaults and identity columns, once its
//! rows are there.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::{Session, quote_ident, quote_literal};
use etl::schema::{Index, TableExtras};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::config::Create;
use super::ddl::{oid, quoted_table};
use super::error::PostgresResult;
use super::link::Link;
use crate::write_mode::WriteMode;
use crate::writer::TargetTable;

/// The comment of the indexes that were made here, by which they are known when the table is emptied.
const MARK: &str = "etl: made as at the source";

/// Makes what is asked for and missing. What cannot be made is left out, and told.
///
/// # Errors
/// Where the target cannot be reached.
pub(super) async fn make(
    session: &Session,
    table: &TargetTable,
    extras: &TableExtras,
    create: Create,
) -> EtlResult<()> {
    let work = Work { session, table, name: quoted_table(&table.name) };
    work.wait().await?;
    for what in extras.left_out.iter().filter(|_| create.indexes) {
        tracing::warn!(table = %table.name, what, "left out");
    }
    for index in extras.indexes.iter().filter(|_| create.indexes) {
        work.index(index).await?;
    }
    // A log has nobody else's rows.
    if table.write_mode == WriteMode::Append {
        return Ok(());
    }
    for column in extras.identity.iter().filter(|_| create.identity) {
        work.identity(column).await?;
    }
    for (column, default) in extras.defaults.iter().filter(|_| create.defaults) {
        if !(create.identity && extras.identity.contains(column)) {
            work.default(column, default).await?;
        }
    }
    Ok(())
}

struct Work<'a> {
    session: &'a Session,
    table: &'a TargetTable,
    name: String,
}

/// How a statement ended that may fail by itself.
type Tried = Result<(), EtlError>;

impl Work<'_> {
    /// Whoever began to make the same, and is gone, may be at it still.
    async fn wait(&self) -> EtlResult<()> {
        let lock = format!("SELECT pg_advisory_lock(hashtextextended({}, 7310581))", quote_literal(&self.name));
        self.session.client().batch_execute(&lock).await.or_postgres("wait for its turn")
    }

    /// Runs statements as one transaction. An error is the target's answer to them.
    async fn try_to(&self, sql: &str) -> EtlResult<Tried> {
        match self.session.client().batch_execute(sql).await.or_postgres("make a table as at the source") {
            Err(error) if error.kind() == ErrorKind::DestinationUnavailable || self.session.client().is_closed() => {
                Err(error)
            }
            tried => Ok(tried),
        }
    }

    fn left_out(&self, what: &str, error: &EtlError) {
        tracing::warn!(table = %self.table.name, what, %error, "left out: the target cannot make it");
    }

    async fn row(&self, sql: &str) -> EtlResult<Option<SimpleQueryRow>> {
        let messages = self.session.client().simple_query(sql).await.or_postgres("look at a table")?;
        Ok(messages.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        }))
    }

    async fn index(&self, index: &Index) -> EtlResult<()> {
        let what = format!("the index {}", index.name);
        let (schema, name) = (&self.table.name.schema, quote_ident(&index.name));
        let qualified = format!("{}.{name}", quote_ident(schema));
        let there = format!(
            "SELECT pg_catalog.obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c
              WHERE c.oid = to_regclass({})",
            quote_literal(&qualified)
        );
        if let Some(row) = self.row(&there).await? {
            if row.get(0) != Some(MARK) {
                tracing::warn!(table = %self.table.name, what, "left out: its name is taken");
            }
            return Ok(());
        }
        let make = |unique: &str| {
            format!(
                "CREATE {unique}INDEX {name} ON {} {}; COMMENT ON INDEX {qualified} IS {}",
                self.name,
                index.definition,
                quote_literal(MARK)
            )
        };
        if index.is_unique && index.can_be_deferred && self.table.write_mode == WriteMode::Upsert {
            // Rows of a batch are not written in their order: what holds at its end is looked at then.
            let deferred = format!(
                "{}; ALTER TABLE {} ADD CONSTRAINT {name} UNIQUE USING INDEX {name} DEFERRABLE INITIALLY DEFERRED",
                make("UNIQUE "),
                self.name
            );
            match self.try_to(&deferred).await? {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(table = %self.table.name, what, %error, "it is made without being unique");
                }
            }
        } else if index.is_unique {
            tracing::info!(table = %self.table.name, what, "it is made without being unique");
        }
        if let Err(error) = self.try_to(&make("")).await? {
            self.left_out(&what, &error);
        }
        Ok(())
    }

    async fn identity(&self, column: &str) -> EtlResult<()> {
        let name = quote_ident(column);
        let there = format!(
            "SELECT true FROM pg_catalog.pg_attribute WHERE attrelid = {} AND attname = {} AND attidentity <> ''",
            oid(&self.table.name),
            quote_literal(column)
        );
        if self.row(&there).await?.is_some() {
            return Ok(());
        }
        let sql = format!(
            "ALTER TABLE {} ALTER {name} DROP DEFAULT, ALTER {name} SET NOT NULL,
                 ALTER {name} ADD GENERATED BY DEFAULT AS IDENTITY",
            self.name
        );
        if let Err(error) = self.try_to(&sql).await? {
            self.left_out(&format!("the identity of {column}"), &error);
        }
        Ok(())
    }

    async fn default(&self, column: &str, default: &str) -> EtlResult<()> {
        let sql = format!("ALTER TABLE {} ALTER {} SET DEFAULT {default}", self.name, quote_ident(column));
        if let Err(error) = self.try_to(&sql).await? {
            self.left_out(&format!("the default of {column}"), &error);
        }
        Ok(())
    }
}

/// Drops the indexes that were made here: a copy is to come, and made anew they are once it is there.
pub(super) async fn drop_indexes(link: &Link, table: &TargetTable) -> EtlResult<()> {
    let asked = format!(
        "SELECT pg_catalog.quote_ident(x.relname), (SELECT true FROM pg_catalog.pg_constraint c WHERE c.conindid = x.oid)
           FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
          WHERE i.indrelid = {} AND pg_catalog.obj_description(x.oid, 'pg_class') = {}",
        oid(&table.name),
        quote_literal(MARK)
    );
    let (name, schema) = (quoted_table(&table.name), quote_ident(&table.name.schema));
    let drop = |row: &SimpleQueryRow| match (row.get(0).unwrap_or_default(), row.get(1)) {
        (index, Some(_)) => format!("ALTER TABLE {name} DROP CONSTRAINT {index}"),
        (index, None) => format!("DROP INDEX {schema}.{index}"),
    };
    let drops: Vec<String> = link.rows(&asked, "look for indexes").await?.iter().map(drop).collect();
    if drops.is_empty() { Ok(()) } else { link.run(&drops.join("; "), "drop indexes").await }
}
