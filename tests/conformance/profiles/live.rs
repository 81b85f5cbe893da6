//! Do vendors take what their documents ask for? Only who has an account there can tell; without one each says that it is
//! skipped.
//!
//! `ETL_LIVE_KLAVIYO_API_KEY` and the like hold what `etl profiles show` says that a profile asks for, and
//! `ETL_LIVE_KLAVIYO_ROW` a row that may be left there: `external_id=etl-1,email=etl@example.com`, the key first.

use std::env;
use std::time::Duration;

use etl::destination::Destination;
use etl_destinations::profile::{BuiltIn, Profile, Wanted};
use harness::skip::skip_part;

use super::scene::{Scene, TABLE, chunk};

/// A vendor may take its time.
const LONGEST: Duration = Duration::from_secs(900);

/// Hands one row over, and waits for what becomes of it.
async fn takes_a_row(name: &str) {
    let profile = Profile::read(BuiltIn::find(name).unwrap().text).unwrap();
    let variable = |what: &str| format!("ETL_LIVE_{}_{}", name.to_uppercase(), what.to_uppercase());
    let given = |what: &str| env::var(variable(what)).ok();
    let wanted = profile.settings.iter().chain(&profile.secrets).filter(|wanted| wanted.default.is_none());
    let absent = wanted.map(|wanted| wanted.name.as_str()).filter(|what| given(what).is_none());
    let mut missing: Vec<String> = absent.map(variable).collect();
    let row = given("row");
    missing.extend(row.is_none().then(|| variable("row")));
    let Some(row) = row.filter(|_| missing.is_empty()) else {
        skip_part(&format!("{name} was never asked: set {}", missing.join(", ")));
        return;
    };
    let (columns, values): (Vec<&str>, Vec<&str>) = row.split(',').filter_map(|part| part.split_once('=')).unzip();
    let texts = |wanted: &[Wanted]| -> Vec<(String, String)> {
        wanted.iter().filter_map(|wanted| Some((wanted.name.to_string(), given(&wanted.name)?))).collect()
    };
    let (settings, secrets) = (texts(&profile.settings), texts(&profile.secrets));
    let scene = Scene::new(name, &columns).await.with(&borrowed(&settings), &borrowed(&secrets));
    let destination = scene.open();
    destination.check_connection().await.unwrap();
    let handed_over = destination.write_copy_chunk(TABLE, chunk(), vec![scene.row(&values)].into());
    tokio::time::timeout(LONGEST, handed_over).await.expect("the vendor has not said what became of it").unwrap();
    assert!(scene.dead().await.is_empty(), "{:?}", scene.dead().await);
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn klaviyo_takes_a_row() {
    takes_a_row("klaviyo").await;
}

#[tokio::test]
async fn eloqua_takes_a_row() {
    takes_a_row("eloqua").await;
}

#[tokio::test]
async fn lytics_takes_a_row() {
    takes_a_row("lytics").await;
}
