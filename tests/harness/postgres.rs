//! Which Postgres does a test get? A fresh database of a server that the tests of one binary use together, or a server
//! of its own.

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};

use etl_local_postgres::{Builder, LocalPostgres};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::skip::skip;

/// Names a running server, with a superuser, for the tests that can use one together.
pub const GIVEN: &str = "ETL_TEST_POSTGRES_URL";

/// Many tests run at once.
const SETTINGS: &[(&str, &str)] =
    &[("max_connections", "300"), ("max_replication_slots", "64"), ("max_wal_senders", "64")];

static SERVER: OnceCell<Option<Server>> = OnceCell::const_new();

enum Server {
    Given(String),
    Local(Box<LocalPostgres>),
    #[cfg(feature = "containers")]
    Container(etl_local_postgres::ContainerPostgres),
}

/// A fresh database. Dropping it drops the database, its slots and its sessions.
#[derive(Debug)]
pub struct Database {
    name: String,
    server: String,
}

/// A fresh database on the server of this test binary; `None` where there is no Postgres, which counts as a skip.
pub async fn database() -> Option<Database> {
    let server = SERVER.get_or_init(find).await.as_ref();
    let Some(server) = server else {
        skip("there is no Postgres here");
        return None;
    };
    let url = match server {
        Server::Given(url) => url.clone(),
        Server::Local(server) => server.url(),
        #[cfg(feature = "containers")]
        Server::Container(server) => server.url(),
    };
    let name = format!("etl_test_{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
    let client = client(&url).await;
    client.batch_execute(&format!("create database {name}")).await.expect("a database");
    Some(Database { name, server: url })
}

/// A server of one's own, for tests that stop it, crash it or set it up; `None` counts as a skip.
pub async fn dedicated(builder: Builder) -> Option<LocalPostgres> {
    match builder.notice(|text| eprintln!("{text}")).start().await {
        Ok(server) => Some(server),
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

/// A client by URL, without TLS. Its connection ends with it.
///
/// # Panics
/// Where the server does not let it in.
pub async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

impl Database {
    /// The database's URL, over TCP, as a superuser.
    #[must_use]
    pub fn url(&self) -> String {
        let (start, query) = self.server.split_once('?').map_or((self.server.as_str(), None), |(s, q)| (s, Some(q)));
        let (_, authority) = start.split_once("://").unwrap_or(("", start));
        let start = if authority.contains('/') { start.rsplit_once('/').map_or(start, |(s, _)| s) } else { start };
        let query = query.map_or_else(String::new, |query| format!("?{query}"));
        format!("{start}/{}{query}", self.name)
    }

    /// Where the server listens.
    ///
    /// # Panics
    /// Where the URL of a given server does not say.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let (_, rest) = self.server.split_once("://").expect("a URL");
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        host.to_socket_addrs().ok().and_then(|mut found| found.next()).expect("host and port")
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A client of this database.
    pub async fn client(&self) -> Client {
        client(&self.url()).await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // The runtime of the test may be ending: a thread of its own has time.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async {
                let (client, connection) = tokio_postgres::connect(&server, NoTls).await.ok()?;
                tokio::spawn(connection);
                remove(&client, &name).await.ok()
            })
        });
        if dropping.join().ok().flatten().is_none() {
            eprintln!("the database {} was not dropped", self.name);
        }
    }
}

/// Ends what holds the database, then drops it. A walsender needs a moment to let go of its slot.
async fn remove(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let end = "select pg_terminate_backend(active_pid) from pg_replication_slots
        where database = $1 and active_pid is not null";
    let slots = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
        where database = $1 and active_pid is null";
    for _ in 0..1000 {
        client.execute(end, &[&name]).await?;
        let _ = client.execute(slots, &[&name]).await;
        let left = client.query_one("select count(*) from pg_replication_slots where database = $1", &[&name]).await?;
        if left.get::<_, i64>(0) == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    client.batch_execute(&format!("drop database if exists {name} with (force)")).await
}

async fn find() -> Option<Server> {
    if let Ok(url) = env::var(GIVEN) {
        return Some(Server::Given(url));
    }
    let builder =
        SETTINGS.iter().fold(LocalPostgres::builder(), |builder, (name, value)| builder.setting(*name, *value));
    match builder.notice(|text| eprintln!("{text}")).start().await {
        Ok(server) => Some(Server::Local(Box::new(server))),
        Err(error) => {
            eprintln!("{error}");
            container().await
        }
    }
}

#[cfg(feature = "containers")]
async fn container() -> Option<Server> {
    let started = etl_local_postgres::ContainerPostgres::start(17, SETTINGS).await;
    started.inspect_err(|error| eprintln!("{error}")).ok().map(Server::Container)
}

#[cfg(not(feature = "containers"))]
async fn container() -> Option<Server> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_is_fresh_and_goes_with_its_slots() {
        let Some(database) = database().await else { return };
        let client = database.client().await;
        let slot = "select pg_create_logical_replication_slot('s_' || current_database(), 'pgoutput')::text";
        client.query_one(slot, &[]).await.expect("a slot");
        let (server, name) = (database.server.clone(), database.name.clone());
        drop(database);
        let left = "select (select count(*) from pg_database where datname = $1)
            + (select count(*) from pg_replication_slots where slot_name = 's_' || $1)";
        let left = super::client(&server).await.query_one(left, &[&name]).await.expect("an answer");
        assert_eq!(left.get::<_, i64>(0), 0);
    }

    #[test]
    fn a_url_names_the_database_whatever_the_server_url_looks_like() {
        let url = |server: &str| Database { name: "d".to_owned(), server: server.to_owned() };
        for (server, expected) in [
            ("postgres://u@h:1/postgres", "postgres://u@h:1/d"),
            ("postgres://u@h:1", "postgres://u@h:1/d"),
            ("postgres://u@h:1/x?sslmode=disable", "postgres://u@h:1/d?sslmode=disable"),
        ] {
            let database = std::mem::ManuallyDrop::new(url(server));
            assert_eq!(database.url(), expected);
        }
    }
}
