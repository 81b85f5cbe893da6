//! Are rows passed on as they were when a table was copied? What masks and filters make of them is not in its shape.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::error::{ErrorKind, EtlResult, ResultExt};
use crate::schema::TableId;
use crate::store::SharedStore;
use crate::transform::Selection;

/// The fact that says how rows of tables are passed on that are changed on their way, by oid.
const PASSED: &str = "source.passed";

/// What was noted, and what is to be.
pub(super) struct Passed {
    before: BTreeMap<u32, String>,
    now: BTreeMap<u32, String>,
}

fn print(selection: &Selection) -> Option<String> {
    let print = selection.print()?;
    Some(Sha256::digest(print).iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Passed {
    /// How rows of these tables are passed on from now on, beside what is noted of others.
    pub(super) async fn compare<'s>(
        store: &SharedStore,
        selections: impl Iterator<Item = &'s Selection>,
    ) -> EtlResult<Self> {
        let before: BTreeMap<u32, String> = match store.fact(PASSED).await? {
            Some(text) => serde_json::from_str(&text).or_etl(ErrorKind::Store, "read how rows are passed on")?,
            None => BTreeMap::new(),
        };
        let mut now = before.clone();
        for selection in selections {
            let TableId(table) = selection.wire.id;
            match print(selection) {
                Some(print) => drop(now.insert(table, print)),
                None => drop(now.remove(&table)),
            }
        }
        Ok(Self { before, now })
    }

    /// Whether rows of the table were passed on in another way.
    pub(super) fn has_changed(&self, TableId(table): TableId) -> bool {
        self.before.get(&table) != self.now.get(&table)
    }

    /// Notes it, once what was passed on in another way is to be copied again.
    pub(super) async fn note(self, store: &SharedStore) -> EtlResult<()> {
        if self.now == self.before {
            return Ok(());
        }
        let text = serde_json::to_string(&self.now).or_etl(ErrorKind::Internal, "write how rows are passed on")?;
        store.set_fact(PASSED, text).await
    }
}
