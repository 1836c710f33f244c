//! Who waits for a sequence's events, and how it fared.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::{
    Event, Failure, FailureKind, FinishReason, Finished, GeneratedToken, Histograms, Request, RequestId, Span,
    SpanKind, Timings, sequence::Sequence,
};

/// One request's other end.
pub(super) struct Client {
    pub id: RequestId,
    /// Whose it is.
    pub owner: Option<Arc<str>>,
    events: mpsc::UnboundedSender<Event>,
    pub submitted: Instant,
    deadline: Option<Instant>,
    /// When it was first admitted.
    pub started: Option<Instant>,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    timeline: Option<Timeline>,
}

impl Client {
    pub fn new(request: &Request, events: mpsc::UnboundedSender<Event>, submitted: Instant) -> Self {
        Self {
            id: request.id.clone(),
            owner: request.client.clone(),
            events,
            submitted,
            deadline: request.timeout.and_then(|timeout| submitted.checked_add(timeout)),
            started: None,
            first_token: None,
            last_token: None,
            timeline: request.trace.then(|| Timeline::new(submitted)),
        }
    }

    /// Whether nobody listens any more.
    pub fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether its time is up.
    pub fn is_late(&self, now: Instant) -> bool {
        self.deadline.is_some_and(|deadline| now >= deadline)
    }

    pub fn timeline(&mut self) -> Option<&mut Timeline> {
        self.timeline.as_mut()
    }

    /// From submission to the first token.
    pub fn ttft(&self) -> Option<Duration> {
        self.first_token.map(|first| first - self.submitted)
    }

    /// Books a token and hands it out, unless it is a stop token.
    pub fn generated(&mut self, token: Option<GeneratedToken>, now: Instant, histograms: &mut Histograms) {
        match self.last_token.replace(now) {
            Some(last) => histograms.inter_token_latency.record((now - last).as_secs_f64()),
            None => {
                self.first_token = Some(now);
                histograms.time_to_first_token.record((now - self.submitted).as_secs_f64());
            }
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.tokens += 1;
        }
        if let Some(token) = token {
            self.send(Event::Token(token));
        }
    }

    /// The last event of a request that ended by itself or was cancelled.
    pub fn finish(
        mut self,
        sequence: Option<&Sequence>,
        reason: FinishReason,
        stop: Option<GeneratedToken>,
        now: Instant,
    ) {
        let timeline = self.timeline.take().map(|timeline| timeline.end(now)).unwrap_or_default();
        let usage = sequence.map(Sequence::usage).unwrap_or_default();
        self.send(Event::Finished(Finished { reason, stop, usage, timings: self.timings(now), timeline }));
    }

    /// The last event of a request that cannot go on.
    pub fn fail(self, kind: FailureKind, message: &str) {
        self.send(Event::Failed(Failure { kind, message: message.to_owned() }));
    }

    /// Adds a request that ended by itself to the figures.
    pub fn record(&self, sequence: &Sequence, now: Instant, histograms: &mut Histograms) {
        let Timings { queue, ttft, decode } = self.timings(now);
        histograms.e2e_latency.record((now - self.submitted).as_secs_f64());
        histograms.queue_time.record(queue.as_secs_f64());
        histograms.prefill_time.record(ttft.saturating_sub(queue).as_secs_f64());
        histograms.decode_time.record(decode.as_secs_f64());
        histograms.inference_time.record((ttft.saturating_sub(queue) + decode).as_secs_f64());
        let usage = sequence.usage();
        histograms.prompt_tokens.record(usage.prompt_tokens as f64);
        histograms.generation_tokens.record(usage.completion_tokens as f64);
        histograms.max_tokens.record(sequence.max_tokens() as f64);
    }

    fn timings(&self, now: Instant) -> Timings {
        let since_submission = |then: Option<Instant>| then.map_or(Duration::ZERO, |t| t - self.submitted);
        Timings {
            queue: since_submission(self.started),
            ttft: since_submission(self.first_token),
            decode: self.first_token.map_or(Duration::ZERO, |first| now - first),
        }
    }

    /// A client that has gone away wants no events: that is no error.
    fn send(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// What was done to a request when.
pub(super) struct Timeline {
    spans: Vec<Span>,
    /// When it began to wait, or to be decoded.
    since: Instant,
    /// Since when its prefix is being read, and how many blocks.
    reading: Option<(Instant, usize)>,
    /// When it began to wait for features, of how many spans, and when that ended.
    media: Option<(Instant, usize, Option<Instant>)>,
    /// Tokens generated since `since`.
    tokens: usize,
}

impl Timeline {
    fn new(submitted: Instant) -> Self {
        Self { spans: Vec::new(), since: submitted, reading: None, media: None, tokens: 0 }
    }

    /// Its prefix is being read from the SSD.
    pub fn reads(&mut self, blocks: usize, now: Instant) {
        self.reading = Some((now, blocks));
    }

    /// It waits for features.
    pub fn asks(&mut self, spans: usize, now: Instant) {
        self.media = Some((now, spans, None));
    }

    /// It has all features it needs.
    pub fn has_features(&mut self, now: Instant) {
        if let Some((_, _, end)) = &mut self.media {
            end.get_or_insert(now);
        }
    }

    /// Its turn has come, after looking its prefix up since `looked_up`.
    pub fn admitted(&mut self, cached_tokens: usize, looked_up: Instant, now: Instant) {
        if let Some((start, blocks)) = self.reading.take() {
            self.spans.push(Span { kind: SpanKind::DiskRead { blocks }, start, end: looked_up });
        }
        if let Some((start, spans, end)) = self.media.take() {
            self.spans.push(Span { kind: SpanKind::MediaWait { spans }, start, end: end.unwrap_or(looked_up) });
        }
        self.spans.push(Span { kind: SpanKind::Queue, start: self.since, end: looked_up });
        self.spans.push(Span { kind: SpanKind::CacheLookup { cached_tokens }, start: looked_up, end: now });
        self.since = now;
        self.tokens = 0;
    }

    /// A chunk of its prompt was computed.
    pub fn prefilled(&mut self, tokens: usize, start: Instant, end: Instant) {
        self.spans.push(Span { kind: SpanKind::Prefill { tokens }, start, end });
        self.since = end;
        self.tokens = 0;
    }

    /// It has to wait again.
    pub fn preempted(&mut self, now: Instant) {
        self.end_decode(now);
        self.since = now;
    }

    fn end_decode(&mut self, now: Instant) {
        if self.tokens > 0 {
            self.spans.push(Span { kind: SpanKind::Decode { tokens: self.tokens }, start: self.since, end: now });
            self.tokens = 0;
        }
    }

    fn end(mut self, now: Instant) -> Vec<Span> {
        self.end_decode(now);
        self.spans
    }
}
