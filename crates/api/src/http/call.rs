//! One inference request in the books: from its body to its last byte, however it ends.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use vllm_scheduler::{Failure, FailureKind, FinishReason, RequestId, Timings};

use super::{
    App, choices::reason_name, client::Account, media::Media, registry::Registered, request_id::Id, usage::Usage,
};
use crate::{
    answer::{Answer, End, Ending},
    residency::Lease,
    telemetry::{AnswerTrace, MediaTrace, Parent, RequestTrace},
};

/// The routes and procedures that compute something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Endpoint {
    ChatCompletions,
    Completions,
    Embeddings,
    Rerank,
    Score,
    AnthropicMessages,
    Responses,
    Realtime,
    AudioTranscriptions,
    AudioTranslations,
    AudioSpeech,
    GrpcGenerate,
    GrpcMlxGenerate,
    GrpcVllmGenerate,
    GrpcVllmEmbed,
}

impl Endpoint {
    /// As metrics and logs have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::AnthropicMessages => "anthropic_messages",
            Self::Responses => "responses",
            Self::Realtime => "realtime",
            Self::AudioTranscriptions => "audio_transcriptions",
            Self::AudioTranslations => "audio_translations",
            Self::AudioSpeech => "audio_speech",
            Self::GrpcGenerate => "grpc_generate",
            Self::GrpcMlxGenerate => "grpc_mlx_generate",
            Self::GrpcVllmGenerate => "grpc_vllm_generate",
            Self::GrpcVllmEmbed => "grpc_vllm_embed",
        }
    }

    const fn id_prefix(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chatcmpl-",
            Self::Completions => "cmpl-",
            Self::Embeddings => "embd-",
            Self::Rerank => "rerank-",
            Self::Score => "score-",
            Self::AnthropicMessages => "msg_",
            Self::Responses => "resp_",
            // The books' own: its client knows the response by another.
            Self::Realtime => "rt_",
            Self::AudioTranscriptions | Self::AudioTranslations => "trsc-",
            Self::AudioSpeech => "speech-",
            Self::GrpcGenerate | Self::GrpcMlxGenerate | Self::GrpcVllmGenerate => "gen-",
            Self::GrpcVllmEmbed => "embd-",
        }
    }

    /// OpenTelemetry's `gen_ai.operation.name`.
    const fn operation(self) -> &'static str {
        match self {
            Self::ChatCompletions | Self::AnthropicMessages | Self::Responses | Self::Realtime => "chat",
            Self::Completions | Self::GrpcGenerate | Self::GrpcMlxGenerate | Self::GrpcVllmGenerate => {
                "text_completion"
            }
            Self::Embeddings | Self::GrpcVllmEmbed => "embeddings",
            Self::Rerank => "rerank",
            Self::Score => "score",
            Self::AudioTranscriptions => "transcription",
            Self::AudioTranslations => "translation",
            Self::AudioSpeech => "speech",
        }
    }

    /// What has been done when an engine has given its one answer.
    const fn done(self) -> &'static str {
        match self {
            Self::AudioTranscriptions | Self::AudioTranslations => "transcribed",
            Self::AudioSpeech => "spoken",
            _ => "encoded",
        }
    }
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallResult {
    /// All of it was answered.
    Success,
    /// The request was refused.
    Rejected,
    /// Its client went away.
    ClientClosed,
    /// Somebody cancelled it.
    Cancelled,
    /// It took too long.
    Timeout,
    /// The engine failed or stopped.
    Error,
}

impl CallResult {
    /// As metrics and logs have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Rejected => "rejected",
            Self::ClientClosed => "client_closed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

/// An inference request under way. What became of it is counted, logged and traced when this is dropped.
#[derive(Debug)]
pub struct Call {
    app: App,
    endpoint: Endpoint,
    /// The response's `id`.
    pub id: String,
    /// The response's `created`.
    pub created: u64,
    /// Whose it is.
    pub client: Option<Arc<str>>,
    /// Who pays for its tokens.
    account: Account,
    request_id: String,
    parent: Option<Parent>,
    start: Instant,
    model: String,
    stream: bool,
    registered: Option<Registered>,
    answers: Vec<AnswerTrace>,
    /// Its images and videos: how many, and when they were fetched and decoded.
    media: Option<MediaTrace>,
    usage: Usage,
    result: CallResult,
    /// Whether only its rounds count.
    rounds: bool,
}

impl Call {
    /// Opens the books on a request.
    pub(crate) fn new(app: &App, endpoint: Endpoint, request_id: Id, headers: &HeaderMap) -> Self {
        Self {
            endpoint,
            id: format!("{}{}", endpoint.id_prefix(), crate::random::hex_id()),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            client: request_id.caller.client,
            account: request_id.caller.account,
            request_id: request_id.name,
            parent: app.shared.tracer.as_ref().and_then(|_| Parent::from_headers(headers)),
            start: Instant::now(),
            model: String::new(),
            stream: false,
            registered: None,
            answers: Vec::new(),
            media: None,
            usage: Usage::default(),
            result: CallResult::Rejected,
            rounds: false,
            app: app.clone(),
        }
    }

    /// The books on another round of the same request: it is computed, counted and logged by itself.
    #[must_use]
    pub fn again(&self) -> Self {
        Self {
            app: self.app.clone(),
            id: self.id.clone(),
            client: self.client.clone(),
            account: self.account.clone(),
            request_id: self.request_id.clone(),
            parent: self.parent.clone(),
            start: Instant::now(),
            model: self.model.clone(),
            registered: None,
            answers: Vec::new(),
            media: self.media,
            usage: Usage::default(),
            result: CallResult::Rejected,
            rounds: false,
            ..*self
        }
    }

    /// Leaves the books to those of its rounds.
    pub fn in_rounds(&mut self) {
        self.result = CallResult::Success;
        self.rounds = true;
    }

    /// Notes what the body asked for.
    pub fn describe(&mut self, model: &str, stream: bool) {
        model.clone_into(&mut self.model);
        self.stream = stream;
    }

    /// Notes when its images and videos were fetched and decoded.
    pub fn loaded_media(&mut self, media: &Media) {
        let parts = media.parts().len();
        self.media = media.took().map(|(start, end)| MediaTrace { parts, start, end });
    }

    /// Whether the engine is to keep a timeline.
    #[must_use]
    pub fn is_traced(&self) -> bool {
        self.app.shared.tracer.is_some()
    }

    /// Enters its requests to the engine, `count` of them, before they are submitted, so that it can be cancelled from
    /// the first on; returns their names.
    pub fn register(&mut self, model: &Lease, count: usize) -> Vec<RequestId> {
        // The client's own id need not be unique; this one is.
        let ids: Vec<RequestId> = (0..count).map(|index| format!("{}-{index}", self.id).into()).collect();
        let (registry, client) = (&self.app.shared.registry, self.client.clone());
        self.registered = Some(registry.register(&self.id, &self.request_id, client, model, ids.clone()));
        ids
    }

    /// Everything is submitted, `n` requests for each prompt.
    pub fn submitted(&mut self, answers: usize, n: usize) {
        self.app.shared.inference.submitted(n);
        self.result = CallResult::ClientClosed;
        self.answers = vec![AnswerTrace::default(); answers];
    }

    /// It is submitted to an engine that gives it one answer.
    pub fn working(&mut self) {
        self.result = CallResult::ClientClosed;
        self.answers = vec![AnswerTrace::default()];
    }

    /// The first of that answer has come. Only the first call counts.
    pub fn first(&mut self) {
        if let Some(record) = self.answers.first_mut() {
            record.first_token.get_or_insert_with(Instant::now);
        }
    }

    /// Notes what became of it, and how long it waited and took.
    pub fn worked(&mut self, result: Result<(Duration, Duration), &Failure>) {
        self.result = match result {
            Ok(_) => CallResult::Success,
            Err(failure) if failure.kind == FailureKind::Timeout => CallResult::Timeout,
            Err(_) => CallResult::Error,
        };
        let (start, what) = (self.start, self.endpoint.done());
        for record in &mut self.answers {
            record.reason = Some(if result.is_ok() { what } else { "error" });
            record.end = Some(Instant::now());
            if let Ok((queue, compute)) = result {
                let first = record.first_token.map(|first| first.saturating_duration_since(start));
                record.timings = Timings { queue, ttft: first.unwrap_or(queue), decode: compute };
            }
        }
    }

    /// Whether somebody asked for its end.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.registered.as_ref().is_some_and(Registered::is_cancelled)
    }

    /// Notes the end of answer `index`.
    pub fn ended(&mut self, index: usize, answer: &Answer, end: &End) {
        let result = match end {
            End::Failed(failure) if failure.kind == FailureKind::Timeout => CallResult::Timeout,
            End::Failed(_) => CallResult::Error,
            End::Finished(ending) if ending.reason != FinishReason::Abort => CallResult::Success,
            End::Finished(_) if self.is_cancelled() => CallResult::Cancelled,
            End::Finished(_) => CallResult::Error,
        };
        let record = &mut self.answers[index];
        record.reason = Some(match end {
            End::Finished(ending) => reason_name(ending.reason),
            End::Failed(_) => "error",
        });
        record.first_token = answer.first_token();
        record.text_time = answer.text_time();
        record.end = Some(Instant::now());
        if let End::Finished(Ending { timings, timeline, .. }) = end {
            record.timings = *timings;
            record.timeline.clone_from(timeline);
        }
        // The worst of all answers; while some are missing, their client may still go away.
        let complete = self.answers.iter().all(|answer| answer.reason.is_some());
        if result != CallResult::Success {
            self.result = result;
        } else if complete && self.result == CallResult::ClientClosed {
            self.result = CallResult::Success;
        }
    }

    /// Notes the tokens of all answers.
    pub fn count(&mut self, usage: Usage) {
        self.usage = usage;
    }

    /// Tokens as they were noted.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage
    }

    fn ttft(&self) -> Option<Duration> {
        let first = self.answers.iter().filter_map(|answer| answer.first_token).min();
        first.map(|first| first.saturating_duration_since(self.start))
    }

    fn log(&self) {
        let finish: Vec<&str> = self.answers.iter().map(|answer| answer.reason.unwrap_or("none")).collect();
        let decode: Duration = self.answers.iter().map(|answer| answer.timings.decode).sum();
        let gaps = self.usage.completion_tokens.saturating_sub(self.answers.len());
        tracing::info!(
            id = self.id,
            request_id = self.request_id,
            model = self.model,
            endpoint = self.endpoint.name(),
            client = self.client.as_deref().unwrap_or("none"),
            prompt_tokens = self.usage.prompt_tokens,
            cached_tokens = self.usage.cached_tokens,
            media_tokens = self.usage.image_tokens + self.usage.video_tokens,
            media_ms = self.media.map(|media| millis(media.end.saturating_duration_since(media.start))),
            completion_tokens = self.usage.completion_tokens,
            ttft_ms = self.ttft().map(millis),
            itl_ms = (gaps > 0).then(|| millis(decode) / gaps as f64),
            total_ms = millis(self.start.elapsed()),
            finish = finish.join(","),
            result = self.result.name(),
            "request finished"
        );
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.rounds {
            return;
        }
        let (endpoint, ttft) = (self.endpoint, self.ttft());
        self.app.shared.access.charge(&self.account, self.usage.prompt_tokens + self.usage.completion_tokens);
        self.app.shared.inference.record(endpoint, self.stream, self.result, self.start.elapsed(), ttft, self.usage);
        if self.answers.is_empty() {
            return;
        }
        self.log();
        if let Some(tracer) = &self.app.shared.tracer {
            tracer.record(&RequestTrace {
                operation: endpoint.operation(),
                id: &self.id,
                request_id: &self.request_id,
                model: &self.model,
                stream: self.stream,
                parent: self.parent.as_ref(),
                start: self.start,
                usage: self.usage,
                media: self.media,
                answers: &self.answers,
                error: (self.result != CallResult::Success).then(|| self.result.name()),
            });
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
