//! Is a table in the destination equal to the table in Postgres, by SQL on each side?
//!
//! Every value becomes canonical text on its own side. Counts and a checksum that ignores the order of the rows decide;
//! where they differ, both sides are read and the first differing rows are told.

use std::{collections::BTreeMap, path::Path};

use tokio_postgres::{Client, SimpleQueryMessage};

use crate::duckdb::{Reader, Row};

/// So many differing rows of each side are told.
const TOLD: usize = 5;

/// How a session reads, so that values come as the same text whoever asks.
const SESSION: &str = "set datestyle = 'ISO'; set intervalstyle = 'postgres'; set extra_float_digits = 3;
    set bytea_output = 'hex'; set timezone = 'UTC'";

/// A table in Postgres and its counterpart in a DuckDB file.
#[derive(Debug, Clone)]
pub struct Pair {
    source: String,
    target: String,
    without: Vec<String>,
    target_filter: String,
}

/// One column, and how each side writes its value as text.
#[derive(Debug)]
struct Column {
    source: String,
    target: String,
    float: bool,
}

impl Pair {
    /// A table of Postgres and one of DuckDB, both named as SQL names them.
    #[must_use]
    pub fn new(source: impl Into<String>, target: impl Into<String>) -> Self {
        Self { source: source.into(), target: target.into(), without: Vec::new(), target_filter: "true".to_owned() }
    }

    /// Leaves a column of the source out.
    #[must_use]
    pub fn without(mut self, column: impl Into<String>) -> Self {
        self.without.push(column.into());
        self
    }

    /// Compares only the rows of the destination for which this holds, as `"_CHANGE_TYPE" <> 'DELETE'`.
    #[must_use]
    pub fn target_where(mut self, condition: impl Into<String>) -> Self {
        self.target_filter = condition.into();
        self
    }

    /// Compares; gives the number of rows that both hold.
    ///
    /// # Errors
    /// The first differences, readable; or what a side answered instead of rows.
    pub async fn compare(&self, client: &Client, reader: &Reader, file: &Path) -> Result<u64, String> {
        client.batch_execute(SESSION).await.map_err(|e| e.to_string())?;
        let columns = self.columns(client, reader, file).await?;
        if !columns.iter().any(|column| column.float) {
            let source = one(postgres(client, &checksum_source(&columns, &self.source)).await?);
            let sql = checksum_target(&columns, &self.target, &self.target_filter);
            let target = one(reader.query(file, &sql).await?);
            if source == target {
                return count_of(&source);
            }
        }
        self.rows(&columns, client, reader, file).await
    }

    async fn rows(&self, columns: &[Column], client: &Client, reader: &Reader, file: &Path) -> Result<u64, String> {
        let list = |side: fn(&Column) -> &str| columns.iter().map(side).collect::<Vec<_>>().join(", ");
        let source = postgres(client, &format!("select {} from {}", list(|c| &c.source), self.source)).await?;
        let sql = format!("select {} from {} where {}", list(|c| &c.target), self.target, self.target_filter);
        let target = reader.query(file, &sql).await?;
        let mut balance: BTreeMap<Row, i64> = BTreeMap::new();
        let (in_source, in_target) = (source.len(), target.len());
        for row in source {
            *balance.entry(canonical(columns, row)).or_default() += 1;
        }
        for row in target {
            *balance.entry(canonical(columns, row)).or_default() -= 1;
        }
        balance.retain(|_, count| *count != 0);
        if balance.is_empty() {
            return Ok(in_source as u64);
        }
        let told = |sign: i64| -> String {
            let rows = balance.iter().filter(|(_, count)| count.signum() == sign);
            let all = rows.clone().count();
            let rows = rows.take(TOLD).map(|(row, count)| format!("  {} x {}\n", count.abs(), readable(row)));
            format!("{all} distinct rows, such as\n{}", rows.collect::<String>())
        };
        Err(format!(
            "{} has {in_source} rows in Postgres and {} has {in_target} in DuckDB.\nOnly in Postgres: {}Only in DuckDB: {}",
            self.source,
            self.target,
            told(1),
            told(-1)
        ))
    }

    async fn columns(&self, client: &Client, reader: &Reader, file: &Path) -> Result<Vec<Column>, String> {
        let sql = format!(
            "select attname, format_type(atttypid, null) from pg_attribute
             where attrelid = '{}'::regclass and attnum > 0 and not attisdropped order by attnum",
            self.source.replace('\'', "''")
        );
        let source = postgres(client, &sql).await?;
        let describe = format!("select column_name, column_type from (describe {})", self.target);
        let target: BTreeMap<String, String> =
            reader.query(file, &describe).await?.into_iter().filter_map(pair).collect();
        let mut columns = Vec::new();
        for (name, kind) in source.into_iter().filter_map(pair).filter(|(name, _)| !self.without.contains(name)) {
            let Some(there) = target.get(&name) else {
                return Err(format!("{} has no column {name} in DuckDB, only {:?}", self.target, target.keys()));
            };
            columns.push(Column::of(&name, &kind, there));
        }
        if columns.is_empty() { Err(format!("{} has no columns to compare", self.source)) } else { Ok(columns) }
    }
}

impl Column {
    /// Chooses by the type in DuckDB: text there is compared with Postgres' own text of the value.
    fn of(name: &str, kind: &str, there: &str) -> Self {
        let c = format!("\"{}\"", name.replace('"', "\"\""));
        // The output function's text: a cast would strip the blanks of `character(n)`.
        let own = format!("case when {c} is null then null else format('%s', {c}) end");
        let plain = format!("{c}::varchar");
        let base = there.split('(').next().unwrap_or(there);
        let mut float = false;
        let (source, target) = match base {
            _ if there.ends_with(']') => (format!("array_to_json({c})::text"), format!("to_json({c})::varchar")),
            "BOOLEAN" => (format!("{c}::text"), plain),
            "BLOB" => (format!("encode({c}, 'hex')"), format!("lower(hex({c}))")),
            "DECIMAL" => (format!("trim_scale({c}::numeric)::text"), trimmed(&c)),
            "FLOAT" | "DOUBLE" => {
                float = true;
                (format!("{c}::text"), plain)
            }
            "TIMESTAMP" | "TIMESTAMP WITH TIME ZONE" | "TIME" => {
                let micros = format!("trim_scale(extract(epoch from {c}) * 1000000)::text");
                (micros, format!("epoch_us({c})::varchar"))
            }
            "INTERVAL" => (interval(&c), interval(&c)),
            _ if kind == "bytea" => (format!("'\\x' || encode({c}, 'hex')"), plain),
            _ => (own, plain),
        };
        Self { source, target, float }
    }
}

/// A decimal's text without the zeros at its end.
fn trimmed(column: &str) -> String {
    let text = format!("{column}::varchar");
    format!("case when contains({text}, '.') then rtrim(rtrim({text}, '0'), '.') else {text} end")
}

fn interval(column: &str) -> String {
    let part = |name: &str| format!("extract({name} from {column})");
    format!(
        "(({}) * 12 + {})::bigint::varchar || ' months ' || {}::bigint::varchar || ' days ' ||
            (({}) * 3600000000 + {} * 60000000 + {})::bigint::varchar || ' us'",
        part("year"),
        part("month"),
        part("day"),
        part("hour"),
        part("minute"),
        part("microseconds")
    )
}

/// A row as one text: each value marked, so that null, the empty text and shifted values differ.
fn marked(columns: impl Iterator<Item = String>) -> String {
    columns.map(|c| format!("coalesce('=' || ({c}), '-')")).collect::<Vec<_>>().join(" || chr(31) || ")
}

fn checksum_source(columns: &[Column], table: &str) -> String {
    let row = marked(columns.iter().map(|c| c.source.clone()));
    format!(
        "select count(*)::text, coalesce(sum(('x' || substr(md5({row}), 1, 14))::bit(56)::bigint), 0)::text from {table}"
    )
}

fn checksum_target(columns: &[Column], table: &str, filter: &str) -> String {
    let row = marked(columns.iter().map(|c| c.target.clone()));
    format!(
        "select count(*)::varchar, coalesce(sum(('0x' || substr(md5({row}), 1, 14))::bigint), 0)::varchar
         from {table} where {filter}"
    )
}

async fn postgres(client: &Client, sql: &str) -> Result<Vec<Row>, String> {
    let messages = client.simple_query(sql).await.map_err(|e| {
        let detail = e.as_db_error().map_or_else(|| e.to_string(), |db| db.message().to_owned());
        format!("Postgres: {detail}\nin {sql}")
    })?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

/// Numbers that both sides write differently are written once more, the same way.
fn canonical(columns: &[Column], row: Row) -> Row {
    let float = |text: String| text.parse::<f64>().map_or(text, |number| format!("{number:?}"));
    row.into_iter().zip(columns).map(|(value, column)| if column.float { value.map(float) } else { value }).collect()
}

fn readable(row: &Row) -> String {
    let value = |value: &Option<String>| match value {
        None => "null".to_owned(),
        Some(text) if text.chars().count() > 60 => {
            format!("{:?}.. ({} bytes)", text.chars().take(50).collect::<String>(), text.len())
        }
        Some(text) => format!("{text:?}"),
    };
    row.iter().map(value).collect::<Vec<_>>().join(", ")
}

fn pair(row: Row) -> Option<(String, String)> {
    let mut values = row.into_iter();
    Some((values.next()??, values.next()??))
}

fn one(rows: Vec<Row>) -> Row {
    rows.into_iter().next().unwrap_or_default()
}

fn count_of(row: &Row) -> Result<u64, String> {
    row.first().cloned().flatten().and_then(|text| text.parse().ok()).ok_or_else(|| "no count".to_owned())
}

#[cfg(test)]
mod tests;
