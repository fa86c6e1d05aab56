//! Spans of requests for an OpenTelemetry collector: OTLP over HTTP, from a thread of its own. With the feature `otel` only.
//!
//! A request is told of when its caller's `traceparent` says that the trace is sampled; without a caller, when it belongs to a
//! guarded route or ends in an error of ours. So a storefront's requests cost nothing unless its shop wants to see them. A span
//! holds the route, never the path, which may name a unit, and nothing of what was sent.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};

use crate::config::{Otlp, Secret};
use crate::metrics::Watch;
use crate::request::Ctx;
use crate::trace::Trace;

/// Where below the collector's address spans are taken (OpenTelemetry Protocol, section OTLP/HTTP).
const TRACES: &str = "/v1/traces";
/// For the last spans at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// The collector cannot be spoken to.
#[derive(Debug, thiserror::Error)]
#[error("spans cannot be exported: {0}")]
pub struct OtelError(String);

/// Takes spans of answered requests; a full queue drops them.
#[derive(Debug)]
pub struct Spans {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
}

impl Spans {
    /// Spans for this collector.
    ///
    /// # Errors
    /// [`OtelError`] when no client can be made for it.
    pub fn start(collector: &Otlp) -> Result<Self, OtelError> {
        let endpoint = collector.endpoint.trim_end_matches('/');
        let header = |(name, value): &(String, Secret)| (name.clone(), value.expose().to_owned());
        let exporter = SpanExporter::builder()
            .with_http()
            .with_endpoint(format!("{endpoint}{TRACES}"))
            .with_headers(collector.headers.iter().map(header).collect())
            .with_timeout(collector.timeout)
            .build()
            .map_err(|error| OtelError(error.to_string()))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name("podium-api")
            .with_attribute(version)
            .build();
        processor.set_resource(&resource);
        Ok(Self {
            processor,
            scope: InstrumentationScope::builder("podium_api").build(),
        })
    }

    /// Tells of an answered request, if anybody wants to hear of it.
    pub fn answered(&self, ctx: &Ctx, watch: &Watch, status: u16, took: Duration) {
        let trace = ctx.trace();
        let wanted = match trace.parent() {
            Some(_) => trace.is_sampled(),
            None => watch.is_guarded() || status >= 500,
        };
        if wanted {
            self.processor.on_end(self.span(ctx, watch, status, took));
        }
    }

    fn span(&self, ctx: &Ctx, watch: &Watch, status: u16, took: Duration) -> SpanData {
        let trace = ctx.trace();
        let end_time = SystemTime::from(ctx.state.clock.now());
        let method = ctx.req.method().as_str().to_owned();
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.clone()),
            KeyValue::new("http.route", watch.route()),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("request.id", ctx.request_id.as_str().to_owned()),
        ];
        let failed = status >= 500;
        if failed {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        SpanData {
            span_context: context(trace),
            parent_span_id: trace.parent().map_or(SpanId::INVALID, id),
            parent_span_is_remote: trace.parent().is_some(),
            span_kind: SpanKind::Server,
            name: format!("{method} {}", watch.route()).into(),
            start_time: end_time.checked_sub(took).unwrap_or(end_time),
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: if failed {
                Status::error("")
            } else {
                Status::Unset
            },
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Sends what waits, for a moment. It blocks.
    pub fn stop(&self) {
        if let Err(error) = self.processor.shutdown_with_timeout(LAST) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

fn context(trace: &Trace) -> SpanContext {
    let trace_id = TraceId::from_hex(trace.id()).unwrap_or(TraceId::INVALID);
    let flags = TraceFlags::SAMPLED;
    SpanContext::new(trace_id, id(trace.span()), flags, false, TraceState::NONE)
}

const fn id(span: u64) -> SpanId {
    SpanId::from_bytes(span.to_be_bytes())
}
