//! Where do traces go? To a collector of OpenTelemetry, over HTTP, in batches of their own thread.

use etl_config::Traces;

use crate::failure::Failure;

/// Sends what is left when it is dropped.
pub(crate) struct Sender {
    #[cfg(feature = "otlp")]
    provider: opentelemetry_sdk::trace::SdkTracerProvider,
}

#[cfg(feature = "otlp")]
impl Sender {
    /// A sender for this pipeline.
    ///
    /// # Errors
    /// Where the endpoint is no URL.
    pub(crate) fn new(traces: &Traces, pipeline: &str) -> Result<Self, Failure> {
        use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
        use opentelemetry_sdk::Resource;
        use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};

        // With the client of buckets beside it, the one of traces wants to know whose cryptography it takes.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&traces.endpoint)
            .build()
            .map_err(|error| Failure::Other(format!("telemetry.traces.endpoint cannot be used: {error}")))?;
        let attributes = [
            opentelemetry::KeyValue::new("service.instance.id", pipeline.to_owned()),
            opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource = Resource::builder_empty().with_service_name("etl").with_attributes(attributes).build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .with_sampler(Sampler::TraceIdRatioBased(1.0 / traces.one_in as f64))
            .build();
        Ok(Self { provider })
    }

    /// What takes spans, and no events: those are the log's, and may hold values of rows.
    pub(crate) fn layer<S>(&self) -> impl tracing_subscriber::Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'s> tracing_subscriber::registry::LookupSpan<'s>,
    {
        use opentelemetry::trace::TracerProvider;
        use tracing_subscriber::Layer;
        use tracing_subscriber::filter::filter_fn;

        let is_ours = |metadata: &tracing::Metadata<'_>| metadata.is_span() && metadata.target().starts_with("etl");
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("etl")).with_filter(filter_fn(is_ours))
    }
}

#[cfg(not(feature = "otlp"))]
impl Sender {
    /// Says what is missing.
    ///
    /// # Errors
    /// Always.
    pub(crate) fn new(_traces: &Traces, _pipeline: &str) -> Result<Self, Failure> {
        Err(Failure::Usage(
            "telemetry.traces: this etl was built without the feature `otlp`. Build it with \
             `cargo build -p etl-cli --features otlp`, or leave the section out"
                .to_owned(),
        ))
    }
}

#[cfg(feature = "otlp")]
impl Drop for Sender {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}
