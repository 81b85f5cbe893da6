//! Which rows of a unit can a destination not hold? They become dead letters where that is wanted, and the rest is written.

use std::sync::Arc;

use etl::Position;
use etl::clock::Timestamp;
use etl::data::{CopiedRows, TableRow};
use etl::destination::ValueLimits;
use etl::error::EtlResult;
use etl::store::{DeadLetter, DeadLetterId, OperationId};
use serde::{Deserialize, Serialize};

use crate::metadata_columns::ChangeType;
use crate::row_image::{image, key};
use crate::write_mode::WriteMode;
use crate::writer::{BatchRows, StampedRow, TableBatch, TargetTable};

/// Rows that a destination refuses are kept apart as dead letters, and their tables go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterRules {
    /// The percentage of a batch's rows beyond which refusals are taken for a wrong mapping: the table is held then, and
    /// no row becomes a dead letter. One row of a batch always may. Without `dead_letters` none does, with
    /// `dead_letters: {}` so many. Default 10.
    pub max_percent: u8,
}

impl Default for DeadLetterRules {
    fn default() -> Self {
        Self { max_percent: 10 }
    }
}

impl DeadLetterRules {
    /// Whether so many of the rows of a batch may become dead letters.
    pub fn allows(self, refused: u64, rows: u64) -> bool {
        refused <= (rows.saturating_mul(u64::from(self.max_percent)) / 100).max(1)
    }
}

/// A row that was taken out, and why.
#[derive(Debug)]
pub(crate) struct DeadRow {
    row: StampedRow,
    is_partial: bool,
    reason: String,
}

/// Why a row cannot be held, where it cannot.
pub(crate) fn refusal(limits: &ValueLimits, row: &TableRow) -> Option<String> {
    let schema = row.schema();
    schema.columns.iter().enumerate().find_map(|(place, column)| {
        let class = limits.check(&column.kind, row.raw(place)).err()?;
        Some(schema.value_error(place, class).to_string())
    })
}

/// Takes the refused rows out of a batch; what removes rows stays. They come in the same order each time.
pub(crate) fn take_out(rows: &mut BatchRows, mut refusal: impl FnMut(&TableRow) -> Option<String>) -> Vec<DeadRow> {
    let mut dead = Vec::new();
    let mut stays = |row: &StampedRow, is_partial: bool| match refusal(&row.row) {
        Some(reason) => {
            dead.push(DeadRow { row: row.clone(), is_partial, reason });
            false
        }
        None => true,
    };
    match rows {
        BatchRows::Copied { rows, position, at } => {
            let stays = |row: &&TableRow| stays(&stamped(row, *position, *at), false);
            *rows = Arc::new(rows.iter().filter(stays).cloned().collect::<CopiedRows>());
        }
        BatchRows::Log(rows) => rows.retain(|row| stays(row, false)),
        BatchRows::Keyed(set) => {
            set.updates.retain(|update| stays(&update.new, true));
            set.upserts.retain(|row| stays(row, false));
        }
        BatchRows::Keyless(set) => set.inserts.retain(|row| stays(row, false)),
    }
    dead
}

fn stamped(row: &TableRow, position: Position, at: Timestamp) -> StampedRow {
    StampedRow { row: row.clone(), change_type: ChangeType::Upsert, position, at }
}

/// Their letters. They have the same names when the same rows are refused again; `of` tells copied rows apart, which all
/// have one position.
///
/// # Errors
/// `Value` where a row cannot even be written as text.
pub(crate) fn letters(
    table: &TargetTable,
    (of, code): (&str, &str),
    dead: &[DeadRow],
    at: Timestamp,
) -> EtlResult<Vec<DeadLetter>> {
    let letter = |(place, DeadRow { row: stamped, is_partial, reason }): (usize, &DeadRow)| {
        let StampedRow { row, change_type, position, .. } = stamped;
        let (place_in_history, ordinal) = match of {
            "" => (format!("{:x}-{:x}", position.commit.0, position.ordinal), 0),
            of => (of.to_owned(), u32::try_from(place).unwrap_or(u32::MAX)),
        };
        Ok(DeadLetter {
            id: DeadLetterId { operation: OperationId(format!("{}-{place_in_history}", table.id).into()), ordinal },
            table: table.id,
            position: *position,
            key: key(table, row)?,
            change_type: change_type.as_str().into(),
            row: image(table, row, *is_partial)?,
            code: code.to_owned(),
            reason: reason.clone(),
            at,
            attempts: 1,
            is_partial: *is_partial,
            is_logged: table.write_mode == WriteMode::Append,
            is_overtaken: false,
            replayed_in: None,
        })
    };
    dead.iter().enumerate().map(letter).collect()
}

/// How many rows a batch writes.
pub(crate) fn written(batch: &TableBatch) -> u64 {
    batch.rows.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_always_may_be_a_dead_letter_and_beyond_the_budget_none() {
        let rules = DeadLetterRules::default();
        assert!(rules.allows(1, 1) && rules.allows(10, 100) && !rules.allows(11, 100) && !rules.allows(2, 19));
        assert!(!DeadLetterRules { max_percent: 0 }.allows(2, 1000));
        assert!(DeadLetterRules { max_percent: 100 }.allows(7, 7));
    }
}
