//! Do the metrics of a scripted run have the right values?

use metrics_exporter_prometheus::PrometheusBuilder;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_scripted_run_is_counted_as_it_went() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let (handle, _guard) = (recorder.handle(), metrics::set_default_local_recorder(&recorder));
    let rows = vec![
        (0, RowOutcome::Warned("odd".to_owned())),
        (1, RowOutcome::Rejected("bad".to_owned())),
        (2, RowOutcome::Retry("locked".to_owned())),
    ];
    let lost = Err(call(ErrorClass::Retry, false));
    let gone = || Ok(vec![PollState::Gone]);
    let policy = with(Policy { max_attempts: 2, ..Policy::default() });
    let scene = Scene::new(Scripted {
        // The first; the row that is retried; one that the system forgets twice.
        submits: answers([
            pending(&[("1", 0, 4)]),
            completed(UploadStats::SUCCEEDED),
            pending(&[("2", 0, 2)]),
            pending(&[("3", 0, 2)]),
        ]),
        polls: answers([Ok(vec![PollState::PENDING]), lost, Ok(vec![PollState::Completed]), gone(), gone()]),
        stats: answers([Ok(UploadStats { rows, rest: Rest::Succeeded })]),
        policy,
        ..Scripted::default()
    });
    scene.census.begin("shop", "scripted");
    scene.sealed("abcd").await;
    scene.go_on().await.unwrap();
    let shows = |expected: &[&str]| {
        let page = handle.render();
        for line in expected {
            assert!(page.lines().any(|shown| shown == *line), "{line}\n{page}");
        }
    };
    let of = r#"pipeline="shop",destination="scripted""#;
    let rows =
        |outcome: &str, rows: u32| format!(r#"etl_operation_rows_total{{{of},table="7",outcome="{outcome}"}} {rows}"#);
    let polls = |result: &str| format!(r#"etl_operation_polls_total{{{of},result="{result}"}} 1"#);
    let state = |state: &str, count: u32| format!(r#"etl_operations{{{of},state="{state}"}} {count}"#);
    let expected = [
        rows("succeeded", 2),
        rows("warned", 1),
        rows("dead", 1),
        rows("retried", 1),
        polls("pending"),
        polls("unanswered"),
        polls("completed"),
        state("sealed", 0),
        state("submitting", 0),
        state("submitted", 0),
        state("held", 0),
        r#"etl_dead_letters_total{pipeline="shop",table="7",code="rejected"} 1"#.to_owned(),
        format!("etl_operation_submit_seconds_count{{{of}}} 2"),
        format!("etl_operation_settle_seconds_count{{{of}}} 2"),
        format!("etl_operation_spool_bytes{{{of}}} 0"),
        format!("etl_operation_oldest_age_seconds{{{of}}} 0"),
        format!("etl_operation_tables_held{{{of}}} 0"),
    ];
    shows(&expected.iter().map(String::as_str).collect::<Vec<_>>());

    scene.sealed("xy").await;
    scene.go_on().await.unwrap_err();
    let expected = [
        state("held", 1),
        format!("etl_operation_tables_held{{{of}}} 1"),
        format!("etl_operation_spool_bytes{{{of}}} 3"),
        format!(r#"etl_operations_submitted_again_total{{{of},reason="gone"}} 2"#),
        format!(r#"etl_operation_polls_total{{{of},result="failed"}} 2"#),
        rows("succeeded", 2),
    ];
    shows(&expected.iter().map(String::as_str).collect::<Vec<_>>());
}
