//! A finished request as a trace.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::{
    Array, Context, KeyValue, StringValue, Value,
    trace::{Span as _, SpanBuilder, SpanKind as Kind, Status, TraceContextExt as _, Tracer as _},
};
use vllm_scheduler::{Span, SpanKind, Timings};

use super::{Parent, Tracer};
use crate::http::Usage;

/// A request that has ended.
#[derive(Debug)]
pub struct RequestTrace<'a> {
    /// `chat` or `text_completion`.
    pub operation: &'static str,
    /// The response's id.
    pub id: &'a str,
    /// The HTTP request's.
    pub request_id: &'a str,
    /// The model's name.
    pub model: &'a str,
    /// Whether the answer streamed.
    pub stream: bool,
    /// The span it belongs to.
    pub parent: Option<&'a Parent>,
    /// When it came.
    pub start: Instant,
    /// Tokens of all answers.
    pub usage: Usage,
    /// Its images and videos, if it had some.
    pub media: Option<MediaTrace>,
    /// Its answers.
    pub answers: &'a [AnswerTrace],
    /// Why it was not answered, in one word.
    pub error: Option<&'static str>,
}

/// Images and videos of a request, fetched and decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MediaTrace {
    /// How many.
    pub parts: usize,
    /// When that began.
    pub start: Instant,
    /// When the last was there.
    pub end: Instant,
}

/// One answer of a request.
#[derive(Debug, Clone, Default)]
pub struct AnswerTrace {
    /// Why it ended; `None` if it was not waited for.
    pub reason: Option<&'static str>,
    /// The engine's times.
    pub timings: Timings,
    /// What the engine did when.
    pub timeline: Vec<Span>,
    /// When its first token came.
    pub first_token: Option<Instant>,
    /// When it ended.
    pub end: Option<Instant>,
    /// Time spent on making text of its tokens.
    pub text_time: Option<Duration>,
}

impl Tracer {
    /// Makes the spans of a request that ends now, and hands them to the exporter.
    pub fn record(&self, request: &RequestTrace<'_>) {
        let clock = Clock::now();
        let parent = request
            .parent
            .map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent.0.clone()));
        let root = SpanBuilder::from_name(format!("{} {}", request.operation, request.model))
            .with_kind(Kind::Server)
            .with_start_time(clock.at(request.start))
            .with_attributes(root_attributes(request));
        let mut root = self.tracer.build_with_context(root, &parent);
        if let Some(error) = request.error {
            root.set_status(Status::error(error));
            root.set_attribute(KeyValue::new("error.type", error));
        }
        let within = Context::new().with_remote_span_context(root.span_context().clone());
        if let Some(MediaTrace { parts, start, end }) = request.media {
            let parts = KeyValue::new("vllm_mlx.media", parts as i64);
            self.child(&within, &clock, "media_load", (start, end), vec![parts]);
        }
        for (index, answer) in request.answers.iter().enumerate() {
            let choice = KeyValue::new("vllm_mlx.choice.index", index as i64);
            for span in &answer.timeline {
                let (name, attribute) = describe(span.kind);
                let attributes = [choice.clone()].into_iter().chain(attribute).collect();
                self.child(&within, &clock, name, (span.start, span.end), attributes);
            }
            if let (Some(first), Some(end), Some(spent)) = (answer.first_token, answer.end, answer.text_time) {
                // Text is made token by token: the span is as long as the answer, the work is the attribute's.
                let busy = KeyValue::new("vllm_mlx.busy_seconds", spent.as_secs_f64());
                self.child(&within, &clock, "detokenize", (first, end), vec![choice, busy]);
            }
        }
        root.end_with_timestamp(clock.system);
    }

    fn child(
        &self,
        parent: &Context,
        clock: &Clock,
        name: &'static str,
        (start, end): (Instant, Instant),
        attributes: Vec<KeyValue>,
    ) {
        let span = SpanBuilder::from_name(name)
            .with_kind(Kind::Internal)
            .with_start_time(clock.at(start))
            .with_attributes(attributes);
        self.tracer.build_with_context(span, parent).end_with_timestamp(clock.at(end));
    }
}

/// OpenTelemetry's conventions for generative AI.
fn root_attributes(request: &RequestTrace<'_>) -> Vec<KeyValue> {
    let reasons = request.answers.iter().map(|answer| StringValue::from(answer.reason.unwrap_or("none")));
    let mut attributes = vec![
        KeyValue::new("gen_ai.operation.name", request.operation),
        KeyValue::new("gen_ai.provider.name", "vllm-mlx"),
        KeyValue::new("gen_ai.request.model", request.model.to_owned()),
        KeyValue::new("gen_ai.request.choice.count", request.answers.len() as i64),
        KeyValue::new("gen_ai.request.stream", request.stream),
        KeyValue::new("gen_ai.response.id", request.id.to_owned()),
        KeyValue::new("gen_ai.response.model", request.model.to_owned()),
        KeyValue::new("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons.collect()))),
        KeyValue::new("gen_ai.usage.input_tokens", request.usage.prompt_tokens as i64),
        KeyValue::new("gen_ai.usage.output_tokens", request.usage.completion_tokens as i64),
        KeyValue::new("gen_ai.usage.cache_read.input_tokens", request.usage.cached_tokens as i64),
        KeyValue::new("vllm_mlx.usage.image_tokens", request.usage.image_tokens as i64),
        KeyValue::new("vllm_mlx.usage.video_tokens", request.usage.video_tokens as i64),
        KeyValue::new("vllm_mlx.usage.cached_media_tokens", request.usage.cached_media_tokens as i64),
        KeyValue::new("vllm_mlx.request_id", request.request_id.to_owned()),
    ];
    if let Some(first) = request.answers.iter().filter_map(|answer| answer.first_token).min() {
        let seconds = first.saturating_duration_since(request.start).as_secs_f64();
        attributes.push(KeyValue::new("gen_ai.server.time_to_first_token", seconds));
    }
    attributes
}

fn describe(kind: SpanKind) -> (&'static str, Option<KeyValue>) {
    let count = |name: &'static str, count: usize| Some(KeyValue::new(name, count as i64));
    match kind {
        SpanKind::Queue => ("queue", None),
        SpanKind::CacheLookup { cached_tokens } => ("cache_lookup", count("vllm_mlx.cached_tokens", cached_tokens)),
        SpanKind::DiskRead { blocks } => ("disk_read", count("vllm_mlx.blocks", blocks)),
        SpanKind::MediaWait { spans } => ("media_wait", count("vllm_mlx.media_spans", spans)),
        SpanKind::Prefill { tokens } => ("prefill", count("vllm_mlx.tokens", tokens)),
        SpanKind::Decode { tokens } => ("decode", count("vllm_mlx.tokens", tokens)),
    }
}

/// Times of the day for the engine's instants.
struct Clock {
    instant: Instant,
    system: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self { instant: Instant::now(), system: SystemTime::now() }
    }

    fn at(&self, instant: Instant) -> SystemTime {
        self.system.checked_sub(self.instant.saturating_duration_since(instant)).unwrap_or(self.system)
    }
}
