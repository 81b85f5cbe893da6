//! What do probes, dashboards and people ask over HTTP? `/livez`, `/readyz`, `/status` and `/metrics`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use etl::secret::Secret;
use etl_config::Http;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde_json::json;
use tokio::net::TcpListener;

use crate::failure::Failure;
use crate::shown::Shown;

/// From a millisecond to five minutes.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// How often observations are taken together, so that they do not pile up where nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the answers are made of.
#[derive(Clone)]
struct Answers {
    shown: Shown,
    metrics: PrometheusHandle,
    token: Option<Secret>,
}

/// Listens, and answers until the process ends.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve(http: &Http, shown: Shown) -> Result<(), Failure> {
    let bind = http.bind;
    let listener = TcpListener::bind(bind).await.map_err(|error| {
        Failure::Other(format!("telemetry.http cannot listen on {bind}: {error}. Choose another `bind`"))
    })?;
    let answers = Answers { shown, metrics: recorder()?, token: http.token.clone() };
    let metrics = answers.metrics.clone();
    tokio::spawn(async move {
        loop {
            etl::retry::pause(UPKEEP).await;
            metrics.run_upkeep();
        }
    });
    tracing::info!(address = %listener.local_addr().unwrap_or(bind), "answering /livez /readyz /status /metrics");
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router(answers)).await {
            tracing::warn!(%error, "nobody answers over HTTP any more");
        }
    });
    Ok(())
}

fn recorder() -> Result<PrometheusHandle, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Other(format!("metrics cannot be kept: {error}"));
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .map_err(|error| failed(&error))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
    etl::metrics::describe();
    Ok(handle)
}

fn router(answers: Answers) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics_text))
        .with_state(answers)
}

async fn ready(State(answers): State<Answers>) -> Response {
    match answers.shown.not_ready() {
        None => "ok\n".into_response(),
        // Errors may name hosts and tables: whoever may see them asks for the status.
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response(),
    }
}

async fn status(State(answers): State<Answers>, headers: HeaderMap) -> Response {
    if let Err(refused) = answers.admit(&headers) {
        return refused;
    }
    match answers.shown.status() {
        Some(status) => Json(status).into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "starting": true }))).into_response(),
    }
}

async fn metrics_text(State(answers): State<Answers>, headers: HeaderMap) -> Response {
    if let Err(refused) = answers.admit(&headers) {
        return refused;
    }
    answers.shown.publish();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], answers.metrics.render()).into_response()
}

impl Answers {
    /// Whether the request carries the token, where one is asked for.
    #[expect(clippy::result_large_err, reason = "the answer itself")]
    fn admit(&self, headers: &HeaderMap) -> Result<(), Response> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if is_same(given.as_bytes(), token.expose().as_bytes()) {
            return Ok(());
        }
        let ask = [(header::WWW_AUTHENTICATE, "Bearer")];
        Err((StatusCode::UNAUTHORIZED, ask, "the token of telemetry.http is asked for\n").into_response())
    }
}

/// Takes as long for a wrong guess as for a right one.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let differs = given.iter().zip(expected).fold(0, |differs, (a, b)| differs | (a ^ b));
    differs == 0 && given.len() == expected.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_the_token() {
        for (given, is_it) in [("secret", true), ("secre", false), ("secret2", false), ("", false), ("Secret", false)] {
            assert_eq!(is_same(given.as_bytes(), b"secret"), is_it, "{given}");
        }
    }
}
