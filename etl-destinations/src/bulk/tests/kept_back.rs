//! What becomes of a run that died while it was shown, and that the next start cannot show?

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::table_rules::TableRules;

/// The fact of a run that was about to be shown.
const NOTED: (&str, &str) = ("bulk.kept_back", r#"{"run":"0a0b0c0d","step":"showing"}"#);

/// Shows a run, or has lost it, or may not.
#[derive(Clone, Default)]
struct Place {
    is_refusing: Arc<AtomicBool>,
    is_empty: Arc<AtomicBool>,
    removed: Arc<AtomicBool>,
}

impl SimpleBulk for Place {
    fn name(&self) -> &str {
        "place"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 100, max_bytes: 1000, max_row_bytes: 100, in_flight: 1, rate: None }
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn transform(&self, _row: &BulkRow<'_>, _out: &mut Vec<u8>) -> EtlResult<()> {
        Ok(())
    }

    async fn upload(&self, _batch: &SealedBatch) -> Result<UploadStats, CallError> {
        Ok(UploadStats::SUCCEEDED)
    }

    fn appends_runs(&self) -> bool {
        true
    }

    async fn append_run(&self, run: &str) -> EtlResult<bool> {
        assert_eq!(run, "0a0b0c0d");
        if self.is_refusing.load(Ordering::SeqCst) {
            return Err(EtlError::new(ErrorKind::DestinationRejected, "permission denied"));
        }
        Ok(!self.is_empty.load(Ordering::SeqCst))
    }

    async fn remove_run(&self, _run: &str) -> EtlResult<()> {
        self.removed.store(true, Ordering::SeqCst);
        Ok(())
    }
}

/// What a start says, and whether it has removed the run; then whether the next one has anything to do with it.
async fn started(place: &Place, scene: &Scene) -> (EtlResult<()>, bool, bool) {
    let open = || {
        let settings = BulkSettings::new(scene.dir.path().join("spool"));
        Bulk::destination(Simple(place.clone()), settings, Arc::clone(&scene.store), TableRules::default())
    };
    let began = etl::destination::Destination::startup(&open()).await;
    let noted = scene.store.fact(NOTED.0).await.unwrap().unwrap();
    (began, place.removed.load(Ordering::SeqCst), noted.contains("over"))
}

#[tokio::test]
async fn a_run_whose_place_refuses_to_show_it_stops_the_start_and_nothing_of_it_is_removed() {
    let (place, scene) = (Place::default(), Scene::new(Scripted::default()));
    scene.store.set_fact(NOTED.0, NOTED.1.to_owned()).await.unwrap();
    place.is_refusing.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let (began, removed, is_over) = started(&place, &scene).await;
        assert_eq!(began.unwrap_err().message(), "permission denied");
        assert!(!removed && !is_over, "a part of it may be shown already: it may not come again");
    }
    place.is_refusing.store(false, Ordering::SeqCst);
    let (began, removed, is_over) = started(&place, &scene).await;
    began.unwrap();
    assert!(removed && is_over);
}

#[tokio::test]
async fn a_run_that_somebody_removed_is_forgotten_and_comes_again() {
    let (place, scene) = (Place::default(), Scene::new(Scripted::default()));
    scene.store.set_fact(NOTED.0, NOTED.1.to_owned()).await.unwrap();
    place.is_empty.store(true, Ordering::SeqCst);
    let (began, _, is_over) = started(&place, &scene).await;
    began.unwrap();
    assert!(is_over);
}
