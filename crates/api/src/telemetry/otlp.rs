//! Traces to a collector, over OTLP's HTTP with protobuf.

use std::time::Duration;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};

use super::http_client::UreqClient;

/// How long the last traces may take at the end.
const FLUSH: Duration = Duration::from_secs(5);

/// Where finished requests' traces go. Spans wait in a bounded queue for a thread of the exporter's own; what doesn't
/// fit is dropped, and no request ever waits.
#[derive(Debug)]
pub struct Tracer {
    provider: SdkTracerProvider,
    pub(super) tracer: SdkTracer,
}

impl Tracer {
    /// Starts an exporter to a collector at `endpoint`, e.g. `http://localhost:4318`; traces go to its `/v1/traces`.
    ///
    /// # Errors
    /// If the endpoint is no URL.
    pub fn start(endpoint: &str) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(UreqClient::default())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .with_context(|| format!("traces cannot be sent to {endpoint:?}"))?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("vllm-mlx");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        let tracer = provider.tracer("vllm-mlx");
        Ok(Self { provider, tracer })
    }

    /// Sends what waits and ends the exporter. Blocks, for a few seconds at most.
    pub fn shutdown(&self) {
        // A collector that is gone has been reported where the sending failed.
        let _ = self.provider.shutdown_with_timeout(FLUSH);
    }
}
