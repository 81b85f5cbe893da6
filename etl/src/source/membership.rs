//! Which tables does a publication hold, and how? Asked of the catalog alone, without a lock on any of them.

/// What [`asked_of_members`] puts before a question. `$1` is the publication's name; `pub` is its row, `parts` has what is
/// below each partitioned table that is listed, and `published` the tables, as `pg_publication_tables` has them. The view
/// locks every table of the publication, and waits for whoever alters one of them.
const MEMBERS: &str = "
WITH RECURSIVE pub AS (
  SELECT oid, puballtables, pubviaroot, {generated} AS has_generated FROM pg_catalog.pg_publication WHERE pubname = $1),
listed AS (
  SELECT c.oid, c.relkind, c.relispartition FROM pg_catalog.pg_class c CROSS JOIN pub
   WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
     AND (pub.puballtables
          OR c.oid IN (SELECT r.prrelid FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = pub.oid)
          OR {in_schema})),
parts AS (
  SELECT l.oid AS top, l.oid AS part, ''::text AS attached FROM listed l WHERE l.relkind = 'p'
  UNION ALL
  SELECT p.top, i.inhrelid, p.attached || '.' || i.xmin
    FROM parts p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.part WHERE NOT i.inhdetachpending),
published AS (
  SELECT l.oid FROM listed l CROSS JOIN pub WHERE pub.pubviaroot AND NOT (pub.puballtables AND l.relispartition)
     AND NOT EXISTS (SELECT FROM parts p WHERE p.part = l.oid AND p.top <> l.oid)
  UNION
  SELECT l.oid FROM listed l CROSS JOIN pub WHERE NOT pub.pubviaroot AND l.relkind = 'r'
  UNION
  SELECT p.part FROM parts p JOIN pg_catalog.pg_class c ON c.oid = p.part CROSS JOIN pub
   WHERE NOT pub.pubviaroot AND c.relkind = 'r')";

/// From version 15 on.
const IN_SCHEMA: &str = "c.relnamespace IN (
    SELECT s.pnnspid FROM pg_catalog.pg_publication_namespace s WHERE s.pnpubid = pub.oid)";

/// A list of columns, from version 15 on.
const LISTED: &str = "CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY(r.prattrs)) END";

/// From version 18 on, generated columns that are stored may be in the list, and without one they are published where the
/// publication says so.
const LISTED_18: &str = "ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
       AND CASE WHEN r.prattrs IS NOT NULL THEN a.attnum = ANY(r.prattrs)
                ELSE a.attgenerated = '' OR (a.attgenerated = 's' AND pub.has_generated) END)";

/// A question about the tables of a publication. In it, `{columns}` are the names of the columns of the table `c` that are
/// published (null: all but generated ones), `{filter}` is the condition on its rows, where `r` is [`ENTRY`]; `{in_schema}`
/// says whether a schema that is published has it.
pub(super) fn asked_of_members(question: &str, server_version: u32) -> String {
    let knows_lists = server_version >= 150_000;
    let knows_generated = server_version >= 180_000;
    let columns = match (knows_lists, knows_generated) {
        (false, _) => "NULL::text[]",
        (true, false) => LISTED,
        (true, true) => LISTED_18,
    };
    [
        ("{columns}", columns),
        // Of a table with a filter it waits for whoever alters that one.
        ("{filter}", if knows_lists { "pg_catalog.pg_get_expr(r.prqual, r.prrelid)" } else { "NULL::text" }),
        ("{generated}", if knows_generated { "pubgencols = 's'" } else { "false" }),
        ("{in_schema}", if knows_lists { IN_SCHEMA } else { "false" }),
    ]
    .iter()
    .fold(format!("{MEMBERS}{question}"), |query, (place, part)| query.replace(place, part))
}

/// What the publication `pub` says about the table `c` alone: nothing where it has the table's schema, or everything.
pub(super) const ENTRY: &str = "LEFT JOIN pg_catalog.pg_publication_rel r
    ON r.prpubid = pub.oid AND r.prrelid = c.oid AND NOT pub.puballtables AND NOT {in_schema}";
