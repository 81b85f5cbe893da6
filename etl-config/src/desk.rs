//! What is under way and what was refused, and what does a person want done about it? The same words for a pipeline that
//! runs and for one that does not.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use etl::data::decode::rfc3339;
use etl::destination::{AnyDestination, Destination, Replayed};
use etl::pipeline::DataDir;
use etl::schema::TableId;
use etl::store::{DeadLetter, DeadLetterId, Operation, OperationState, SharedStore};
use etl::{ErrorKind, EtlError, EtlResult, Lsn, Position};
use etl_destinations::bulk::desk::{abandon, batch_on_disk, operation, put_back};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::app::AppConfig;

/// Beyond every position.
const END: Position = Position { commit: Lsn(u64::MAX), ordinal: Position::WHOLE };

/// How many letters are read at a time.
const PAGE: u32 = 500;

/// What is asked at the desk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum DeskRequest {
    /// All operations.
    Operations,
    /// One, with so many rows of its batch.
    Operation {
        /// Its name, or how that begins.
        id: String,
        /// How many rows.
        rows: usize,
    },
    /// Lets one go on that is held.
    Retry {
        /// Its name, or how that begins.
        id: String,
        /// Whether it is submitted again although the system may have it.
        anew: bool,
        /// How long it may take where the system has it.
        #[serde(with = "etl::duration")]
        longest: Duration,
    },
    /// Gives one up that is held.
    Abandon {
        /// Its name, or how that begins.
        id: String,
        /// Whether its batch is gone from the disk.
        is_lost: bool,
    },
    /// Dead letters.
    DeadLetters {
        /// Of this table, by its name at the source.
        table: Option<String>,
        /// After this one.
        after: Option<String>,
        /// How many at most.
        most: u32,
    },
    /// One of them, with all of its row.
    DeadLetter {
        /// Its name.
        id: String,
    },
    /// Hands dead letters over again.
    Replay {
        /// These, by their names; all of the table where there are none.
        ids: Vec<String>,
        /// Of this table.
        table: Option<String>,
    },
    /// Removes dead letters for good.
    Drop {
        /// These, by their names; all of the table where there are none.
        ids: Vec<String>,
        /// Of this table.
        table: Option<String>,
    },
}

/// Where operations and dead letters are looked after.
pub struct Desk {
    store: SharedStore,
    place: Place,
}

/// Beside which pipeline.
enum Place {
    /// One that runs in this process, into this destination.
    Running(AnyDestination),
    /// One that cannot start meanwhile.
    Stopped { config: Box<AppConfig>, _lock: DataDir },
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Desk {
    /// Beside a pipeline that runs in this process.
    pub(crate) fn of_running(store: SharedStore, destination: AnyDestination) -> Self {
        Self { store, place: Place::Running(destination) }
    }

    /// While no pipeline runs.
    pub(crate) fn of_stopped(store: SharedStore, config: AppConfig, lock: DataDir) -> Self {
        Self { store, place: Place::Stopped { config: Box::new(config), _lock: lock } }
    }

    /// Does as it is asked, and says what there is to say about it.
    ///
    /// # Errors
    /// `Config` where what was named is not there, or is not in a state for it; else those of the store.
    pub async fn perform(&self, request: DeskRequest) -> EtlResult<Value> {
        let tables = self.tables().await?;
        match request {
            DeskRequest::Operations => {
                let operations = self.store.operations().await?;
                Ok(operations.iter().map(|operation| brief(operation, &tables)).collect())
            }
            DeskRequest::Operation { id, rows } => {
                let found = operation(&self.store, &id).await?;
                let batch = batch_on_disk(&self.store, &found, rows).await?;
                let mut shown = brief(&found, &tables);
                shown["batch"] = json!(batch);
                shown["contexts"] = json!(found.state.contexts());
                shown["first"] = json!(found.first.to_string());
                shown["last"] = json!(found.last.to_string());
                Ok(shown)
            }
            DeskRequest::Retry { id, anew, longest } => {
                let found = operation(&self.store, &id).await?;
                Ok(brief(&put_back(&self.store, found, longest, anew).await?, &tables))
            }
            DeskRequest::Abandon { id, is_lost } => {
                let found = operation(&self.store, &id).await?;
                Ok(brief(&abandon(&self.store, found, is_lost).await?, &tables))
            }
            DeskRequest::DeadLetters { table, after, most } => {
                let table = table.map(|name| named(&tables, &name)).transpose()?;
                let after = after.map(|id| id.parse()).transpose()?;
                let letters = self.store.dead_letters(table, after, most).await?;
                Ok(letters.iter().map(|letter| letter_shown(letter, &tables)).collect())
            }
            DeskRequest::DeadLetter { id } => Ok(letter_shown(&self.letter(&id).await?, &tables)),
            DeskRequest::Replay { ids, table } => {
                let table = table.map(|name| named(&tables, &name)).transpose()?;
                let letters = self.letters(&ids, table).await?;
                let Replayed { delivered, overtaken, left } = Box::pin(self.replay(letters)).await?;
                Ok(json!({ "delivered": delivered, "overtaken": overtaken, "left": left }))
            }
            DeskRequest::Drop { ids, table } => {
                let table = table.map(|name| named(&tables, &name)).transpose()?;
                let letters = self.letters(&ids, table).await?;
                let ids: Vec<DeadLetterId> = letters.into_iter().map(|letter| letter.id).collect();
                let dropped = ids.len();
                self.store.remove_dead_letters(ids).await?;
                Ok(json!({ "dropped": dropped }))
            }
        }
    }

    async fn replay(&self, letters: Vec<DeadLetter>) -> EtlResult<Replayed> {
        let (destination, is_ours) = match &self.place {
            _ if letters.is_empty() => return Ok(Replayed::default()),
            Place::Running(destination) => (destination.clone(), false),
            Place::Stopped { config, .. } => (config.destination(Arc::clone(&self.store)).await?, true),
        };
        if is_ours {
            destination.startup().await?;
        }
        let replayed = destination.replay(letters).await;
        if is_ours {
            destination.shutdown().await?;
        }
        replayed
    }

    /// The letters of these names, or all of a table.
    async fn letters(&self, ids: &[String], table: Option<TableId>) -> EtlResult<Vec<DeadLetter>> {
        let mut letters = Vec::new();
        for id in ids {
            letters.push(self.letter(id).await?);
        }
        if !ids.is_empty() {
            letters.retain(|letter| table.is_none_or(|table| letter.table == table));
            return Ok(letters);
        }
        loop {
            let after = letters.last().map(|letter: &DeadLetter| letter.id.clone());
            let page = self.store.dead_letters(table, after, PAGE).await?;
            if page.is_empty() {
                return Ok(letters);
            }
            letters.extend(page);
        }
    }

    async fn letter(&self, id: &str) -> EtlResult<DeadLetter> {
        let id: DeadLetterId = id.parse()?;
        // Those of an operation are next to each other, and the first after the one before this is this.
        let before = id.ordinal.checked_sub(1).map(|ordinal| DeadLetterId { ordinal, ..id.clone() });
        let found = match before {
            Some(before) => self.store.dead_letters(None, Some(before), 1).await?,
            None => self.first_of(&id).await?,
        };
        found.into_iter().find(|letter| letter.id == id).ok_or_else(|| {
            EtlError::new(ErrorKind::Config, "there is no such dead letter")
                .with("dead letter", &id)
                .hint("`etl dlq list` shows them")
        })
    }

    /// The first letter of an operation: there is no name that comes right before it.
    async fn first_of(&self, id: &DeadLetterId) -> EtlResult<Vec<DeadLetter>> {
        let mut after: Option<DeadLetterId> = None;
        loop {
            let page = self.store.dead_letters(None, after.take(), PAGE).await?;
            match page.last() {
                Some(last) if last.id < *id => after = Some(last.id.clone()),
                _ => return Ok(page),
            }
        }
    }

    /// The tables' names at the source.
    async fn tables(&self) -> EtlResult<HashMap<TableId, String>> {
        let mut names = HashMap::new();
        for (id, _) in self.store.table_states().await? {
            if let Some(schema) = self.store.schema_at(id, END).await? {
                names.insert(id, schema.source_name().to_string());
            }
        }
        Ok(names)
    }
}

fn named(tables: &HashMap<TableId, String>, name: &str) -> EtlResult<TableId> {
    let is_it = |known: &String| known == name || known.rsplit_once('.').is_some_and(|(_, alone)| alone == name);
    let mut found = tables.iter().filter(|(_, known)| is_it(known));
    match (found.next(), found.next()) {
        (Some((id, _)), None) => Ok(*id),
        (Some(_), Some(_)) => Err(EtlError::new(ErrorKind::Config, "several schemas have a table of that name")
            .with("table", name)
            .hint("Write it with its schema, such as public.users")),
        (None, _) => Err(EtlError::new(ErrorKind::Config, "the pipeline has no such table").with("table", name)),
    }
}

fn name(tables: &HashMap<TableId, String>, table: TableId) -> String {
    tables.get(&table).cloned().unwrap_or_else(|| table.to_string())
}

fn brief(operation: &Operation, tables: &HashMap<TableId, String>) -> Value {
    let mut shown = json!({
        "id": operation.id, "table": name(tables, operation.table), "table_id": operation.table.0,
        "state": operation.state.name(), "rows": operation.rows, "bytes": operation.bytes,
        "attempts": operation.attempts, "sealed_at": rfc3339(operation.sealed_at),
    });
    match &operation.state {
        OperationState::Sealed { not_before, reason } => {
            shown["not_before"] = json!(not_before.map(rfc3339));
            shown["reason"] = json!(reason);
        }
        OperationState::Submitting { since, .. } => shown["since"] = json!(rfc3339(*since)),
        OperationState::Submitted { since, next_poll, polls, deadline, .. } => {
            shown["since"] = json!(rfc3339(*since));
            shown["next_poll"] = json!(rfc3339(*next_poll));
            shown["polls"] = json!(polls);
            shown["deadline"] = json!(rfc3339(*deadline));
        }
        OperationState::Settled { accounting, at } => {
            shown["accounting"] = json!(accounting);
            shown["settled_at"] = json!(rfc3339(*at));
        }
        OperationState::Held { reason, since, .. } => {
            shown["reason"] = json!(reason);
            shown["since"] = json!(rfc3339(*since));
        }
        _ => {}
    }
    shown
}

fn letter_shown(letter: &DeadLetter, tables: &HashMap<TableId, String>) -> Value {
    json!({
        "id": letter.id.to_string(), "table": name(tables, letter.table), "key": letter.key, "code": letter.code,
        "reason": letter.reason, "change": letter.change_type, "position": letter.position.to_string(), "at": rfc3339(letter.at),
        "attempts": letter.attempts, "overtaken": letter.is_overtaken, "row": letter.row,
    })
}
