//! Whose state is in a schema besides a pipeline's own, and how does it go?

use tokio_postgres::types::Type;

use super::PostgresStore;
use super::home::Home;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::postgres::{ConnectOptions, query_error};

/// A pipeline whose state is in the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredPipeline {
    /// The pipeline's id.
    pub id: String,
    /// The system identifier of the server that it has read.
    pub system: Option<String>,
    /// The database that it has read.
    pub database: Option<String>,
    /// Whether a process holds it now.
    pub is_held: bool,
}

const STORED: &str = "
SELECT p.id, s.value, d.value, NOT pg_try_advisory_xact_lock(hashtextextended('etl.store ' || $1 || ' ' || p.id, 0))
  FROM {schema}.pipeline p
  LEFT JOIN {schema}.fact s ON s.pipeline = p.id AND s.name = 'source.system'
  LEFT JOIN {schema}.fact d ON d.pipeline = p.id AND d.name = 'source.database'
 ORDER BY 1";

impl PostgresStore {
    /// The pipelines whose state is in the schema; none where it is not a store.
    ///
    /// # Errors
    /// Where the server cannot be asked.
    pub async fn stored(connect: ConnectOptions, schema: &str) -> EtlResult<Vec<StoredPipeline>> {
        let home = Home::new(connect, schema.to_owned(), "gc".to_owned());
        let session = home.connect().await?;
        if !home.is_there(&session).await? {
            return Ok(Vec::new());
        }
        let doing = "list the pipelines of the state store";
        let rows = session.client().query_typed(&home.sql(STORED), &[(&schema, Type::TEXT)]).await;
        let rows = rows.map_err(|error| home.failed(doing, query_error(doing, error)))?;
        let stored = rows.iter().map(|row| StoredPipeline {
            id: row.get(0),
            system: row.get(1),
            database: row.get(2),
            is_held: row.get(3),
        });
        Ok(stored.collect())
    }

    /// Removes the state of a pipeline that nobody holds.
    ///
    /// # Errors
    /// [`Locked`](ErrorKind::Locked) where a process holds it.
    pub async fn remove(connect: ConnectOptions, schema: &str, pipeline: &str) -> EtlResult<()> {
        let home = Home::new(connect, schema.to_owned(), pipeline.to_owned());
        let session = home.connect().await?;
        let doing = "remove the state of a pipeline";
        let delete = "
WITH held AS MATERIALIZED (SELECT pg_try_advisory_xact_lock(hashtextextended('etl.store ' || $1 || ' ' || $2, 0)) AS free)
DELETE FROM {schema}.pipeline USING held WHERE id = $2 AND held.free RETURNING 1";
        let arguments: [super::Argument<'_>; 2] = [(&schema, Type::TEXT), (&pipeline, Type::TEXT)];
        let rows = session.client().query_typed(&home.sql(delete), &arguments).await;
        let rows = rows.map_err(|error| home.failed(doing, query_error(doing, error)))?;
        if rows.is_empty() {
            return Err(EtlError::new(ErrorKind::Locked, "a process holds the state of the pipeline, or it is gone")
                .with("pipeline", pipeline));
        }
        Ok(())
    }
}
