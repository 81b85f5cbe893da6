//! How does one ask a server something without `psql`? Over its socket, with tokio-postgres.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::{Error, LocalPostgres};

impl LocalPostgres {
    /// A client of the database over the server's socket. Its connection ends with the client.
    ///
    /// # Errors
    /// The server is down or has no such database.
    pub async fn connect(&self, database: &str) -> Result<Client, Error> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.socket_dir()).port(self.port()).user("postgres").dbname(database);
        config.application_name("etl-local-postgres");
        let (client, connection) = config.connect(NoTls).await.map_err(|e| failed("connecting to", &e).because(e))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs SQL in the database `postgres`; gives rows as lines and fields separated by `|`, as `psql -At` does.
    ///
    /// # Errors
    /// The server is down or refuses a statement.
    pub async fn psql(&self, sql: &str) -> Result<String, Error> {
        self.psql_in("postgres", sql).await
    }

    /// Like [`LocalPostgres::psql`], in another database.
    ///
    /// # Errors
    /// The server is down or refuses a statement.
    pub async fn psql_in(&self, database: &str, sql: &str) -> Result<String, Error> {
        let client = self.connect(database).await?;
        let messages = client.simple_query(sql).await.map_err(|e| failed("asking", &e).because(e))?;
        let lines = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let fields: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or_default()).collect();
                Some(fields.join("|"))
            }
            _ => None,
        });
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Makes a new, empty database.
    ///
    /// # Errors
    /// The server is down or has one of that name.
    pub async fn create_database(&self, name: &str) -> Result<(), Error> {
        self.psql(&format!("create database {}", quoted(name))).await.map(drop)
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn failed(doing: &str, error: &tokio_postgres::Error) -> Error {
    let detail = error.as_db_error().map_or_else(
        || error.to_string(),
        |db| {
            let detail = db.detail().map_or_else(String::new, |d| format!("; {d}"));
            format!("{} ({}){detail}", db.message(), db.code().code())
        },
    );
    Error::new(format!("{doing} the local server"), detail)
}
