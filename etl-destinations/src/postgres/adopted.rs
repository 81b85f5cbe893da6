//! Can a table that somebody else made be written to as it is? Its columns say, and its key.

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::postgres::{quote_ident, quote_literal};
use tokio_postgres::SimpleQueryRow;

use super::ddl::{definitions, key_of, oid};
use super::ledger;
use super::link::Link;
use crate::writer::TargetTable;

/// A column as the target has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    /// As SQL takes it.
    name: String,
    of: String,
    /// Takes no null, and has nothing to put in place of a value that does not come.
    needs_value: bool,
    /// `GENERATED ALWAYS`, as identity or of other columns.
    is_generated: bool,
}

/// That the table can be written to, whoever made it.
///
/// # Errors
/// `Config` and `DestinationRejected`, with what is in the way.
pub(super) async fn expect_fit(link: &Link, table: &TargetTable) -> EtlResult<()> {
    let fit = async {
        if table.metadata.is_some() && !ledger::is_own_table(link, &table.name).await? {
            return Err(EtlError::new(ErrorKind::Config, "a table that is taken as it is has no metadata columns")
                .hint("Set `metadata: off` for it"));
        }
        let (found, wanted) = (columns(link, table).await?, definitions(link, table).await?);
        if let Some(what) = misfit(&found, &wanted) {
            return Err(EtlError::new(ErrorKind::DestinationRejected, "the table that is there does not fit")
                .with("misfit", what)
                .hint("Change it, or leave the column out (`columns.exclude`)"));
        }
        if table.is_keyed() && !has_key(link, table).await? {
            return Err(EtlError::new(ErrorKind::DestinationRejected, "the table that is there has another key")
                .with("key", key_of(table).join(", "))
                .hint("Give it a primary key, or a unique constraint, of exactly these columns"));
        }
        Ok(())
    };
    fit.await.map_err(|error| error.with("table", &table.name))
}

async fn columns(link: &Link, table: &TargetTable) -> EtlResult<Vec<Found>> {
    let sql = format!(
        "SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                (a.attnotnull AND NOT a.atthasdef AND a.attidentity = '')::text,
                (a.attgenerated <> '' OR a.attidentity = 'a')::text
           FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
          WHERE a.attrelid = {} AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
        oid(&table.name)
    );
    let rows = link.rows(&sql, "read a table's columns").await?;
    let text = |row: &SimpleQueryRow, place| row.get(place).unwrap_or_default().to_owned();
    let is = |row: &SimpleQueryRow, place| row.get(place) == Some("true");
    let found = |row| Found {
        name: quote_ident(&text(row, 0)),
        of: text(row, 1),
        needs_value: is(row, 2),
        is_generated: is(row, 3),
    };
    Ok(rows.iter().map(found).collect())
}

/// What is in the way of writing the wanted columns, by their names and types.
fn misfit(found: &[Found], wanted: &[(String, String)]) -> Option<String> {
    let wrong = wanted.iter().find_map(|(name, of)| match found.iter().find(|column| column.name == *name) {
        None => Some(format!("it has no column {name} ({of})")),
        Some(column) if column.of != *of => Some(format!("its column {name} is {}, not {of}", column.of)),
        Some(column) if column.is_generated => Some(format!("its column {name} is GENERATED ALWAYS")),
        Some(_) => None,
    });
    let needs = |column: &&Found| column.needs_value && wanted.iter().all(|(name, _)| *name != column.name);
    let left_out = || {
        let column = found.iter().find(needs)?;
        Some(format!("its column {} needs a value, and gets none", column.name))
    };
    wrong.or_else(left_out)
}

/// Whether rows can be found, and put in place of others, by the key.
async fn has_key(link: &Link, table: &TargetTable) -> EtlResult<bool> {
    let sql = format!(
        "SELECT string_agg(pg_catalog.quote_ident(a.attname), ' ' ORDER BY a.attname)
           FROM pg_catalog.pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, nth), pg_catalog.pg_attribute a
          WHERE i.indrelid = {} AND a.attrelid = i.indrelid AND a.attnum = k.attnum AND k.nth <= i.indnkeyatts
            AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
          GROUP BY i.indexrelid",
        oid(&table.name)
    );
    let rows = link.rows(&sql, "read a table's keys").await?;
    let names = "SELECT string_agg(pg_catalog.quote_ident(n), ' ' ORDER BY n) FROM unnest(ARRAY[";
    let key: Vec<String> = table.key_names().map(quote_literal).collect();
    let wanted = link.rows(&format!("{names}{}]::name[]) AS n", key.join(", ")), "read a key").await?;
    let wanted = wanted.first().and_then(|row| row.get(0));
    Ok(wanted.is_some() && rows.iter().any(|row| row.get(0) == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_whose_columns_are_there_with_their_types_and_whose_others_need_nothing() {
        let found = |name: &str, needs_value, is_generated| Found {
            name: name.to_owned(),
            of: "integer".to_owned(),
            needs_value,
            is_generated,
        };
        let wanted = |names: &[(&str, &str)]| -> Vec<(String, String)> {
            names.iter().map(|(name, of)| ((*name).to_owned(), (*of).to_owned())).collect()
        };
        let there = [found("id", true, false), found("more", false, false), found("sum", false, true)];
        let of = |names: &[(&str, &str)]| misfit(&there, &wanted(names));
        assert_eq!(of(&[("id", "integer")]), None);
        for (names, what) in [
            (&[("id", "bigint")][..], "is integer, not bigint"),
            (&[("id", "integer"), ("other", "text")], "no column other"),
            (&[("id", "integer"), ("sum", "integer")], "GENERATED ALWAYS"),
            (&[("more", "integer")], "column id needs a value"),
        ] {
            assert!(of(names).is_some_and(|said| said.contains(what)), "{names:?}");
        }
        assert!(misfit(&[], &wanted(&[("id", "integer")])).is_some(), "a view, or what else is no table");
    }
}
