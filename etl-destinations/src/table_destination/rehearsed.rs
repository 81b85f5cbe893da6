//! Which rows does the place alone refuse? It is shown more and more of a unit, and takes all of it back.

use std::collections::BTreeMap;
use std::ops::Range;

use etl::error::{ErrorKind, EtlResult};
use etl::schema::TableId;

use super::TableDestination;
use super::apart::may_be_of_rows;
use crate::blame::Touched;
use crate::dead_rows::{DeadLetterRules, DeadRow, take_out, written};
use crate::writer::{Step, TableWriter, WriteUnit};

/// Rows of a table, by their places among those of a unit, and why they are refused.
pub(super) type Refused = BTreeMap<usize, String>;

/// A unit that was refused because of a table.
struct Suspect<'u> {
    unit: &'u WriteUnit,
    table: TableId,
    /// Whether rows of other tables are left out.
    is_alone: bool,
}

impl<W: TableWriter> TableDestination<W> {
    /// The rows of the table that are refused beside those before them: none where the place cannot be asked or others are
    /// in the way, and one more than may be where there are too many.
    pub(super) async fn rehearse(
        &self,
        unit: &WriteUnit,
        table: TableId,
        rules: DeadLetterRules,
    ) -> EtlResult<Refused> {
        match self.find_refused(unit, table, rules).await {
            Err(error) if error.kind() == ErrorKind::DestinationUnsupported => Ok(Refused::new()),
            found => found,
        }
    }

    async fn find_refused(&self, unit: &WriteUnit, table: TableId, rules: DeadLetterRules) -> EtlResult<Refused> {
        let rows = rows_of(&unit.steps, table);
        let all = usize::try_from(rows).unwrap_or(usize::MAX);
        let mut refused = Refused::new();
        // Other tables stay, since rows may need theirs, unless they are refused as well.
        let mut suspect = Suspect { unit, table, is_alone: false };
        if self.refusal_of(&suspect, 0, &refused).await?.is_some() {
            suspect.is_alone = true;
            if self.refusal_of(&suspect, 0, &refused).await?.is_some() {
                return Ok(refused);
            }
        }
        let mut taken = 0;
        while let Some(why) = self.refusal_of(&suspect, all, &refused).await? {
            let (place, why) = self.first_refused(&suspect, taken..all, why, &refused).await?;
            refused.insert(place, why);
            if !rules.allows(refused.len() as u64, rows) {
                break;
            }
            taken = place;
        }
        Ok(refused)
    }

    /// The row without which one more of the first rows would be taken: as many as the range begins with are taken, and as
    /// many as it ends with are not.
    async fn first_refused(
        &self,
        suspect: &Suspect<'_>,
        Range { start: mut taken, end: mut most }: Range<usize>,
        mut why: String,
        but: &Refused,
    ) -> EtlResult<(usize, String)> {
        while most - taken > 1 {
            let middle = taken + (most - taken) / 2;
            match self.refusal_of(suspect, middle, but).await? {
                None => taken = middle,
                Some(reason) => (most, why) = (middle, reason),
            }
        }
        Ok((taken, why))
    }

    /// Why the first rows of the table are refused, without some of them; nothing where they are not.
    async fn refusal_of(&self, suspect: &Suspect<'_>, first: usize, but: &Refused) -> EtlResult<Option<String>> {
        let Suspect { unit, table, is_alone } = *suspect;
        let mut unit = unit.clone();
        if is_alone {
            unit.steps.retain(|step| !matches!(step, Step::Write(batch) if batch.table.id != table));
        }
        let is_left_out = |place: usize| place >= first || but.contains_key(&place);
        drop(left_out(&mut unit.steps, table, |place| is_left_out(place).then(String::new)));
        let touched = Touched::by(&unit.steps);
        let Err(error) = self.writer.rehearse(unit).await else { return Ok(None) };
        let error = touched.blame(error);
        if may_be_of_rows(&error) { Ok(Some(error.to_string())) } else { Err(error) }
    }
}

/// How many rows of the table the steps write.
pub(super) fn rows_of(steps: &[Step], table: TableId) -> u64 {
    let rows = |step: &Step| match step {
        Step::Write(batch) if batch.table.id == table => written(batch),
        _ => 0,
    };
    steps.iter().map(rows).sum()
}

/// Takes the refused rows of the table out of the steps.
pub(super) fn without(steps: &mut [Step], table: TableId, refused: &Refused) -> Vec<DeadRow> {
    left_out(steps, table, |place| refused.get(&place).cloned())
}

fn left_out(steps: &mut [Step], table: TableId, why: impl Fn(usize) -> Option<String>) -> Vec<DeadRow> {
    let (mut next, mut dead) = (0, Vec::new());
    for step in steps {
        let Step::Write(batch) = step else { continue };
        if batch.table.id == table {
            dead.extend(take_out(&mut batch.rows, |_| {
                next += 1;
                why(next - 1)
            }));
        }
    }
    dead
}
