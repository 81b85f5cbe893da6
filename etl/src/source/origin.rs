//! Which changes are sent, by where they come from? All, or those alone that were made at the source.

use super::config::Origin;
use crate::error::{ErrorKind, EtlError, EtlResult};
use crate::lsn::Lsn;
use crate::relay::Transaction;
use crate::store::SharedStore;

/// The fact of the store that says up to which commit others were received, too.
const ALONE_SINCE: &str = "source.origin_none_since";

/// The first version whose `pgoutput` can leave out what came from elsewhere.
const SINCE: u32 = 160_000;

/// Whether the server can leave out what came from elsewhere.
///
/// # Errors
/// `SourceSetup` where it is too old for what is asked.
pub(crate) fn check_origin(origin: Origin, server_version: u32) -> EtlResult<()> {
    if origin == Origin::Any || server_version >= SINCE {
        return Ok(());
    }
    Err(EtlError::new(ErrorKind::SourceSetup, "the server cannot leave out changes that it has from elsewhere")
        .with("server_version", server_version)
        .hint("Leave out source.postgres.origin, or upgrade the server to 16 or newer"))
}

/// The transaction that has to come again, unless it may have come from elsewhere, before that was left out.
pub(super) async fn must_still_come(
    store: &SharedStore,
    origin: Origin,
    last: Option<Transaction>,
) -> EtlResult<Option<Transaction>> {
    let known = store.fact(ALONE_SINCE).await?.filter(|since| !since.is_empty());
    match (origin, known) {
        (Origin::Any, None) => Ok(last),
        (Origin::Any, Some(_)) => {
            store.set_fact(ALONE_SINCE, String::new()).await?;
            Ok(last)
        }
        (Origin::None, Some(since)) => {
            let since: Lsn = since.parse()?;
            Ok(last.filter(|last| last.commit > since))
        }
        (Origin::None, None) => {
            let since = last.map_or(Lsn::ZERO, |last| last.commit);
            store.set_fact(ALONE_SINCE, since.to_string()).await?;
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::store::MemoryStore;

    #[test]
    fn an_old_server_sends_everything_or_is_refused() {
        assert!(check_origin(Origin::Any, 140_000).is_ok() && check_origin(Origin::None, 160_001).is_ok());
        let error = check_origin(Origin::None, 150_008).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SourceSetup);
        assert!(error.hint_text().is_some_and(|hint| hint.contains("16")), "{error}");
    }

    #[tokio::test]
    async fn what_was_received_before_others_were_left_out_need_not_come_again() {
        let store: SharedStore = Arc::new(MemoryStore::new());
        let last = |commit| Some(Transaction { commit: Lsn(commit), end: Lsn(commit + 8), xid: 1, at: Timestamp(0) });
        for (origin, commit, comes) in [
            (Origin::Any, 10, true),
            (Origin::None, 20, false),
            (Origin::None, 20, false),
            (Origin::None, 30, true),
            (Origin::Any, 30, true),
            (Origin::None, 40, false),
        ] {
            let found = must_still_come(&store, origin, last(commit)).await.unwrap();
            assert_eq!(found.is_some(), comes, "{origin:?} {commit}");
        }
    }
}
