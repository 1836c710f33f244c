//! `POST /tokenize` and `POST /detokenize`, in vLLM's forms.

use axum::{body::Body, extract::State, response::Response};
use serde_json::{Value, json};
use vllm_platform::{SamplingParams, TokenId};

use super::{
    ApiError, App, Fields, HttpConfig, WithMedia, blocking,
    chat::{ChatRequest, OutputFormat, Thinking, ToolOffer},
    extras::{Extras, Scheduling},
    fields::{read_body, show},
    health::json_response,
    media::{Media, MediaOptions},
    messages::normalise,
    staged,
};
use crate::{model::ServedModel, residency::Lease};

/// Tokens of a text, or of a conversation as its model sees it.
pub(super) async fn tokenize(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let (fields, model) = open(&app, body).await?;
    let (config, served) = (app.config, model.clone());
    let parse = move || ToTokenize::parse(fields, &served, &config);
    let tokenised = staged(&app, parse, move |request: &mut ToTokenize| request.answer(&model));
    Ok(json_response(&tokenised.await?.prepared))
}

/// What is to be tokenised.
struct ToTokenize {
    input: Input,
    add_special: bool,
    with_texts: bool,
}

enum Input {
    Text(String),
    Chat(Box<ChatRequest>),
}

impl WithMedia for ToTokenize {
    fn media(&mut self) -> Option<&mut Media> {
        match &mut self.input {
            Input::Text(_) => None,
            Input::Chat(chat) => chat.media(),
        }
    }
}

impl ToTokenize {
    fn parse(mut fields: Fields, model: &ServedModel, config: &HttpConfig) -> Result<Self, ApiError> {
        let with_texts = fields.boolean("return_token_strs")?.unwrap_or(false);
        let add_special = fields.boolean("add_special_tokens")?;
        let input = match (fields.string("prompt")?, fields.array("messages")?) {
            (Some(prompt), None) => Input::Text(prompt),
            (None, Some(messages)) => Input::Chat(conversation(&mut fields, messages, model, config)?.into()),
            (Some(_), Some(_)) => {
                return Err(ApiError::field("messages", "prompt and messages are both given: give one"));
            }
            (None, None) => return Err(ApiError::field("prompt", "prompt and messages are both missing: give one")),
        };
        fields.finish();
        // Templates write them out.
        let add_special = add_special.unwrap_or(matches!(input, Input::Text(_)));
        Ok(Self { input, add_special, with_texts })
    }

    fn answer(&self, model: &ServedModel) -> Result<Value, ApiError> {
        let tokens = match &self.input {
            Input::Text(text) => {
                let tokens = model.tokenizer.encode(text, self.add_special);
                tokens.map_err(|error| ApiError::field("prompt", error.to_string()))?
            }
            Input::Chat(chat) => chat.prompt_tokens(model, self.add_special)?,
        };
        let texts = self.with_texts.then(|| {
            let text = |&token: &TokenId| model.tokenizer.id_to_token(token).unwrap_or_default();
            tokens.iter().map(text).collect::<Vec<_>>()
        });
        Ok(json!({
            "count": tokens.len(),
            "max_model_len": model.engine.info().context_length,
            "tokens": tokens,
            "token_strs": texts,
        }))
    }
}

/// Text of tokens, special ones and all.
pub(super) async fn detokenize(State(app): State<App>, body: Body) -> Result<Response, ApiError> {
    let (mut fields, model) = open(&app, body).await?;
    blocking(move || {
        let error = |message: String| ApiError::field("tokens", message);
        let vocab = model.tokenizer.vocab_size();
        let token = |value: Value| {
            let id = value.as_u64().and_then(|id| TokenId::try_from(id).ok());
            let id = id.ok_or_else(|| error(format!("tokens has {}: it must be a list of token ids", show(&value))))?;
            if id as usize >= vocab {
                return Err(error(format!("tokens has {id}: this model's vocabulary has {vocab} tokens")));
            }
            Ok(id)
        };
        let given = fields.array("tokens")?;
        let given = given.ok_or_else(|| error("tokens is missing: it must be a list of token ids".into()))?;
        let tokens: Vec<TokenId> = given.into_iter().map(token).collect::<Result<_, _>>()?;
        fields.finish();
        let text = model.tokenizer.decode(&tokens, false).map_err(|problem| error(problem.to_string()))?;
        Ok(json_response(&json!({ "prompt": text })))
    })
    .await
}

/// Parses a body and finds its model, which need not be named if there is but one.
async fn open(app: &App, body: Body) -> Result<(Fields, Lease), ApiError> {
    let body = read_body(body, app.config.body_limit).await?;
    let mut fields = blocking(move || Fields::parse(&body)).await?;
    let name = match fields.string("model")? {
        Some(name) => name,
        None if app.models()?.is_single() => {
            let models = app.models()?.status();
            models.into_iter().flat_map(|model| model.names).next().unwrap_or_default()
        }
        None => {
            let message = "model is missing: this server has several, and each its own tokens";
            return Err(ApiError::field("model", message));
        }
    };
    let model = app.lease(&name).await?;
    Ok((fields, model))
}

fn conversation(
    fields: &mut Fields,
    messages: Vec<Value>,
    model: &ServedModel,
    config: &HttpConfig,
) -> Result<ChatRequest, ApiError> {
    let mut media = Media::of(model, config).with_options(MediaOptions::take(fields)?);
    Ok(ChatRequest {
        messages: normalise(messages, &mut media)?,
        media,
        messages_param: "messages",
        tools: ToolOffer::take(fields)?,
        format: OutputFormat::Text,
        thinking: Thinking::take(fields)?,
        template: fields.object("chat_template_kwargs")?.map(Fields::into_map).unwrap_or_default(),
        add_generation_prompt: fields.boolean("add_generation_prompt")?.unwrap_or(true),
        continue_final_message: fields.boolean("continue_final_message")?.unwrap_or(false),
        params: SamplingParams::default(),
        n: 1,
        stop: Vec::new(),
        max_tokens: None,
        extras: Extras::take(fields, model)?,
        scheduling: Scheduling::default(),
    })
}
