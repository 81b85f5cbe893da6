//! Do traces reach a collector? A contract server that takes OTLP over HTTP (the specification's "OTLP/HTTP").

use crate::scene::{config, server_with_a_table};

fn with_traces(dir: &std::path::Path, url: &str, endpoint: &str) {
    config(dir, "traced", url, "{ 'null': {} }");
    let file = dir.join("etl.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}telemetry: {{ traces: {{ endpoint: '{endpoint}', one_in: 1 }} }}\n")).unwrap();
}

#[cfg(not(feature = "otlp"))]
#[tokio::test]
async fn a_binary_without_the_feature_says_what_is_missing() {
    let (dir, server) = (tempfile::tempdir().unwrap(), server_with_a_table().await);
    with_traces(dir.path(), &server.url(), "http://127.0.0.1:4318/v1/traces");
    for words in [&["run", "--until-caught-up"][..], &["check"]] {
        crate::scene::refused(dir.path(), words, 2, &["telemetry.traces", "--features otlp"]).await;
    }
}

#[cfg(feature = "otlp")]
#[tokio::test]
async fn copies_and_batches_are_spans_without_values() {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::body::Bytes;
    use axum::http::HeaderMap;
    use axum::routing::post;

    let requests = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&requests);
    let take = async move |headers: HeaderMap, body: Bytes| {
        kept.lock().unwrap().push((headers["content-type"].to_str().unwrap().to_owned(), body));
        // An empty ExportTraceServiceResponse: everything was taken.
        ([("content-type", "application/x-protobuf")], "")
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", post(take))).await });

    let (dir, server) = (tempfile::tempdir().unwrap(), server_with_a_table().await);
    server.psql("INSERT INTO t VALUES (1, 'hunter2')").await.unwrap();
    with_traces(dir.path(), &server.url(), &endpoint);
    for id in [2, 3] {
        crate::scene::refused(dir.path(), &["run", "--until-caught-up"], 0, &[]).await;
        server.psql(&format!("INSERT INTO t VALUES ({id}, 'hunter2')")).await.unwrap();
    }
    let requests = requests.lock().unwrap();
    assert!(!requests.is_empty() && requests.iter().all(|(kind, _)| kind == "application/x-protobuf"));
    // Strings of a protobuf message stand in it as they are.
    let sent: Vec<u8> = requests.iter().flat_map(|(_, body)| body.to_vec()).collect();
    let sent = String::from_utf8_lossy(&sent);
    for expected in
        ["service.name", "traced", "copy_table", "public.t", "write_copy_chunk", "write_batch", "open_stream"]
    {
        assert!(sent.contains(expected), "{expected}");
    }
    assert!(!sent.contains("hunter2"));
}
