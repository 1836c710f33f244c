//! A response: the conversation answered by a language model, and the answer said.

use std::ops::ControlFlow;

use axum::http::HeaderMap;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};
use vllm_scheduler::FinishReason;

use super::{answer::Answer, conversation::Entry, models, outbox::Gone, settings::Settings, speak::Speaker};
use crate::{
    answer::{End, Piece},
    http::{
        ApiError, App, Fields, Staged,
        call::{Call, Endpoint},
        chat::AnswerParser,
        choices::Choices,
        request_id::Id,
        responses::{Request, make_room},
        staged,
        usage::Usage,
    },
};

/// What happens in a response.
#[derive(Debug)]
pub enum Progress {
    /// Its client is to be told, and nothing else.
    Event(&'static str, Value),
    /// An item has begun.
    Added(Value),
    /// An item is complete.
    Done(Entry),
    /// It is over: the response as it is now.
    Ended(Value),
}

/// How a response tells its session.
#[derive(Debug, Clone)]
pub struct Reporter(pub mpsc::Sender<Progress>);

impl Reporter {
    /// Tells it.
    pub async fn send(&self, progress: Progress) -> Result<(), Gone> {
        self.0.send(progress).await.map_err(|_| Gone)
    }
}

/// Why a response is ended before it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// The user began to speak.
    Turn,
    /// The client said so.
    Client,
}

/// What a response answers.
pub struct Asked {
    /// Its id.
    pub id: String,
    /// As of its session, changed as it was asked for.
    pub settings: Settings,
    /// Items as Responses have them; null: the conversation's, when it begins.
    pub input: Value,
    /// Whether its items become part of the conversation.
    pub kept: bool,
    /// Whether its client asked for it; else the end of the user's turn did.
    pub asked_for: bool,
    /// Its client's own notes.
    pub metadata: Value,
    /// Who asks.
    pub request_id: Id,
    /// Of the request that began the session.
    pub headers: HeaderMap,
}

/// How it ended.
enum Outcome {
    Completed,
    Incomplete,
    Cancelled(Cancel),
    Failed(ApiError),
}

/// Computes a response, until it is complete or cancelled.
pub async fn respond(app: App, asked: Asked, reporter: Reporter, mut cancel: oneshot::Receiver<Cancel>) {
    let mut usage = Usage::default();
    let mut answer = Answer::new(asked.id.clone(), asked.settings.clone(), reporter.clone());
    let created = json!({ "response": object(&asked, &answer, "in_progress", Value::Null, None) });
    if reporter.send(Progress::Event("response.created", created)).await.is_err() {
        return;
    }
    let outcome = match compute(&app, &asked, &mut answer, &mut cancel, &mut usage).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(error),
        Err(Gone) => return,
    };
    let (status, details) = match outcome {
        Outcome::Completed => ("completed", Value::Null),
        Outcome::Incomplete => ("incomplete", json!({ "type": "incomplete", "reason": "max_output_tokens" })),
        Outcome::Cancelled(Cancel::Turn) => ("cancelled", json!({ "type": "cancelled", "reason": "turn_detected" })),
        Outcome::Cancelled(Cancel::Client) => {
            ("cancelled", json!({ "type": "cancelled", "reason": "client_cancelled" }))
        }
        Outcome::Failed(error) => {
            let mut details = error.to_json();
            details["type"] = json!("failed");
            ("failed", details)
        }
    };
    let item_status = if status == "completed" { "completed" } else { "incomplete" };
    if answer.end(item_status).await.is_ok() {
        let object = object(&asked, &answer, status, details, Some(usage));
        // Whoever is gone needs no word of it.
        let _ = reporter.send(Progress::Ended(object)).await;
    }
}

/// The answer, as long as nobody cancels it.
async fn compute(
    app: &App,
    asked: &Asked,
    answer: &mut Answer,
    cancel: &mut oneshot::Receiver<Cancel>,
    usage: &mut Usage,
) -> Result<Result<Outcome, ApiError>, Gone> {
    let begun = tokio::select! {
        begun = begin(app, asked) => begun,
        Ok(why) = &mut *cancel => return Ok(Ok(Outcome::Cancelled(why))),
    };
    let Begun { mut choices, mut parser, mut speaker } = match begun {
        Ok(begun) => begun,
        Err(error) => return Ok(Err(error)),
    };
    let mut outcome = Outcome::Completed;
    let mut writing = true;
    loop {
        let speaking = speaker.is_some();
        if !writing && !speaking {
            return Ok(Ok(outcome));
        }
        tokio::select! {
            biased;
            Ok(why) = &mut *cancel => return Ok(Ok(Outcome::Cancelled(why))),
            piece = choices.next(), if writing => {
                let Some((_, piece)) = piece else { return Ok(Err(ApiError::engine("the answer broke off"))) };
                let (flow, ended) = match take(&mut parser, answer, speaker.as_mut(), &choices, piece).await? {
                    Ok(taken) => taken,
                    Err(error) => return Ok(Err(error)),
                };
                *usage = choices.usage();
                if flow.is_break() {
                    choices.stop(0);
                }
                if let Some(reason) = ended {
                    writing = false;
                    if reason == FinishReason::Length {
                        outcome = Outcome::Incomplete;
                    }
                    if let Some(speaker) = &mut speaker {
                        speaker.finish().await;
                    }
                }
            }
            said = next_said(&mut speaker), if speaking => match said {
                Some(Ok(said)) => answer.say(&said).await?,
                Some(Err(error)) => return Ok(Err(error)),
                None => speaker = None,
            },
        }
    }
}

async fn next_said(speaker: &mut Option<Speaker>) -> Option<Result<super::speak::Said, ApiError>> {
    speaker.as_mut()?.next().await
}

/// Takes a piece of the answer: whether more of it is wanted, and why it ended.
async fn take(
    parser: &mut AnswerParser,
    answer: &mut Answer,
    mut speaker: Option<&mut Speaker>,
    choices: &Choices,
    piece: Piece,
) -> Result<Result<(ControlFlow<()>, Option<FinishReason>), ApiError>, Gone> {
    let ended = match piece.end.map(|end: End| choices.ending(end)).transpose() {
        Ok(ending) => ending.map(|ending| ending.reason),
        Err(error) => return Ok(Err(error)),
    };
    let mut events = Vec::new();
    let flow = parser.push(&piece.text, |event| events.push(event));
    if ended.is_some() && flow.is_continue() {
        parser.finish(|event| events.push(event));
    }
    if ended == Some(FinishReason::Abort) {
        return Ok(Err(ApiError::cancelled()));
    }
    for event in events {
        if let (crate::http::chat::ChatEvent::Text(text), Some(speaker)) = (&event, speaker.as_deref_mut()) {
            speaker.push(text).await;
        }
        answer.push(event).await?;
    }
    Ok(Ok((flow, ended)))
}

/// An answer under way.
struct Begun {
    choices: Choices,
    parser: AnswerParser,
    speaker: Option<Speaker>,
}

/// Submits the conversation to the model, as a request to Responses would be.
async fn begin(app: &App, asked: &Asked) -> Result<Begun, ApiError> {
    let settings = &asked.settings;
    let mut call = Call::new(app, Endpoint::Realtime, asked.request_id.clone(), &asked.headers);
    let model = app.lease(&settings.model).await?;
    let speaker = if settings.speaks { Some(models::speaker(app)?) } else { None };
    let (config, served, preparing) = (app.config, model.clone(), model.clone());
    let (store, owner) = (app.shared.responses.clone(), call.client.clone());
    let mut body: Map<String, Value> = settings.answer.clone();
    body.insert("instructions".into(), json!(settings.instructions));
    body.insert("input".into(), asked.input.clone());
    body.insert("store".into(), json!(false));
    let Staged { request, prepared: chat } = staged(
        app,
        move || Request::parse(Fields::within("response", body), &served, &config, &store, &owner),
        move |request| {
            if request.truncate {
                make_room(&mut request.chat, &preparing, &config);
            }
            request.chat.prepare(&preparing, &config)
        },
    )
    .await?;
    call.describe(&settings.model, true);
    call.loaded_media(&request.chat.media);
    let client = call.client.clone();
    let parser = chat.output.parser();
    let choices = Choices::start(&model, call, &[chat.prompt], &chat.generation)?;
    Ok(Begun { choices, parser, speaker: speaker.map(|speaker| Speaker::start(speaker, settings, client.clone())) })
}

/// A response as its client sees it.
fn object(asked: &Asked, answer: &Answer, status: &str, details: Value, usage: Option<Usage>) -> Value {
    let settings = &asked.settings;
    let usage = usage.map(|usage| {
        json!({
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
            "input_tokens": usage.prompt_tokens,
            "output_tokens": usage.completion_tokens,
            "input_token_details": {
                "text_tokens": usage.prompt_tokens - usage.image_tokens.min(usage.prompt_tokens),
                "image_tokens": usage.image_tokens,
                "audio_tokens": 0,
                "cached_tokens": usage.cached_tokens,
            },
            // What is said is said from text.
            "output_token_details": { "text_tokens": usage.completion_tokens, "audio_tokens": 0 },
        })
    });
    json!({
        "id": asked.id,
        "object": "realtime.response",
        "status": status,
        "status_details": details,
        "output": answer.items(),
        "output_modalities": [if settings.speaks { "audio" } else { "text" }],
        "audio": { "output": { "format": settings.output.to_json(), "voice": settings.voice } },
        "max_output_tokens": settings.answer.get("max_output_tokens").cloned().unwrap_or_else(|| json!("inf")),
        "metadata": asked.metadata,
        "usage": usage,
    })
}
