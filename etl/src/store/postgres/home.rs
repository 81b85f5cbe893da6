//! Where does the state live? The schema, its version, and who owns the pipeline in it.

use std::time::Duration;

use tokio_postgres::types::Type;

use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{ConnectOptions, Session, query_error, quote_ident};
use crate::retry::{RetryPolicy, retry};

/// Each brings the schema from the version before it to its own.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql"), include_str!("copies.sql"), include_str!("operations.sql")];

/// All tables of a store.
const TABLES: &[&str] = &[
    "migration",
    "pipeline",
    "table_state",
    "cursor",
    "fact",
    "table_schema",
    "copied",
    "repair",
    "operation",
    "dead_letter",
];

/// The comment on every table of a store: a publication must not hold them, or each position stored would be a change.
pub const MARK: &str = "etl: the state of pipelines";

/// How long a dead process's session is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The server, the schema and the pipeline.
#[derive(Debug)]
pub(super) struct Home {
    connect: ConnectOptions,
    schema: String,
    pub(super) pipeline: String,
}

impl Home {
    pub(super) fn new(mut connect: ConnectOptions, schema: String, pipeline: String) -> Self {
        connect.application_name = format!("etl store {pipeline}");
        Self { connect, schema, pipeline }
    }

    /// The statement with the schema's name in it.
    pub(super) fn sql(&self, statement: &str) -> String {
        statement.replace("{schema}", &quote_ident(&self.schema))
    }

    /// What the pipeline's lock is called; advisory locks are the database's.
    fn lock(&self) -> String {
        format!("etl.store {} {}", self.schema, self.pipeline)
    }

    /// An error of the server as one of the store's.
    pub(super) fn failed(&self, doing: &'static str, error: EtlError) -> EtlError {
        let sqlstate = error.context("sqlstate").map(str::to_owned);
        let (kind, hint) = match (error.kind(), sqlstate.as_deref()) {
            (ErrorKind::SourceUnavailable, _) => (ErrorKind::StoreUnavailable, "Check that its server runs"),
            (_, Some("25006")) => (ErrorKind::Store, "Name a server that can be written, not a standby"),
            (_, Some("53100")) => (ErrorKind::DiskFull, "Free some space at the server of the state store"),
            (ErrorKind::SourcePermission, _) => {
                (ErrorKind::Store, "Grant CREATE on the database, or make the schema for the user and grant it ALL")
            }
            _ => (ErrorKind::Store, "Look at `store.postgres`"),
        };
        EtlError::new(kind, format!("could not {doing}"))
            .with("server", self.connect.address())
            .with("schema", &self.schema)
            .because(error)
            .hint(hint)
    }

    async fn execute(&self, session: &Session, doing: &'static str, statements: &str) -> EtlResult<()> {
        let done = session.client().batch_execute(&self.sql(statements)).await;
        done.map_err(|error| self.failed(doing, query_error(doing, error)))
    }

    async fn text(
        &self,
        session: &Session,
        doing: &'static str,
        statement: &str,
        arguments: &[&str],
    ) -> EtlResult<Option<String>> {
        let arguments: Vec<super::Argument<'_>> =
            arguments.iter().map(|text| (text as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)).collect();
        let rows = session.client().query_typed(&self.sql(statement), &arguments).await;
        let rows = rows.map_err(|error| self.failed(doing, query_error(doing, error)))?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// A session that can write, and whose commits survive a crash of the server.
    pub(super) async fn connect(&self) -> EtlResult<Session> {
        let doing = "open the state store";
        let session = Session::connect(&self.connect).await.map_err(|error| self.failed(doing, error))?;
        let read_only = self.text(&session, doing, "SHOW transaction_read_only", &[]).await?;
        if read_only.as_deref() == Some("on") {
            return Err(EtlError::new(ErrorKind::Store, "the database of the state store cannot be written")
                .with("server", self.connect.address())
                .hint("Name the primary, or a role without default_transaction_read_only"));
        }
        let durable = "SELECT set_config('synchronous_commit', 'on', false)
                        WHERE current_setting('synchronous_commit') = 'off'";
        self.text(&session, doing, durable, &[]).await?;
        Ok(session)
    }

    /// The version of the schema; 0 where it is not there.
    async fn version(&self, session: &Session) -> EtlResult<usize> {
        let doing = "read the version of the state store";
        let there = "SELECT 'there' FROM pg_catalog.pg_class c
                       JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = $1 AND c.relname = 'migration'";
        if self.text(session, doing, there, &[&self.schema]).await?.is_none() {
            return Ok(0);
        }
        let version =
            self.text(session, doing, "SELECT coalesce(max(version), 0)::text FROM {schema}.migration", &[]).await?;
        let version = version.and_then(|text| text.parse().ok()).unwrap_or(0);
        if version > MIGRATIONS.len() {
            return Err(EtlError::new(ErrorKind::Store, "a newer version of this program wrote the state store")
                .with("server", self.connect.address())
                .with("schema", &self.schema)
                .with("version", version)
                .with("known", MIGRATIONS.len())
                .hint("Run the newer version again"));
        }
        Ok(version)
    }

    /// Whether the schema is a state store of this version.
    pub(super) async fn is_there(&self, session: &Session) -> EtlResult<bool> {
        Ok(self.version(session).await? == MIGRATIONS.len())
    }

    /// Whether the schema is there and its own, or can be made.
    pub(super) async fn check(&self, session: &Session) -> EtlResult<()> {
        let allowed = "SELECT 'yes' WHERE CASE
              WHEN EXISTS (SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1)
              THEN has_schema_privilege($1, 'USAGE, CREATE')
              ELSE has_database_privilege(current_database(), 'CREATE') END";
        if self.version(session).await? == MIGRATIONS.len()
            || self.text(session, "check the state store", allowed, &[&self.schema]).await?.is_some()
        {
            return Ok(());
        }
        Err(EtlError::new(ErrorKind::Store, "the user may not make the tables of the state store")
            .with("server", self.connect.address())
            .with("schema", &self.schema)
            .hint("Grant CREATE on the database, or make the schema for the user and grant it ALL"))
    }

    /// Brings the schema to this program's version; several that start at once wait for each other.
    pub(super) async fn migrate(&self, session: &Session) -> EtlResult<()> {
        if self.version(session).await? == MIGRATIONS.len() {
            return Ok(());
        }
        let doing = "make the tables of the state store";
        self.execute(session, doing, "BEGIN").await?;
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text";
        self.text(session, doing, lock, &[&format!("etl.store {}", self.schema)]).await?;
        let version = self.version(session).await?;
        if version == 0 {
            let there = "SELECT 'there' FROM pg_catalog.pg_namespace WHERE nspname = $1";
            if self.text(session, doing, there, &[&self.schema]).await?.is_none() {
                self.execute(session, doing, "CREATE SCHEMA {schema}").await?;
            }
            let versions = "CREATE TABLE {schema}.migration
                (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())";
            self.execute(session, doing, versions).await?;
        }
        for (place, migration) in MIGRATIONS.iter().enumerate().skip(version) {
            self.execute(session, doing, migration).await?;
            let applied = format!("INSERT INTO {{schema}}.migration VALUES ({})", place + 1);
            self.execute(session, doing, &applied).await?;
        }
        for table in TABLES {
            self.execute(session, doing, &format!("COMMENT ON TABLE {{schema}}.{table} IS '{MARK}'")).await?;
        }
        self.execute(session, doing, "COMMIT").await
    }

    async fn try_lock(&self, session: &Session) -> EtlResult<()> {
        let lock = "SELECT 'yes' WHERE pg_try_advisory_lock(hashtextextended($1, 0))";
        match self.text(session, "lock the state store", lock, &[&self.lock()]).await? {
            Some(_) => Ok(()),
            None => Err(EtlError::new(ErrorKind::StoreUnavailable, "another session holds the pipeline's state")
                .with("pipeline", &self.pipeline)
                .with("schema", &self.schema)),
        }
    }

    /// Takes the pipeline's lock, and its row for this process.
    pub(super) async fn take_over(&self, session: &Session) -> EtlResult<String> {
        let policy = RetryPolicy { give_up_after: Some(PATIENCE), longest: PATIENCE / 10, ..RetryPolicy::default() };
        retry(policy, || self.try_lock(session)).await.map_err(|error| match error.context("pipeline") {
            Some(_) => self.taken().because(error),
            None => error,
        })?;
        let take = "INSERT INTO {schema}.pipeline (id, owner) VALUES ($1, gen_random_uuid())
                    ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, owned_since = excluded.owned_since
                    RETURNING owner::text";
        let owner = self.text(session, "take the pipeline's state", take, &[&self.pipeline]).await?;
        Ok(owner.unwrap_or_default())
    }

    /// A new session in place of a lost one, if the pipeline is still this process's.
    pub(super) async fn return_to(&self, owner: &str) -> EtlResult<Session> {
        let session = self.connect().await?;
        // Its own lost session may still hold the lock, until the server notices; nobody writes without it.
        self.try_lock(&session).await?;
        let query = "SELECT owner::text FROM {schema}.pipeline WHERE id = $1";
        if self.text(&session, "see who owns the state store", query, &[&self.pipeline]).await?.as_deref()
            == Some(owner)
        {
            return Ok(session);
        }
        Err(self.taken())
    }

    fn taken(&self) -> EtlError {
        EtlError::new(ErrorKind::Locked, "another process runs this pipeline")
            .with("pipeline", &self.pipeline)
            .with("server", self.connect.address())
            .with("schema", &self.schema)
            .hint("Stop that one, or give this pipeline another id")
    }
}
