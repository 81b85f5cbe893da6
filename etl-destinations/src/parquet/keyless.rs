//! What is left of a log whose rows have no key? Each old row takes exactly one equal row with it.

use std::collections::HashMap;

use super::fold::{At, Fold, Keys, Values, Version};
use super::normal::MARKED;
use crate::metadata_columns::ChangeType;

/// Rows by all their values; equal ones in the order in which they came.
pub(super) struct KeylessRows<'f> {
    fold: &'f Fold<'f>,
    keys: &'f Keys,
    versions: HashMap<&'f [u8], Vec<Version>>,
    /// The old row of the change before, and where it stands: the next change may say that the row was changed.
    gone: Option<((i64, i64), At)>,
}

impl<'f> KeylessRows<'f> {
    pub(super) fn new(fold: &'f Fold<'f>, keys: &'f Keys) -> Self {
        Self { fold, keys, versions: HashMap::new(), gone: None }
    }

    pub(super) fn change(&mut self, position: (i64, i64), at: At) {
        let kind = self.fold.kind(at);
        let before = self.gone.take();
        if kind == ChangeType::Truncate.as_str() {
            self.truncate(at);
        } else if kind == ChangeType::Delete.as_str() {
            self.delete(at);
            self.gone = Some((position, at));
        } else if kind != MARKED || self.fold.is_soft() {
            let is_of = |(of, _): &((i64, i64), At)| *of == (position.0, position.1 - 1);
            let old = before.filter(is_of).filter(|_| kind == ChangeType::Update.as_str()).map(|(_, old)| old);
            self.unmark(old);
            // The place of the change is that of its first half.
            let stamp = old.unwrap_or(at);
            let version = Version { values: Values::Whole(at), stamp, is_deleted: kind == MARKED };
            self.versions.entry(self.keys.of(at)).or_default().push(version);
        }
    }

    /// Any of several equal rows is as good as another: the last one goes.
    fn delete(&mut self, at: At) {
        let Some(equal) = self.versions.get_mut(self.keys.of(at)) else { return };
        let Some(last) = equal.iter().rposition(|version| !version.is_deleted) else { return };
        let mut version = equal.remove(last);
        if self.fold.is_soft() {
            (version.stamp, version.is_deleted) = (at, true);
            equal.push(version);
        }
    }

    /// A row that was changed is not marked: nothing was deleted.
    fn unmark(&mut self, old: Option<At>) {
        let Some(at) = old else { return };
        let Some(equal) = self.versions.get_mut(self.keys.of(at)) else { return };
        if equal.last().is_some_and(|version| version.is_deleted && version.stamp == at) {
            equal.pop();
        }
    }

    fn truncate(&mut self, at: At) {
        if !self.fold.is_soft() {
            self.versions.clear();
        }
        for version in self.versions.values_mut().flatten().filter(|version| !version.is_deleted) {
            (version.stamp, version.is_deleted) = (at, true);
        }
    }

    pub(super) fn left(self) -> Vec<(&'f [u8], Version)> {
        let rows = |(key, versions): (&'f [u8], Vec<Version>)| versions.into_iter().map(move |version| (key, version));
        self.versions.into_iter().flat_map(rows).collect()
    }
}
