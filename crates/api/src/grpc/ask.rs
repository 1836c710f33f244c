//! One way from any service to the engine: a message becomes the fields of `POST /v1/completions`, and that route's rules,
//! books and answers do the rest.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use axum::http::HeaderMap;
use futures_util::Stream;
use serde_json::{Map, Value, json};
use tonic::{Request, Status};
use vllm_platform::TokenId;
use vllm_scheduler::GeneratedToken;

use super::status::{Names, renamed};
use crate::{
    answer::{Ending, Piece},
    http::{
        ApiError, App, Fields, Media, blocking,
        call::{Call, Endpoint},
        choices::Choices,
        completions::{CompletionRequest, Terms},
        media::MediaPart,
        request_id::Id,
    },
};

/// Longest time that a request may be given, in seconds; a client's longer deadline is as good as this.
const LONGEST: f64 = 8_640_000.0;

/// Who asks, and what the call's metadata say.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The call's name, and whose it is.
    pub id: Id,
    /// The metadata.
    pub headers: HeaderMap,
}

impl Caller {
    /// The caller of a request that has come through [the router's](super::router) layers.
    pub fn of<T>(request: &Request<T>) -> Self {
        let unnamed = || Id { name: format!("req-{}", crate::random::hex_id()), caller: Default::default() };
        Self {
            id: request.extensions().get::<Id>().cloned().unwrap_or_else(unnamed),
            headers: request.metadata().clone().into_headers(),
        }
    }

    /// The time that the client gives, in seconds.
    ///
    /// # Errors
    /// If it isn't in the form of the protocol: up to eight digits and a unit.
    fn deadline(&self) -> Result<Option<f64>, Status> {
        let Some(value) = self.headers.get("grpc-timeout") else { return Ok(None) };
        let parse = || {
            let (digits, unit) = value.to_str().ok()?.split_at_checked(value.len().checked_sub(1)?)?;
            let unit = match unit {
                "H" => 3600.0,
                "M" => 60.0,
                "S" => 1.0,
                "m" => 1e-3,
                "u" => 1e-6,
                "n" => 1e-9,
                _ => return None,
            };
            let valid = (1..=8).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
            valid.then(|| digits.parse::<f64>().ok().map(|count| count * unit)).flatten()
        };
        let seconds = parse().ok_or_else(|| {
            Status::invalid_argument(format!("grpc-timeout is {value:?}: it must be at most eight digits and a unit"))
        })?;
        Ok(Some(seconds.min(LONGEST)))
    }
}

/// What a service asks of the engine.
#[derive(Debug)]
pub(crate) struct Ask {
    /// As the books have it.
    pub endpoint: Endpoint,
    /// The request's name, by which it can be aborted; empty: the call's own.
    pub request_id: String,
    /// The model's name; `None`: the first.
    pub model: Option<String>,
    /// The fields of a completion.
    pub fields: Map<String, Value>,
    /// Images and videos, in the order of their placeholders in the prompt.
    pub media: Vec<MediaPart>,
    /// Whether the answer streams.
    pub stream: bool,
    /// What holds where the fields don't say.
    pub terms: Terms,
    /// What the service calls those fields.
    pub names: Names,
}

/// What is told of the answers.
#[derive(Debug)]
pub(crate) enum Told {
    /// More of an answer.
    Piece {
        /// Which answer.
        index: usize,
        /// Its text, whole characters; may be empty.
        text: String,
        /// Its tokens: text may come later than they do.
        tokens: Vec<GeneratedToken>,
    },
    /// An answer has ended.
    End {
        /// Which answer.
        index: usize,
        /// How.
        ending: Ending,
    },
}

/// Asks the engine.
///
/// # Errors
/// If it can't be done, with the field at fault.
pub(crate) async fn ask(app: &App, caller: &Caller, ask: Ask) -> Result<Asked, Status> {
    let Ask { endpoint, request_id, model, mut fields, media: parts, stream, terms, names } = ask;
    let failed = |error: ApiError| renamed(&error, names);
    let mut id = caller.id.clone();
    if !request_id.is_empty() {
        id.name = request_id;
    }
    let mut call = Call::new(app, endpoint, id, &caller.headers);
    if let Some(seconds) = caller.deadline()? {
        if seconds <= 0.0 {
            return Err(Status::deadline_exceeded("grpc-timeout has left no time"));
        }
        let asked = fields.get("timeout").and_then(Value::as_f64).unwrap_or(seconds);
        fields.insert("timeout".into(), json!(asked.min(seconds)));
    }
    fields.insert("stream".into(), json!(stream));
    let name = match model {
        Some(name) => name,
        None => app.default_model().map_err(failed)?,
    };
    let model = app.lease(&name).await.map_err(failed)?;
    call.describe(&name, stream);
    let mut media = Media::of(&model, &app.config);
    for part in parts {
        let kind = part.given.kind();
        media.check(&part.at, kind.name(), kind).map_err(failed)?;
        media.push(part).map_err(failed)?;
    }
    if !media.is_empty() {
        let none = || failed(ApiError::engine("this server has nothing to read images with"));
        media.load(app.loader.as_deref().ok_or_else(none)?).await.map_err(failed)?;
        call.loaded_media(&media);
    }
    let (served, config) = (model.clone(), app.config);
    let parse = move || CompletionRequest::parse(Fields::from_map(fields), &served, &config, terms, &media);
    let CompletionRequest { prompts, generation, .. } = blocking(parse).await.map_err(failed)?;
    let choices = Choices::start(&model, call, &prompts, &generation).map_err(failed)?;
    let held = (0..choices.count()).map(|_| Held::default()).collect();
    let eos = model.stop_tokens();
    let prompt = prompts.into_iter().next().map(|prompt| prompt.tokens).unwrap_or_default();
    Ok(Asked { choices, prompt, eos, interval: app.config.stream_interval, held, ready: VecDeque::new(), ended: false })
}

/// The answers under way. Dropping it cancels them.
#[derive(Debug)]
pub(crate) struct Asked {
    choices: Choices,
    /// Tokens of the prompt, with those that stand for images.
    pub prompt: Vec<TokenId>,
    /// The model's own tokens that end an answer.
    pub eos: Vec<TokenId>,
    /// Tokens of a piece; the first has a piece of its own.
    interval: usize,
    /// By answer: what has come and was not told yet.
    held: Vec<Held>,
    ready: VecDeque<Told>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Held {
    text: String,
    tokens: Vec<GeneratedToken>,
    started: bool,
}

impl Asked {
    fn take_in(&mut self, index: usize, piece: Piece) -> Result<(), ApiError> {
        let ending = piece.end.map(|end| self.choices.ending(end)).transpose()?;
        let held = &mut self.held[index];
        held.text.push_str(&piece.text);
        held.tokens.extend(piece.token);
        let something = !(held.text.is_empty() && held.tokens.is_empty());
        if something && (ending.is_some() || !held.started || held.tokens.len() >= self.interval) {
            let (text, tokens) = (std::mem::take(&mut held.text), std::mem::take(&mut held.tokens));
            held.started = true;
            self.ready.push_back(Told::Piece { index, text, tokens });
        }
        self.ready.extend(ending.map(|ending| Told::End { index, ending }));
        Ok(())
    }
}

impl Stream for Asked {
    type Item = Result<Told, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(told) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(told)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.choices.poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some((index, piece))) => {
                    if let Err(error) = self.take_in(index, piece) {
                        // What had come before it is still told.
                        self.ended = true;
                        return Poll::Ready(Some(Err(renamed(&error, &[]))));
                    }
                }
            }
        }
    }
}
