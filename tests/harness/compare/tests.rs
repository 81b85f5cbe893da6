//! Does the comparison see equal tables as equal, and every difference as one?

use super::*;
use crate::postgres::database;

const SOURCE: &str = "create table t (id bigint, flag boolean, price numeric(12,2), ratio float8, at timestamptz,
    day date, clock time, raw bytea, uid uuid, doc jsonb, tags text[], pad character(4), span interval, note text);
    insert into t values
    (1, true, 10.50, 0.1, '2024-02-29 12:00:00.123+02', '2024-02-29', '13:00:00.5', '\\x00ff', 
     '00000000-0000-0000-0000-000000000001', '{\"a\": [1, null]}', '{x,NULL,\"y z\"}', 'ab', '1 year 2 mons 3 days 04:05:06.7', 'it''s'),
    (2, false, -0.01, 'NaN', '1969-12-31 23:59:59.999999+00', '0001-01-01', '00:00', '', null, 'null', '{}', 'abcd', '-1 day', ''),
    (3, null, null, '-Infinity', null, null, null, null, null, null, null, null, null, null),
    (3, null, null, '-Infinity', null, null, null, null, null, null, null, null, null, null);";

const TARGET: &str = "create table t (id bigint, flag boolean, price decimal(12,2), ratio double, \"at\" timestamptz,
    day date, clock time, raw blob, uid uuid, doc varchar, tags varchar[], pad varchar, span interval, note varchar,
    _LSN bigint);
    insert into t values
    (3, null, null, '-inf', null, null, null, null, null, null, null, null, null, null, 1),
    (2, false, -0.01, 'nan', '1969-12-31 23:59:59.999999+00', '0001-01-01', '00:00', '', null, 'null', [], 'abcd',
     interval '-1 day', '', 1),
    (1, true, 10.50, 0.1, '2024-02-29 10:00:00.123+00', '2024-02-29', '13:00:00.5', '\\x00\\xFF'::blob,
     '00000000-0000-0000-0000-000000000001', '{\"a\": [1, null]}', ['x', null, 'y z'], 'ab  ',
     interval '14 months 3 days 4 hours 5 minutes 6.7 seconds', 'it''s', 1),
    (3, null, null, '-inf', null, null, null, null, null, null, null, null, null, null, 1);";

struct Case {
    client: Client,
    reader: Reader,
    _database: crate::postgres::Database,
    _dir: tempfile::TempDir,
    file: std::path::PathBuf,
}

async fn case(source: &str, target: &str) -> Option<Case> {
    let reader = Reader::find_or_skip().await?;
    let database = database().await?;
    let client = database.client().await;
    client.batch_execute(source).await.expect("the source");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("t.duckdb");
    reader.write(&file, target).await;
    Some(Case { client, reader, _database: database, _dir: dir, file })
}

impl Case {
    async fn compare(&self, pair: &Pair) -> Result<u64, String> {
        pair.compare(&self.client, &self.reader, &self.file).await
    }
}

#[tokio::test]
async fn equal_tables_are_equal_whatever_the_order_and_the_type() {
    let Some(case) = case(SOURCE, TARGET).await else { return };
    assert_eq!(case.compare(&Pair::new("t", "t")).await, Ok(4));
    assert_eq!(case.compare(&Pair::new("t", "t").without("ratio")).await, Ok(4));
}

#[tokio::test]
async fn every_changed_value_is_a_difference_and_is_told() {
    let Some(case) = case(SOURCE, TARGET).await else { return };
    let changes = [
        "flag = null",
        "price = price + 0.01",
        "ratio = 0.2",
        "at = at + interval '1 microsecond'",
        "day = day + 1",
        "clock = '00:00:01'",
        "raw = '\\x01'",
        "uid = gen_random_uuid()",
        "doc = '{}'",
        "tags = '{NULL}'",
        "pad = 'x'",
        "span = '1 mon'",
        "note = null",
        "id = 9",
    ];
    for change in changes {
        case.client.batch_execute("begin").await.expect("begin");
        case.client.batch_execute(&format!("update t set {change} where id = 1")).await.expect("a change");
        for pair in [Pair::new("t", "t"), Pair::new("t", "t").without("ratio")] {
            if change.starts_with("ratio") && !pair.without.is_empty() {
                continue;
            }
            let error = case.compare(&pair).await.expect_err(change);
            assert!(error.contains("Only in Postgres: 1 distinct rows"), "{change}: {error}");
        }
        case.client.batch_execute("rollback").await.expect("rollback");
    }
}

#[tokio::test]
async fn a_row_that_is_there_once_too_often_is_a_difference() {
    let Some(case) = case(SOURCE, TARGET).await else { return };
    case.client.batch_execute("insert into t select * from t where id = 2").await.expect("a row");
    let error = case.compare(&Pair::new("t", "t")).await.expect_err("a difference");
    assert!(error.contains("5 rows in Postgres") && error.contains("4 in DuckDB"), "{error}");
    let error = case.compare(&Pair::new("t", "t").target_where("id < 3")).await.expect_err("a difference");
    assert!(error.contains("2 in DuckDB"), "{error}");
}

#[tokio::test]
async fn a_missing_column_or_table_is_told_by_name() {
    let Some(case) = case(SOURCE, "create table t (id bigint)").await else { return };
    let error = case.compare(&Pair::new("t", "t")).await.expect_err("a difference");
    assert!(error.contains("no column flag"), "{error}");
    let error = case.compare(&Pair::new("t", "gone")).await.expect_err("no table");
    assert!(error.contains("gone"), "{error}");
}
