//! Does an operation that was held end well once somebody has put it back, or given it up?

use super::*;
use crate::bulk::desk::{SPOOL_FACT, abandon, batch_on_disk, operation, put_back};

const HOUR: Duration = Duration::from_secs(3600);

impl Scene {
    /// What a pipeline stores when it starts.
    async fn tells_where(&self) {
        let dir = self.dir.path().display().to_string();
        self.store.set_fact(SPOOL_FACT, dir).await.unwrap();
    }

    async fn of(&self, id: &OperationId) -> Operation {
        operation(&self.store, &id.0).await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_nobody_knows_is_asked_for_until_the_deadline_and_is_never_a_success() {
    let unknown = || Err(call(ErrorClass::Retry, false));
    let policy = with(Policy { deadline: HOUR, ..Policy::default() });
    let polls = answers((0..200).map(|_| unknown()));
    let scene =
        Scene::new(Scripted { submits: answers([pending(&[("1", 0, 2)])]), polls, policy, ..Scripted::default() });
    let sealed = scene.sealed("ab").await;
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&sealed.id).await.contains("deadline"));
    assert!(scene.system.asked().len() > 30);

    // What is stuck is asked for again for as long as somebody says, and its batch is not handed over again.
    let found = scene.of(&sealed.id).await;
    let again = put_back(&scene.store, found, HOUR * 2, false).await.unwrap();
    let OperationState::Submitted { deadline, .. } = &again.state else { panic!("{again:?}") };
    assert_eq!(deadline.since(clock::now()), HOUR * 2);
    *scene.system.polls.lock().unwrap() = [Ok(vec![PollState::Completed])].into();
    scene.system.stats.lock().unwrap().push_back(Ok(UploadStats::SUCCEEDED));
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&sealed.id).await, all(2));
    assert_eq!(scene.system.asked(), ["poll 1", "stats", "cleanup 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_tried_too_often_is_tried_once_more_when_somebody_says_so() {
    let failed = || PollState::Failed { class: ErrorClass::Retry, code: "E1".to_owned(), message: "no".to_owned() };
    let scene = Scene::new(Scripted {
        submits: answers((0..2).map(|_| pending(&[("1", 0, 2)]))),
        polls: answers((0..2).map(|_| Ok(vec![failed()]))),
        policy: with(Policy { max_attempts: 1, ..Policy::default() }),
        ..Scripted::default()
    });
    let sealed = scene.sealed("ab").await;
    scene.go_on().await.unwrap_err();
    let found = scene.of(&sealed.id).await;
    put_back(&scene.store, found, HOUR, false).await.unwrap();
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&sealed.id).await.contains("2 attempts have failed"), "held again, and not tried for ever");
    let stale = Operation { revision: 1, ..scene.of(&sealed.id).await };
    let lost = put_back(&scene.store, stale, HOUR, false).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::StoreConflict, "somebody else was faster");
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_given_up_leaves_all_its_rows_as_dead_letters() {
    let policy = with(Policy { resubmit: Resubmit::UnsafeAtMostOnce, ..Policy::default() });
    let submits = answers([Err(call(ErrorClass::Retry, true))]);
    let scene = Scene::new(Scripted { submits, policy, ..Scripted::default() });
    scene.tells_where().await;
    let sealed = scene.sealed("abc").await;
    scene.go_on().await.unwrap_err();
    let found = scene.of(&sealed.id).await;
    assert_eq!(abandon(&scene.store, found, false).await.unwrap_err().kind(), ErrorKind::Config, "it is not held yet");
    scene.go_on().await.unwrap_err();
    let found = scene.of(&sealed.id).await;
    let batch = batch_on_disk(&scene.store, &found, 2).await.unwrap().unwrap();
    assert_eq!((batch.rows.len(), std::fs::read(&batch.body).unwrap().len()), (2, 5));
    abandon(&scene.store, found, false).await.unwrap();
    let accounting = scene.accounting(&sealed.id).await;
    assert_eq!(accounting, Accounting { dead: 3, ..Accounting::default() }, "every row is accounted for");
    let letters = scene.store.dead_letters(None, None, 9).await.unwrap();
    assert_eq!(letters.iter().map(|letter| &letter.row["id"]).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert!(letters.iter().all(|letter| letter.code == "abandoned" && letter.reason.contains("twice")), "{letters:?}");
    assert_eq!(std::fs::read_dir(scene.dir.path()).unwrap().count(), 0, "nothing of it is left on disk");
    scene.go_on().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_gone_from_the_disk_can_be_given_up_as_lost() {
    let scene = Scene::new(Scripted::default());
    scene.tells_where().await;
    let sealed = scene.sealed("ab").await;
    assert_eq!(abandon(&scene.store, sealed.clone(), true).await.unwrap_err().kind(), ErrorKind::Config);
    std::fs::remove_file(scene.dir.path().join(format!("{}.body", sealed.id))).unwrap();
    assert_eq!(abandon(&scene.store, sealed.clone(), false).await.unwrap_err().kind(), ErrorKind::Config);
    abandon(&scene.store, sealed.clone(), true).await.unwrap();
    assert_eq!(scene.accounting(&sealed.id).await, Accounting { unattributed: 2, ..Accounting::default() });
    assert_eq!(operation(&scene.store, "none").await.unwrap_err().kind(), ErrorKind::Config);
}
