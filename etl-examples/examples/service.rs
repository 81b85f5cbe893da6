//! How does a service embed a pipeline? An axum server that answers how it is doing, and ends both gracefully.
//!
//! `cargo run -p etl-examples --example service -- postgres://etl@localhost/shop shop_pub 127.0.0.1:8080`, then
//! `curl localhost:8080/replication` and `curl -X POST localhost:8080/tables/public.orders/pause`.

use std::future::IntoFuture;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use etl::pipeline::{Pipeline, PipelineHandle, PipelineStatus};
use etl::source::SourceConfig;
use etl::store::{SharedStore, SqliteStore};
use etl::{ErrorKind, EtlResult, ResultExt};
use etl_destinations::duckdb::DuckDb;

async fn replication(State(pipeline): State<PipelineHandle>) -> Json<PipelineStatus> {
    Json(pipeline.status())
}

async fn ready(State(pipeline): State<PipelineHandle>) -> StatusCode {
    if pipeline.status().streaming { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn pause(State(pipeline): State<PipelineHandle>, Path(name): Path<String>) -> Result<(), (StatusCode, String)> {
    let status = pipeline.status();
    let table = status.tables.iter().find(|table| table.name.to_string() == name);
    let table = table.ok_or((StatusCode::NOT_FOUND, format!("no table {name}")))?;
    pipeline.pause(table.id).await.map_err(|error| (StatusCode::CONFLICT, error.to_string()))
}

#[tokio::main]
async fn main() -> EtlResult<()> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(publication), Some(address)) = (words.next(), words.next(), words.next()) else {
        println!("usage: service URL PUBLICATION ADDRESS");
        return Ok(());
    };
    let store: SharedStore = Arc::new(SqliteStore::open("./etl-data-service").await?);
    let running = Pipeline::builder("service", SourceConfig::from_url(&url)?.publication(publication))
        .data_dir("./etl-data-service")
        .store(Arc::clone(&store))
        .destination(DuckDb::open("./service.duckdb", store).await?)
        .build()?
        .start()
        .await?;

    let handle = running.handle();
    let mut run = tokio::spawn(running.wait());

    let router = Router::new()
        .route("/replication", get(replication))
        .route("/ready", get(ready))
        .route("/tables/{name}/pause", post(pause))
        .with_state(handle.clone());
    let listener = tokio::net::TcpListener::bind(&address).await.or_etl(ErrorKind::Config, "listen")?;
    let serving = axum::serve(listener, router).with_graceful_shutdown(async {
        let _pressed = tokio::signal::ctrl_c().await;
    });
    tokio::select! {
        served = serving.into_future() => served.or_etl(ErrorKind::Internal, "serve")?,
        // By itself it ends only when something is wrong that needs somebody.
        ended = &mut run => return ended.or_etl(ErrorKind::Internal, "run the pipeline")?.map(drop),
    }
    handle.shutdown();
    run.await.or_etl(ErrorKind::Internal, "end the pipeline")??;
    println!("everything that was received is durable");
    Ok(())
}
