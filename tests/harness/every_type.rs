//! What does a source look like that has a column of every type? One table a type, with arrays, domains and composites of it.

use std::fmt::Write as _;

use tokio_postgres::Client;

use crate::skip::{inapplicable, skip_part};

mod values;

use values::{BUILT_IN, TEXT_ONLY, WITHOUT_VALUES};

/// Where a type is to be had.
#[derive(Debug, Clone, Copy)]
pub enum Offer {
    /// In every Postgres.
    Always,
    /// From this version on.
    From(i32),
    /// Where Postgres was built with libxml.
    Xml,
    /// Where the server has this extension.
    Extension(&'static str),
}

/// The tables that were made.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The type of its column `v`.
    pub of: &'static str,
    /// Whether the type has a binary form that says all.
    pub is_binary: bool,
}

const TYPES: &str = r#"
CREATE TYPE mood AS ENUM ('sad', '', 'ha ppy', 'q"u''o,te', 'b\{s}', '(ä]');
CREATE TYPE pair AS (a int, "B ""q""" text);
CREATE TYPE dropped AS (a int, gone text, c date);
ALTER TYPE dropped DROP ATTRIBUTE gone;
CREATE TYPE nothing AS ();
CREATE TYPE textrange AS RANGE (subtype = text);
CREATE TYPE floatrange AS RANGE (subtype = float8);
CREATE TYPE inetrange AS RANGE (subtype = inet);
CREATE TYPE pairrange AS RANGE (subtype = pair);
CREATE DOMAIN positive AS int CHECK (value > 0);
CREATE DOMAIN positives AS positive[];
CREATE TYPE nested AS (p pair, ps pair[], r int4range, m mood, "Time" time, ns positives);
CREATE DOMAIN pair_domain AS pair;
CREATE DOMAIN range_domain AS textrange;
"#;

/// Makes the types and a table for each that this server offers, with rows; types without a binary form only on wish.
/// What the server does not have is printed, and an extension counts as skipped.
///
/// # Panics
/// Where a statement fails, and where the server offers a type that is not among the values.
pub async fn create(client: &Client, with_text_only: bool) -> Vec<Table> {
    client.batch_execute("SET client_min_messages = warning; SET lc_monetary = 'C'").await.expect("settings");
    client.batch_execute(TYPES).await.unwrap_or_else(|error| panic!("{error:?}"));
    expect_all(client).await;
    let mut tables: Vec<Table> = Vec::new();
    let (mut missing, mut refused) = (Vec::new(), Vec::new());
    for (of, offer, values) in BUILT_IN {
        let is_binary = !TEXT_ONLY.contains(of);
        if !(is_binary || with_text_only) {
            continue;
        }
        if !is_offered(client, *offer).await {
            missing.push(format!("{of} ({offer:?})"));
            continue;
        }
        let name = match tables.iter().find(|table| table.of == *of) {
            Some(table) => table.name.clone(),
            None => {
                let name = format!("t{}", tables.len());
                client.batch_execute(&definition(&name, of)).await.unwrap_or_else(|error| panic!("{of}: {error:?}"));
                tables.push(Table { name: name.clone(), of, is_binary });
                name
            }
        };
        for value in *values {
            let sql = row(&name, of, value);
            if let Err(error) = client.batch_execute(&sql).await {
                refused.push(format!("{of} {value}: {:?}", error.as_db_error().map(|error| error.message())));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    if missing.iter().any(|missing| missing.contains("Extension")) {
        skip_part(&format!("this server does not have {}", missing.join(", ")));
    } else if !missing.is_empty() {
        inapplicable(&format!("this server does not have {}", missing.join(", ")));
    }
    tables
}

/// All rows of the table once more, and a change of one.
#[must_use]
pub fn again(table: &Table) -> String {
    let (name, columns) = (&table.name, "v, a, m, l, d, c, ca, da");
    format!(
        "INSERT INTO {name} ({columns}) SELECT {columns} FROM {name}; UPDATE {name} SET d = NULL, n = 7 WHERE id = 2;
         DELETE FROM {name} WHERE id = 1;"
    )
}

/// How many values the tables hold: eight columns of each row.
pub async fn count(client: &Client, tables: &[Table]) -> i64 {
    let counts: Vec<String> = tables.iter().map(|table| format!("(SELECT count(*) FROM {})", table.name)).collect();
    let row = client.query_one(&format!("SELECT 8 * ({})", counts.join(" + ")), &[]).await.expect("a count");
    row.get(0)
}

fn definition(name: &str, of: &str) -> String {
    format!(
        "CREATE DOMAIN {name}_d AS {of}; CREATE TYPE {name}_c AS (x {of}, \"Y y\" {of}[], n int);
         CREATE TABLE {name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int, v {of}, a {of}[], m {of}[], l {of}[],
                              d {name}_d, c {name}_c, ca {name}_c[], da {name}_d[]);
         INSERT INTO {name} DEFAULT VALUES;"
    )
}

/// The value, arrays of it (one that has two dimensions, one that begins elsewhere), a domain over it, a composite of it,
/// and arrays of these.
fn row(name: &str, of: &str, value: &str) -> String {
    let value = match value.strip_prefix("sql:") {
        Some(expression) => expression.to_owned(),
        None => format!("'{}'", value.replace('\'', "''")),
    };
    let mut sql = format!(
        "INSERT INTO {name} (v, a, m, l, d, c, ca, da) SELECT x, ARRAY[x, NULL, x], ARRAY[[x], [NULL::{of}]], "
    );
    let _ = write!(
        sql,
        "('[-1:0]=' || format('%s', ARRAY[x, x]))::{of}[], x, ROW(x, ARRAY[x, NULL], 7)::{name}_c,
         ARRAY[ROW(x, NULL, NULL)::{name}_c, NULL], ARRAY[x::{name}_d] FROM (SELECT {value}::{of} AS x) _"
    );
    sql
}

async fn is_offered(client: &Client, offer: Offer) -> bool {
    match offer {
        Offer::Always => true,
        Offer::From(major) => {
            let row = client.query_one("SELECT current_setting('server_version_num')::int / 10000", &[]).await;
            row.expect("a version").get::<_, i32>(0) >= major
        }
        Offer::Xml => client.batch_execute("SELECT '<a/>'::xml").await.is_ok(),
        Offer::Extension(name) => client.batch_execute(&format!("CREATE EXTENSION IF NOT EXISTS {name}")).await.is_ok(),
    }
}

/// That every type that a column can have is among the values.
async fn expect_all(client: &Client) {
    let query = "SELECT t.typname::text FROM pg_type t WHERE t.typtype IN ('b', 'r', 'm') AND t.typisdefined
        AND t.typnamespace = 'pg_catalog'::regnamespace AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)";
    let known = |name: &str| {
        let quoted = format!("\"{name}\"");
        WITHOUT_VALUES.contains(&name)
            || BUILT_IN.iter().any(|(of, ..)| *of == name || *of == quoted || is_sized(of, name))
    };
    let rows = client.query(query, &[]).await.expect("the types");
    let unknown: Vec<String> = rows.iter().map(|row| row.get(0)).filter(|name: &String| !known(name)).collect();
    assert!(unknown.is_empty(), "no values are known for {unknown:?}");
}

/// Whether it is the type by its other name, with a size.
fn is_sized(of: &str, name: &str) -> bool {
    of.split_once('(').is_some_and(|(of, _)| of == name)
}
