//! How is a write mode chosen for all tables, and what do their rows say of themselves?

use etl::destination::{Mode, StampedText, TextRow};
use etl::{Lsn, Position};
use etl_destinations::table_rules::{RuleSettings, TableRules};
use etl_destinations::write_mode::WriteMode;

/// All tables in this mode.
pub(crate) fn all_in(mode: Mode) -> TableRules {
    let write_mode = Some(match mode {
        Mode::Upsert => WriteMode::Upsert,
        Mode::SoftDelete => WriteMode::SoftDelete,
        Mode::Append => WriteMode::Append,
    });
    TableRules { defaults: RuleSettings { write_mode, ..RuleSettings::default() }, rules: Vec::new() }
}

/// The metadata columns that are compared.
pub(crate) const STAMPS: [&str; 3] = ["_CHANGE_TYPE", "_LSN", "_ORDINAL"];

/// A row that begins with its stamps.
pub(crate) fn stamped(mut row: TextRow) -> StampedText {
    let mut stamp = row.drain(..STAMPS.len()).flatten();
    let change_type = stamp.next().expect("a change type");
    let mut number = || stamp.next().and_then(|text| text.parse().ok()).expect("a number");
    let position = Position::new(Lsn(number()), number());
    drop(stamp);
    StampedText { position, change_type, values: row }
}
