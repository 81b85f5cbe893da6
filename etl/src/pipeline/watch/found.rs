//! What has happened to the published tables between two looks, and what is to be done about it?

use std::collections::{BTreeMap, BTreeSet};

use crate::schema::TableId;
use crate::source::{LABEL, LeafSight, Look, Sight};

/// What somebody has to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) struct Found {
    pub(in crate::pipeline) table: TableId,
    pub(in crate::pipeline) what: What,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::pipeline) enum What {
    /// It is published.
    Added,
    /// It is published no more.
    Gone,
    /// Its rows may be others than what was sent, for this reason: it is copied again.
    Stale(&'static str),
    /// Its files were written anew, and its columns changed: its rows may be others, unless it was copied since.
    Rewritten,
    /// Partitions of it went and came back, or came while something else was changed.
    Repartitioned,
    /// Partitions of it were detached or dropped, and these may have come.
    Lost(Vec<TableId>),
    /// Partitions of it are in other files: they were emptied, or only written anew; and these may have come.
    Emptied(Vec<TableId>),
    /// It has partitions that it did not have. Rows that they had before were not sent.
    Attached(Vec<TableId>),
    /// It is called otherwise. The stream says so with its next row, and no sooner.
    Renamed,
    /// Its rows are in other files, and are the same, or were sent.
    Moved,
}

/// Why a table is copied again.
pub(super) const REWRITTEN: &str = "its rows were rewritten";
pub(super) const REPARTITIONED: &str = "partitions came or went";
pub(super) const ATTACHED: &str = "partitions were attached that may have rows";

/// Whether a table's shape has nothing to do with it.
pub(in crate::pipeline) fn is_of_partitions(why: &str) -> bool {
    [REPARTITIONED, ATTACHED].contains(&why)
}

/// What is to be acted on, in the order of the tables' oids. What was sent as it happened is nothing to act on.
pub(in crate::pipeline) fn compare(before: &Look, now: &Look) -> Vec<Found> {
    let is_same_publication = before.publication == now.publication;
    let ids: BTreeSet<u32> = before.tables.keys().chain(now.tables.keys()).copied().collect();
    let what = |id: u32| match (before.tables.get(&id), now.tables.get(&id)) {
        (None, _) => Some(What::Added),
        (Some(_), None) => Some(What::Gone),
        (Some(_), Some(_)) if !is_same_publication => Some(What::Stale("the publication was changed")),
        (Some(before), Some(now)) => of_table(id, before, now),
    };
    ids.into_iter().filter_map(|id| what(id).map(|what| Found { table: TableId(id), what })).collect()
}

fn of_table(id: u32, before: &Sight, now: &Sight) -> Option<What> {
    let attached = now.leaves.keys().filter(|leaf| !before.leaves.contains_key(leaf));
    let attached: Vec<TableId> = attached.map(|leaf| TableId(*leaf)).collect();
    let stale = stale(id, before, now);
    let is_lost = before.leaves.keys().any(|leaf| !now.leaves.contains_key(leaf));
    match (is_lost, &stale) {
        _ if was_moved(&before.leaves, &now.leaves) => return Some(What::Repartitioned),
        (true, None | Some(What::Emptied(_))) => return Some(What::Lost(attached)),
        (true, Some(_)) => return Some(What::Repartitioned),
        (false, Some(What::Emptied(_))) => return Some(What::Emptied(attached)),
        (false, Some(_)) if !attached.is_empty() => return Some(What::Repartitioned),
        (false, _) => {}
    }
    let is_moved = has_new_files(&before.leaves, &now.leaves);
    let is_renamed = before.table_name() != now.table_name();
    stale
        .or_else(|| (!attached.is_empty()).then_some(What::Attached(attached)))
        .or_else(|| is_renamed.then_some(What::Renamed))
        .or_else(|| is_moved.then_some(What::Moved))
}

/// What makes its rows others than those that were sent, whatever its partitions are.
fn stale(id: u32, before: &Sight, now: &Sight) -> Option<What> {
    if !before.entries.is_subset(&now.entries) || loses_filter(before, now) {
        return Some(What::Stale("what is published of it was changed"));
    }
    if have_values_changed(&before.types, &now.types) {
        return Some(What::Stale("a type of its columns was changed"));
    }
    if !has_new_files(&before.leaves, &now.leaves) {
        return None;
    }
    if before.columns != now.columns {
        return Some(What::Rewritten);
    }
    now.is_partitioned(id).then(|| What::Emptied(Vec::new()))
}

/// A table that its schema publishes as well is published whole.
fn loses_filter(before: &Sight, now: &Sight) -> bool {
    before.is_filtered() && !before.is_by_schema() && now.is_by_schema()
}

/// A new label is in no row that was there before.
fn have_values_changed(before: &BTreeSet<String>, now: &BTreeSet<String>) -> bool {
    let is_attribute = |item: &String| !item.starts_with(LABEL);
    // A table that uses a type for the first time has columns that it did not have.
    let owner = |item: &String| item.split(['.', ' ']).next().map(str::to_owned);
    let known: BTreeSet<_> = before.iter().filter(|item| is_attribute(item)).map(owner).collect();
    let is_new = |item: &&String| is_attribute(item) && known.contains(&owner(item));
    let has_lost = before.difference(now).any(|item| {
        let oid = owner(item);
        now.iter().any(|other| owner(other) == oid)
    });
    has_lost || now.difference(before).any(|item| is_new(&item))
}

/// Whether a partition hangs on its root otherwise: what was done to it meanwhile was not sent.
fn was_moved(before: &BTreeMap<u32, LeafSight>, now: &BTreeMap<u32, LeafSight>) -> bool {
    before.iter().any(|(leaf, place)| now.get(leaf).is_some_and(|found| found.attached != place.attached))
}

fn has_new_files(before: &BTreeMap<u32, LeafSight>, now: &BTreeMap<u32, LeafSight>) -> bool {
    before.iter().any(|(leaf, place)| now.get(leaf).is_some_and(|found| found.file != place.file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(change: impl FnOnce(&mut Sight)) -> Sight {
        let leaf = |file| LeafSight { file, attached: ".7".to_owned() };
        let mut sight = Sight {
            schema: "public".to_owned(),
            name: "t".to_owned(),
            entries: ["r1:5 filtered".to_owned()].into(),
            columns: "digest".to_owned(),
            leaves: [(11, leaf(21)), (12, leaf(22))].into(),
            types: ["l31 sad".to_owned(), "a40.1 23 -1".to_owned()].into(),
        };
        change(&mut sight);
        sight
    }

    fn plain(change: impl FnOnce(&mut Sight)) -> Sight {
        sight(|sight| {
            sight.leaves = [(10, LeafSight { file: 20, attached: String::new() })].into();
            change(sight);
        })
    }

    fn found(before: Sight, now: Sight) -> Option<What> {
        let look = |sight| Look { publication: Some("1:2".to_owned()), tables: [(10, sight)].into() };
        compare(&look(before), &look(now)).pop().map(|found| found.what)
    }

    #[test]
    fn what_is_not_sent_is_found_and_what_is_sent_is_not() {
        type Change = fn(&mut Sight);
        let stale = |what: Option<What>| {
            let is_copied = |what: &What| !matches!(what, What::Attached(_) | What::Renamed | What::Moved);
            what.as_ref().is_some_and(is_copied)
        };
        let rewritten = |sight: &mut Sight| sight.leaves.values_mut().for_each(|leaf| leaf.file += 100);
        let cases: [(Change, bool, bool); 14] = [
            (|_| {}, false, false),
            (|sight| sight.name.push('u'), false, false),
            (|sight| sight.columns.push('x'), false, false),
            (|sight| sight.entries = ["r1:6 filtered".to_owned()].into(), true, true),
            (|sight| sight.entries = BTreeSet::new(), true, true),
            (|sight| sight.entries.extend(["r2:9".to_owned()]), false, false),
            (|sight| sight.entries.extend(["s2:9".to_owned()]), true, true),
            (|sight| sight.types.extend(["l32 glad".to_owned()]), false, false),
            (|sight| sight.types.extend(["a40.2 25 -1".to_owned()]), true, true),
            (|sight| sight.types.extend(["a50.1 25 -1".to_owned()]), false, false),
            (|sight| sight.types = ["l31 sorry".to_owned(), "a40.1 23 -1".to_owned()].into(), true, true),
            (|sight| sight.types = BTreeSet::new(), false, false),
            (|sight| sight.leaves.values_mut().for_each(|leaf| leaf.attached.push_str(".8")), true, true),
            (|sight| drop(sight.leaves.pop_first()), true, true),
        ];
        for (place, (change, plain_is_stale, root_is_stale)) in cases.into_iter().enumerate() {
            assert_eq!(stale(found(plain(|_| {}), plain(change))), plain_is_stale, "{place}");
            assert_eq!(stale(found(sight(|_| {}), sight(change))), root_is_stale, "{place}");
        }
        let both = |sight: &mut Sight| {
            rewritten(sight);
            sight.columns.push('x');
        };
        assert_eq!(found(plain(|_| {}), plain(rewritten)), Some(What::Moved), "what empties a table is sent");
        let renamed = |sight: &mut Sight| sight.name.push('u');
        assert_eq!(found(sight(|_| {}), sight(renamed)), Some(What::Renamed));
        assert_eq!(
            found(sight(|_| {}), sight(rewritten)),
            Some(What::Emptied(Vec::new())),
            "what empties a leaf is not"
        );
        assert_eq!(found(plain(|_| {}), plain(both)), Some(What::Rewritten));
        let lost = |sight: &mut Sight| drop(sight.leaves.pop_first());
        assert_eq!(found(sight(|_| {}), sight(lost)), Some(What::Lost(Vec::new())));
        let lost_and_rewritten = sight(|sight| {
            lost(sight);
            both(sight);
        });
        assert_eq!(found(sight(|_| {}), lost_and_rewritten), Some(What::Repartitioned));
        let attached = sight(|sight| drop(sight.leaves.insert(13, LeafSight::default())));
        assert_eq!(found(sight(|_| {}), attached), Some(What::Attached(vec![TableId(13)])));
    }

    #[test]
    fn tables_come_and_go_and_another_publication_concerns_all() {
        let look = |publication: &str, ids: &[u32]| Look {
            publication: Some(publication.to_owned()),
            tables: ids.iter().map(|id| (*id, plain(|_| {}))).collect(),
        };
        let (before, now) = (look("1:2", &[10, 11]), look("1:2", &[11, 12]));
        let whats = |found: Vec<Found>| found.into_iter().map(|found| (found.table.0, found.what)).collect::<Vec<_>>();
        assert_eq!(whats(compare(&before, &now)), [(10, What::Gone), (12, What::Added)]);
        let stale = What::Stale("the publication was changed");
        assert_eq!(
            whats(compare(&before, &look("1:3", &[11, 12]))),
            [(10, What::Gone), (11, stale), (12, What::Added)]
        );
    }
}
