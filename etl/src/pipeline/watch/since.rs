//! What has happened to the published tables while nobody watched? The last look is in the store.

use std::collections::HashMap;

use tokio_postgres::Client;

use super::found::{ATTACHED, REPARTITIONED, REWRITTEN, What, compare, is_of_partitions};
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::pipeline::allowed::Allowed;
use crate::pipeline::describe::{END, copied_again};
use crate::schema::TableId;
use crate::source::{Look, OnPartitionGone, are_empty};
use crate::store::{SharedStore, TableState};

/// What was seen of the publication, as far as it was acted on.
const LOOK: &str = "publication.look";

/// Why a table is copied again that was not published meanwhile.
const CAME_BACK: &str = "it left the publication and came back";

/// What has happened since the last run looked.
#[derive(Debug)]
pub(in crate::pipeline) struct Stale {
    /// Tables that may be wrong in the destination, and why.
    tables: Vec<(TableId, &'static str)>,
    /// What was seen, as far as it is acted on by that.
    acted: Look,
    /// Whether that is not everything.
    pub(in crate::pipeline) is_owing: bool,
}

/// Stores what was seen, once it was acted on.
pub(in crate::pipeline) async fn remember(store: &SharedStore, look: &Look) -> EtlResult<()> {
    let text = serde_json::to_string(look)
        .map_err(|e| EtlError::new(ErrorKind::Internal, "what was seen cannot be stored").because(e))?;
    store.set_fact(LOOK, text).await
}

/// Which tables to copy again for what has happened to them since the last run looked, and has seen this now.
pub(in crate::pipeline) async fn stale_since_last_run(
    client: &Client,
    store: &SharedStore,
    now: Look,
    version: u32,
    on_gone: OnPartitionGone,
) -> EtlResult<Stale> {
    let mut stale = Stale { tables: Vec::new(), acted: now.clone(), is_owing: false };
    let Some(text) = store.fact(LOOK).await? else { return Ok(stale) };
    let before: Look = serde_json::from_str(&text)
        .map_err(|e| EtlError::new(ErrorKind::Store, "what was seen of the publication cannot be read").because(e))?;
    for found in compare(&before, &now) {
        let why = match kept(found.what, on_gone, version) {
            What::Moved => continue,
            // One of which something is stored was not there when somebody looked last.
            What::Added => CAME_BACK,
            What::Gone | What::Renamed => {
                // Found again by whoever watches: rows of before come until the stream has passed it, and under the old
                // name. Should the run end before, what is seen then is compared with what was seen before it.
                let before = before.tables.get(&found.table.0).map(|sight| (found.table.0, sight.clone()));
                stale.acted.tables.extend(before);
                stale.is_owing = true;
                continue;
            }
            What::Stale(why) => why,
            What::Rewritten => REWRITTEN,
            What::Attached(leaves) if are_empty(client, &leaves, version).await.unwrap_or(false) => continue,
            What::Attached(_) | What::Repartitioned | What::Lost(_) | What::Emptied(_)
                if needs_another_stream(version) =>
            {
                // Found again by whoever watches: the stream has to pass it before.
                let before = before.tables.get(&found.table.0).map(|sight| (found.table.0, sight.clone()));
                stale.acted.tables.extend(before);
                stale.is_owing = true;
                continue;
            }
            What::Repartitioned | What::Lost(_) => REPARTITIONED,
            What::Emptied(_) => REWRITTEN,
            What::Attached(_) => ATTACHED,
        };
        stale.tables.push((found.table, why));
    }
    Ok(stale)
}

/// What has happened, where the rows of partitions that are gone stay. Version 14 would go on to send some of theirs.
pub(super) fn kept(what: What, on_gone: OnPartitionGone, version: u32) -> What {
    if on_gone != OnPartitionGone::Keep || needs_another_stream(version) {
        return what;
    }
    match what {
        What::Emptied(attached) | What::Lost(attached) if attached.is_empty() => What::Moved,
        What::Emptied(attached) | What::Lost(attached) => What::Attached(attached),
        what => what,
    }
}

/// Version 14 goes on to send a partition's rows, or not to, as it did when it met the first one, for as long as the
/// connection lasts.
pub(super) fn needs_another_stream(version: u32) -> bool {
    version < 150_000
}

impl Stale {
    /// Marks the tables, before anybody takes them for whole. Returns what is acted on by that.
    pub(in crate::pipeline) async fn mark(
        self,
        store: &SharedStore,
        states: &mut HashMap<TableId, TableState>,
        allowed: &Allowed<'_>,
    ) -> EtlResult<Look> {
        for (table, why) in self.tables {
            let Some(state) = states.get_mut(&table) else { continue };
            *state = match store.schema_at(table, END).await? {
                Some(schema) if !is_of_partitions(why) => {
                    allowed.copied_again(store, state, &schema, &schema, why.to_owned()).await?
                }
                _ => {
                    tracing::warn!(%table, why, "the table changed meanwhile: it is copied again");
                    copied_again(store, table, state.clone()).await?
                }
            };
        }
        remember(store, &self.acted).await?;
        Ok(self.acted)
    }
}
