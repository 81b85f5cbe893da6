//! How does a config become a pipeline that can start?

use std::sync::Arc;

use etl::destination::{AnyDestination, Destination};
use etl::pipeline::{DataDir, Pipeline, check_data_dir, resync_next_time};
use etl::postgres::ConnectOptions;
use etl::source::SourceConfig;
use etl::store::{MemoryStore, PostgresStore, SharedStore, SqliteStore};
use etl::{ErrorKind, EtlError, EtlResult};
use etl_destinations::compacted::Compacted;

use crate::app::{AppConfig, PipelineConfig, PostgresConfig, PostgresStoreConfig, StoreConfig};
use crate::desk::Desk;
use crate::libpq::Libpq;
use crate::table_entry;

impl AppConfig {
    /// The pipeline, with its store and its destination open.
    ///
    /// # Errors
    /// What the store or the destination say when they are opened; each names its file.
    pub async fn connect(self) -> EtlResult<Pipeline> {
        self.connect_with_desk().await.map(|(pipeline, _)| pipeline)
    }

    /// The same, with the desk at which its operations and dead letters are looked after while it runs.
    ///
    /// # Errors
    /// As of [`connect`](Self::connect).
    pub async fn connect_with_desk(self) -> EtlResult<(Pipeline, Desk)> {
        check_data_dir(&self.pipeline.data_dir, &self.pipeline.id)?;
        let store = self.open_store().await?;
        let (source, settings) = (self.source()?, self.settings());
        let destination = self.destination(Arc::clone(&store)).await?;
        let desk = Desk::of_running(Arc::clone(&store), destination.clone());
        let pipeline = Pipeline::builder(self.pipeline.id, source)
            .settings(settings)
            .data_dir(self.pipeline.data_dir)
            .store(store)
            .destination(destination)
            .build()?;
        Ok((pipeline, desk))
    }

    /// The desk of a pipeline that does not run. It cannot start as long as the desk is there.
    ///
    /// # Errors
    /// While the pipeline runs, and where it has no state that outlives it.
    pub async fn desk(&self) -> EtlResult<Desk> {
        let dir = &self.pipeline.data_dir;
        if matches!(self.store, StoreConfig::Memory(_)) || !dir.exists() {
            return Err(EtlError::new(ErrorKind::Config, "the pipeline does not run, and has left nothing")
                .with("data_dir", dir.display())
                .hint("Start it with `etl run`"));
        }
        let lock = DataDir::lock(dir, &self.pipeline.id)?;
        Ok(Desk::of_stopped(self.open_store().await?, self.clone(), lock))
    }

    /// Lets the next run copy these tables anew; returns their names.
    ///
    /// # Errors
    /// While the pipeline runs, and for a table that it does not know.
    pub async fn resync(&self, tables: &[String]) -> EtlResult<Vec<String>> {
        check_data_dir(&self.pipeline.data_dir, &self.pipeline.id)?;
        let store = self.open_store().await?;
        let named = resync_next_time(&self.pipeline.data_dir, &self.pipeline.id, &store, tables).await?;
        Ok(named.iter().map(ToString::to_string).collect())
    }

    async fn open_store(&self) -> EtlResult<SharedStore> {
        Ok(match &self.store {
            StoreConfig::Sqlite(_) => Arc::new(SqliteStore::open(&self.pipeline.data_dir).await?),
            StoreConfig::Memory(_) => Arc::new(MemoryStore::new()),
            StoreConfig::Postgres(postgres) => {
                Arc::new(PostgresStore::open(postgres.to_options()?, &postgres.schema, &self.pipeline.id).await?)
            }
        })
    }

    /// Whether the state store can be reached and written; nothing is made there.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub async fn check_store(&self) -> EtlResult<()> {
        match &self.store {
            StoreConfig::Postgres(postgres) => {
                PostgresStore::check(postgres.to_options()?, &postgres.schema, &self.pipeline.id).await
            }
            // What is in data_dir is looked at with it.
            StoreConfig::Sqlite(_) | StoreConfig::Memory(_) => Ok(()),
        }
    }

    /// Whether the destination can be opened, reached and written to.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub async fn check_destination(&self) -> EtlResult<()> {
        self.destination(Arc::new(MemoryStore::new())).await?.check_connection().await
    }

    /// Whether the data directory can be written, belongs to this pipeline, and is not in use.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check_data_dir(&self) -> EtlResult<()> {
        check_data_dir(&self.pipeline.data_dir, &self.pipeline.id)
    }

    /// Brings current states up to date that the destination makes of logs; the pipeline may be running meanwhile.
    ///
    /// # Errors
    /// Where the destination has nothing to compact, and what it says.
    pub async fn compact(&self) -> EtlResult<Vec<Compacted>> {
        self.destination.clone().compact(table_entry::rules(&self.defaults, &self.tables)).await
    }

    /// The database that is read.
    ///
    /// # Errors
    /// What is wrong with the URL, without its password.
    pub fn source(&self) -> EtlResult<SourceConfig> {
        Ok(self.source.to_source()?.transform(table_entry::transform(&self.defaults, &self.tables)))
    }

    /// The database that is read, which knows where its rows go.
    ///
    /// # Errors
    /// What is wrong with the URL, without its password; and why the destination cannot be opened.
    pub async fn source_to_check(&self) -> EtlResult<SourceConfig> {
        let destination = self.destination(Arc::new(MemoryStore::new())).await?;
        Ok(self.source()?.toward(&destination, &self.pipeline.id))
    }

    /// The destination, which finds the schemas of its tables in the store.
    ///
    /// # Errors
    /// Why it cannot be opened, and what to do.
    pub async fn destination(&self, store: SharedStore) -> EtlResult<AnyDestination> {
        let PipelineConfig { id, data_dir, dead_letters, .. } = &self.pipeline;
        let mut rules = table_entry::rules(&self.defaults, &self.tables);
        rules.defaults.dead_letters = *dead_letters;
        self.destination.clone().of_pipeline(id, data_dir).to_destination(store, rules).await
    }
}

impl PostgresStoreConfig {
    pub(crate) fn to_options(&self) -> EtlResult<ConnectOptions> {
        let mut connect = ConnectOptions::from_url_or_user(self.url.expose(), self.libpq.user.as_deref())?;
        if let Some(tls) = &self.tls {
            connect.tls.clone_from(tls);
        }
        self.libpq.complete(&mut connect);
        Ok(connect)
    }
}

impl PostgresConfig {
    /// Takes the parts that are not given from the environment, where there is no URL.
    pub(crate) fn take_from(&mut self, libpq: Libpq) {
        if self.url.is_none() {
            self.host = self.host.take().or_else(|| libpq.host.clone());
            self.port = self.port.or(libpq.port);
            self.user = self.user.take().or_else(|| libpq.user.clone());
            self.database = self.database.take().or_else(|| libpq.database.clone());
        }
        self.libpq = libpq;
    }

    fn to_source(&self) -> EtlResult<SourceConfig> {
        let mut connect = match &self.url {
            Some(url) => ConnectOptions::from_url_or_user(url.expose(), self.libpq.user.as_deref())?,
            None => self.parts()?,
        };
        if let Some(tls) = &self.tls {
            connect.tls.clone_from(tls);
        }
        connect.target_session_attrs = self.target_session_attrs.or(connect.target_session_attrs);
        connect.channel_binding = self.channel_binding.unwrap_or(connect.channel_binding);
        connect.connect_timeout = self.connect_timeout.unwrap_or(connect.connect_timeout);
        connect.keepalive = self.keepalive.unwrap_or(connect.keepalive);
        if let Some(name) = &self.application_name {
            connect.application_name.clone_from(name);
        }
        connect.coalesced_reads = self.coalesced_reads.unwrap_or(connect.coalesced_reads);
        self.libpq.complete(&mut connect);
        let mut source = SourceConfig::new(connect);
        source.publication.clone_from(&self.publication);
        source.tables.clone_from(&self.tables);
        source.decoding_memory = self.decoding_memory;
        source.two_phase = self.two_phase;
        source.origin = self.origin;
        source.streaming = self.streaming.unwrap_or(source.streaming);
        source.heartbeat = self.heartbeat;
        source.watch_every = self.watch_every.unwrap_or(source.watch_every);
        source.on_partition_gone = self.on_partition_gone;
        source.failover = self.failover;
        source.wal_guard.clone_from(&self.wal_guard);
        Ok(source)
    }

    /// The server where its address is given in parts; loading has made sure that there are enough.
    fn parts(&self) -> EtlResult<ConnectOptions> {
        let user = self.user.as_deref().unwrap_or_default();
        let database = self.database.as_deref().unwrap_or(user);
        let mut connect = ConnectOptions::new("", database, user);
        connect.password.clone_from(&self.password);
        let port = self.port.unwrap_or(connect.port);
        connect.with_hosts(self.host.as_deref().unwrap_or_default(), port)
    }
}
