//! Which tables are whose, and what are they called? A table's comment says what it is written from.

use std::collections::HashSet;

use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};
use etl::{Lsn, Position};

use super::server::{Server, text};
use super::sql::{literal, quoted, quoted_table};
use super::{gates::Gates, view};
use crate::writer::TargetTable;

/// What every comment of a table begins with that was made here. Then come who owns it, the table at the source, and since
/// when it has its shape.
const MARK: &str = "etl ";

/// What the names of tables begin with that are about to take another's place.
pub(super) const REBUILT: &str = "_etl_rebuilt_";

/// Whose tables these are, and which of them are gone at the source: whoever has their name there has it here, too.
pub(super) struct Places<'a> {
    pub(super) server: &'a Server,
    pub(super) gates: &'a Gates,
    pub(super) owner: &'a str,
    pub(super) view_suffix: &'a str,
    pub(super) gone: &'a HashSet<TableId>,
}

/// What has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The table itself, and since when it has its shape.
    Itself(Position),
    /// Another table of this pipeline.
    Other(TableId),
    /// A table of another pipeline, or of this one before its store was made anew.
    Stranger,
}

impl Places<'_> {
    /// What the comment of a table says.
    pub(super) fn mark(&self, table: TableId, since: Position) -> String {
        format!("{}{:x}.{:x}", self.beginning(table), since.commit.0, since.ordinal)
    }

    /// What the comment of a table begins with.
    fn beginning(&self, table: TableId) -> String {
        format!("{MARK}{} {table} ", self.owner)
    }

    /// Notes since when the table has its shape, before it gets it: what comes again from before is there.
    pub(super) async fn note_shape(&self, name: &TableName, table: TableId, since: Position) -> EtlResult<()> {
        let sql = format!("ALTER TABLE {} MODIFY COMMENT {}", quoted_table(name), literal(&self.mark(table, since)));
        self.run(&sql, "note a table's shape", name).await?;
        self.gates.of(table).is_shaped(since);
        Ok(())
    }

    /// Gives the table its name; `false` where there is no such table.
    ///
    /// # Errors
    /// `DestinationRejected` where somebody else's table has it.
    pub(super) async fn settle(&self, table: &TargetTable) -> EtlResult<bool> {
        let found = self.at(&table.name, table.id).await?;
        if let Found::Itself(since) = found {
            self.gates.of(table.id).is_called(Some(table.name.clone()));
            self.gates.of(table.id).is_shaped(since);
            return Ok(true);
        }
        let place = self.place(table.id).await?;
        match (found, place) {
            (Found::Stranger, Some(from)) => {
                Err(EtlError::new(ErrorKind::DestinationRejected, "a renamed table finds its new name taken")
                    .with("table", from)
                    .with("new name", &table.name)
                    .hint("Move the other table away, then start again"))
            }
            (Found::Stranger, None) => {
                self.own(&table.name, table.id).await?;
                Ok(true)
            }
            (found, place) => {
                if let Found::Other(other) = found {
                    self.make_way(&table.name, other).await?;
                }
                let Some(from) = place else { return Ok(false) };
                let since = match self.at(&from, table.id).await? {
                    Found::Itself(since) => since,
                    _ => Position::ZERO,
                };
                self.gates.of(table.id).is_shaped(since);
                self.rename(&from, &table.name, table.id).await?;
                Ok(true)
            }
        }
    }

    /// Leaves nothing of the table but what has its name, which is its own then; `false` where there is no such table.
    pub(super) async fn begin_anew(&self, table: &TargetTable) -> EtlResult<bool> {
        if let Some(before) = self.place(table.id).await?.filter(|name| *name != table.name) {
            self.drop(&before).await?;
        }
        match self.at(&table.name, table.id).await? {
            Found::Nothing => return Ok(false),
            Found::Other(other) if !self.gone.contains(&other) => {
                self.make_way(&table.name, other).await?;
                return Ok(false);
            }
            Found::Itself(_) | Found::Other(_) | Found::Stranger => self.own(&table.name, table.id).await?,
        }
        Ok(true)
    }

    /// Drops a table with its view.
    pub(super) async fn drop(&self, name: &TableName) -> EtlResult<()> {
        view::hide(self, name).await?;
        self.run(&format!("DROP TABLE IF EXISTS {} SYNC", quoted_table(name)), "drop a table", name).await
    }

    /// Runs a statement about a table.
    pub(super) async fn run(&self, sql: &str, doing: &'static str, table: &TableName) -> EtlResult<()> {
        self.server.run(sql, doing).await.map_err(|error| error.with("table", table))
    }

    /// Makes the database where it is missing.
    pub(super) async fn make_database(&self, table: &TableName) -> EtlResult<()> {
        let sql = format!("SELECT name FROM system.databases WHERE name = {}", literal(&table.schema));
        if self.server.rows(&sql, "look for a database").await?.is_empty() {
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&table.schema));
            self.run(&sql, "create a database", table).await?;
        }
        Ok(())
    }

    /// The comment of what has this name.
    pub(super) async fn comment(&self, name: &TableName) -> EtlResult<Option<String>> {
        let sql = format!(
            "SELECT comment FROM system.tables WHERE database = {} AND name = {}",
            literal(&name.schema),
            literal(&name.name)
        );
        let rows = self.server.rows(&sql, "look for a table").await?;
        rows.first().map(|row| text(row, 0).map(str::to_owned)).transpose()
    }

    async fn at(&self, name: &TableName, table: TableId) -> EtlResult<Found> {
        let Some(comment) = self.comment(name).await? else { return Ok(Found::Nothing) };
        let Some((owner, rest)) = comment.strip_prefix(MARK).and_then(|mark| mark.split_once(' ')) else {
            return Err(EtlError::new(
                ErrorKind::DestinationRejected,
                "a table of that name is there that this program did not make",
            )
            .with("table", name)
            .hint("Rename or drop it, or write into other databases (`database_prefix`), or under another name (`rename`)"));
        };
        let (id, since) = rest.split_once(' ').unwrap_or((rest, ""));
        Ok(match id.parse().map(TableId) {
            Ok(id) if owner == self.owner && id == table => Found::Itself(parsed(since)),
            Ok(id) if owner == self.owner => Found::Other(id),
            _ => Found::Stranger,
        })
    }

    /// Where the rows of a table are.
    async fn place(&self, table: TableId) -> EtlResult<Option<TableName>> {
        let sql = format!(
            "SELECT database, name FROM system.tables WHERE startsWith(comment, {}) AND NOT startsWith(name, {}) ORDER BY 1, 2",
            literal(&self.beginning(table)),
            literal(REBUILT)
        );
        let rows = self.server.rows(&sql, "look for a table").await?;
        rows.first().map(|row| Ok(TableName::new(text(row, 0)?, text(row, 1)?))).transpose()
    }

    async fn own(&self, name: &TableName, table: TableId) -> EtlResult<()> {
        self.note_shape(name, table, Position::ZERO).await?;
        self.gates.of(table).is_called(Some(name.clone()));
        Ok(())
    }

    async fn rename(&self, from: &TableName, to: &TableName, table: TableId) -> EtlResult<()> {
        self.make_database(to).await?;
        view::hide(self, from).await?;
        let sql = format!("RENAME TABLE {} TO {}", quoted_table(from), quoted_table(to));
        self.run(&sql, "rename a table", from).await?;
        self.gates.of(table).is_called(Some(to.clone()));
        Ok(())
    }

    /// What was written to a table that is gone at the source goes with it; another one waits under another name until it
    /// is known which one it has now.
    async fn make_way(&self, name: &TableName, other: TableId) -> EtlResult<()> {
        if self.gone.contains(&other) {
            return self.drop(name).await;
        }
        let aside = |n: u32| {
            let more = if n == 0 { String::new() } else { format!("_{n}") };
            TableName::new(name.schema.clone(), format!("{}_{other}{more}", name.name))
        };
        for to in (0..).map(aside) {
            if self.comment(&to).await?.is_none() {
                return self.rename(name, &to, other).await;
            }
        }
        Ok(())
    }
}

fn parsed(since: &str) -> Position {
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let numbers = since.split_once('.').and_then(|(commit, ordinal)| number(commit).zip(number(ordinal)));
    numbers.map_or(Position::ZERO, |(commit, ordinal)| Position::new(Lsn(commit), ordinal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_says_since_when_a_table_has_its_shape() {
        let at = Position::new(Lsn(0x16_b374_d848), 3);
        assert_eq!(parsed(&format!("{:x}.{:x}", at.commit.0, at.ordinal)), at);
        assert_eq!(parsed(""), Position::ZERO);
    }
}
