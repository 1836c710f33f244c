//! What a body asks for.

use serde_json::{Map, Value};
use vllm_mcp::McpClient;
use vllm_platform::sampling::MAX_LOGPROBS;

use crate::{
    http::{
        ApiError, Fields, HttpConfig, WithMedia,
        chat::{ChatRequest, OutputFormat, ServerTools, Thinking, ToolOffer},
        extras::{Extras, Scheduling},
        fields::show,
        media::{Media, MediaOptions},
        messages::normalise,
        sampling::{Streaming, take_n, take_sampling, take_stop, take_streaming},
    },
    model::ServedModel,
};

/// A body that was understood.
pub struct Request {
    pub chat: ChatRequest,
    pub streaming: Streaming,
    pub logprobs: bool,
    /// Tools that this server runs.
    pub server_tools: Option<ServerTools>,
}

impl WithMedia for Request {
    fn media(&mut self) -> Option<&mut Media> {
        self.chat.media()
    }
}

impl Request {
    /// Takes all fields.
    pub fn parse(
        mut fields: Fields,
        model: &ServedModel,
        config: &HttpConfig,
        mcp: Result<&McpClient, ApiError>,
    ) -> Result<Self, ApiError> {
        let server_tools = ServerTools::take(&mut fields, mcp)?;
        let messages = fields
            .array("messages")?
            .ok_or_else(|| ApiError::field("messages", "messages is missing: it must be an array of messages"))?;
        let mut params = take_sampling(&mut fields, model)?;
        let logprobs = fields.boolean("logprobs")?.unwrap_or(false);
        let top = fields.integer("top_logprobs", 0..=MAX_LOGPROBS as i64)?;
        if top.is_some_and(|top| top > 0) && !logprobs {
            return Err(ApiError::field("top_logprobs", "top_logprobs is only allowed with logprobs: true"));
        }
        params.logprobs = logprobs.then_some(top.unwrap_or(0) as usize);
        // The newer name wins, as with OpenAI.
        let old = fields.integer("max_tokens", 1..=i64::MAX)?;
        let asked = fields.integer("max_completion_tokens", 1..=i64::MAX)?.or(old);
        let mut media = Media::of(model, config).with_options(MediaOptions::take(&mut fields)?);
        let chat = ChatRequest {
            messages: normalise(messages, &mut media)?,
            media,
            messages_param: "messages",
            tools: ToolOffer::take(&mut fields)?,
            format: OutputFormat::take(&mut fields)?,
            thinking: Thinking::take(&mut fields)?,
            template: take_template_variables(&mut fields)?,
            add_generation_prompt: fields.boolean("add_generation_prompt")?.unwrap_or(true),
            continue_final_message: fields.boolean("continue_final_message")?.unwrap_or(false),
            params,
            n: take_n(&mut fields)?,
            stop: take_stop(&mut fields)?,
            max_tokens: asked.map(|tokens| tokens as usize),
            extras: Extras::take(&mut fields, model)?,
            scheduling: Scheduling::take(&mut fields, config.timeout)?,
        };
        let streaming = take_streaming(&mut fields)?;
        refuse_what_is_not_there(&mut fields)?;
        fields.finish();
        if server_tools.is_some() && (chat.n > 1 || logprobs) {
            let message = "tools of MCP servers go with one answer without logprobs: n must be 1";
            return Err(ApiError::unsupported("tools", message));
        }
        Ok(Self { chat, streaming, logprobs, server_tools })
    }
}

fn take_template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    Ok(fields.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default())
}

/// Takes the rest of OpenAI's fields: those that ask for what this server doesn't do are errors, unless what they ask
/// for is what it does anyhow.
fn refuse_what_is_not_there(fields: &mut Fields) -> Result<(), ApiError> {
    let refuse = |name: &str, what: &str| Err(ApiError::unsupported(name, format!("{name}: {what}")));
    for item in fields.array("modalities")?.unwrap_or_default() {
        if item != "text" {
            return refuse("modalities", &format!("this model answers with text only, not {}", show(&item)));
        }
    }
    for (name, allowed) in [("service_tier", &["auto", "default"][..]), ("verbosity", &["medium"])] {
        if let Some(value) = fields.string(name)?
            && !allowed.contains(&value.as_str())
        {
            return refuse(name, &format!("{value:?} is not supported: use {}", allowed.join(" or ")));
        }
    }
    if fields.boolean("store")?.unwrap_or(false) {
        return refuse("store", "this server stores nothing: leave it out or set it to false");
    }
    for name in ["audio", "web_search_options"] {
        if fields.value(name).is_some() {
            return refuse(name, "this model takes and gives text only");
        }
    }
    for name in ["functions", "function_call"] {
        if fields.value(name).is_some() {
            return refuse(name, "is the old form: use tools and tool_choice");
        }
    }
    // For OpenAI's own books and caches; they change no answer.
    for name in ["user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"] {
        fields.string(name)?;
    }
    for name in ["metadata", "prediction"] {
        fields.object(name)?;
    }
    Ok(())
}
