//! What have dead pipelines left, at the source and in the state store, and how is it removed?

use etl::EtlResult;
use etl::source::{Leftover, LeftoverKind, Standing, leftovers, place, remove_leftover};
use etl::store::PostgresStore;

use crate::app::{AppConfig, StoreConfig};

impl AppConfig {
    /// Slots, publications and states that pipelines have made, with whether somebody needs them.
    ///
    /// # Errors
    /// Where source or store cannot be asked.
    pub async fn leftovers(&self) -> EtlResult<Vec<Leftover>> {
        let source = self.source()?;
        let own = &self.pipeline.id;
        let mut found = leftovers(&source, own).await?;
        let StoreConfig::Postgres(postgres) = &self.store else { return Ok(found) };
        let here = place(&source).await?;
        let stored = PostgresStore::stored(postgres.to_options()?, &postgres.schema).await?;
        for pipeline in stored {
            let is_here =
                pipeline.system.as_ref() == Some(&here.system) && pipeline.database.as_ref() == Some(&here.database);
            let slot = format!("etl_{}", pipeline.id);
            let slot = found.iter().find(|found| found.kind == LeftoverKind::Slot && found.name == slot);
            let (standing, why) = match slot.map(|slot| slot.standing) {
                _ if pipeline.id == *own => (Standing::Live, "of this pipeline"),
                _ if pipeline.is_held => (Standing::Live, "a process holds it"),
                _ if !is_here => (Standing::Live, "of another source"),
                Some(Standing::Live | Standing::Asleep) => (Standing::Live, "its pipeline has a slot"),
                Some(_) => (Standing::Dead, "its pipeline's slot is dead"),
                None => (Standing::Dead, "its pipeline has no slot"),
            };
            found.push(Leftover::state(pipeline.id, standing, why));
        }
        Ok(found)
    }

    /// Removes one of them, unless it has come to life since.
    ///
    /// # Errors
    /// Where it is in use, or may not be removed.
    pub async fn remove_leftover(&self, leftover: &Leftover) -> EtlResult<()> {
        match (&self.store, leftover.kind) {
            (StoreConfig::Postgres(postgres), LeftoverKind::State) => {
                PostgresStore::remove(postgres.to_options()?, &postgres.schema, leftover.pipeline()).await
            }
            _ => remove_leftover(&self.source()?, &self.pipeline.id, leftover).await,
        }
    }
}
