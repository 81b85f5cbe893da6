//! What becomes of a request when the write that made it is given up?

use super::*;

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_any_more_is_answered_and_comes_once() {
    let scene = Scene::new(Scripted {
        submits: answers([pending(&[("1", 0, 1)])]),
        polls: answers([Ok(vec![PollState::Completed])]),
        stats: answers([Ok(UploadStats::SUCCEEDED)]),
        policy: with(Policy { resubmit: Resubmit::UnsafeAtMostOnce, ..Policy::default() }),
        answers_once: Some(Notify::new()),
        ..Scripted::default()
    });
    let operation = scene.sealed("a").await;
    assert!(tokio::time::timeout(Duration::from_secs(1), scene.go_on()).await.is_err(), "it is given up");
    assert_eq!(scene.state(&operation.id).await.name(), "submitting");
    scene.system.answers_once.as_ref().unwrap().notify_one();
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&operation.id).await, all(1));
    assert_eq!(scene.system.asked().iter().filter(|asked| asked.starts_with("submit")).count(), 1);
}
