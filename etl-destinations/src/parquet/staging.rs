//! Where do the files of a run wait until it is whole? Below `.etl/staged`, known to the manifests, the last of which counts
//! all of them at once.

use std::sync::Arc;

use etl::error::{ErrorKind, EtlError, EtlResult};

use super::lake::{Lake, Piece, Place, never_counts, parts, paths_of, token};
use super::layout;
use super::retain::Replaced;
use super::state::{Entry, RunPart, Staged, StagedPart, State, Table, TablePart};
use crate::write_mode::WriteMode;
use crate::writer::{TargetTable, WriteUnit};

/// A table of a run, as readers are to know it, and what becomes of its log.
pub(super) type Shown = (Arc<TargetTable>, WriteMode);

impl Lake {
    /// Begins a run; what others have staged goes.
    pub(super) async fn begin_run(&self, run: &str) -> EtlResult<()> {
        self.take_back().await;
        let mut manifests = self.manifests().await;
        if manifests.state().staged(run).is_some() {
            return Ok(());
        }
        let begun = StagedPart { run: run.to_owned(), ..StagedPart::default() };
        let entry = Entry { runs: vec![RunPart::Staged(begun)], ..self.claim(manifests.state()) };
        manifests.append(entry).await?;
        drop(manifests);
        self.location().delete_folder(layout::STAGED).await
    }

    /// Writes copied rows of the run.
    pub(super) async fn stage(self: &Arc<Self>, run: &str, unit: WriteUnit) -> EtlResult<()> {
        let unit = Arc::new(unit);
        let encoded = self.encode(&unit).await?;
        let named = {
            let manifests = self.manifests().await;
            let staged = staged(manifests.state(), run)?;
            if token(&unit).is_some_and(|token| staged.chunks.contains(&token)) {
                return Ok(());
            }
            self.named(&staged.tables, Place::Staged(run), &unit, encoded)?
        };
        let uploaded = self.upload(named).await?;
        let paths = paths_of(&uploaded);
        let mut manifests = self.manifests().await;
        let staged = staged(manifests.state(), run)?;
        let (tables, chunks) =
            (parts(&staged.tables, vec![Piece::new(&unit, uploaded)]), token(&unit).into_iter().collect());
        let part = StagedPart { run: run.to_owned(), tables, chunks };
        let entry = Entry { runs: vec![RunPart::Staged(part)], ..self.claim(manifests.state()) };
        match manifests.append(entry).await {
            Err(error) if never_counts(&error) => {
                drop(manifests);
                self.location().delete(paths).await?;
                Err(error)
            }
            written => written,
        }
    }

    /// Shows the tables of a run, all by one manifest. Changes nothing where that was done.
    pub(super) async fn publish_run(self: &Arc<Self>, run: &str, tables: &[Shown], memory: u64) -> EtlResult<()> {
        let state = self.manifests().await.state().clone();
        if state.shown.as_deref() == Some(run) {
            return self.remove_staged(run).await;
        }
        let staged = staged(&state, run)?;
        let mut shown = Vec::with_capacity(tables.len());
        for (to, mode) in tables {
            let table = staged.tables.get(&to.id).ok_or_else(|| gone(run).with("table", &to.name))?;
            let generation = state.tables.get(&to.id).map_or(1, |known| known.generation + 1);
            let part = self.shown(run, to, Table { generation, ..table.clone() }, *mode, memory).await;
            shown.push(part.map_err(|error| error.with("table", &to.name))?);
        }
        let mut manifests = self.manifests().await;
        let Replaced { retained, mut gone } = self.replaced_by(manifests.state(), &shown);
        let runs = vec![RunPart::Shown(run.to_owned())];
        let entry = Entry { runs, tables: shown, retained, ..self.claim(manifests.state()) };
        manifests.append(entry).await?;
        for (to, _) in tables {
            self.point(&mut manifests, to.id).await?;
        }
        let named: Vec<String> = manifests.state().tables.values().filter_map(Table::pointer).collect();
        drop(manifests);
        gone.retain(|path| !named.contains(path));
        self.location().delete(gone).await?;
        self.remove_staged(run).await
    }

    /// The files of a staged table where its log has them, with the current state that they come to.
    async fn shown(
        self: &Arc<Self>,
        run: &str,
        to: &TargetTable,
        mut table: Table,
        mode: WriteMode,
        memory: u64,
    ) -> EtlResult<TablePart> {
        table.name = to.name.to_string();
        table.shapes.values_mut().for_each(|shape| shape.name.clone_from(&to.name));
        if mode != WriteMode::Append {
            table.current = self.state_before(to.id, table.clone(), mode, memory).await?;
        }
        for file in &mut table.files {
            let path = layout::shown(run, &file.path, &to.name);
            self.location().copy(&file.path, &path).await?;
            file.path = path;
        }
        Ok(table.entry(to.id))
    }

    /// What becomes of the files that count now of these tables.
    fn replaced_by(&self, state: &State, shown: &[TablePart]) -> Replaced {
        let mut replaced = Replaced::default();
        for (id, known) in shown.iter().filter_map(|part| state.tables.get_key_value(&part.id)) {
            replaced.add(*id, known.files.iter(), self.retain().merged);
            replaced.add(*id, known.current.iter().flat_map(|current| &current.files), self.retain().states);
            replaced.gone.extend(known.pointer());
        }
        replaced
    }

    /// Removes what the run has staged.
    pub(super) async fn abandon_run(&self, run: &str) -> EtlResult<()> {
        let mut manifests = self.manifests().await;
        if manifests.state().staged(run).is_some() {
            let runs = vec![RunPart::Abandoned(run.to_owned())];
            let entry = Entry { runs, ..self.claim(manifests.state()) };
            manifests.append(entry).await?;
        }
        drop(manifests);
        self.remove_staged(run).await
    }

    async fn remove_staged(&self, run: &str) -> EtlResult<()> {
        self.location().delete_folder(&layout::staged(run)).await
    }
}

fn staged<'s>(state: &'s State, run: &str) -> EtlResult<&'s Staged> {
    state.staged(run).ok_or_else(|| gone(run))
}

fn gone(run: &str) -> EtlError {
    EtlError::new(ErrorKind::DestinationRejected, "what the run has staged is gone")
        .with("run", run)
        .hint("Somebody removed it: run again")
}
