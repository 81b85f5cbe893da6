//! Are the two databases equal? Counts and checksums, computed by SQL on each side, by its own engine.

use std::path::Path;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::shop::failed;
use crate::failure::Failure;

/// The rows of a table: how many, and the sum of a hash of each, whatever their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) rows: String,
    pub(crate) checksum: String,
}

/// A table's columns as texts that both engines write in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Texts {
    in_postgres: Vec<String>,
    in_duckdb: Vec<String>,
}

const COLUMNS: &str = "SELECT attname, format_type(atttypid, NULL), typtype::text
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

/// Asks Postgres for a table's columns.
pub(crate) async fn texts(client: &Client, table: &str) -> Result<Texts, Failure> {
    let rows = client.query(COLUMNS, &[&table]).await.map_err(|error| failed("read the catalog", &error))?;
    let (mut in_postgres, mut in_duckdb) = (Vec::new(), Vec::new());
    for row in rows {
        let column: String = row.get(0);
        let (postgres, duckdb) = text_of(&format!("\"{column}\""), &row.get::<_, String>(1));
        in_postgres.push(format!("coalesce({postgres}, '~')"));
        in_duckdb.push(format!("coalesce({duckdb}, '~')"));
    }
    Ok(Texts { in_postgres, in_duckdb })
}

/// The value as text: in Postgres, and in DuckDB.
fn text_of(column: &str, type_name: &str) -> (String, String) {
    let plain = || (format!("{column}::text"), format!("{column}::VARCHAR"));
    match type_name {
        "timestamp with time zone" | "timestamp without time zone" => {
            (format!("(extract(epoch FROM {column}) * 1000000)::bigint::text"), format!("epoch_us({column})::VARCHAR"))
        }
        "boolean" => (format!("{column}::integer::text"), format!("{column}::INTEGER::VARCHAR")),
        "bytea" => (format!("encode({column}, 'hex')"), format!("lower(hex({column}))")),
        _ if type_name.ends_with("[]") => (
            format!("array_to_string({column}, ',', '~')"),
            format!("array_to_string(list_transform({column}, lambda item: coalesce(item::VARCHAR, '~')), ',')"),
        ),
        _ => plain(),
    }
}

/// Counts and adds up in Postgres.
pub(crate) async fn in_postgres(client: &Client, table: &str, texts: &Texts) -> Result<Digest, Failure> {
    let row = format!("concat_ws('|', {})", texts.in_postgres.join(", "));
    let hash = format!("('x' || substr(md5({row}), 1, 15))::bit(60)::bigint");
    let sql = format!("SELECT count(*)::text, coalesce(sum({hash}), 0)::text FROM \"{table}\"");
    let answer = client.simple_query(&sql).await.map_err(|error| failed("add up in Postgres", &error))?;
    let digest = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(Digest { rows: row.get(0)?.to_owned(), checksum: row.get(1)?.to_owned() }),
        _ => None,
    });
    digest.ok_or_else(|| Failure::Other("Postgres gave no checksum".to_owned()))
}

/// Opens the DuckDB file for reading.
pub(crate) fn open(file: &Path) -> Result<duckdb::Connection, Failure> {
    let config = duckdb::Config::default().access_mode(duckdb::AccessMode::ReadOnly);
    config.and_then(|config| duckdb::Connection::open_with_flags(file, config)).map_err(|error| of_duckdb(&error))
}

/// Counts and adds up in DuckDB.
pub(crate) fn in_duckdb(file: &duckdb::Connection, table: &str, texts: &Texts) -> Result<Digest, Failure> {
    let row = format!("concat_ws('|', {})", texts.in_duckdb.join(", "));
    let hash = format!("('0x' || substr(md5({row}), 1, 15))::BIGINT");
    let sql = format!("SELECT count(*)::VARCHAR, coalesce(sum({hash}), 0)::VARCHAR FROM \"public\".\"{table}\"");
    file.query_row(&sql, [], |row| Ok(Digest { rows: row.get(0)?, checksum: row.get(1)? }))
        .map_err(|error| of_duckdb(&error))
}

fn of_duckdb(error: &duckdb::Error) -> Failure {
    Failure::Other(format!("the demo could not read the DuckDB file: {error}"))
}
