//! Does an operation end as the system says, whatever fails on the way, and is it never handed over twice unseen?

mod counted;
mod given_up;
mod held;
mod kept_back;
mod put_back;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use etl::clock::{self, Timestamp};
use etl::error::{ErrorKind, EtlError, EtlResult};
use etl::schema::{TableId, TableName};
use etl::store::{
    Accounting, MemoryStore, Operation, OperationContext, OperationId, OperationState, OperationStore, SharedStore,
};
use etl::{Lsn, Position};
use serde_json::json;
use tokio::sync::Notify;

use super::census::Census;
use super::driver::Driver;
use super::limits::Bucket;
use super::requests::Requests;
use super::sealed::{Draft, ManifestRow, Spool, named};
use super::*;
use crate::dead_rows::DeadLetterRules;

type Answers<T> = Mutex<VecDeque<Result<T, CallError>>>;

/// A system that answers as it is told, and writes down what it was asked.
#[derive(Default)]
struct Scripted {
    submits: Answers<Submitted>,
    polls: Answers<Vec<PollState>>,
    stats: Answers<UploadStats>,
    found: Answers<Found>,
    asked: Mutex<Vec<String>>,
    policy: Option<Policy>,
    is_simple: bool,
    rate: Option<Rate>,
    /// What its answers to submits wait for.
    answers_once: Option<Notify>,
}

impl Scripted {
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn write_down(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }
}

fn next<T>(answers: &Answers<T>) -> Result<T, CallError> {
    answers.lock().unwrap().pop_front().expect("asked more often than expected")
}

fn job(id: &str, rows: (u32, u32)) -> OperationContext {
    OperationContext { step: 0, vendor: json!({"id": id}), rows }
}

fn call(class: ErrorClass, in_doubt: bool) -> CallError {
    CallError { class, in_doubt, error: EtlError::new(ErrorKind::DestinationUnavailable, "scripted") }
}

impl BulkDestination for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn limits(&self) -> Limits {
        Limits { max_rows: 100, max_bytes: 1000, max_row_bytes: 100, in_flight: 1, rate: self.rate }
    }

    fn policy(&self) -> Policy {
        self.policy.unwrap_or(Policy { max_dead_percent: 50, ..Policy::default() })
    }

    fn supports_poll(&self) -> bool {
        !self.is_simple
    }

    async fn check_connection(&self) -> EtlResult<()> {
        Ok(())
    }

    fn transform(&self, _row: &BulkRow<'_>, _out: &mut Vec<u8>) -> EtlResult<()> {
        Ok(())
    }

    async fn submit(&self, batch: &SealedBatch, said: &Said<'_>) -> Result<Submitted, CallError> {
        let body = String::from_utf8(batch.read().await.unwrap()).unwrap();
        let known = said.contexts().await.len();
        self.write_down(format!("submit {body} attempt {} with {known}", batch.attempt));
        if known == 0 {
            said.save(OperationContext { step: 0, vendor: json!("definition"), rows: (0, 0) }).await.unwrap();
        }
        if let Some(answers_once) = &self.answers_once {
            answers_once.notified().await;
        }
        next(&self.submits)
    }

    async fn poll(&self, contexts: &[OperationContext]) -> Result<Vec<PollState>, CallError> {
        self.write_down(format!("poll {}", contexts.len()));
        next(&self.polls)
    }

    async fn upload_stats(
        &self,
        _batch: &SealedBatch,
        _contexts: &[OperationContext],
        _states: &[PollState],
    ) -> Result<UploadStats, CallError> {
        self.write_down("stats".to_owned());
        next(&self.stats)
    }

    async fn recover(&self, _batch: &SealedBatch, contexts: &[OperationContext]) -> Result<Found, CallError> {
        self.write_down(format!("recover with {}", contexts.len()));
        next(&self.found)
    }

    async fn cleanup(&self, contexts: &[OperationContext]) -> EtlResult<()> {
        self.write_down(format!("cleanup {}", contexts.len()));
        Ok(())
    }
}

/// One operation, and all that outlives a process.
struct Scene {
    system: Arc<Scripted>,
    store: SharedStore,
    dir: tempfile::TempDir,
    bucket: Arc<Mutex<Option<Bucket>>>,
    requests: Requests,
    sequence: Arc<AtomicU64>,
    keeps_dead_letters: bool,
    census: Arc<Census>,
}

impl Scene {
    fn new(system: Scripted) -> Self {
        clock::follow_tokio(Timestamp(1_000_000_000_000));
        Self {
            bucket: Arc::new(Mutex::new(system.rate.map(Bucket::new))),
            system: Arc::new(system),
            store: Arc::new(MemoryStore::new()),
            dir: tempfile::tempdir().unwrap(),
            requests: Requests::default(),
            sequence: Arc::new(AtomicU64::new(1)),
            keeps_dead_letters: true,
            census: Arc::default(),
        }
    }

    /// Seals rows `a`, `b`, ...
    async fn sealed(&self, rows: &str) -> Operation {
        let spool = Spool::open(self.dir.path()).unwrap();
        let frame = Frame { separator: ",".to_owned(), ..Frame::default() };
        let mut draft = Draft::new(TableName::new("public", "t"), frame);
        for (place, row) in (1..).zip(rows.chars()) {
            let known = ManifestRow {
                position: Position::new(Lsn(9), place),
                change_type: "INSERT".into(),
                key: Some(Box::new([row.to_string()])),
                row: json!({"id": row.to_string()}),
                is_partial: false,
                is_logged: false,
                bytes: 0,
            };
            draft.push(known, row.to_string().as_bytes());
        }
        let (manifest, body) = draft.finish();
        let id = named(TableId(7), 1, &manifest, &body);
        let bytes = body.len() as u64;
        spool.seal(&id, body, manifest).await.unwrap();
        let operation = Operation {
            id,
            revision: 0,
            sequence: 1,
            table: TableId(7),
            generation: 1,
            first: Position::new(Lsn(9), 1),
            last: Position::new(Lsn(9), 9),
            rows: rows.len() as u32,
            bytes,
            sealed_at: clock::now(),
            attempts: 0,
            is_replay: false,
            state: OperationState::Sealed { not_before: None, reason: None },
        };
        let revision = self.store.put_operation(None, operation.clone(), Vec::new()).await.unwrap();
        Operation { revision, ..operation }
    }

    /// Goes on with what is stored, as another process would.
    async fn go_on(&self) -> EtlResult<()> {
        let driver = self.driver();
        drop(self.requests.of(TableId(7)).await);
        for operation in self.store.operations().await? {
            if !operation.state.is_settled() {
                driver.settle(operation).await?;
            }
        }
        Ok(())
    }

    fn driver(&self) -> Driver<Scripted> {
        Driver {
            bulk: Arc::clone(&self.system),
            store: SharedStore::clone(&self.store),
            spool: Spool::open(self.dir.path()).unwrap(),
            bucket: Arc::clone(&self.bucket),
            requests: self.requests.clone(),
            sequence: Arc::clone(&self.sequence),
            dead_letters: self.dead_letters(),
            census: Arc::clone(&self.census),
        }
    }

    fn dead_letters(&self) -> Option<DeadLetterRules> {
        let max_percent = self.system.policy().max_dead_percent;
        self.keeps_dead_letters.then_some(DeadLetterRules { max_percent })
    }

    async fn state(&self, id: &OperationId) -> OperationState {
        let operations = self.store.operations().await.unwrap();
        operations.into_iter().find(|operation| operation.id == *id).unwrap().state
    }

    async fn accounting(&self, id: &OperationId) -> Accounting {
        match self.state(id).await {
            OperationState::Settled { accounting, .. } => accounting,
            state => panic!("{state:?}"),
        }
    }

    async fn reason(&self, id: &OperationId) -> String {
        match self.state(id).await {
            OperationState::Held { reason, .. } => reason,
            state => panic!("{state:?}"),
        }
    }
}

fn answers<T>(of: impl IntoIterator<Item = Result<T, CallError>>) -> Answers<T> {
    Mutex::new(of.into_iter().collect())
}

fn pending(jobs: &[(&str, u32, u32)]) -> Result<Submitted, CallError> {
    Ok(Submitted::Pending(jobs.iter().map(|(id, first, end)| job(id, (*first, *end))).collect()))
}

fn completed(stats: UploadStats) -> Result<Submitted, CallError> {
    Ok(Submitted::Completed(stats))
}

fn all(count: u64) -> Accounting {
    Accounting { succeeded: count, ..Accounting::default() }
}

fn with(policy: Policy) -> Option<Policy> {
    Some(Policy { max_dead_percent: 50, ..policy })
}

#[tokio::test(start_paused = true)]
async fn an_answer_at_once_settles_and_a_simple_system_is_never_asked() {
    let submits = answers([completed(UploadStats::SUCCEEDED)]);
    let scene = Scene::new(Scripted { submits, is_simple: true, ..Scripted::default() });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&operation.id).await, all(2));
    assert_eq!(scene.system.asked(), ["submit a,b attempt 1 with 0", "cleanup 1"]);
    assert_eq!(std::fs::read_dir(scene.dir.path()).unwrap().count(), 0, "what is settled is not kept on disk");
}

#[tokio::test(start_paused = true)]
async fn several_jobs_are_asked_for_in_one_call_until_all_are_done() {
    let running = |progress| PollState::Pending { progress: Some(progress), retry_after: None };
    let polls = answers([
        Ok(vec![running(10), running(90)]),
        Ok(vec![PollState::Completed, running(95)]),
        Ok(vec![PollState::Completed, PollState::Completed]),
    ]);
    let submits = answers([pending(&[("1", 0, 1), ("2", 1, 2)])]);
    let stats = answers([Ok(UploadStats::SUCCEEDED)]);
    let scene = Scene::new(Scripted { submits, polls, stats, ..Scripted::default() });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&operation.id).await, all(2));
    assert_eq!(scene.system.asked()[1..], ["poll 2", "poll 2", "poll 2", "stats", "cleanup 2"]);
}

#[tokio::test(start_paused = true)]
async fn hours_of_asking_back_off_honour_what_is_said_and_end_at_the_deadline() {
    let minute = Duration::from_secs(60);
    let said = PollState::Pending { progress: None, retry_after: Some(minute * 30) };
    let polls = (0..500).map(|turn| Ok(vec![if turn == 3 { said.clone() } else { PollState::PENDING }]));
    let policy = with(Policy { deadline: minute * 240, ..Policy::default() });
    let submits = answers([pending(&[("1", 0, 1)])]);
    let scene = Scene::new(Scripted { submits, polls: answers(polls), policy, ..Scripted::default() });
    let operation = scene.sealed("a").await;
    let began = clock::now();
    let error = scene.go_on().await.unwrap_err();
    assert_eq!((error.kind(), error.table()), (ErrorKind::DestinationRejected, Some(TableId(7))));
    assert!(scene.reason(&operation.id).await.contains("deadline"));
    let took = clock::now().since(began);
    assert!(took >= minute * 240 && took < minute * 242, "{took:?}");
    let polls = scene.system.asked().len() - 1;
    // Half an hour of them is one wait, the others are a minute each at most and a fifth less at least.
    assert!((175..=275).contains(&polls), "{polls}");
    let again = scene.go_on().await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::DestinationRejected, "it waits for somebody");
    assert!(scene.system.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_asks_for_what_was_submitted_and_extends_no_deadline() {
    let hour = Duration::from_secs(3600);
    let polls = answers([Err(call(ErrorClass::Config, false)), Ok(vec![PollState::PENDING])]);
    let submits = answers([pending(&[("1", 0, 1)])]);
    let policy = with(Policy { deadline: hour, ..Policy::default() });
    let scene = Scene::new(Scripted { submits, polls, policy, ..Scripted::default() });
    let operation = scene.sealed("a").await;
    scene.go_on().await.unwrap_err();
    let OperationState::Submitted { deadline, contexts, .. } = scene.state(&operation.id).await else { panic!() };
    assert_eq!(contexts, [job("1", (0, 1))]);
    tokio::time::advance(hour * 2).await;
    scene.go_on().await.unwrap_err();
    assert!(clock::now() > deadline);
    assert!(scene.reason(&operation.id).await.contains("deadline"));
    assert_eq!(scene.system.asked(), ["submit a attempt 1 with 0", "poll 1", "poll 1"], "nothing is handed over again");
}

#[tokio::test(start_paused = true)]
async fn rows_end_as_the_system_says_of_each() {
    let rows = vec![
        (0, RowOutcome::Warned("odd".to_owned())),
        (1, RowOutcome::Rejected("bad".to_owned())),
        (2, RowOutcome::Retry("locked".to_owned())),
    ];
    let polls = answers([Ok(vec![PollState::Completed])]);
    let stats = answers([Ok(UploadStats { rows, rest: Rest::Succeeded })]);
    let submits = answers([pending(&[("1", 0, 4)]), completed(UploadStats::SUCCEEDED)]);
    let scene = Scene::new(Scripted { submits, polls, stats, ..Scripted::default() });
    let operation = scene.sealed("abcd").await;
    scene.go_on().await.unwrap();
    let expected = Accounting { succeeded: 1, warned: 1, retried: 1, dead: 1, unattributed: 0 };
    assert_eq!(scene.accounting(&operation.id).await, expected);
    let asked = scene.system.asked();
    assert_eq!(asked[4], "submit c attempt 2 with 0", "{asked:?}");
    let letters = scene.store.dead_letters(None, None, 9).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].reason[..], &letters[0].row, letters[0].id.ordinal), ("bad", &json!({"id": "b"}), 1));
}

#[tokio::test(start_paused = true)]
async fn rows_that_nobody_speaks_for_are_no_success() {
    let nobody = UploadStats { rows: Vec::new(), rest: Rest::Unattributed(1) };
    let policy = with(Policy { unattributed: Unattributed::Hold, ..Policy::default() });
    let scene = Scene::new(Scripted { submits: answers([completed(nobody.clone())]), policy, ..Scripted::default() });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&operation.id).await.contains("what became of 2 rows"));

    let submits = answers([completed(nobody), completed(UploadStats::SUCCEEDED)]);
    let scene = Scene::new(Scripted { submits, ..Scripted::default() });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&operation.id).await, all(2), "of the second time");
    assert_eq!(scene.system.asked().len(), 3);

    let others = UploadStats { rows: vec![(2, RowOutcome::Succeeded)], rest: Rest::Succeeded };
    let scene = Scene::new(Scripted { submits: answers([completed(others)]), ..Scripted::default() });
    let operation = scene.sealed("ab").await;
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&operation.id).await.contains("not given"));
}

#[tokio::test(start_paused = true)]
async fn too_many_refusals_hold_the_table_and_make_no_dead_letter() {
    let rows = |count| (0..count).map(|row| (row, RowOutcome::Rejected("no such field".to_owned()))).collect();
    let stats = |count| completed(UploadStats { rows: rows(count), rest: Rest::Succeeded });
    for (count, keeps, is_held) in [(2, true, false), (3, true, true), (1, false, true)] {
        let system = Scripted { submits: answers([stats(count)]), ..Scripted::default() };
        let scene = Scene { keeps_dead_letters: keeps, ..Scene::new(system) };
        let operation = scene.sealed("abcd").await;
        assert_eq!(scene.go_on().await.is_err(), is_held, "{count} {keeps}");
        let letters = scene.store.dead_letters(None, None, 9).await.unwrap().len();
        if is_held {
            assert!(scene.reason(&operation.id).await.contains("no such field"));
            assert_eq!(letters, 0);
        } else {
            assert_eq!(letters, 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_is_split_until_the_bad_row_stands_alone() {
    let refuse = || Err(call(ErrorClass::Split, false));
    let taken = || completed(UploadStats::SUCCEEDED);
    // abcd; ab; cd; c; d: the third row is the bad one.
    let submits = answers([refuse(), taken(), refuse(), refuse(), taken()]);
    let scene = Scene::new(Scripted { submits, ..Scripted::default() });
    scene.sealed("abcd").await;
    scene.go_on().await.unwrap();
    let bodies: Vec<String> =
        scene.system.asked().iter().filter_map(|asked| Some(asked.split(' ').nth(1)?.to_owned())).collect();
    let submitted: Vec<&str> =
        bodies.iter().map(String::as_str).filter(|body| body.contains(char::is_alphabetic)).collect();
    assert_eq!(submitted, ["a,b,c,d", "a,b", "c,d", "c", "d"]);
    let letters = scene.store.dead_letters(None, None, 9).await.unwrap();
    assert_eq!(letters.iter().map(|letter| &letter.row).collect::<Vec<_>>(), [&json!({"id": "c"})]);
    let counted = scene.store.operations().await.unwrap().into_iter().map(|operation| match operation.state {
        OperationState::Settled { accounting, .. } => accounting,
        state => panic!("{state:?}"),
    });
    let sum = counted.fold(Accounting::default(), |sum, of| Accounting {
        succeeded: sum.succeeded + of.succeeded,
        dead: sum.dead + of.dead,
        ..sum
    });
    assert_eq!((sum.succeeded, sum.dead), (3, 1));
}

/// What a process that died between a request and its answer has left: each class goes on in its own way.
#[tokio::test(start_paused = true)]
async fn what_may_have_arrived_is_dealt_with_as_its_class_says() {
    let lost = || Err(call(ErrorClass::Retry, true));
    let taken = || completed(UploadStats::SUCCEEDED);
    let again = "submit a attempt 1 with 1";
    let cases: [(Resubmit, Vec<Found>, bool, &[&str]); 7] = [
        (Resubmit::ClientId, vec![], true, &[again, "cleanup 1"]),
        (Resubmit::Idempotent, vec![], true, &[again, "cleanup 1"]),
        (Resubmit::UnsafeAtLeastOnce, vec![], true, &[again, "cleanup 1"]),
        (Resubmit::UnsafeAtMostOnce, vec![], false, &[]),
        (Resubmit::Discover, vec![Found::Nothing], true, &["recover with 1", again, "cleanup 1"]),
        (
            Resubmit::Discover,
            vec![Found::Jobs(vec![job("9", (0, 1))])],
            true,
            &["recover with 1", "poll 1", "stats", "cleanup 1"],
        ),
        (Resubmit::Discover, vec![Found::Unknown], false, &["recover with 1"]),
    ];
    for (resubmit, found, is_settled, expected) in cases {
        let scene = Scene::new(Scripted {
            submits: answers([lost(), taken()]),
            polls: answers([Ok(vec![PollState::Completed])]),
            stats: answers([Ok(UploadStats::SUCCEEDED)]),
            found: answers(found.into_iter().map(Ok)),
            policy: with(Policy { resubmit, ..Policy::default() }),
            ..Scripted::default()
        });
        let operation = scene.sealed("a").await;
        let error = scene.go_on().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DestinationUnavailable);
        assert!(matches!(scene.state(&operation.id).await, OperationState::Submitting { .. }), "it may have arrived");
        scene.system.asked();
        assert_eq!(scene.go_on().await.is_ok(), is_settled, "{resubmit:?}");
        assert_eq!(scene.system.asked(), expected, "{resubmit:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_system_forgot_is_handed_over_again_or_held_as_its_class_says() {
    for (resubmit, is_settled) in [(Resubmit::Idempotent, true), (Resubmit::UnsafeAtMostOnce, false)] {
        let scene = Scene::new(Scripted {
            submits: answers([pending(&[("1", 0, 1)]), completed(UploadStats::SUCCEEDED)]),
            polls: answers([Ok(vec![PollState::Gone])]),
            policy: with(Policy { resubmit, ..Policy::default() }),
            ..Scripted::default()
        });
        let operation = scene.sealed("a").await;
        assert_eq!(scene.go_on().await.is_ok(), is_settled);
        if !is_settled {
            assert!(scene.reason(&operation.id).await.contains("does not know it"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_question_fails_with_says_nothing_about_the_job() {
    let lost = || call(ErrorClass::Retry, false);
    let throttled = Err(call(ErrorClass::Throttle(Some(Duration::from_secs(600))), false));
    let scene = Scene::new(Scripted {
        submits: answers([pending(&[("1", 0, 1)])]),
        polls: answers([Err(lost()), throttled, Ok(vec![]), Ok(vec![PollState::Completed])]),
        stats: answers([Err(lost()), Ok(UploadStats::SUCCEEDED)]),
        ..Scripted::default()
    });
    // The states are asked for again when the rejects could not be had.
    scene.system.polls.lock().unwrap().push_back(Ok(vec![PollState::Completed]));
    let operation = scene.sealed("a").await;
    let began = clock::now();
    scene.go_on().await.unwrap();
    assert_eq!(scene.accounting(&operation.id).await, all(1));
    assert!(clock::now().since(began) > Duration::from_secs(600), "it waits as long as it is told to");
    assert_eq!(scene.system.asked().iter().filter(|asked| asked.starts_with("submit")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_was_no_attempt_and_a_wrong_configuration_fails_no_row() {
    let scene = Scene::new(Scripted {
        submits: answers([
            Err(call(ErrorClass::Throttle(Some(Duration::from_secs(90))), false)),
            Err(call(ErrorClass::Config, false)),
            completed(UploadStats::SUCCEEDED),
        ]),
        ..Scripted::default()
    });
    let operation = scene.sealed("a").await;
    let began = clock::now();
    scene.go_on().await.unwrap_err();
    assert!(clock::now().since(began) >= Duration::from_secs(90));
    assert!(matches!(scene.state(&operation.id).await, OperationState::Sealed { .. }));
    scene.go_on().await.unwrap();
    assert_eq!(scene.system.asked()[2], "submit a attempt 1 with 0");
    assert_eq!(scene.accounting(&operation.id).await, all(1));
}

#[tokio::test(start_paused = true)]
async fn requests_are_no_more_than_the_account_may_make() {
    let rate = Some(Rate { burst: 2, every: Duration::from_secs(10) });
    let submits = answers((0..6).map(|_| Err(call(ErrorClass::Throttle(Some(Duration::ZERO)), false))));
    submits.lock().unwrap().push_back(completed(UploadStats::SUCCEEDED));
    let scene = Scene::new(Scripted { submits, rate, ..Scripted::default() });
    scene.sealed("a").await;
    let began = clock::now();
    scene.go_on().await.unwrap();
    let took = clock::now().since(began);
    assert!(took >= Duration::from_secs(50) && took < Duration::from_secs(51), "seven requests: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_anything_to_ask_by_is_no_success() {
    let scene = Scene::new(Scripted { submits: answers([pending(&[])]), ..Scripted::default() });
    let operation = scene.sealed("a").await;
    scene.go_on().await.unwrap_err();
    assert!(scene.reason(&operation.id).await.contains("nothing to ask for it by"));
}

#[tokio::test(start_paused = true)]
async fn a_second_process_cannot_submit_what_the_first_is_submitting() {
    let scene = Scene::new(Scripted { submits: answers([completed(UploadStats::SUCCEEDED)]), ..Scripted::default() });
    let seen = scene.sealed("a").await;
    scene.go_on().await.unwrap();
    let error = scene.driver().settle(seen).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StoreConflict);
    assert_eq!(scene.system.asked().len(), 2, "one submit and its cleanup");
}

#[tokio::test(start_paused = true)]
async fn a_store_of_ones_own_that_keeps_no_operations_says_so() {
    struct Forgetful;
    impl OperationStore for Forgetful {}
    assert!(Forgetful.operations().await.unwrap().is_empty());
    let operation = Scene::new(Scripted::default()).sealed("a").await;
    let error = Forgetful.put_operation(None, operation, Vec::new()).await.unwrap_err();
    assert!(error.to_string().contains("keeps neither"), "{error}");
}
