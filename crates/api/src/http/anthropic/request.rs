//! What a body asks for.

use serde_json::{Value, json};
use vllm_platform::SamplingParams;

use super::{messages::conversation, thinking, tools};
use crate::{
    http::{
        ApiError, Fields, HttpConfig, WithMedia,
        chat::{ChatRequest, OutputFormat, PreparedChat},
        extras::{Extras, Scheduling},
        fields::show,
        media::{Media, MediaOptions},
        sampling::{take_sampling, take_stop_named},
    },
    model::ServedModel,
};

/// A body that was understood.
pub struct Request {
    pub chat: ChatRequest,
    pub stream: bool,
    /// Whether the text of the chain of thought is left out of its block.
    pub omit_thinking: bool,
    /// Most tokens of the answer; a request that only counts has none.
    max_tokens: Option<usize>,
}

/// A request, ready to be answered.
pub struct Prepared {
    pub chat: PreparedChat,
    /// Whether the context's end comes before `max_tokens`.
    pub is_cut: bool,
}

impl WithMedia for Request {
    fn media(&mut self) -> Option<&mut Media> {
        self.chat.media()
    }
}

impl Request {
    /// Takes all fields.
    pub fn parse(mut fields: Fields, model: &ServedModel, config: &HttpConfig) -> Result<Self, ApiError> {
        let messages = fields
            .array("messages")?
            .ok_or_else(|| ApiError::field("messages", "messages is missing: it must be an array of messages"))?;
        let mut media = Media::of(model, config).with_options(MediaOptions::take(&mut fields)?);
        let conversation = conversation(fields.value("system"), messages, &mut media)?;
        let mut thinking = thinking::take(&mut fields)?;
        // Nobody's thoughts are bounded by any budget.
        thinking.thinking.budget = thinking.thinking.budget.filter(|_| model.reasoning.is_some());
        let (format, effort) = take_output(&mut fields)?;
        thinking.thinking.effort = effort;
        let chat = ChatRequest {
            messages: conversation.messages,
            media,
            messages_param: "messages",
            tools: tools::take(&mut fields)?,
            format,
            thinking: thinking.thinking,
            template: fields.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default(),
            add_generation_prompt: true,
            continue_final_message: conversation.is_prefilled,
            params: take_params(&mut fields, model)?,
            n: 1,
            stop: take_stop_named(&mut fields, "stop_sequences")?,
            max_tokens: None,
            extras: Extras::take(&mut fields, model)?,
            scheduling: Scheduling::take(&mut fields, config.timeout)?,
        };
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let max_tokens = fields.integer("max_tokens", 1..=i64::MAX)?;
        refuse_what_is_not_there(&mut fields)?;
        fields.finish();
        let max_tokens = max_tokens.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
        Ok(Self { chat, stream, omit_thinking: thinking.omitted, max_tokens })
    }

    /// Blocks for as long as templating and tokenising take.
    ///
    /// An answer may ask for more tokens than the context has left, as with Anthropic: it ends where the context does,
    /// and says so. Agents ask for some ten thousand with every prompt.
    pub fn prepare(&self, model: &ServedModel, config: &HttpConfig) -> Result<Prepared, ApiError> {
        let asked = self.max_tokens.ok_or_else(|| ApiError::field("max_tokens", "max_tokens is missing"))?;
        if let Some(limit) = config.max_request_tokens.filter(|&limit| asked > limit) {
            let message = format!("max_tokens is {asked}: this server allows at most {limit} (--max-request-tokens)");
            return Err(ApiError::field("max_tokens", message));
        }
        // Only what a request asks for by itself must fit; what the server would give is cut.
        let config = HttpConfig { default_max_tokens: asked, ..*config };
        let chat = self.chat.prepare(model, &config).map_err(|error| match error.code() {
            Some(CONTEXT_LENGTH) => self.chat.count_tokens(model).map_or(error, |tokens| too_long(tokens, model)),
            _ => error,
        })?;
        Ok(Prepared { is_cut: chat.prompt.max_tokens < asked, chat })
    }
}

/// [`ApiError::context_length`]'s code.
pub const CONTEXT_LENGTH: &str = "context_length_exceeded";

/// 400 in the words by which agents know that it is time to make a conversation shorter.
pub fn too_long(tokens: usize, model: &ServedModel) -> ApiError {
    let info = model.engine.info();
    // The answer needs room for a token at least.
    let most = info.context_length.min(info.kv_cache.capacity()).saturating_sub(1);
    ApiError::context_length("messages", format!("prompt is too long: {tokens} tokens > {most} maximum"))
}

/// Takes what chooses tokens.
fn take_params(fields: &mut Fields, model: &ServedModel) -> Result<SamplingParams, ApiError> {
    let params = take_sampling(fields, model)?;
    if params.temperature > 1.0 && model.sampling.temperature != Some(params.temperature) {
        let message = format!("temperature is {}: it must be from 0 to 1", params.temperature);
        return Err(ApiError::field("temperature", message));
    }
    Ok(params)
}

/// Takes `output_config` and its forerunner `output_format`, and vLLM's fields for the same thing.
fn take_output(fields: &mut Fields) -> Result<(OutputFormat, Option<String>), ApiError> {
    let mut found = vec![OutputFormat::take(fields)?];
    let mut effort = None;
    if let Some(format) = fields.object("output_format")? {
        found.push(OutputFormat::from_response_format(format, "output_format")?);
    }
    if let Some(mut config) = fields.object("output_config")? {
        if let Some(format) = config.object("format")? {
            found.push(OutputFormat::from_response_format(format, "output_config.format")?);
        }
        effort = config.string("effort")?.as_deref().map(thinking::effort).transpose()?;
        config.finish();
    }
    found.retain(|format| *format != OutputFormat::Text);
    if found.len() > 1 {
        let message = "output_config.format is not the only form asked for: give one";
        return Err(ApiError::field("output_config.format", message));
    }
    Ok((found.pop().unwrap_or_default(), effort))
}

/// Takes the rest of Anthropic's fields: those that ask for what this server doesn't do are errors.
fn refuse_what_is_not_there(fields: &mut Fields) -> Result<(), ApiError> {
    let refuse = |name: &str, what: &str| Err(ApiError::unsupported(name, format!("{name}: {what}")));
    if fields.value("container").is_some() {
        return refuse("container", "this server runs no code");
    }
    if fields.value("mcp_servers").is_some_and(|servers| servers != json!([])) {
        return refuse("mcp_servers", "this server calls no others for a request");
    }
    if fields.value("thread").is_some() {
        return refuse("thread", "this server keeps no conversations: send all messages");
    }
    for (name, allowed) in [("service_tier", &["auto", "standard_only"][..]), ("speed", &["standard"])] {
        if let Some(value) = fields.string(name)?
            && !allowed.contains(&value.as_str())
        {
            let shown = show(&Value::String(value));
            return refuse(name, &format!("{shown} is not supported: use {}", allowed.join(" or ")));
        }
    }
    if let Some(mut metadata) = fields.object("metadata")? {
        metadata.string("user_id")?;
        metadata.finish();
    }
    // Every prefix is cached here, asked or not.
    fields.object("cache_control")?;
    // Computed where the server stands.
    fields.string("inference_geo")?;
    Ok(())
}
