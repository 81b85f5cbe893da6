//! Do chosen columns and names hold alike for copies, changes, old rows and keys?

use etl::destination::TextRow;
use etl::schema::{TableId, TablePatterns, TableSchema};
use etl::source::SourceConfig;
use etl::transform::{ColumnChoice, TableRename, Transform, TransformRule};
use etl::{ErrorKind, Lsn, Position};
use harness::postgres::database;
use tokio_postgres::Client;

use crate::running::{World, caught_up, stop};

const TABLES: &str = "
CREATE TABLE users (secret text, id int, email text, big text, pin int, PRIMARY KEY (id));
ALTER TABLE users ALTER COLUMN big SET STORAGE EXTERNAL, ALTER COLUMN secret SET STORAGE EXTERNAL;
CREATE TABLE whole (id int PRIMARY KEY, secret text, v text);
ALTER TABLE whole REPLICA IDENTITY FULL;
CREATE TABLE loose (secret text, v text);
ALTER TABLE loose REPLICA IDENTITY FULL;
INSERT INTO users SELECT repeat('hunter2', 1000), g, 'm' || g, repeat('b', 5000), g FROM generate_series(1, 50) g;
INSERT INTO whole SELECT g, 'hunter2', 'v' FROM generate_series(1, 20) g;
INSERT INTO loose SELECT 'hunter2' || g, 'same' FROM generate_series(1, 5) g;
CREATE PUBLICATION p FOR ALL TABLES";

const CHANGES: &str = "
UPDATE users SET pin = pin + 1 WHERE id < 10;
UPDATE users SET email = 'new' WHERE id = 11;
UPDATE users SET id = id + 1000 WHERE id BETWEEN 20 AND 25;
UPDATE users SET secret = 'hunter2 again', big = 'small' WHERE id = 30;
DELETE FROM users WHERE id IN (1, 31);
INSERT INTO users VALUES (NULL, 99, NULL, NULL, NULL);
UPDATE whole SET secret = 'hunter2!' WHERE id = 1;
UPDATE whole SET v = 'w', id = 100 WHERE id = 2;
DELETE FROM whole WHERE id = 3;
DELETE FROM loose WHERE secret = 'hunter21';
UPDATE loose SET v = 'other' WHERE secret = 'hunter22';
BEGIN; TRUNCATE whole; INSERT INTO whole VALUES (7, 'hunter2', 'after'); COMMIT;
UPDATE whole SET v = 'after all' WHERE id = 7;";

fn transform() -> Transform {
    let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let hide = ColumnChoice { exclude: list(&["secret"]), ..ColumnChoice::default() };
    let users = ColumnChoice {
        include: list(&["id", "email", "big", "secret"]),
        rename: Some([("id".to_owned(), "key".to_owned())].into()),
        ..ColumnChoice::default()
    };
    let rename = TableRename { schema: Some("shop".to_owned()), table: Some("customers".to_owned()) };
    let rule = |tables: &str, columns, rename| TransformRule {
        tables: TablePatterns::new([tables]),
        columns,
        rename,
        filter: None,
        on_value: None,
        copy: None,
    };
    Transform::new(vec![rule("public.*", hide, TableRename::default()), rule("public.users", users, rename)])
}

async fn id(client: &Client, table: &str) -> TableId {
    TableId(client.query_one("SELECT $1::text::regclass::oid", &[&table]).await.unwrap().get(0))
}

async fn schema(world: &World, table: TableId) -> TableSchema {
    let stored = world.store.schema_at(table, Position::after(Lsn(u64::MAX))).await.unwrap();
    TableSchema::clone(&stored.unwrap())
}

async fn assert_chosen(world: &World, client: &Client) {
    for (table, query) in [
        ("users", "SELECT id::text, email, big FROM users"),
        ("whole", "SELECT id::text, v FROM whole"),
        ("loose", "SELECT v FROM loose"),
    ] {
        let rows = client.query(query, &[]).await.unwrap();
        let mut expected: Vec<TextRow> =
            rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect();
        expected.sort();
        assert_eq!(world.memory.rows(id(client, table).await).unwrap(), expected, "{table}");
    }
}

#[tokio::test]
async fn what_is_left_out_is_left_out_everywhere_and_names_follow() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new("choices", &database.url());
    world.transform = transform();
    let running = world.start().await;
    caught_up(&running).await;
    assert_chosen(&world, &client).await;
    for statement in CHANGES.split(";\n") {
        client.batch_execute(statement).await.unwrap();
    }
    caught_up(&running).await;
    assert_chosen(&world, &client).await;
    let shown: Vec<String> = running.handle().status().tables.iter().map(|table| table.name.to_string()).collect();
    assert_eq!(shown, ["public.loose", "public.users", "public.whole"], "commands go by the source's names");
    stop(running).await;

    assert!(!format!("{:?}", world.destination.told()).contains("hunter2"));
    let users = schema(&world, id(&client, "users").await).await;
    let columns: Vec<&str> = users.columns.iter().map(|column| &*column.name).collect();
    assert_eq!((users.name.to_string().as_str(), &columns[..]), ("shop.customers", &["key", "email", "big"][..]));
    assert_eq!(users.key_columns().map(|column| &*column.name).collect::<Vec<_>>(), ["key"]);
    assert_eq!(users.source_name().to_string(), "public.users");
}

#[tokio::test]
async fn another_choice_leads_to_a_new_copy() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new("other_choice", &database.url());
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    world.transform = transform();
    client.batch_execute("UPDATE users SET pin = 0, email = 'x' WHERE id = 3").await.unwrap();
    let running = world.start().await;
    caught_up(&running).await;
    stop(running).await;
    assert_chosen(&world, &client).await;
}

#[tokio::test]
async fn a_choice_that_cannot_be_is_found_by_check_and_at_the_start() {
    let Some(database) = database().await else { return };
    let client = database.client().await;
    client.batch_execute(TABLES).await.unwrap();
    let mut world = World::new("no_choice", &database.url());
    world.transform = transform();
    world.transform.rules[1].columns.exclude = Some(vec!["id".to_owned(), "pasword".to_owned()]);
    let error = world.refusal().await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let mut idle = world.transform.rules[1].clone();
    idle.tables = TablePatterns::new(["public.user"]);
    world.transform.rules.push(idle);
    let source = SourceConfig::from_url(&database.url()).unwrap().transform(world.transform.clone());
    for source in [source.clone().publication("p"), source.tables(["public.*"])] {
        let findings = etl::source::check(&source, "etl_no_choice").await.unwrap();
        let said = |what: &str| findings.iter().any(|finding| finding.what.contains(what));
        assert!(said("pasword") && said("no published table matches `public.user`"), "{findings:#?}");
    }
}
