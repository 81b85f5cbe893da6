//! What do the tables look like, and what has changed since that was stored? Asked at the start, and before each copy.

use std::collections::HashMap;
use std::sync::Arc;

use super::allowed::{Allowance, Allowed};
use super::passed::Passed;
use super::published::Published;
use super::run::Run;
use crate::destination::{Destination, TableChange};
use crate::error::EtlResult;
use crate::lsn::{Lsn, Position};
use crate::postgres::{Session, query_error};
use crate::schema::{TableId, TableSchema, changes};
use crate::source::{PublishedTable, Shape, difference, follow, published_table};
use crate::store::{CursorId, Phase, SharedStore, TableState};
use crate::transform::{Selection, Transform};

/// After everything.
pub(super) const END: Position = Position::after(Lsn(u64::MAX));

/// Chooses what is passed on, and stores the schemas of new tables. A table that changed while nobody watched is copied
/// again: what happened in between may have come in either shape.
pub(super) async fn describe_all(
    store: &SharedStore,
    transform: &Transform,
    tables: Vec<PublishedTable>,
    states: &mut HashMap<TableId, TableState>,
    allowed: &Allowed<'_>,
) -> EtlResult<Vec<Published>> {
    let mut described = Vec::with_capacity(tables.len());
    let chosen = transform.select_all(tables.iter().map(|table| &table.schema))?;
    let passed = Passed::compare(store, chosen.iter()).await?;
    for (mut table, mut selection) in tables.into_iter().zip(chosen) {
        let id = table.schema.id;
        let known = store.schema_at(id, END).await?;
        let is_shared = states.get(&id).is_some_and(|state| state.phase == Phase::Ready);
        if let Some(before) = known.as_ref().filter(|_| is_shared).and_then(|known| as_before(transform, &table, known))
        {
            // Rows come under the old name until the stream, or whoever watches, tells of the new one.
            (table, selection) = before;
        }
        let schema = match known {
            Some(known) if is_same(&known, &selection.schema) && !passed.has_changed(id) => {
                // Columns may have come and gone, and the stream has yet to tell.
                table.schema.last_attnum = known.last_attnum;
                known
            }
            known => {
                let since = known.as_ref().map_or(Position::ZERO, |known| known.since);
                if let (Some(known), Some(state)) = (known, states.get_mut(&id)) {
                    let what = describe(&known, &selection.schema);
                    *state = if is_same(&known, &selection.schema) {
                        // Masks or filter are others: whoever changed them wants the table so.
                        tracing::warn!(table = %known.source_name(), what, "it is copied again");
                        copied_again(store, id, state.clone()).await?
                    } else {
                        allowed.copied_again(store, state, &known, &selection.schema, what).await?
                    };
                }
                let schema = Arc::new(TableSchema { since, ..TableSchema::clone(&selection.schema) });
                store.put_schema(Arc::clone(&schema)).await?;
                schema
            }
        };
        warn_of_generated(&table);
        let selection = Arc::new(selection.with_schema(schema));
        described.push(Published { table: Arc::new(table), selection });
    }
    passed.note(store).await?;
    Ok(described)
}

/// The table under the name that it had, where it differs in that alone.
fn as_before(
    transform: &Transform,
    table: &PublishedTable,
    known: &TableSchema,
) -> Option<(PublishedTable, Selection)> {
    if table.schema.name == *known.source_name() {
        return None;
    }
    let before = table.called(known.source_name());
    let selection = transform.select(&before.schema).ok()?;
    is_same(known, &selection.schema).then_some((before, selection))
}

/// A table whose last change of shape is not durable is copied again: the rows before it come once more, and how they
/// were read is not stored.
pub(super) async fn copy_half_followed(
    store: &SharedStore,
    destination: &impl Destination,
    main: Position,
    published: &[Published],
    states: &mut HashMap<TableId, TableState>,
) -> EtlResult<()> {
    let progress = store.progress().await?;
    let own = async |cursor| {
        let durable = destination.durable_position(cursor).await?;
        EtlResult::Ok(durable.or_else(|| progress.cursor(cursor)))
    };
    for table in published {
        let schema = &table.selection.schema;
        let Some(state) = states.get_mut(&schema.id) else { continue };
        let cursor = CursorId::Table(schema.id);
        let durable = match &state.phase {
            Phase::Ready => main,
            Phase::CatchingUp { cursor: begin, .. } => own(cursor).await?.unwrap_or_default().max(*begin),
            waiting => match waiting.held().and_then(|held| held.cursor) {
                Some(begin) => own(cursor).await?.unwrap_or_default().max(begin),
                None => continue,
            },
        };
        if schema.since > durable {
            tracing::warn!(table = %schema.source_name(), "the run ended while the table changed: it is copied again");
            *state = copied_again(store, schema.id, state.clone()).await?;
        }
    }
    Ok(())
}

/// What was copied in the old shape is of no use. A table that waits goes on waiting.
pub(super) async fn copied_again(store: &SharedStore, id: TableId, state: TableState) -> EtlResult<TableState> {
    let state = TableState { phase: state.phase.begun_anew(), ..state };
    let revision = store.set_table_state(id, Some(state.revision), state.clone()).await?;
    Ok(TableState { revision, ..state })
}

fn warn_of_generated(table: &PublishedTable) {
    if !table.generated.is_empty() {
        let (table, columns) = (&table.schema.name, table.generated.join(", "));
        tracing::warn!(%table, columns, "generated columns are left out: the stream does not carry them");
    }
}

pub(super) fn is_same(known: &TableSchema, found: &TableSchema) -> bool {
    changes(known, found).is_empty() && known.identity == found.identity
}

pub(super) fn describe(known: &TableSchema, found: &TableSchema) -> String {
    let changes: Vec<String> = changes(known, found).iter().map(ToString::to_string).collect();
    match changes.is_empty() {
        false => changes.join("; "),
        true if known.identity != found.identity => "replica identity".to_owned(),
        true => "what is passed on of its rows".to_owned(),
    }
}

/// What has happened to a table.
pub(super) enum Fate {
    /// It is as it was.
    Same,
    /// It looks different.
    Changed(String),
    /// It is published no more.
    Gone,
}

impl Run {
    /// Looks at the table again. What is copied from here on is what the source says now; `false` where the table is
    /// not published any more.
    pub(super) async fn describe_again(&self, id: TableId) -> EtlResult<bool> {
        let session = self.idle.session(&self.source.connect.for_purpose("tables")).await?;
        let found = published_table(session.client(), &self.publication, session.server_version(), id).await?;
        self.idle.keep_session(session);
        match found {
            Some(table) => {
                self.expect_allowed(&table).await?;
                self.describe(table, None).await.map(|()| true)
            }
            None => Ok(false),
        }
    }

    /// How the table looks different from what is known of it, if it does. Asked once it is locked for a snapshot: it
    /// looks like this for every row that the snapshot does not see and that comes before the next RELATION (R10).
    pub(super) async fn change_of(&self, session: &Session, known: &PublishedTable) -> EtlResult<Option<String>> {
        let (client, version, id) = (session.client(), session.server_version(), known.schema.id);
        // Whoever waits to change the table waits for the copy that asks, and is not waited for in turn: that table's own
        // row filter is all that is locked for.
        let limit = |time| format!("SET lock_timeout = {time}");
        client.batch_execute(&limit("'1s'")).await.map_err(|e| query_error("limit a wait", e))?;
        let now = published_table(client, &self.publication, version, id).await?;
        client.batch_execute(&limit("0")).await.map_err(|e| query_error("limit a wait", e))?;
        Ok(now.map_or_else(|| Some("it is not published any more".to_owned()), |now| known.difference(&now)))
    }

    /// What has happened to the table since it was described, if anything: where its copy fails for that, another one
    /// does not.
    pub(super) async fn fate_of(&self, id: TableId) -> EtlResult<Fate> {
        let session = Session::connect(&self.source.connect.for_purpose("tables")).await?;
        let found = published_table(session.client(), &self.publication, session.server_version(), id).await?;
        let Some(now) = found else { return Ok(Fate::Gone) };
        Ok(self.table(id)?.difference(&now).map_or(Fate::Same, Fate::Changed))
    }

    /// What is passed on of a table whose rows have this shape from this position on, if it is certain which columns
    /// those are and what older rows have in them (R10).
    ///
    /// # Errors
    /// [`SchemaChanged`](crate::error::ErrorKind::SchemaChanged), of the table, where the destination does not want it.
    pub(super) async fn follow(
        &self,
        id: TableId,
        shape: &Shape,
        position: Position,
    ) -> EtlResult<Option<Arc<Selection>>> {
        let known = self.published.get(id)?;
        if known.selection.schema.since == position && difference(&known.selection.wire, shape).is_none() {
            // It came to this before, and what it led to was not durable.
            return Ok(Some(known.selection));
        }
        if !self.destination.capabilities().schema_changes {
            return Ok(None);
        }
        let session = Session::connect(&self.source.connect.for_purpose("tables")).await?;
        let version = session.server_version();
        let Some(now) = published_table(session.client(), &self.publication, version, id).await? else {
            return Ok(None);
        };
        if let Err(why) = follow(&known.table, &now, shape) {
            tracing::info!(table = %now.schema.name, why, "the table cannot be followed in place");
            return Ok(None);
        }
        match self.source.transform.select(&now.schema) {
            Ok(selection) if !self.streams.is_readable(&selection) => return Ok(None),
            Ok(selection) => {
                let what = describe(&known.selection.schema, &selection.schema);
                let change = TableChange {
                    before: Arc::clone(&known.selection.schema),
                    after: Arc::clone(&selection.schema),
                    is_copied: false,
                    what,
                };
                if self.allow(change).await? == Allowance::Wished {
                    return Ok(None);
                }
                self.describe(now, Some(position)).await?;
            }
            // Whoever copies it says so again, of that table alone.
            Err(error) => {
                tracing::warn!(table = %now.schema.name, %error, "the choice does not fit the table any more");
                return Ok(None);
            }
        }
        Ok(Some(self.selection(id)?))
    }

    /// A table looks like this, for rows from this position on; without one, for all that are read from now on.
    pub(super) async fn describe(&self, table: PublishedTable, since: Option<Position>) -> EtlResult<()> {
        let id = table.schema.id;
        let selection = self.source.transform.select(&table.schema)?;
        if selection.pass.is_some() {
            Passed::compare(&self.store, std::iter::once(&selection)).await?.note(&self.store).await?;
        }
        let schema = match self.store.schema_at(id, END).await? {
            Some(known)
                if is_same(&known, &selection.schema)
                    && known.last_attnum == selection.schema.last_attnum
                    && known.source_name() == selection.schema.source_name() =>
            {
                known
            }
            known => {
                let since = since.max(known.as_ref().map(|known| known.since)).unwrap_or_default();
                if let Some(known) = known.filter(|known| !is_same(known, &selection.schema)) {
                    let changes = describe(&known, &selection.schema);
                    tracing::info!(table = %table.schema.name, changes, "the table has another shape");
                }
                let schema = Arc::new(TableSchema { since, ..TableSchema::clone(&selection.schema) });
                self.store.put_schema(Arc::clone(&schema)).await?;
                warn_of_generated(&table);
                schema
            }
        };
        self.board.table(id, |status| status.name.clone_from(&table.schema.name));
        self.published.put(Published { table: Arc::new(table), selection: Arc::new(selection.with_schema(schema)) });
        Ok(())
    }
}
