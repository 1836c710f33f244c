//! What a body asks for.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Map, Value, json};
use vllm_platform::sampling::MAX_LOGPROBS;

use super::{
    items::take_input,
    messages, refuse,
    settings::{self, Settings},
    store::{Item, Owner, Store, Turn},
    tools::take_tools,
};
use crate::{
    http::{
        ApiError, Fields, HttpConfig, WithMedia,
        chat::{ChatRequest, OutputFormat, Thinking},
        extras::{Extras, Scheduling},
        media::{Media, MediaOptions},
        sampling::{take_sampling, take_stop, take_streaming},
    },
    model::ServedModel,
};

/// A body that was understood.
#[derive(Debug)]
pub struct Request {
    /// The whole conversation.
    pub chat: ChatRequest,
    /// Whether it is sent as it is written.
    pub stream: bool,
    /// Whether it goes on without its client.
    pub background: bool,
    /// Whether it can be asked for again.
    pub store: bool,
    /// Whether the oldest messages are left out if there are too many.
    pub truncate: bool,
    /// The turn that it follows.
    pub previous: Option<Arc<Turn>>,
    /// What is asked, without the turns before.
    pub input: Vec<Item>,
    /// How its answer is shown.
    pub shape: Shape,
    /// The fields that its response repeats.
    pub shown: Map<String, Value>,
}

/// How an answer is shown.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// Tools whose calls have a text instead of arguments.
    pub custom: HashSet<String>,
    /// Whether text has log probabilities.
    pub logprobs: bool,
    /// Whether the chain of thought is also given in one opaque string.
    pub sealed: bool,
    /// Whether the chain of thought is left out.
    pub hide_reasoning: bool,
}

impl WithMedia for Request {
    fn media(&mut self) -> Option<&mut Media> {
        self.chat.media()
    }
}

impl Request {
    /// Takes all fields.
    ///
    /// # Errors
    /// 400 naming the field at fault, 404 for responses and items that aren't kept.
    pub fn parse(
        mut fields: Fields,
        model: &ServedModel,
        config: &HttpConfig,
        store: &Store,
        owner: &Owner,
    ) -> Result<Self, ApiError> {
        refuse::what_is_not_there(&mut fields)?;
        let settings = Settings::take(&mut fields)?;
        let background = take_background(&mut fields, settings.store)?;
        let previous_id = fields.string("previous_response_id")?;
        let previous = previous_id.as_deref().map(|id| find_previous(store, id, owner)).transpose()?;
        let instructions = fields.string("instructions")?;
        let input = take_input(&mut fields, &|id| store.item(id, owner))?;
        let tools = take_tools(&mut fields)?;
        let include = settings::take_include(&mut fields)?;
        let top = fields.integer("top_logprobs", 0..=MAX_LOGPROBS as i64)?;
        let mut params = take_sampling(&mut fields, model)?;
        // Whoever asks for alternatives wants to see them.
        let logprobs = include.logprobs || top.is_some_and(|top| top > 0);
        params.logprobs = logprobs.then_some(top.unwrap_or(0) as usize);
        let max_tokens = fields.integer("max_output_tokens", 1..=i64::MAX)?;
        let text = settings::take_text(&mut fields)?;
        let reasoning = settings::take_reasoning(&mut fields)?;
        let mut thinking = Thinking::take(&mut fields)?;
        if let Some(effort) = &reasoning.effort {
            thinking.enabled = thinking.enabled.or_else(|| (effort == "none").then_some(false));
            thinking.effort = Some(effort.clone());
        }
        let shape = Shape {
            custom: tools.custom,
            logprobs,
            sealed: include.sealed,
            // It is counted all the same.
            hide_reasoning: std::mem::take(&mut thinking.hidden),
        };
        let mut conversation = previous.as_ref().map(|turn| turn.items()).unwrap_or_default();
        let given = conversation.len();
        conversation.extend(input.iter().cloned());
        let mut media = Media::of(model, config).with_options(MediaOptions::take(&mut fields)?);

        let mut shown = settings.shown;
        shown.insert("background".into(), json!(background));
        shown.insert("instructions".into(), json!(instructions));
        shown.insert("max_output_tokens".into(), json!(max_tokens));
        shown.insert("parallel_tool_calls".into(), json!(tools.offer.parallel));
        shown.insert("previous_response_id".into(), json!(previous_id));
        shown.insert("reasoning".into(), reasoning.shown());
        shown.insert("temperature".into(), number(params.temperature));
        shown.insert("text".into(), text.shown);
        shown.insert("tool_choice".into(), tools.shown_choice);
        shown.insert("tools".into(), tools.shown);
        shown.insert("top_logprobs".into(), json!(top.unwrap_or(0)));
        shown.insert("top_p".into(), number(params.top_p));
        let chat = ChatRequest {
            messages: messages::from_items(instructions.as_deref(), &conversation, given, &mut media)?,
            media,
            messages_param: "input",
            tools: tools.offer,
            format: one_format(text.format, OutputFormat::take(&mut fields)?)?,
            thinking,
            template: fields.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default(),
            add_generation_prompt: true,
            continue_final_message: false,
            params,
            n: 1,
            stop: take_stop(&mut fields)?,
            max_tokens: max_tokens.map(|tokens| tokens as usize),
            extras: Extras::take(&mut fields, model)?,
            scheduling: Scheduling::take(&mut fields, config.timeout)?,
        };
        let stream = take_streaming(&mut fields)?.on;
        if stream && background {
            let message = "background is not supported with stream: true: ask for the response when it has ended";
            return Err(ApiError::unsupported("background", message));
        }
        fields.finish();
        let (store, truncate) = (settings.store, settings.truncate);
        Ok(Self { chat, stream, background, store, truncate, previous, input, shape, shown })
    }
}

/// As it was sent: 0.7, not the nearest 32-bit number written out in 64.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn take_background(fields: &mut Fields, store: bool) -> Result<bool, ApiError> {
    let background = fields.boolean("background")?.unwrap_or(false);
    if background && !store {
        let message = "background needs store: true, or nobody could ask for the response";
        return Err(ApiError::field("background", message));
    }
    Ok(background)
}

fn find_previous(store: &Store, id: &str, owner: &Owner) -> Result<Arc<Turn>, ApiError> {
    let param = "previous_response_id";
    let Some(entry) = store.get(id, owner) else {
        let message = format!("there is no response {id:?}: it was not stored, was deleted or has been forgotten");
        return Err(ApiError::not_found("previous_response_not_found", message).with_param(param));
    };
    let state = entry.state();
    match state.turn {
        None => Err(ApiError::field(param, format!("the response {id:?} has not ended yet"))),
        Some(_) if state.object.get("status").is_some_and(|status| status == "failed") => {
            Err(ApiError::field(param, format!("the response {id:?} has failed: there is nothing to go on from")))
        }
        Some(turn) => Ok(turn),
    }
}

fn one_format(text: OutputFormat, extra: OutputFormat) -> Result<OutputFormat, ApiError> {
    match (text, extra) {
        (format, OutputFormat::Text) | (OutputFormat::Text, format) => Ok(format),
        _ => Err(ApiError::field("text.format", "text.format and another format can't both be kept: give one")),
    }
}
