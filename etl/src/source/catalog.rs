//! Which tables are published, with which columns, keys, filters and leaves?

use std::collections::HashMap;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::membership::{ENTRY, asked_of_members};
use super::types::Types;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Position;
use crate::postgres::query_error;
use crate::schema::{Column, ReplicaIdentity, TableId, TableName, TableSchema, changes};

/// A published table.
#[derive(Debug, Clone)]
pub(crate) struct PublishedTable {
    /// Its shape, as rows of the stream carry it.
    pub(crate) schema: TableSchema,
    /// The publication's condition on rows, as SQL.
    pub(crate) row_filter: Option<String>,
    /// What holds its rows: itself, or the leaves of a partitioned table.
    pub(crate) leaves: Vec<Leaf>,
    /// The server's estimate of its rows.
    pub(crate) rows_estimated: Option<u64>,
    /// The columns that are left out because the stream does not carry them.
    pub(crate) generated: Vec<String>,
    /// The `attnum` of every column, published or not.
    pub(crate) attnums: Vec<i16>,
    /// Of those that were added with a default that older rows have without being written (`attmissingval`).
    pub(crate) filled: Vec<i16>,
    /// The files of the leaves, in their order.
    pub(crate) filenodes: Vec<Option<u32>>,
}

impl PublishedTable {
    /// A table that is not there any more, as far as anybody knows it.
    pub(crate) fn gone(known: &TableSchema) -> Self {
        Self {
            schema: TableSchema { name: known.source_name().clone(), source_name: None, ..known.clone() },
            row_filter: None,
            leaves: vec![Leaf { id: known.id, name: known.source_name().clone() }],
            rows_estimated: None,
            generated: Vec::new(),
            attnums: known.columns.iter().map(|column| column.attnum).collect(),
            filled: Vec::new(),
            filenodes: vec![None],
        }
    }

    /// The same table under another name.
    pub(crate) fn called(&self, name: &TableName) -> Self {
        let mut table = self.clone();
        table.schema.name = name.clone();
        let own = table.leaves.iter_mut().filter(|leaf| leaf.id == self.schema.id);
        own.for_each(|leaf| leaf.name = name.clone());
        table
    }

    /// What makes rows of one description unlike those of the other, if anything does: its shape, what is published of
    /// it, or where its rows are.
    pub(crate) fn difference(&self, now: &Self) -> Option<String> {
        let shapes: Vec<String> = changes(&self.schema, &now.schema).iter().map(ToString::to_string).collect();
        if !shapes.is_empty() {
            return Some(shapes.join("; "));
        }
        let what = if self.schema.identity != now.schema.identity {
            "replica identity"
        } else if self.schema.last_attnum != now.schema.last_attnum {
            "columns came and went"
        } else if self.row_filter != now.row_filter {
            "row filter"
        } else if self.leaves != now.leaves {
            "partitions"
        } else {
            return None;
        };
        Some(what.to_owned())
    }
}

/// A table that holds rows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: TableId,
    pub(crate) name: TableName,
}

/// A root where the publication publishes through it, else leaves.
const TABLES: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relreplident::text, {columns}, {filter}, c.relnatts
  FROM published p CROSS JOIN pub JOIN pg_catalog.pg_class c ON c.oid = p.oid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace {entry}
 WHERE $2::oid IS NULL OR c.oid = $2 ORDER BY c.oid";

/// Of tables that are yet to be published, by schema and name.
const NAMED: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relreplident::text, NULL::text[], NULL::text, c.relnatts
  FROM unnest($1::text[], $2::text[]) AS named(schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = named.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = named.name ORDER BY c.oid";

/// Of tables that may not be published, by oid.
const NUMBERED: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relreplident::text, NULL::text[], NULL::text, c.relnatts
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.oid = ANY($1) AND c.relkind IN ('r', 'p') ORDER BY c.oid";

const COLUMNS: &str = "
SELECT a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod,
       pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated::text,
       a.atthasmissing, (a.attmissingval::text::text[])[1]
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";

/// Only the index that is the identity, or the primary key under DEFAULT and FULL (`SOURCE.md` R8).
const KEYS: &str = "
SELECT i.indrelid, i.indnkeyatts, i.indkey::int2[]
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
 WHERE i.indrelid = ANY($1) AND i.indisvalid
   AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'n' THEN false ELSE i.indisprimary END";

/// Not `pg_partition_tree()`, which would wait for whoever waits to change a leaf, while a copy of ours keeps it waiting.
const LEAVES: &str = "
WITH RECURSIVE parts AS (
  SELECT r.root, r.root AS part FROM unnest($1::oid[]) AS r(root)
  UNION ALL
  SELECT p.root, i.inhrelid FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.part
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid AND c.relispartition WHERE NOT i.inhdetachpending)
SELECT p.root, c.oid, n.nspname, c.relname, c.reltuples::float8, pg_catalog.pg_relation_filenode(c.oid)
  FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.part AND c.relkind = 'r'
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 ORDER BY p.root, c.oid";

/// The tables of a publication, by oid.
pub(crate) async fn published_tables(
    client: &Client,
    publication: &str,
    server_version: u32,
) -> EtlResult<Vec<PublishedTable>> {
    described_by(client, publication, server_version, None).await
}

/// One table of a publication; `None` where it is not published.
pub(crate) async fn published_table(
    client: &Client,
    publication: &str,
    server_version: u32,
    id: TableId,
) -> EtlResult<Option<PublishedTable>> {
    described_by(client, publication, server_version, Some(id.0)).await.map(|tables| tables.into_iter().next())
}

async fn described_by(
    client: &Client,
    publication: &str,
    server_version: u32,
    id: Option<u32>,
) -> EtlResult<Vec<PublishedTable>> {
    let tables = asked_of_members(&TABLES.replace("{entry}", ENTRY), server_version);
    let rows = client
        .query_typed(&tables, &[(&publication, Type::TEXT), (&id, Type::OID)])
        .await
        .map_err(|e| query_error("read the publication", e))?;
    described(client, &rows, server_version).await
}

/// The same of tables that a publication would hold.
pub(crate) async fn named_tables(
    client: &Client,
    names: &[TableName],
    server_version: u32,
) -> EtlResult<Vec<PublishedTable>> {
    let schemas: Vec<&str> = names.iter().map(|name| &*name.schema).collect();
    let tables: Vec<&str> = names.iter().map(|name| &*name.name).collect();
    let rows = client
        .query_typed(NAMED, &[(&schemas, Type::TEXT_ARRAY), (&tables, Type::TEXT_ARRAY)])
        .await
        .map_err(|e| query_error("read the tables", e))?;
    described(client, &rows, server_version).await
}

/// The same of those of these tables that are there, with all of their columns and rows.
pub(crate) async fn existing_tables(
    client: &Client,
    ids: &[TableId],
    server_version: u32,
) -> EtlResult<Vec<PublishedTable>> {
    let oids: Vec<u32> = ids.iter().map(|id| id.0).collect();
    let rows = client
        .query_typed(NUMBERED, &[(&oids, Type::OID_ARRAY)])
        .await
        .map_err(|e| query_error("read the tables", e))?;
    described(client, &rows, server_version).await
}

async fn described(client: &Client, rows: &[Row], server_version: u32) -> EtlResult<Vec<PublishedTable>> {
    let oids: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
    let mut columns = columns(client, &oids).await?;
    let mut keys = keys(client, &oids).await?;
    let mut leaves = leaves(client, &oids).await?;
    rows.iter()
        .map(|row| {
            let id: u32 = row.get(0);
            let attributes = columns.remove(&id).unwrap_or_default();
            let attnums = attributes.iter().map(|attribute| attribute.column.attnum).collect();
            let filled = attributes.iter().filter(|it| it.is_filled).map(|it| it.column.attnum).collect();
            let published = published_columns(row, attributes, server_version)?;
            let Leaves { leaves, rows_estimated, filenodes } = leaves.remove(&id).unwrap_or_default();
            let schema = schema(row, &published.columns, &keys.remove(&id).unwrap_or_default())?;
            Ok(PublishedTable {
                schema,
                row_filter: row.get(6),
                leaves,
                rows_estimated,
                generated: published.generated,
                attnums,
                filled,
                filenodes,
            })
        })
        .collect()
}

struct Attribute {
    column: Column,
    /// `s`tored or `v`irtual, where it is.
    generated: String,
    is_filled: bool,
}

async fn columns(client: &Client, oids: &[u32]) -> EtlResult<HashMap<u32, Vec<Attribute>>> {
    let rows = client
        .query_typed(COLUMNS, &[(&oids, Type::OID_ARRAY)])
        .await
        .map_err(|e| query_error("read the columns", e))?;
    let types = Types::read(client, rows.iter().map(|row| row.get::<_, u32>(3))).await?;
    let mut columns: HashMap<u32, Vec<Attribute>> = HashMap::new();
    for row in rows {
        let (type_oid, modifier): (u32, i32) = (row.get(3), row.get(4));
        let column = Column {
            fill: row.get::<_, Option<String>>(9).map(Into::into),
            name: row.get::<_, String>(1).into(),
            attnum: row.get(2),
            type_oid,
            modifier,
            type_name: row.get::<_, String>(5).into(),
            kind: types.kind(type_oid, modifier),
            nullable: !row.get::<_, bool>(6),
        };
        columns.entry(row.get(0)).or_default().push(Attribute { column, generated: row.get(7), is_filled: row.get(8) });
    }
    Ok(columns)
}

async fn keys(client: &Client, oids: &[u32]) -> EtlResult<HashMap<u32, Vec<i16>>> {
    let rows =
        client.query_typed(KEYS, &[(&oids, Type::OID_ARRAY)]).await.map_err(|e| query_error("read the keys", e))?;
    let key = |row: &Row| {
        let length = usize::try_from(row.get::<_, i16>(1)).unwrap_or(0);
        row.get::<_, Vec<i16>>(2).into_iter().take(length).collect()
    };
    Ok(rows.iter().map(|row| (row.get(0), key(row))).collect())
}

/// What holds a table's rows.
#[derive(Default)]
struct Leaves {
    leaves: Vec<Leaf>,
    rows_estimated: Option<u64>,
    filenodes: Vec<Option<u32>>,
}

async fn leaves(client: &Client, oids: &[u32]) -> EtlResult<HashMap<u32, Leaves>> {
    let rows = client
        .query_typed(LEAVES, &[(&oids, Type::OID_ARRAY)])
        .await
        .map_err(|e| query_error("read the partitions", e))?;
    let mut leaves: HashMap<u32, Leaves> = HashMap::new();
    for row in rows {
        let known = leaves.entry(row.get(0)).or_insert_with(|| Leaves { rows_estimated: Some(0), ..Leaves::default() });
        let name = TableName::new(row.get::<_, String>(2), row.get::<_, String>(3));
        known.leaves.push(Leaf { id: TableId(row.get(1)), name });
        // -1: never analysed.
        let tuples: f64 = row.get(4);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let tuples = (tuples >= 0.0).then_some(tuples as u64);
        known.rows_estimated = known.rows_estimated.zip(tuples).map(|(sum, tuples)| sum + tuples);
        known.filenodes.push(row.get(5));
    }
    Ok(leaves)
}

struct PublishedColumns {
    columns: Vec<Column>,
    generated: Vec<String>,
}

fn published_columns(row: &Row, attributes: Vec<Attribute>, version: u32) -> EtlResult<PublishedColumns> {
    let listed: Option<Vec<String>> = row.get(5);
    let mut published = PublishedColumns { columns: Vec::new(), generated: Vec::new() };
    for Attribute { column, generated, .. } in attributes {
        let is_listed = listed.as_ref().is_none_or(|names| names.iter().any(|name| **name == *column.name));
        // Up to 17 the stream carries no generated column; from 18 on those are listed that it does.
        let is_carried = generated.is_empty() || (version >= 180_000 && generated == "s" && listed.is_some());
        match (is_listed, is_carried) {
            (true, true) => published.columns.push(column),
            (_, false) => published.generated.push(column.name.into()),
            (false, true) => {}
        }
    }
    if u16::try_from(published.columns.len()).is_err() {
        return Err(EtlError::new(ErrorKind::SourceSetup, "a table has too many columns"));
    }
    Ok(published)
}

fn schema(row: &Row, columns: &[Column], key: &[i16]) -> EtlResult<TableSchema> {
    let identity = match row.get::<_, String>(4).as_str() {
        "d" => ReplicaIdentity::Default,
        "i" => ReplicaIdentity::Index,
        "f" => ReplicaIdentity::Full,
        "n" => ReplicaIdentity::Nothing,
        other => return Err(EtlError::new(ErrorKind::Protocol, "unknown replica identity").with("letter", other)),
    };
    let place = |attnum: &i16| columns.iter().position(|c| c.attnum == *attnum).and_then(|p| u16::try_from(p).ok());
    // A key of which a column is not published does not tell rows apart.
    let key: Option<Box<[u16]>> = key.iter().map(place).collect();
    Ok(TableSchema {
        last_attnum: row.get(7),
        source_name: None,
        id: TableId(row.get(0)),
        name: TableName::new(row.get::<_, String>(1), row.get::<_, String>(2)),
        columns: columns.into(),
        key: key.unwrap_or_default(),
        identity,
        since: Position::ZERO,
    })
}
