//! Does the profile of Lytics conform to Lytics' documents, whatever goes wrong?

use etl::ErrorKind;
use etl::data::TableRow;
use etl::destination::Destination;
use harness::contract::lytics::Lytics;
use harness::contract::{Fault, On, Server};

use super::scene::Scene;

const UPLOAD: &str = "POST /collect/bulk/people";

async fn started() -> (Server<Lytics>, Scene) {
    let scene = Scene::new("lytics", &["user_id", "email"]).await;
    let server = Server::start(Lytics::new("hunter2"), &scene.dir.path().join("vendor")).await.unwrap();
    let scene = scene.with(&[("base", &server.url())], &[("api_key", "hunter2")]);
    (server, scene)
}

fn people(scene: &Scene, count: usize) -> Vec<TableRow> {
    (0..count).map(|n| scene.row(&[format!("{n}"), format!("p{n}@example.com")])).collect()
}

fn count(server: &Server<Lytics>) -> usize {
    server.look(|lytics| lytics.rows("people").len())
}

#[tokio::test]
async fn rows_become_rows_of_a_stream_after_they_were_looked_at() {
    let (server, scene) = started().await;
    scene.open().check_connection().await.unwrap();
    scene.copy(vec![scene.row(&["1", "a,\"b\"\nc"]), scene.row(&["2", "-"])]).await.unwrap();
    server.look(|lytics| {
        assert_eq!(lytics.rows("people")[0]["email"], "a,\"b\"\nc");
        assert_eq!((lytics.rows("people").len(), lytics.dry_runs()), (2, 2), "one of the check, one of the batch");
    });
    assert!(server.asked("GET *").is_empty(), "there is nothing to be asked for later");
}

#[tokio::test]
async fn a_row_that_is_refused_when_it_is_looked_at_is_not_handed_over() {
    let (server, scene) = started().await;
    server.script(On::request(UPLOAD).always(), Fault::Fails(400));
    scene.copy(people(&scene, 1)).await.unwrap();
    assert_eq!((count(&server), scene.dead().await.len()), (0, 1));
}

#[tokio::test]
async fn it_waits_where_it_is_told_to_and_goes_on_where_the_vendor_breaks() {
    for fault in [Fault::Throttled(Some(1)), Fault::Fails(503), Fault::Unheard] {
        let (server, scene) = started().await;
        server.script(On::request(UPLOAD), fault.clone());
        server.script(On::request(UPLOAD).after(1), fault.clone());
        scene.copy(people(&scene, 3)).await.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(count(&server), 3, "{fault:?}");
    }
}

/// What arrived and was not answered for comes again, as the class says.
#[tokio::test]
async fn an_answer_that_is_lost_costs_a_second_copy_and_no_row() {
    let (server, scene) = started().await;
    server.script(On::request(UPLOAD).after(1), Fault::Unanswered);
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!(count(&server), 6);
}

#[tokio::test]
async fn a_restart_hands_over_what_was_not_and_a_key_that_is_taken_back_makes_rows_wait() {
    let (server, scene) = started().await;
    server.script(On::request(UPLOAD), Fault::Held);
    scene.copy_until(people(&scene, 3), server.until_asked(UPLOAD, 1)).await;
    server.release();
    server.credentials("hunter2", false);
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    server.credentials("hunter2", true);
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!(count(&server), 3);
}

#[tokio::test]
async fn no_request_has_more_rows_than_the_profile_says() {
    let (server, scene) = started().await;
    scene.copy(people(&scene, 10_000)).await.unwrap();
    assert_eq!(server.asked(UPLOAD).len(), 2);
    scene.copy(people(&scene, 10_001)).await.unwrap();
    assert_eq!(server.asked(UPLOAD).len(), 2 + 2, "the rows that were there are known again, and one is new");
}
