//! What does a log of changes come to? The rows that are left when everything in it is done in order.

use super::UNSENT;
use crate::destination::{StampedText, TextRow};
use crate::lsn::Position;
use crate::schema::TableSchema;

/// The rows that a log of changes leaves. A log that has a change twice has it at the same position; what is older than
/// the copy is in it already; a partial update of a row that is not there does nothing.
pub fn fold(mut log: Vec<StampedText>, schema: &TableSchema) -> Vec<TextRow> {
    log.sort_by_key(|row| row.position);
    let is_copied = |row: &StampedText| row.change_type == "UPSERT";
    let copy = log.iter().filter(|row| is_copied(row)).map(|row| row.position.commit).max();
    log.retain(|row| is_copied(row) || copy.is_none_or(|copy| row.position.commit >= copy));
    log.dedup_by(|later, before| {
        later.position == before.position && (later.position.ordinal > 0 || (later == before && schema.has_key()))
    });
    let mut rows = Rows { key: &schema.key, rows: Vec::new(), gone: None };
    log.into_iter().for_each(|row| rows.apply(row));
    rows.rows
}

struct Rows<'k> {
    key: &'k [u16],
    rows: Vec<TextRow>,
    /// What was deleted last, and where: it may be about to move.
    gone: Option<(Position, TextRow)>,
}

impl Rows<'_> {
    fn apply(&mut self, StampedText { position, change_type, values }: StampedText) {
        let is_same = |row: &TextRow| match self.key {
            [] => *row == values,
            key => key.iter().all(|place| row.get(usize::from(*place)) == values.get(usize::from(*place))),
        };
        let place = self.rows.iter().position(is_same);
        match change_type.as_str() {
            "TRUNCATE" => self.rows.clear(),
            "DELETE" => self.gone = place.map(|place| (position, self.rows.remove(place))),
            _ if self.key.is_empty() => self.rows.push(values),
            "UPDATE" => {
                // A row that moves is deleted and updated at two places in a row; what was not sent moves along.
                let before = Position::new(position.commit, position.ordinal.wrapping_sub(1));
                let moved = self.gone.take().filter(|(at, _)| *at == before).map(|(_, row)| row);
                let under = place.map(|place| self.rows.remove(place));
                self.rows.extend(over(under.or(moved), values));
            }
            _ => {
                place.map(|place| self.rows.remove(place));
                self.rows.push(values);
            }
        }
    }
}

/// The row after an update of this one.
fn over(base: Option<TextRow>, sent: TextRow) -> Option<TextRow> {
    let is_unsent = |value: &Option<String>| value.as_deref() == Some(UNSENT);
    let mut row = sent;
    for (place, value) in row.iter_mut().enumerate().filter(|(_, value)| is_unsent(value)) {
        *value = base.as_ref()?.get(place).cloned().flatten();
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::super::trial::items;
    use super::*;
    use crate::lsn::Lsn;

    fn row(change_type: &str, (commit, ordinal): (u64, u64), values: [&str; 3]) -> StampedText {
        let value = |value: &str| match value {
            "?" => Some(UNSENT.to_owned()),
            "-" => None,
            text => Some(text.to_owned()),
        };
        let position = Position::new(Lsn(commit), ordinal);
        StampedText { position, change_type: change_type.to_owned(), values: values.map(value).into() }
    }

    #[test]
    fn a_log_comes_to_the_rows_that_are_left() {
        let log = vec![
            row("UPDATE", (40, 1), ["1", "0", "older than the copy"]),
            row("UPSERT", (50, 0), ["1", "10", "one"]),
            row("UPSERT", (50, 0), ["1", "10", "one"]),
            row("UPSERT", (50, 0), ["2", "20", "two"]),
            row("UPDATE", (100, 1), ["1", "11", "?"]),
            row("DELETE", (100, 2), ["2", "-", "-"]),
            row("UPDATE", (100, 3), ["3", "21", "?"]),
            row("UPDATE", (110, 1), ["9", "1", "?"]),
            row("INSERT", (110, 2), ["4", "40", "four"]),
            row("INSERT", (110, 2), ["4", "40", "four"]),
            row("DELETE", (120, 1), ["4", "-", "-"]),
            row("UPDATE", (120, 2), ["1", "12", "?"]),
        ];
        let schema = items(1);
        let mut rows = fold(log, &schema);
        rows.sort();
        let texts: Vec<Vec<&str>> =
            rows.iter().map(|row| row.iter().map(|value| value.as_deref().unwrap_or("-")).collect()).collect();
        assert_eq!(texts, [["1", "12", "one"], ["3", "21", "two"]]);
        assert!(fold(vec![row("TRUNCATE", (130, 1), ["-", "-", "-"])], &schema).is_empty());
    }
}
