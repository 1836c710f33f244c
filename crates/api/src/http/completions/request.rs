//! The fields of a completion.

use serde_json::Value;
use vllm_platform::TokenId;

use crate::{
    answer::TextOptions,
    http::{
        ApiError, Fields, HttpConfig,
        chat::OutputFormat,
        choices::{Generation, Prompt},
        extras::{Extras, Scheduling},
        fields::show,
        guide::Guide,
        media::Media,
        sampling::{Streaming, take_n, take_sampling_or, take_stop, take_streaming, token_budget},
    },
    model::ServedModel,
    vision::{Medium, SeeError, SeenPrompt},
};

/// What holds where a request doesn't say: not every API over this route has OpenAI's defaults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// Tokens of an answer; fewer if the model's context leaves less.
    pub max_tokens: usize,
    /// Temperature, where the model's makers name none either.
    pub temperature: f32,
    /// Most alternatives to a token.
    pub max_alternatives: i64,
}

impl Terms {
    /// As OpenAI has it.
    pub const OPENAI: Self = Self { max_tokens: 16, temperature: 1.0, max_alternatives: 5 };
}

/// A body that was understood.
#[derive(Debug)]
pub(crate) struct CompletionRequest {
    pub prompts: Vec<Prompt>,
    pub generation: Generation,
    pub streaming: Streaming,
    pub logprobs: bool,
    /// Text of each prompt, if answers start with it.
    pub echo: Vec<String>,
}

impl CompletionRequest {
    /// Blocks for as long as tokenising takes. `media`, which are loaded, go into every prompt: there should be but one.
    ///
    /// # Errors
    /// 400 naming the field that can't be had.
    pub fn parse(
        mut fields: Fields,
        model: &ServedModel,
        config: &HttpConfig,
        terms: Terms,
        media: &Media,
    ) -> Result<Self, ApiError> {
        let add_special = fields.boolean("add_special_tokens")?.unwrap_or(true);
        let inputs = take_prompts(&mut fields)?;
        let mut params = take_sampling_or(&mut fields, model, terms.temperature)?;
        let alternatives = fields.integer("logprobs", 0..=terms.max_alternatives)?;
        params.logprobs = alternatives.map(|n| n as usize);
        let n = take_n(&mut fields)?;
        if let Some(best_of) = fields.integer("best_of", 1..=i64::MAX)?
            && best_of as usize != n
        {
            let message = format!("best_of is {best_of}: it must be the same as n, {n}");
            return Err(ApiError::unsupported("best_of", message));
        }
        let stop = take_stop(&mut fields)?;
        let streaming = take_streaming(&mut fields)?;
        let asked = fields.integer("max_tokens", 1..=i64::MAX)?.map(|n| n as usize);
        let echo = fields.boolean("echo")?.unwrap_or(false);
        if echo && alternatives.is_some() {
            let message = "logprobs of an echoed prompt are not supported yet: leave out one of echo and logprobs";
            return Err(ApiError::unsupported("echo", message));
        }
        if fields.string("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::unsupported("suffix", "suffix: this model does not fill in the middle"));
        }
        fields.string("user")?;
        let truncate = fields.integer("truncate_prompt_tokens", -1..=i64::MAX)?;
        let format = OutputFormat::take(&mut fields)?;
        let extras = Extras::take(&mut fields, model)?;
        let scheduling = Scheduling::take(&mut fields, config.timeout)?;
        fields.finish();

        let invalid = |error: vllm_text::TextError| ApiError::field("prompt", error.to_string());
        let mut prompts = Vec::with_capacity(inputs.len());
        let mut texts = Vec::new();
        for input in inputs {
            let tokens = match &input {
                Input::Text(text) => model.tokenizer.encode(text, add_special).map_err(invalid)?,
                Input::Tokens(tokens) => tokens.clone(),
            };
            if echo {
                texts.push(match input {
                    Input::Text(text) => text,
                    Input::Tokens(tokens) => model.tokenizer.decode(&tokens, false).map_err(invalid)?,
                });
            }
            let tokens = truncated(model, tokens, truncate);
            let SeenPrompt { tokens, media, video_tokens } = see(model, tokens, media)?;
            let max_tokens =
                token_budget(model, tokens.len(), asked, terms.max_tokens, config.max_request_tokens, "prompt")?;
            prompts.push(Prompt { tokens, media, video_tokens, max_tokens });
        }
        let shortest = prompts.iter().map(|prompt| prompt.max_tokens).min().unwrap_or(0);
        let stop_tokens = extras.stop_tokens(model);
        let constraint = format.constraint();
        let constraint = constraint.as_ref().map(|constraint| (constraint, "structured_outputs"));
        let guide = Guide::new(model, constraint, None, None, &stop_tokens)?;
        extras.check_with(&guide)?;
        let generation = Generation {
            params,
            n,
            guide,
            stop_tokens,
            processors: extras.processors(model, shortest)?,
            scheduling,
            text: TextOptions {
                stop,
                include_stop: extras.include_stop,
                skip_special: extras.skip_special,
                keep: Vec::new(),
            },
        };
        let logprobs = alternatives.is_some();
        Ok(Self { prompts, generation, streaming, logprobs, echo: texts })
    }
}

/// The last tokens of a prompt, as many as `truncate` says: none and 0 keep all, -1 as many as leave room for an answer.
fn truncated(model: &ServedModel, mut tokens: Vec<TokenId>, truncate: Option<i64>) -> Vec<TokenId> {
    let kept = match truncate {
        None | Some(0) => return tokens,
        Some(count) => usize::try_from(count).unwrap_or(model.engine.info().context_length.saturating_sub(1)),
    };
    tokens.drain(..tokens.len().saturating_sub(kept));
    tokens
}

/// A prompt of tokens with `media` in the places of the model's placeholders.
fn see(model: &ServedModel, tokens: Vec<TokenId>, media: &Media) -> Result<SeenPrompt, ApiError> {
    let (Some(vision), false) = (&model.vision, media.is_empty()) else {
        return Ok(SeenPrompt { tokens, ..SeenPrompt::default() });
    };
    let loaded: Vec<&Medium> = (0..media.parts().len()).map(|index| media.loaded(index)).collect::<Result<_, _>>()?;
    vision.prompt_of_tokens(&tokens, &loaded, &model.tokenizer).map_err(|error| match error {
        SeeError::Medium { index, error } => media.error(index, &error),
        SeeError::Prompt(message) => ApiError::field("prompt", message).with_code("media_not_placed"),
    })
}

/// A prompt in either form.
enum Input {
    Text(String),
    Tokens(Vec<TokenId>),
}

/// Takes `prompt`: a string, a list of strings, a list of tokens or a list of lists of tokens.
fn take_prompts(fields: &mut Fields) -> Result<Vec<Input>, ApiError> {
    let error = |message: String| ApiError::field("prompt", message);
    match fields.value("prompt") {
        None => Err(error("prompt is missing: it must be a string, token ids, or a list of either".into())),
        Some(Value::String(text)) => Ok(vec![Input::Text(text)]),
        Some(Value::Array(items)) if items.is_empty() => Err(error("prompt is an empty list".into())),
        Some(Value::Array(items)) if items[0].is_number() => Ok(vec![Input::Tokens(tokens("prompt", &items)?)]),
        Some(Value::Array(items)) => {
            let input = |(index, item): (usize, Value)| match item {
                Value::String(text) => Ok(Input::Text(text)),
                Value::Array(ids) => Ok(Input::Tokens(tokens(&format!("prompt[{index}]"), &ids)?)),
                other => Err(error(format!("prompt[{index}] is {}: it must be a string or token ids", show(&other)))),
            };
            items.into_iter().enumerate().map(input).collect()
        }
        Some(other) => {
            Err(error(format!("prompt is {}: it must be a string, token ids, or a list of either", show(&other))))
        }
    }
}

fn tokens(name: &str, items: &[Value]) -> Result<Vec<TokenId>, ApiError> {
    let token = |item: &Value| {
        item.as_u64()
            .and_then(|id| TokenId::try_from(id).ok())
            .ok_or_else(|| ApiError::field("prompt", format!("{name} has {}: it must have token ids only", show(item))))
    };
    items.iter().map(token).collect()
}
