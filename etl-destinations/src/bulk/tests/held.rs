//! Is what fails again and again held, and nothing beside it?

use super::*;

#[tokio::test(start_paused = true)]
async fn a_job_that_fails_again_and_again_is_held() {
    let failed = || PollState::Failed { class: ErrorClass::Retry, code: "E1".to_owned(), message: "no".to_owned() };
    let scene = Scene::new(Scripted {
        submits: answers((0..3).map(|_| pending(&[("1", 0, 2)]))),
        polls: answers((0..3).map(|_| Ok(vec![failed()]))),
        policy: with(Policy { max_attempts: 3, ..Policy::default() }),
        ..Scripted::default()
    });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&operation.id).await.contains("3 attempts have failed: E1 no"));
}

#[tokio::test(start_paused = true)]
async fn a_row_that_is_never_taken_is_held_alone() {
    let locked = |rows| {
        let rows = vec![(rows, RowOutcome::Retry("locked".to_owned()))];
        completed(UploadStats { rows, rest: Rest::Succeeded })
    };
    let submits = answers([locked(1), locked(0), locked(0)]);
    let policy = with(Policy { max_attempts: 3, ..Policy::default() });
    let scene = Scene::new(Scripted { submits, policy, ..Scripted::default() });
    let operation = scene.sealed("abc").await;
    let error = scene.go_on().await.unwrap_err();
    assert!(error.to_string().contains("3 attempts have failed: locked"), "{error}");
    assert_eq!(scene.accounting(&operation.id).await, Accounting { succeeded: 2, retried: 1, ..Accounting::default() });
    let operations = scene.store.operations().await.unwrap();
    assert_eq!(
        operations.iter().map(|of| (of.rows, of.state.name())).collect::<Vec<_>>(),
        [(3, "settled"), (1, "held")]
    );
}
