//! Does the profile of Eloqua conform to Eloqua's documents, whatever goes wrong?

use etl::ErrorKind;
use etl::data::TableRow;
use etl::destination::Destination;
use etl_destinations::profile::WhereUnsupported;
use harness::contract::eloqua::Eloqua;
use harness::contract::{Fate, Fault, On, Server};

use super::scene::Scene;

const DEFINE: &str = "POST /api/bulk/2.0/contacts/imports";
const DATA: &str = "POST /api/bulk/2.0/contacts/imports/*/data";
const SYNC: &str = "POST /api/bulk/2.0/syncs";
const STATUS: &str = "GET /api/bulk/2.0/syncs/*";
const REJECTS: &str = "GET /api/bulk/2.0/syncs/*/rejects";

fn vendor() -> Eloqua {
    Eloqua::new("Acme", "sync", "hunter2").at_pace(1, 1).refusing(|fields| {
        let refused = fields.values().any(|value| value.starts_with("bad"));
        refused.then(|| ("ELQ-00022", "There was an error processing the record.".to_owned()))
    })
}

async fn started(vendor: Eloqua) -> (Server<Eloqua>, Scene) {
    let scene = Scene::new("eloqua", &["C_EmailAddress", "C_FirstName"]).await;
    let server = Server::start(vendor, &scene.dir.path().join("vendor")).await.unwrap();
    let settings = [("login", server.url()), ("company", "Acme".to_owned()), ("user", "sync".to_owned())];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let scene = scene.with(&settings, &[("password", "hunter2")]);
    (server, scene)
}

fn people(scene: &Scene, count: usize) -> Vec<TableRow> {
    (0..count).map(|n| scene.row(&[format!("p{n}@example.com"), format!("n{n}")])).collect()
}

fn bad(scene: &Scene, count: usize) -> Vec<TableRow> {
    (0..count).map(|n| scene.row(&[format!("b{n}@example.com"), format!("bad{n}")])).collect()
}

fn count(server: &Server<Eloqua>) -> usize {
    server.look(|eloqua| eloqua.records("contacts").len())
}

/// No row was taken by two syncs, and no definition is left but so many whose answers were lost: nothing was in them.
fn assert_taken_once(server: &Server<Eloqua>, lost: usize, when: &str) {
    server.look(|eloqua| {
        assert_eq!(eloqua.syncs().len(), 1, "{when}");
        assert!(eloqua.taken().values().all(|times| *times == 1), "{when}: {:?}", eloqua.taken());
        assert_eq!(eloqua.imports().len(), lost, "{when}: {:?}", eloqua.imports());
    });
}

#[tokio::test]
async fn rows_become_contacts_in_three_steps_and_the_definition_is_deleted() {
    let (server, scene) = started(vendor()).await;
    scene.open().check_connection().await.unwrap();
    scene.copy(vec![scene.row(&["a@example.com", "Zoë, \"Z\""]), scene.row(&["b@example.com", "-"])]).await.unwrap();
    let records = server.look(|eloqua| eloqua.records("contacts"));
    assert_eq!(records["a@example.com"]["{{Contact.Field(C_FirstName)}}"], "Zoë, \"Z\"");
    assert_eq!(records["b@example.com"]["{{Contact.Field(C_FirstName)}}"], "");
    for step in [DEFINE, DATA, SYNC] {
        assert_eq!(server.asked(step).len(), 1, "{step}");
    }
    let name = server.asked(DEFINE)[0].asked.json().unwrap()["name"].as_str().unwrap().to_owned();
    assert_eq!(name, *scene.operations().await[0].id.0, "the vendor shows whose it is");
    assert!(server.look(|eloqua| eloqua.imports().is_empty()), "the definition is deleted");
}

#[tokio::test]
async fn each_table_goes_where_its_settings_say() {
    let (server, mut scene) = started(vendor()).await;
    let config =
        r#"{"match": "public.people", "settings": {"object": "customObjects/12", "field": "CustomObject[12].Field"}}"#;
    scene.config.tables = vec![serde_json::from_str(config).unwrap()];
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!(server.look(|eloqua| eloqua.records("customObjects/12").len()), 3);
    assert_eq!(count(&server), 0);
}

#[tokio::test]
async fn what_is_rejected_is_found_by_its_number_over_all_pages() {
    let (server, scene) = started(vendor()).await;
    let mut rows = people(&scene, 24_000);
    rows.splice(100..100, bad(&scene, 2300));
    scene.copy(rows).await.unwrap();
    let dead = scene.dead().await;
    assert_eq!(dead.len(), 2300);
    assert!(dead.iter().all(|letter| letter.row["C_FirstName"].as_str().unwrap().starts_with("bad")));
    assert!(dead[0].reason.contains("error processing the record"), "{}", dead[0].reason);
    assert_eq!((server.asked(REJECTS).len(), count(&server)), (3, 24_000));
}

#[tokio::test]
async fn a_sync_that_fails_is_no_success_and_its_table_waits_in_the_end() {
    let (server, scene) = started(vendor()).await;
    server.foretell(On::request(SYNC).always(), Fate::Cancelled);
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DestinationRejected, "{error}");
    assert!(scene.held().await.contains("5 attempts have failed"), "{}", scene.held().await);
    assert_eq!((count(&server), scene.dead().await.len()), (0, 0));
    assert_eq!(server.asked(DEFINE).len(), 5);
    assert!(server.look(|eloqua| eloqua.imports().is_empty()), "each definition is deleted that has failed");
}

#[tokio::test]
async fn a_throttled_step_comes_again_and_those_before_it_do_not() {
    let (server, scene) = started(vendor()).await;
    for step in [DEFINE, DATA, SYNC, STATUS] {
        server.script(On::request(step), Fault::Throttled(Some(1)));
    }
    scene.copy(people(&scene, 3)).await.unwrap();
    let asked = [DEFINE, DATA, SYNC].map(|step| server.asked(step).len());
    assert_eq!((asked, count(&server)), ([2, 2, 2], 3));
}

#[tokio::test]
async fn what_breaks_in_any_step_loses_nothing_and_counts_no_refused_row_as_taken() {
    for fault in [Fault::Fails(503), Fault::FailsAfter(500), Fault::Unheard, Fault::Unanswered, Fault::Truncated] {
        for step in [DEFINE, DATA, SYNC, STATUS, REJECTS] {
            let (server, scene) = started(vendor()).await;
            server.script(On::request(step), fault.clone());
            let rows: Vec<TableRow> = people(&scene, 30).into_iter().chain(bad(&scene, 1)).collect();
            scene.copy(rows).await.unwrap_or_else(|error| panic!("{fault:?} {step}: {error}"));
            assert_eq!((count(&server), scene.dead().await.len()), (30, 1), "{fault:?} {step}");
            let lost = usize::from(step == DEFINE && fault.is_taken());
            assert_taken_once(&server, lost, &format!("{fault:?} {step}"));
        }
    }
}

/// The vendor has begun and says so to nobody: it is asked, and no second import begins.
#[tokio::test]
async fn an_import_whose_answer_is_lost_is_found_and_not_begun_again() {
    for fault in [Fault::Unanswered, Fault::FailsAfter(500), Fault::FailsAfter(503), Fault::Truncated, Fault::Torn] {
        let (server, scene) = started(vendor().at_pace(2, 2)).await;
        server.script(On::request(SYNC), fault.clone());
        scene.copy(people(&scene, 30).into_iter().chain(bad(&scene, 2)).collect()).await.unwrap();
        assert_eq!((count(&server), scene.dead().await.len()), (30, 2), "{fault:?}");
        assert_eq!([DEFINE, DATA, SYNC].map(|step| server.asked(step).len()), [1; 3], "{fault:?}");
        assert_taken_once(&server, 0, &format!("{fault:?}"));
    }
}

#[tokio::test]
async fn an_import_that_the_vendor_has_not_begun_is_begun_anew_and_what_there_was_of_it_is_deleted_first() {
    for fault in [Fault::Unheard, Fault::Fails(503)] {
        let (server, scene) = started(vendor()).await;
        server.script(On::request(SYNC), fault.clone());
        // Nothing is begun while it is not known whether it was.
        server.script(On::request("GET /api/bulk/2.0/syncs"), Fault::Fails(503));
        scene.copy(people(&scene, 30)).await.unwrap();
        assert_eq!([DEFINE, DATA, SYNC].map(|step| server.asked(step).len()), [2; 3], "{fault:?}");
        assert_taken_once(&server, 0, &format!("{fault:?}"));
    }
}

#[tokio::test]
async fn a_password_that_is_taken_back_makes_rows_wait_and_is_never_shown() {
    let (server, scene) = started(vendor()).await;
    server.credentials("hunter2", false);
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    server.credentials("hunter2", true);
    scene.copy(people(&scene, 3)).await.unwrap();
    assert_eq!((count(&server), scene.dead().await.len()), (3, 0));
}

#[tokio::test]
async fn a_restart_between_steps_and_while_pending_finds_the_same_rows_refused() {
    let mut found = Vec::new();
    for (killed_at, syncs) in [(None, 1), (Some(DATA), 1), (Some(SYNC), 1), (Some(STATUS), 1)] {
        let (server, scene) = started(vendor().at_pace(3, 3)).await;
        let rows = || people(&scene, 40).into_iter().chain(bad(&scene, 2)).collect::<Vec<_>>();
        if let Some(step) = killed_at {
            server.script(On::request(step), Fault::Held);
            scene.copy_until(rows(), server.until_asked(step, 1)).await;
            server.release();
        }
        scene.copy(rows()).await.unwrap();
        assert_eq!((count(&server), server.asked(SYNC).len()), (40, syncs), "{killed_at:?}");
        assert_taken_once(&server, 0, &format!("{killed_at:?}"));
        found.push(scene.dead().await.into_iter().map(|letter| (letter.row, letter.reason)).collect::<Vec<_>>());
    }
    assert_eq!(found[0].len(), 2);
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
}

#[tokio::test]
async fn no_request_is_larger_than_the_vendor_takes() {
    let (server, scene) = started(vendor()).await;
    let large = "x".repeat(900_000);
    let rows: Vec<TableRow> = (0..40).map(|n| scene.row(&[format!("p{n}@example.com"), large.clone()])).collect();
    scene.copy(rows).await.unwrap();
    let asked = server.asked(DATA);
    assert_eq!((asked.len(), count(&server)), (2, 40));
    assert!(asked.iter().all(|exchange| exchange.status == Some(204) && exchange.asked.body.len() <= 32_000_000));
}

#[tokio::test]
async fn a_state_that_nobody_documents_is_never_success() {
    let (server, scene) = started(vendor()).await;
    scene.change("deadline = \"4h\"", "deadline = \"400ms\"");
    server.foretell(On::request(SYNC).always(), Fate::Says("splendid".to_owned()));
    let error = scene.copy(people(&scene, 3)).await.unwrap_err();
    assert!(error.to_string().contains("deadline"), "{error}");
    assert_eq!(server.asked(SYNC).len(), 1);
}

#[tokio::test]
async fn deletes_and_truncates_are_what_the_config_says() {
    for what in [WhereUnsupported::Error, WhereUnsupported::Ignore] {
        let (server, mut scene) = started(vendor()).await;
        (scene.config.on_delete, scene.config.on_truncate) = (what, what);
        scene.copy(people(&scene, 2)).await.unwrap();
        let (batch, events) = scene.deletion(&["p1@example.com", "-"]);
        let deleted = scene.open().write_batch(batch, events).await;
        let (batch, events) = scene.truncation();
        let emptied = scene.open().write_batch(batch, events).await;
        let is_refused = [&deleted, &emptied].map(|done| {
            done.as_ref()
                .is_err_and(|error| error.kind() == ErrorKind::DestinationUnsupported && error.table().is_some())
        });
        assert_eq!(is_refused, [what == WhereUnsupported::Error; 2], "{deleted:?} {emptied:?}");
        assert_eq!((count(&server), server.asked(SYNC).len()), (2, 1), "nobody is removed there");
    }
}

#[test]
fn what_cannot_be_marked_cannot_be_delivered() {
    let mut config = etl_destinations::profile::ProfileConfig::named("eloqua");
    config.on_delete = WhereUnsupported::Deliver;
    for name in ["company", "user"] {
        config.settings.insert(name.to_owned(), "x".to_owned());
    }
    config.secrets.insert("password".to_owned(), etl::Secret::new("hunter2"));
    let error = etl_destinations::profile::System::open(&config).unwrap_err();
    assert!(error.to_string().contains("no mark for a deleted row"), "{error}");
}
