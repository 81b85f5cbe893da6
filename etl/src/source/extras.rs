//! Which indexes, defaults and identity columns does a table have, as far as what they name is passed on as it is?

use tokio_postgres::{Client, Row};

use crate::error::EtlResult;
use crate::postgres::query_error;
use crate::schema::{Index, TableExtras, TableId};
use crate::transform::Selection;

/// By name. Nothing here locks the table. What follows the name of the table in the definition, if it begins as it should.
const INDEXES: &str = "
SELECT x.relname, CASE WHEN starts_with(d.whole, d.head) THEN substr(d.whole, length(d.head) + 1) END,
       i.indisunique AND NOT i.indisexclusion,
       m.amname = 'btree' AND i.indexprs IS NULL AND i.indpred IS NULL AND i.indimmediate AND 0 = ALL (i.indoption::int2[]),
       (i.indkey::int2[])[0 : i.indnkeyatts - 1], i.indexprs IS NULL AND i.indpred IS NULL,
       ARRAY(SELECT k FROM unnest(i.indkey::int2[]) AS k WHERE k > 0 UNION
             SELECT p.refobjsubid::int2 FROM pg_catalog.pg_depend p
              WHERE p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.objid = x.oid
                AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.refobjid = t.oid AND p.refobjsubid > 0)
  FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid JOIN pg_catalog.pg_am m ON m.oid = x.relam
  JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_namespace n ON n.oid = t.relnamespace
 CROSS JOIN LATERAL (SELECT pg_catalog.pg_get_indexdef(x.oid) AS whole, format('CREATE %sINDEX %I ON %s%I.%I ',
         CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END, x.relname, CASE WHEN x.relkind = 'I' THEN 'ONLY ' ELSE '' END,
         n.nspname, t.relname) AS head) d
 WHERE i.indrelid = $1 AND i.indisvalid ORDER BY x.relname";

/// Without the table's oid the text of an expression is given without a lock; a default names no column.
const DEFAULTS: &str = "
SELECT a.attnum, pg_catalog.pg_get_expr(d.adbin, 0),
       a.attidentity <> '' OR EXISTS (
         SELECT FROM pg_catalog.pg_depend p JOIN pg_catalog.pg_class s ON s.oid = p.objid AND s.relkind = 'S'
          WHERE p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND p.deptype = 'a'
            AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum)
  FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
   AND (d.oid IS NOT NULL OR a.attidentity <> '') ORDER BY a.attnum";

/// Reads them.
pub(crate) async fn table_extras(client: &Client, table: TableId, selection: &Selection) -> EtlResult<TableExtras> {
    let mut extras = TableExtras::default();
    let rows = client.query(INDEXES, &[&table.0]).await.map_err(|e| query_error("read the indexes", e))?;
    for row in &rows {
        if let Some(index) = index(row, selection, &mut extras.left_out) {
            extras.indexes.push(index);
        }
    }
    let rows = client.query(DEFAULTS, &[&table.0]).await.map_err(|e| query_error("read the defaults", e))?;
    for row in &rows {
        // What is not passed on as it is has nothing to be a default of.
        let Some(column) = selection.as_it_is(row.get(0)) else { continue };
        if let Some(default) = row.get::<_, Option<String>>(1) {
            extras.defaults.push((column.into(), default.into()));
        }
        if row.get(2) {
            extras.identity.push(column.into());
        }
    }
    Ok(extras)
}

fn index(row: &Row, selection: &Selection, left_out: &mut Vec<String>) -> Option<Index> {
    let name: String = row.get(0);
    let (is_unique, keys, is_plain): (bool, Vec<i16>, bool) = (row.get(2), row.get(4), row.get(5));
    let schema = &selection.schema;
    let mut key: Vec<i16> = schema.key_columns().map(|column| column.attnum).collect();
    let mut named = keys;
    key.sort_unstable();
    named.sort_unstable();
    if is_unique && is_plain && key == named {
        return None;
    }
    let columns: Vec<i16> = row.get(6);
    // The definition says their names at the source.
    let is_there = |attnum: &i16| {
        let at_source = selection.wire.columns.iter().find(|column| column.attnum == *attnum);
        at_source.is_some_and(|column| selection.as_it_is(*attnum) == Some(&*column.name))
    };
    let definition: Option<String> = row.get(1);
    match definition.filter(|_| columns.iter().all(is_there)) {
        Some(definition) => Some(Index {
            name: name.into(),
            definition: definition.into(),
            is_unique,
            can_be_deferred: is_unique && row.get(3),
        }),
        None => {
            left_out.push(format!("the index {name}: it names what is not passed on as it is"));
            None
        }
    }
}
