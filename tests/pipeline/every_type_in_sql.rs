//! Is every value of every type the same after its `INSERT` was executed?

use std::sync::Arc;

use etl::destination::AnyDestination;
use etl::transform::OnValue;
use etl_destinations::file::{FileConfig, FileFormat, Files};
use etl_destinations::table_rules::TableRules;
use tokio_postgres::Client;

use crate::every_value::Everything;
use crate::running::World;

async fn texts(client: &Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    rows.iter().map(|row| row.get(0)).collect()
}

fn written(world: &World) -> AnyDestination {
    let config = FileConfig { format: FileFormat::Sql, ..FileConfig::new(world.data_dir().join("sql")) };
    let files = Files::with_config(config, Arc::clone(&world.store), TableRules::default());
    AnyDestination::new(files.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_value_is_the_same_where_its_statement_is_executed() {
    let Some(all) = Everything::written(OnValue::Error, written).await else { return };
    let client = &all.client;
    client.batch_execute("ALTER SCHEMA public RENAME TO source; CREATE SCHEMA public").await.unwrap();
    let mut values = 0;
    for table in &all.tables {
        let name = &table.name;
        let like = format!(
            "CREATE TABLE public.{name} (LIKE source.{name}, \"_CHANGE_TYPE\" text NOT NULL, \"_LSN\" bigint NOT NULL,
               \"_ORDINAL\" bigint NOT NULL, \"_TIMESTAMP\" timestamptz NOT NULL);
             SET search_path = source"
        );
        client.batch_execute(&like).await.unwrap();
        let mut files = 0;
        for file in std::fs::read_dir(all.world.data_dir().join("sql/public").join(name)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                let statements = std::fs::read_to_string(&path).unwrap();
                client.batch_execute(&statements).await.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
                files += 1;
            }
        }
        assert!(files > 0, "{name}");
        let columns = format!(
            "SELECT quote_ident(attname) FROM pg_attribute
             WHERE attrelid = 'source.{name}'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        );
        let columns = texts(client, &columns).await.join(", ");
        let source = texts(client, &format!("SELECT ROW({columns})::text FROM source.{name} ORDER BY id")).await;
        // The last that the log says of each row.
        let last = format!(
            "SELECT ROW({columns})::text FROM (SELECT DISTINCT ON (id) * FROM public.{name}
               ORDER BY id, \"_LSN\" DESC, \"_ORDINAL\" DESC) t WHERE \"_CHANGE_TYPE\" <> 'DELETE' ORDER BY id"
        );
        let copy = texts(client, &last).await;
        assert_eq!(copy, source, "{name}");
        values += source.len();
        let kinds = format!("SELECT DISTINCT \"_CHANGE_TYPE\" FROM public.{name} ORDER BY 1");
        assert_eq!(texts(client, &kinds).await, ["DELETE", "INSERT", "UPDATE", "UPSERT"], "{name}");
    }
    assert!(values > 700, "{values} rows");
}
