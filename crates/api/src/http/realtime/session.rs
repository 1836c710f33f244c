//! A session: the socket's two ends, the conversation, and what is under way for it.

use std::sync::Arc;

use axum::{extract::ws::Message, http::HeaderMap};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use vllm_speech::vad::Silero;

use super::{
    conversation::{Conversation, Entry, Samples, check_item, new_item_id, spoken_item},
    event::{Asks, ClientEvent},
    input::{Heard, InputBuffer, RATE},
    models,
    outbox::{Gone, Outbox},
    response::{Asked, Cancel, Progress, Reporter, respond},
    settings::{Abilities, Kind, Settings},
    transcribe::{Transcribed, transcribe},
};
use crate::http::{ApiError, App, Fields, blocking, request_id::Id};

/// Shortest sound that is worth listening to.
const SHORTEST: f64 = 0.1;

/// See the [module](self).
pub struct Session {
    app: App,
    id: String,
    request_id: Id,
    headers: HeaderMap,
    abilities: Abilities,
    silero: Option<Arc<Silero>>,
    settings: Settings,
    conversation: Conversation,
    /// `None` only while it is with the thread that listens.
    input: Option<InputBuffer>,
    /// The id of the item that the speech under way will be.
    speaking: Option<String>,
    out: Outbox,
    transcripts: (mpsc::Sender<Transcribed>, mpsc::Receiver<Transcribed>),
    response: Option<Running>,
    /// A response that waits for transcripts, or for the end of the one before it.
    next: Option<Asked>,
}

/// A response under way.
struct Running {
    id: String,
    /// Whether its items become part of the conversation.
    kept: bool,
    progress: mpsc::Receiver<Progress>,
    cancel: Option<oneshot::Sender<Cancel>>,
}

/// What an event leads to beyond what was done at once.
type Outcome = Result<Result<(), ApiError>, Gone>;

impl Session {
    /// A session that has not begun.
    pub fn new(app: App, request_id: Id, headers: HeaderMap, kind: Kind, model: String, out: Outbox) -> Self {
        let silero = app.speech.vad();
        let abilities = Abilities {
            hears: models::transcriber(&app, None).is_ok(),
            speaks: models::speaker(&app).is_ok(),
            detects: silero.is_some(),
        };
        let settings = Settings::new(kind, model, abilities);
        let input = Some(InputBuffer::new(&settings, silero.as_ref()));
        Self {
            app,
            id: format!("sess_{}", crate::random::hex_id()),
            request_id,
            headers,
            abilities,
            silero,
            settings,
            conversation: Conversation::default(),
            input,
            speaking: None,
            out,
            transcripts: mpsc::channel(16),
            response: None,
            next: None,
        }
    }

    /// Serves it until its client goes away or the server ends.
    pub async fn run(mut self, mut incoming: mpsc::Receiver<Message>) {
        let created = json!({ "session": self.settings.to_json(&self.id) });
        if self.out.send("session.created", created).await.is_err() {
            return;
        }
        loop {
            let flow = tokio::select! {
                message = incoming.recv() => match message {
                    Some(Message::Text(text)) => self.told(text.as_bytes()).await,
                    Some(Message::Binary(bytes)) => self.told(&bytes).await,
                    // Pings are answered by the socket.
                    Some(Message::Ping(_) | Message::Pong(_)) => Ok(()),
                    Some(Message::Close(_)) | None => return,
                },
                Some(transcribed) = self.transcripts.1.recv() => self.heard(transcribed).await,
                progress = next_progress(&mut self.response) => self.progressed(progress).await,
            };
            if flow.is_err() {
                return;
            }
        }
    }

    /// Does what an event asks for; what it can't do it says.
    async fn told(&mut self, text: &[u8]) -> Result<(), Gone> {
        let ClientEvent { id, asks } = match ClientEvent::parse(text) {
            Ok(event) => event,
            Err((error, id)) => return self.out.error(&error, id.as_deref()).await,
        };
        match self.act(asks).await? {
            Ok(()) => Ok(()),
            Err(error) => self.out.error(&error, id.as_deref()).await,
        }
    }

    async fn act(&mut self, asks: Asks) -> Outcome {
        match asks {
            Asks::Update(fields) => self.update(fields).await,
            Asks::Append(audio) => self.append(audio).await,
            Asks::Commit => self.commit().await,
            Asks::Clear => {
                if let Some(input) = &mut self.input {
                    input.commit();
                }
                self.speaking = None;
                self.out.send("input_audio_buffer.cleared", json!({})).await.map(Ok)
            }
            Asks::CreateItem { previous, item } => self.create_item(previous, item).await,
            Asks::RetrieveItem(id) => match self.conversation.get_mut(&id) {
                Ok(entry) => {
                    let item = entry.item.clone();
                    self.out.send("conversation.item.retrieved", json!({ "item": item })).await.map(Ok)
                }
                Err(error) => Ok(Err(error)),
            },
            Asks::DeleteItem(id) => match self.conversation.remove(&id) {
                Ok(()) => {
                    self.out.send("conversation.item.deleted", json!({ "item_id": id })).await?;
                    // It may have been the one that the next response waits for.
                    self.start_next();
                    Ok(Ok(()))
                }
                Err(error) => Ok(Err(error)),
            },
            Asks::TruncateItem { id, part, heard_ms } => match self.conversation.truncate(&id, part, heard_ms) {
                Ok(()) => {
                    let fields = json!({ "item_id": id, "content_index": part, "audio_end_ms": heard_ms });
                    self.out.send("conversation.item.truncated", fields).await.map(Ok)
                }
                Err(error) => Ok(Err(error)),
            },
            Asks::Respond(fields) => Ok(self.ask(fields)),
            Asks::Cancel(id) => Ok(self.cancel(id.as_deref())),
        }
    }

    async fn update(&mut self, fields: Fields) -> Outcome {
        let new = match self.settings.updated(fields, self.abilities) {
            Ok(new) => new,
            Err(error) => return Ok(Err(error)),
        };
        // Names are checked here, so that no response fails by them later.
        if let Some(model) = new.transcription.as_ref().and_then(|wanted| wanted.model.as_deref())
            && let Err(error) = models::transcriber(&self.app, Some(model))
        {
            return Ok(Err(error.or_param("session.audio.input.transcription.model")));
        }
        if let Some(voice) = &new.voice
            && let Err(error) = models::check_voice(&self.app, voice)
        {
            return Ok(Err(error.with_param("session.audio.output.voice")));
        }
        let listens = |settings: &Settings| (settings.input, settings.turns);
        if listens(&new) != listens(&self.settings)
            && let Some(input) = self.input.take()
        {
            self.input = Some(input.with(&new, self.silero.as_ref()));
            self.speaking = None;
        }
        self.settings = new;
        let updated = json!({ "session": self.settings.to_json(&self.id) });
        self.out.send("session.updated", updated).await.map(Ok)
    }

    async fn append(&mut self, audio: String) -> Outcome {
        if !self.abilities.hears {
            let message = "this server has no model that hears (--transcription-model)";
            return Ok(Err(ApiError::unsupported("audio", message)));
        }
        let Some(mut input) = self.input.take() else { return Ok(Ok(())) };
        let limit = self.app.config.audio.duration.as_secs_f64();
        let format = self.settings.input;
        // Turned back into a buffer whatever happens: its samples so far are good.
        let listened = blocking(move || {
            let heard = format.decode("audio", &audio).and_then(|samples| {
                let seconds = input.seconds() + samples.len() as f64 / f64::from(format.rate());
                if seconds > limit {
                    let message =
                        format!("the buffer would hold {seconds:.0} s of sound: it may hold {limit}; commit it");
                    return Err(ApiError::field("audio", message));
                }
                Ok(input.push(&samples))
            });
            Ok((input, heard))
        });
        let (input, heard) = match listened.await {
            Ok(listened) => listened,
            Err(error) => {
                self.input = Some(InputBuffer::new(&self.settings, self.silero.as_ref()));
                return Ok(Err(error));
            }
        };
        self.input = Some(input);
        match heard {
            Ok(heard) => {
                for heard in heard {
                    self.turn(heard).await?;
                }
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// The user's turn begins or ends.
    async fn turn(&mut self, heard: Heard) -> Result<(), Gone> {
        match heard {
            Heard::Started { ms } => {
                let id = self.speaking.insert(new_item_id()).clone();
                self.out
                    .send("input_audio_buffer.speech_started", json!({ "audio_start_ms": ms, "item_id": id }))
                    .await?;
                if self.settings.turns.is_some_and(|turns| turns.interrupt) {
                    self.next = None;
                    self.end_response(Cancel::Turn);
                }
                Ok(())
            }
            Heard::Stopped { ms, samples } => {
                let id = self.speaking.take().unwrap_or_else(new_item_id);
                self.out
                    .send("input_audio_buffer.speech_stopped", json!({ "audio_end_ms": ms, "item_id": id }))
                    .await?;
                self.commit_samples(id, samples).await?;
                if self.settings.kind == Kind::Talk && self.settings.turns.is_some_and(|turns| turns.respond) {
                    self.next = Some(self.asked(self.settings.clone(), Value::Null));
                }
                Ok(())
            }
        }
    }

    async fn commit(&mut self) -> Outcome {
        let Some(input) = &mut self.input else { return Ok(Ok(())) };
        let seconds = input.seconds();
        if seconds < SHORTEST {
            let message = format!("the buffer holds {:.0} ms of sound: a turn has 100 at least", seconds * 1000.0);
            return Ok(Err(ApiError::invalid(None, message).with_code("input_audio_buffer_commit_empty")));
        }
        let samples = input.commit();
        let id = self.speaking.take().unwrap_or_else(new_item_id);
        self.commit_samples(id, samples).await.map(Ok)
    }

    async fn commit_samples(&mut self, id: String, samples: Samples) -> Result<(), Gone> {
        let previous = self.conversation.last_id().map(str::to_owned);
        let committed = json!({ "previous_item_id": previous, "item_id": id });
        self.out.send("input_audio_buffer.committed", committed).await?;
        let entry = spoken_item(&id);
        let item = entry.item.clone();
        // An id of ours is new.
        if self.conversation.insert(None, entry).is_ok() {
            self.told_of_item(previous, item).await?;
        }
        self.listen(id, 0, samples);
        Ok(())
    }

    async fn told_of_item(&self, previous: Option<String>, item: Value) -> Result<(), Gone> {
        let fields = json!({ "previous_item_id": previous, "item": item });
        self.out.send("conversation.item.added", fields.clone()).await?;
        self.out.send("conversation.item.done", fields).await
    }

    /// Has a part of an item written down.
    fn listen(&self, item: String, part: usize, samples: Samples) {
        let wanted = self.settings.transcription.clone().unwrap_or_default();
        let told = self.settings.transcription.is_some().then(|| self.out.clone());
        let books = (self.request_id.clone(), self.headers.clone());
        tokio::spawn(transcribe(
            self.app.clone(),
            books,
            wanted,
            told,
            (item, part),
            samples,
            self.transcripts.0.clone(),
        ));
    }

    /// A transcript has come, or never will.
    async fn heard(&mut self, transcribed: Transcribed) -> Result<(), Gone> {
        let Transcribed { item, part, text } = transcribed;
        let silent = matches!(&text, Ok(text) if text.trim().is_empty());
        // It may have been deleted meanwhile.
        if let Ok(entry) = self.conversation.get_mut(&item) {
            entry.heard(part, text.as_deref().unwrap_or_default());
        }
        if silent && self.conversation.last_id() == Some(&item) {
            // A cough is no turn: nothing is answered unless its client asked for it.
            self.next = self.next.take().filter(|next| next.asked_for);
        }
        self.start_next();
        Ok(())
    }

    async fn create_item(&mut self, previous: Option<String>, item: Value) -> Outcome {
        let (entry, sounds) = match check_item(item, new_item_id) {
            Ok(checked) => checked,
            Err(error) => return Ok(Err(error)),
        };
        if !sounds.is_empty() && !self.abilities.hears {
            let message = "item has sound: this server has no model that hears (--transcription-model)";
            return Ok(Err(ApiError::unsupported("item", message)));
        }
        let mut decoded = Vec::new();
        for (part, audio) in sounds {
            let format = self.settings.input;
            let param = format!("item.content[{part}].audio");
            let samples = blocking(move || {
                let samples = format.decode(&param, &audio)?;
                let sound = vllm_audio::Sound { samples, rate: format.rate() };
                Ok(Samples::from(vllm_audio::resample(sound, RATE).samples))
            });
            match samples.await {
                Ok(samples) => decoded.push((part, samples)),
                Err(error) => return Ok(Err(error)),
            }
        }
        let (id, item) = (entry.id.clone(), entry.item.clone());
        let before = match self.conversation.insert(previous.as_deref(), entry) {
            Ok(before) => before,
            Err(error) => return Ok(Err(error)),
        };
        decoded.into_iter().for_each(|(part, samples)| self.listen(id.clone(), part, samples));
        self.told_of_item(before, item).await.map(Ok)
    }

    /// A response that answers what was said so far.
    fn asked(&self, settings: Settings, metadata: Value) -> Asked {
        Asked {
            id: format!("resp_{}", crate::random::hex_id()),
            settings,
            input: Value::Null,
            kept: true,
            asked_for: false,
            metadata,
            request_id: self.request_id.clone(),
            headers: self.headers.clone(),
        }
    }

    /// `response.create`.
    fn ask(&mut self, mut fields: Fields) -> Result<(), ApiError> {
        if self.settings.kind == Kind::Transcribe {
            return Err(ApiError::unsupported("type", "this session only writes down what it hears"));
        }
        if self.response.is_some() || self.next.as_ref().is_some_and(|next| next.asked_for) {
            let message = "a response is under way: wait for response.done, or cancel it";
            return Err(ApiError::invalid(None, message).with_code("conversation_already_has_active_response"));
        }
        let settings = self.settings.of_response(&mut fields, self.abilities)?;
        if let Some(voice) = &settings.voice {
            models::check_voice(&self.app, voice).map_err(|error| error.with_param("response.audio.output.voice"))?;
        }
        let kept = match fields.string("conversation")?.as_deref() {
            None | Some("auto") => true,
            Some("none") => false,
            Some(other) => {
                let message = format!("response.conversation is {other:?}: it must be auto or none");
                return Err(ApiError::field("response.conversation", message));
            }
        };
        let metadata = fields.object("metadata")?.map_or(Value::Null, |metadata| Value::Object(metadata.into_map()));
        let mut input = Value::Null;
        if let Some(items) = fields.array("input")? {
            let mut own = Conversation::default();
            for item in items {
                let entry = match item {
                    Value::Object(map) if map.get("type").is_some_and(|kind| kind == "item_reference") => {
                        let id = map.get("id").and_then(Value::as_str).unwrap_or_default();
                        self.conversation.get_mut(id)?.clone()
                    }
                    item => match check_item(item, new_item_id)? {
                        (entry, sounds) if sounds.is_empty() => entry,
                        _ => {
                            let message = "response.input has sound: put it into the conversation first";
                            return Err(ApiError::unsupported("response.input", message));
                        }
                    },
                };
                own.insert(None, entry)?;
            }
            input = own.as_input();
        }
        fields.finish();
        self.next = Some(Asked { input, kept, asked_for: true, ..self.asked(settings, metadata) });
        self.start_next();
        Ok(())
    }

    /// Begins the response that waits, if nothing stands in its way any more.
    fn start_next(&mut self) {
        if self.response.is_some() || self.conversation.is_pending() {
            return;
        }
        let Some(mut asked) = self.next.take() else { return };
        if asked.input.is_null() {
            asked.input = self.conversation.as_input();
        }
        let (sender, progress) = mpsc::channel(16);
        let (cancel, cancelled) = oneshot::channel();
        self.response = Some(Running { id: asked.id.clone(), kept: asked.kept, progress, cancel: Some(cancel) });
        tokio::spawn(respond(self.app.clone(), asked, Reporter(sender), cancelled));
    }

    /// `response.cancel`.
    fn cancel(&mut self, id: Option<&str>) -> Result<(), ApiError> {
        let waiting = self.next.take_if(|next| id.is_none_or(|id| id == next.id)).is_some();
        let running = self.response.as_ref().is_some_and(|running| id.is_none_or(|id| id == running.id));
        if running {
            self.end_response(Cancel::Client);
        } else if !waiting {
            let message = "there is no such response under way";
            return Err(ApiError::field("response_id", message).with_code("response_cancel_not_active"));
        }
        Ok(())
    }

    /// Has the response under way end. It says itself that it has.
    fn end_response(&mut self, why: Cancel) {
        if let Some(cancel) = self.response.as_mut().and_then(|running| running.cancel.take()) {
            // One that is over already needs no end.
            let _ = cancel.send(why);
        }
    }

    /// Something happened in the response under way; `None`: it broke off.
    async fn progressed(&mut self, progress: Option<Progress>) -> Result<(), Gone> {
        let kept = self.response.as_ref().is_some_and(|running| running.kept);
        match progress {
            Some(Progress::Event(kind, fields)) => self.out.send(kind, fields).await,
            Some(Progress::Added(item)) if kept => {
                let previous = self.conversation.last_id().map(str::to_owned);
                self.out.send("conversation.item.added", json!({ "previous_item_id": previous, "item": item })).await
            }
            Some(Progress::Done(entry)) if kept => self.keep(entry).await,
            Some(Progress::Added(_) | Progress::Done(_)) => Ok(()),
            Some(Progress::Ended(response)) => {
                self.response = None;
                self.out.send("response.done", json!({ "response": response })).await?;
                self.start_next();
                Ok(())
            }
            None => {
                self.response = None;
                let error = ApiError::engine("the response broke off: see the server's log");
                self.out.error(&error, None).await
            }
        }
    }

    async fn keep(&mut self, entry: Entry) -> Result<(), Gone> {
        let item = entry.item.clone();
        // An id of ours is new.
        let previous = self.conversation.insert(None, entry).unwrap_or_default();
        self.out.send("conversation.item.done", json!({ "previous_item_id": previous, "item": item })).await
    }
}

/// The next thing that happens in a response; never, if there is none.
async fn next_progress(response: &mut Option<Running>) -> Option<Progress> {
    match response {
        Some(running) => running.progress.recv().await,
        None => std::future::pending().await,
    }
}
