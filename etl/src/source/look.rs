//! What do publication and catalog say now, of all tables at once? A look that takes no lock and is cheap to repeat.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Row};

use super::membership::asked_of_members;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::postgres::query_error;
use crate::schema::{TableId, TableName};

/// What was seen of a publication and its tables (`SOURCE.md` R7, R10, R11). Two looks are compared, nothing else is
/// read from one: most of it is text that is the same, or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Look {
    /// `oid:xmin` of the publication; `None` where there is none of that name.
    pub(crate) publication: Option<String>,
    /// The published tables, by oid.
    pub(crate) tables: BTreeMap<u32, Sight>,
}

/// What was seen of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sight {
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `oid:xmin` of what puts it into the publication: by itself, by its schema, by a table that it is a partition of.
    pub(crate) entries: BTreeSet<String>,
    /// A digest of number, type and `xmin` of each column.
    pub(crate) columns: String,
    /// What holds its rows.
    pub(crate) leaves: BTreeMap<u32, LeafSight>,
    /// Labels of enums and attributes of composites that its columns use.
    pub(crate) types: BTreeSet<String>,
}

/// Where rows are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeafSight {
    /// The leaf's file.
    pub(crate) file: u32,
    /// The `xmin`s of how it hangs on its root; empty for a table that holds its rows itself.
    pub(crate) attached: String,
}

impl Sight {
    /// The table's name.
    pub(crate) fn table_name(&self) -> TableName {
        TableName::new(self.schema.clone(), self.name.clone())
    }

    /// Whether a schema that is published has it.
    pub(crate) fn is_by_schema(&self) -> bool {
        self.entries.iter().any(|entry| entry.starts_with('s'))
    }

    /// Whether an entry lets only some rows through.
    pub(crate) fn is_filtered(&self) -> bool {
        self.entries.iter().any(|entry| entry.ends_with(" filtered"))
    }

    /// Whether the table has partitions.
    pub(crate) fn is_partitioned(&self, id: u32) -> bool {
        !self.leaves.contains_key(&id)
    }
}

/// Where the WAL ends, and the publication's row. A standby writes none.
const NOW: &str = "
SELECT (CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
             ELSE pg_catalog.pg_current_wal_insert_lsn() END)::text,
       (SELECT p.oid || ':' || p.xmin FROM pg_catalog.pg_publication p WHERE p.pubname = $1)";

/// What there is to see of each table, files and columns at one moment: a function would tell a file of later than the
/// columns beside it.
const TABLES: &str = ",
leaves AS (
  SELECT p.oid AS top, p.oid AS leaf, c.relfilenode AS file, ''::text AS attached FROM published p
    JOIN pg_catalog.pg_class c ON c.oid = p.oid WHERE c.relkind = 'r'
  UNION ALL
  SELECT q.top, q.part, c.relfilenode, q.attached FROM parts q JOIN published p ON p.oid = q.top
    JOIN pg_catalog.pg_class c ON c.oid = q.part WHERE c.relkind = 'r')
SELECT p.oid, n.nspname, c.relname,
       ARRAY(SELECT 'r' || r.oid || ':' || r.xmin || {filtered} FROM pg_catalog.pg_publication_rel r JOIN pub ON r.prpubid = pub.oid
              WHERE r.prrelid = p.oid OR r.prrelid IN (SELECT pg_catalog.pg_partition_ancestors(p.oid))
             {schema_entries}),
       (SELECT pg_catalog.md5(string_agg(a.attnum || ':' || a.atttypid || ':' || a.atttypmod || ':' || a.xmin, ' '
                                         ORDER BY a.attnum))
          FROM pg_catalog.pg_attribute a WHERE a.attrelid = p.oid AND a.attnum > 0),
       ARRAY(SELECT l.leaf || ' ' || l.file || ' ' || l.attached FROM leaves l WHERE l.top = p.oid)
  FROM published p JOIN pg_catalog.pg_class c ON c.oid = p.oid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";

/// These from version 15 on.
const FILTERED: &str = "CASE WHEN r.prqual IS NULL THEN '' ELSE ' filtered' END";

const SCHEMA_ENTRIES: &str = "
  UNION ALL
  SELECT 's' || s.oid || ':' || s.xmin FROM pg_catalog.pg_publication_namespace s JOIN pub ON s.pnpubid = pub.oid
   WHERE s.pnnspid IN (SELECT o.relnamespace FROM pg_catalog.pg_class o
                        WHERE o.oid = p.oid OR o.oid IN (SELECT pg_catalog.pg_partition_ancestors(p.oid)))";

/// What changes the text of values that are stored already: a label that is renamed, an attribute that comes or goes.
const TYPES: &str = "
WITH RECURSIVE used AS (
  SELECT a.attrelid AS top, a.atttypid AS type FROM pg_catalog.pg_attribute a
   WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384
  UNION
  SELECT u.top, n.type FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type
   CROSS JOIN LATERAL (
     SELECT t.typbasetype WHERE t.typtype = 'd'
     UNION ALL SELECT t.typelem WHERE t.typelem <> 0
     UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
     UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid) n(type)
   WHERE n.type >= 16384)
SELECT u.top, 'l' || e.oid || ' ' || e.enumlabel FROM used u JOIN pg_catalog.pg_enum e ON e.enumtypid = u.type
UNION ALL
SELECT u.top, 'a' || a.attrelid || '.' || a.attnum || ' ' || a.atttypid || ' ' || a.atttypmod
  FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.type AND t.typtype = 'c'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped";

/// Begins the label of an enum.
pub(crate) const LABEL: char = 'l';

/// Where the WAL ended before anything was looked at, and what was seen then.
pub(crate) async fn look(client: &Client, publication: &str, server_version: u32) -> EtlResult<(Lsn, Look)> {
    let failed = |e| query_error("look at the publication", e);
    let row = client.query_one(NOW, &[&publication]).await.map_err(failed)?;
    let at: Lsn = row.get::<_, String>(0).parse()?;
    let mut look = Look { publication: row.get(1), tables: BTreeMap::new() };
    let newer = [("{filtered}", FILTERED), ("{schema_entries}", SCHEMA_ENTRIES)];
    let older = [("{filtered}", "''"), ("{schema_entries}", "")];
    let parts = if server_version >= 150_000 { newer } else { older };
    let query = parts.iter().fold(TABLES.to_owned(), |query, (place, part)| query.replace(place, part));
    let query = asked_of_members(&query, server_version);
    for row in client.query(&query, &[&publication]).await.map_err(failed)? {
        look.tables.insert(row.get(0), sight(&row)?);
    }
    let oids: Vec<u32> = look.tables.keys().copied().collect();
    for row in client.query(TYPES, &[&oids]).await.map_err(failed)? {
        if let Some(sight) = look.tables.get_mut(&row.get(0)) {
            sight.types.insert(row.get(1));
        }
    }
    Ok((at, look))
}

fn sight(row: &Row) -> EtlResult<Sight> {
    let strange = |text: &str| EtlError::new(ErrorKind::Protocol, "not a partition").with("text", text);
    let leaf = |text: &String| {
        let mut parts = text.splitn(3, ' ');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).ok_or_else(|| strange(text));
        let (leaf, file) = (number()?, number()?);
        Ok((leaf, LeafSight { file, attached: parts.next().unwrap_or_default().to_owned() }))
    };
    let leaves: Vec<String> = row.get(5);
    Ok(Sight {
        schema: row.get(1),
        name: row.get(2),
        entries: row.get::<_, Vec<String>>(3).into_iter().collect(),
        columns: row.get::<_, Option<String>>(4).unwrap_or_default(),
        leaves: leaves.iter().map(leaf).collect::<EtlResult<_>>()?,
        types: BTreeSet::new(),
    })
}

/// Where the WAL ends now: after everything that has been seen, and not in the space between two of its pages.
pub(crate) async fn wal_end(client: &Client) -> EtlResult<Lsn> {
    let row = client.query_one(NOW, &[&""]).await.map_err(|e| query_error("ask for the WAL's end", e))?;
    row.get::<_, String>(0).parse().map(before_page_header)
}

/// Whether the slot has confirmed everything up to there: no stream begins before.
pub(crate) async fn has_confirmed(client: &Client, slot: &str, end: Lsn) -> EtlResult<bool> {
    let query = "SELECT confirmed_flush_lsn::text FROM pg_catalog.pg_replication_slots WHERE slot_name = $1";
    let row = client.query_opt(query, &[&slot]).await.map_err(|e| query_error("look at the slot", e))?;
    let confirmed = row.and_then(|row| row.get::<_, Option<String>>(0)).map(|lsn| lsn.parse::<Lsn>()).transpose()?;
    Ok(confirmed.is_some_and(|confirmed| confirmed >= end))
}

/// A position right behind the header of a page is told where the record before ends with the page before. Nothing
/// that is sent ever reaches it in a database where nobody works.
fn before_page_header(lsn: Lsn) -> Lsn {
    const PAGE: u64 = 8192;
    match lsn.0 % PAGE {
        header @ (24 | 40) => Lsn(lsn.0 - header),
        _ => lsn,
    }
}

/// Whether all rows of these partitions will be sent: nothing was written to them yet. Where somebody alters one and is
/// not done soon, it is not known, and an error. Version 14 may have taken a table for one that is not published before it
/// was attached, and stay with that: only one that was made as a partition will do.
pub(crate) async fn are_empty(client: &Client, tables: &[TableId], server_version: u32) -> EtlResult<bool> {
    let list: Vec<String> = tables.iter().map(ToString::to_string).collect();
    let was_attached = if server_version >= 150_000 { "false" } else { WAS_ATTACHED };
    let query = format!(
        "SET LOCAL lock_timeout = '1s';
         SELECT NOT coalesce(bool_or({was_attached} OR pg_catalog.pg_relation_size(c.oid) > 0), true)
           FROM pg_catalog.pg_class c WHERE c.oid IN ({})",
        list.join(", ")
    );
    let found = client.simple_query(&query).await.map_err(|e| query_error("look into the partitions", e))?;
    Ok(found.iter().any(|message| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0) == Some("t"),
        _ => false,
    }))
}

/// In another transaction than the one that made it.
const WAS_ATTACHED: &str = "
EXISTS (SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_attribute a ON a.attrelid = i.inhrelid AND a.attnum = -1
         WHERE i.inhrelid = c.oid AND i.xmin <> a.xmin)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_a_page_header_is_before_it() {
        let page = 0x200_0000;
        for (lsn, expected) in [(page + 24, page), (page + 40, page), (page + 48, page + 48), (page, page)] {
            assert_eq!(before_page_header(Lsn(lsn)), Lsn(expected));
        }
    }
}
