//! Does the profile of Klaviyo conform to Klaviyo's documents, whatever goes wrong?

use etl::ErrorKind;
use etl::data::TableRow;
use etl::destination::Destination;
use etl::store::OperationState;
use etl_destinations::profile::WhereUnsupported;
use harness::contract::klaviyo::Klaviyo;
use harness::contract::{Fate, Fault, On, Server};
use serde_json::{Value, json};

use super::scene::Scene;

const IMPORT: &str = "POST /api/profile-bulk-import-jobs";
const JOB: &str = "GET /api/profile-bulk-import-jobs/*";

/// Refuses who has no place in the world.
fn vendor() -> Klaviyo {
    Klaviyo::new("pk_hunter2").without_rates().at_pace(1, 1).refusing(|attributes| {
        let email = attributes["email"].as_str().unwrap_or_default();
        email.starts_with("bad").then(|| ("invalid", format!("{email} is not deliverable")))
    })
}

async fn started(vendor: Klaviyo) -> (Server<Klaviyo>, Scene) {
    let scene = Scene::new("klaviyo", &["external_id", "email", "city", "points"]).await;
    let server = Server::start(vendor, &scene.dir.path().join("vendor")).await.unwrap();
    let scene = scene.with(&[("base", &server.url())], &[("api_key", "pk_hunter2")]);
    scene.change("rate = { burst = 10, every = \"400ms\" }\n", "");
    (server, scene)
}

fn people(scene: &Scene, count: usize) -> Vec<TableRow> {
    (0..count)
        .map(|n| scene.row(&[format!("{n}"), format!("p{n}@example.com"), "Bonn".to_owned(), n.to_string()]))
        .collect()
}

fn bad(scene: &Scene, n: usize) -> TableRow {
    scene.row(&[format!("bad{n}"), format!("bad{n}@example.com"), "Bonn".to_owned(), "0".to_owned()])
}

fn count(server: &Server<Klaviyo>) -> usize {
    server.look(Klaviyo::profiles).len()
}

#[tokio::test]
async fn rows_become_profiles_with_each_column_in_its_place() {
    let (server, scene) = started(vendor()).await;
    scene.open().check_connection().await.unwrap();
    let rows = vec![scene.row(&["1", "a@example.com", "Köln", "7"]), scene.row(&["2", "b@example.com", "-", "-"])];
    scene.copy(rows).await.unwrap();
    let asked = server.asked(IMPORT);
    assert_eq!(asked.len(), 1);
    let sent = asked[0].asked.json().unwrap();
    let profiles = &sent["data"]["attributes"]["profiles"]["data"];
    let first = json!({"email": "a@example.com", "external_id": "1", "location": {"city": "Köln"}, "properties": {"points": "7"}});
    assert_eq!(profiles[0], json!({"type": "profile", "attributes": first}));
    assert_eq!(profiles[1]["attributes"], json!({"email": "b@example.com", "external_id": "2"}), "null is left out");
    assert_eq!(count(&server), 2);
    let operations = scene.operations().await;
    assert!(
        operations
            .iter()
            .all(|of| matches!(&of.state, OperationState::Settled { accounting, .. } if accounting.succeeded == 2))
    );
}

#[tokio::test]
async fn what_is_refused_later_is_found_again_over_all_pages() {
    let (server, scene) = started(vendor()).await;
    let mut rows = people(&scene, 2500);
    rows.extend((0..230).map(|n| bad(&scene, n)));
    scene.copy(rows).await.unwrap();
    let dead = scene.dead().await;
    assert_eq!(dead.len(), 230);
    assert!(dead.iter().all(|letter| letter.row["email"].as_str().unwrap().starts_with("bad")));
    assert!(dead[0].reason.contains("is not deliverable"), "{}", dead[0].reason);
    assert_eq!(server.asked("GET /api/profile-bulk-import-jobs/*/import-errors").len(), 3, "three pages");
    assert_eq!((count(&server), server.asked(IMPORT).len()), (2500, 1));
}

#[tokio::test]
async fn a_profile_that_is_wrong_is_taken_out_and_the_others_go_on() {
    let (server, scene) = started(vendor()).await;
    let mut rows = people(&scene, 20);
    rows.insert(7, scene.row(&["odd", "no address", "-", "-"]));
    scene.copy(rows).await.unwrap();
    let dead = scene.dead().await;
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].row["external_id"], "odd");
    assert!(dead[0].reason.contains("not a valid email"), "{}", dead[0].reason);
    assert_eq!((count(&server), server.asked(IMPORT).len()), (20, 2));
}

#[tokio::test]
async fn a_cancelled_job_is_no_success_and_its_table_waits_in_the_end() {
    let (server, scene) = started(vendor()).await;
    server.foretell(On::request(IMPORT).always(), Fate::Cancelled);
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(scene.held().await.contains("cancelled"), "{}", scene.held().await);
    assert_eq!((count(&server), server.asked(IMPORT).len()), (0, 5));
    assert!(scene.dead().await.is_empty(), "rows are not lost to dead letters");
}

#[tokio::test]
async fn a_throttled_request_comes_again_when_it_may() {
    let (server, scene) = started(vendor()).await;
    server.script(On::request(IMPORT), Fault::Throttled(Some(1)));
    server.script(On::request(JOB), Fault::Throttled(None));
    scene.copy(people(&scene, 3)).await.unwrap();
    let asked = server.asked(IMPORT);
    assert_eq!((asked.len(), count(&server)), (2, 3));
    assert!(asked[1].asked.at.since(asked[0].asked.at).as_millis() >= 1000, "as long as it was told to wait");
}

#[tokio::test]
async fn what_breaks_at_the_vendor_or_on_the_way_loses_and_doubles_nothing() {
    let faults =
        [Fault::Fails(503), Fault::FailsAfter(502), Fault::Unheard, Fault::Unanswered, Fault::Truncated, Fault::Torn];
    for fault in faults {
        let (server, scene) = started(vendor()).await;
        server.script(On::request(IMPORT), fault.clone());
        server.script(On::request(JOB), fault.clone());
        scene.copy(people(&scene, 3)).await.unwrap();
        assert_eq!(count(&server), 3, "{fault:?}");
        assert_eq!(server.asked(IMPORT).len(), 2, "{fault:?}");
        assert!(scene.dead().await.is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn credentials_that_are_taken_back_make_rows_wait_and_are_never_shown() {
    let (server, scene) = started(vendor()).await;
    server.credentials("pk_hunter2", false);
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    let error = scene.open().check_connection().await.unwrap_err();
    assert!(error.to_string().contains("secrets") && !error.to_string().contains("hunter2"), "{error}");
    server.credentials("pk_hunter2", true);
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!(count(&server), 3);
    assert!(scene.dead().await.is_empty());
}

#[tokio::test]
async fn a_restart_asks_for_the_job_and_finds_the_same_rows_refused() {
    let mut found = Vec::new();
    for is_killed in [false, true] {
        let (server, scene) = started(vendor().at_pace(3, 3)).await;
        let rows = || people(&scene, 40).into_iter().chain([bad(&scene, 1), bad(&scene, 2)]).collect::<Vec<_>>();
        if is_killed {
            scene.copy_until(rows(), server.until_asked(JOB, 2)).await;
            assert_eq!(scene.operations().await[0].state.name(), "submitted");
        }
        scene.copy(rows()).await.unwrap();
        assert_eq!((count(&server), server.asked(IMPORT).len()), (40, 1), "killed: {is_killed}");
        let dead = scene.dead().await;
        found.push(dead.into_iter().map(|letter| (letter.row, letter.reason)).collect::<Vec<(Value, String)>>());
    }
    assert_eq!(found[0].len(), 2);
    assert_eq!(found[0], found[1]);
}

#[tokio::test]
async fn no_request_is_larger_than_the_vendor_takes() {
    let (server, scene) = started(vendor()).await;
    scene.copy(people(&scene, 10_000)).await.unwrap();
    assert_eq!(server.asked(IMPORT).len(), 1, "all that a request may have");
    let (server, scene) = started(vendor()).await;
    scene.copy(people(&scene, 10_001)).await.unwrap();
    assert_eq!((count(&server), server.asked(IMPORT).len()), (10_001, 2));
    let (server, scene) = started(vendor()).await;
    let mut rows: Vec<TableRow> = (0..70)
        .map(|n| scene.row(&[n.to_string(), format!("p{n}@example.com"), "-".to_owned(), "x".repeat(99_000)]))
        .collect();
    rows.push(scene.row(&["large", "l@example.com", "-", &"x".repeat(100_001)]));
    scene.copy(rows).await.unwrap();
    let asked = server.asked(IMPORT);
    assert_eq!((asked.len(), count(&server)), (2, 70));
    assert!(asked.iter().all(|exchange| exchange.status == Some(202)));
    let dead = scene.dead().await;
    assert_eq!((dead.len(), &dead[0].row["external_id"]), (1, &json!("large")));
}

#[tokio::test]
async fn a_state_that_nobody_documents_is_never_success() {
    let (server, scene) = started(vendor()).await;
    scene.change("deadline = \"2h\"", "deadline = \"400ms\"");
    server.foretell(On::request(IMPORT).always(), Fate::Says("splendid".to_owned()));
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_eq!(server.asked(IMPORT).len(), 1);
}

#[tokio::test]
async fn a_job_that_the_vendor_forgot_is_handed_over_again() {
    let (server, scene) = started(vendor()).await;
    server.foretell(On::request(IMPORT), Fate::Lost);
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!((count(&server), server.asked(IMPORT).len()), (3, 2));
}

#[tokio::test]
async fn deletes_and_truncates_are_what_the_config_says() {
    for on_delete in [WhereUnsupported::Error, WhereUnsupported::Ignore, WhereUnsupported::Deliver] {
        let (server, mut scene) = started(vendor()).await;
        scene.config.on_delete = on_delete;
        scene.config.on_truncate =
            if on_delete == WhereUnsupported::Error { WhereUnsupported::Error } else { WhereUnsupported::Ignore };
        scene.copy(people(&scene, 2)).await.unwrap();
        let destination = scene.open();
        let (batch, events) = scene.deletion(&["1", "-", "-", "-"]);
        let done = destination.write_batch(batch, events).await;
        let (batch, events) = scene.truncation();
        let truncated = destination.write_batch(batch, events).await;
        assert_eq!(done.is_err() && truncated.is_err(), on_delete == WhereUnsupported::Error, "{done:?} {truncated:?}");
        let is_marked = server.look(Klaviyo::profiles).iter().any(|profile| profile["properties"]["deleted"] == true);
        assert_eq!(is_marked, on_delete == WhereUnsupported::Deliver);
        assert_eq!(count(&server), 2, "nobody is removed there");
    }
}
