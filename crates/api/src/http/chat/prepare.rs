//! From a conversation to what the engine computes.

use std::borrow::Cow;

use serde_json::Value;
use vllm_grammar::Reasoning;
use vllm_parsers::reasoning;
use vllm_platform::TokenId;
use vllm_text::{ChatTemplate, RenderRequest, TemplateError};

use super::{ChatRequest, OutputPlan, ToolOffer, constraint::constraint, history};
use crate::{
    answer::TextOptions,
    http::{
        ApiError, HttpConfig,
        choices::{Generation, Prompt},
        guide::Guide,
        media::place,
        sampling::token_budget,
    },
    model::{PromptError, ServedModel},
    vision::{Medium, SeeError, SeenPrompt},
};

/// A conversation, ready to be answered.
#[derive(Debug, Clone)]
pub struct PreparedChat {
    /// Its tokens.
    pub prompt: Prompt,
    /// How they are answered.
    pub generation: Generation,
    /// How the answers are understood.
    pub output: OutputPlan,
}

/// What a template makes of a conversation.
struct Rendered {
    text: String,
    /// The images and videos in it, by their numbers in the request, in order of their messages.
    media: Vec<usize>,
}

impl ChatRequest {
    /// Blocks for as long as templating and tokenising take.
    ///
    /// # Errors
    /// 400 if the template refuses the messages or the prompt is too long.
    pub fn prepare(&self, model: &ServedModel, config: &HttpConfig) -> Result<PreparedChat, ApiError> {
        let param = self.messages_param;
        let Rendered { text, media } = self.render(model).map_err(|error| self.error(error, &[]))?;
        let seen = self.see(model, &text, &media)?;
        let max_tokens = token_budget(
            model,
            seen.tokens.len(),
            self.max_tokens,
            config.default_max_tokens,
            config.max_request_tokens,
            param,
        )?;
        let output = self.output_plan(model, &text);
        let stop_tokens = self.extras.stop_tokens(model);
        let guide = self.guide(model, &output, &stop_tokens)?;
        self.extras.check_with(&guide)?;
        let generation = Generation {
            params: self.params.clone(),
            n: self.n,
            guide,
            stop_tokens,
            processors: self.extras.processors(model, max_tokens)?,
            scheduling: self.scheduling.clone(),
            text: TextOptions {
                stop: self.stop(&output),
                include_stop: self.extras.include_stop,
                skip_special: self.extras.skip_special,
                keep: output.kept_tokens(&model.tokenizer),
            },
        };
        let SeenPrompt { tokens, media, video_tokens } = seen;
        Ok(PreparedChat { prompt: Prompt { tokens, media, video_tokens, max_tokens }, generation, output })
    }

    /// Number of tokens of the prompt. Blocks for as long as templating and tokenising take.
    ///
    /// # Errors
    /// 400 if the template refuses the messages.
    pub fn count_tokens(&self, model: &ServedModel) -> Result<usize, ApiError> {
        Ok(self.prompt_tokens(model, false)?.len())
    }

    /// Tokens of the prompt, however many. With `add_special` the model's own BOS is put before them, for templates that
    /// don't write it. Blocks as above.
    ///
    /// # Errors
    /// 400 if the template refuses the messages.
    pub fn prompt_tokens(&self, model: &ServedModel, add_special: bool) -> Result<Vec<TokenId>, ApiError> {
        let Rendered { text, media } = self.render(model).map_err(|error| self.error(error, &[]))?;
        if !add_special {
            return Ok(self.see(model, &text, &media)?.tokens);
        }
        if model.vision.is_some() {
            let message = "add_special_tokens can't be set for this model: its chat template writes them out";
            return Err(ApiError::unsupported("add_special_tokens", message));
        }
        model.tokenizer.encode(&text, true).map_err(|error| self.error(PromptError::Tokenizer(error), &[]))
    }

    /// The tokens of a rendered prompt; `media` are those in it, by their numbers.
    fn see(&self, model: &ServedModel, text: &str, media: &[usize]) -> Result<SeenPrompt, ApiError> {
        let loaded: Vec<&Medium> = media.iter().map(|&index| self.media.loaded(index)).collect::<Result<_, _>>()?;
        model.prompt(text, &loaded).map_err(|error| self.error(error, media))
    }

    /// What a client is told; `media` are those of the prompt, by their numbers.
    fn error(&self, error: PromptError, media: &[usize]) -> ApiError {
        let code = match error {
            PromptError::Media(SeeError::Medium { index, ref error }) => {
                return self.media.error(media[index], error);
            }
            PromptError::NoTemplate => "no_chat_template",
            PromptError::Template(_) => "chat_template_error",
            PromptError::Tokenizer(_) => "tokenizer_error",
            PromptError::Media(SeeError::Prompt(_)) => "media_not_placed",
            PromptError::NotContinuable => "not_continuable",
        };
        ApiError::field(self.messages_param, error.to_string()).with_code(code)
    }

    /// What the answers are held to.
    fn guide(&self, model: &ServedModel, output: &OutputPlan, stop: &[TokenId]) -> Result<Guide, ApiError> {
        let reasoning = output.reasoning.map(|(format, open)| Reasoning { format, open });
        let told = model.template.as_ref().is_some_and(|template| template.source().contains("thinking"));
        let budget = match (self.thinking.enabled, self.thinking.budget.or(model.chat.thinking_budget)) {
            // A template that can't be told not to think.
            (Some(false), _) if !told => Some(0),
            (_, budget) => budget,
        };
        let guide = |tools: &ToolOffer| {
            let constraint = constraint(&self.format, tools, model.calls)?;
            let constraint = constraint.as_ref().map(|(constraint, param)| (constraint, *param));
            Guide::new(model, constraint, reasoning, budget, stop)
        };
        // Arguments need not follow a schema that isn't strict, and some say what no grammar can.
        guide(&self.tools).or_else(|error| self.tools.relaxed().map_or(Err(error), |tools| guide(&tools)))
    }

    fn stop(&self, output: &OutputPlan) -> Vec<String> {
        let own = output.calls.iter().flat_map(|(format, _)| format.stops.iter().map(|&stop| stop.to_owned()));
        self.stop.iter().cloned().chain(own).collect()
    }

    fn output_plan(&self, model: &ServedModel, prompt: &str) -> OutputPlan {
        OutputPlan {
            reasoning: model.reasoning.map(|format| (format, reasoning::is_open(format, prompt))),
            calls: model.calls.filter(|_| self.tools.is_active()).map(|format| (format, self.tools.tools.clone())),
            most_calls: self.tools.most_calls(),
            hide_reasoning: self.thinking.hidden,
        }
    }

    fn render(&self, model: &ServedModel) -> Result<Rendered, PromptError> {
        let template = model.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let mut tools = self.tools.is_active().then_some(Cow::Borrowed(&self.tools.definitions));
        let mut messages = self.fit_to(template, tools.as_deref().map(Vec::as_slice));
        let mut extra = self.template.clone();
        self.thinking.set_variables(&mut extra);
        if let Some(vision) = &model.vision {
            // Nothing that a client wrote may be taken for an image.
            messages.to_mut().iter_mut().for_each(|message| vision.guard(message));
            tools.iter_mut().flat_map(Cow::to_mut).for_each(|tool| vision.guard(tool));
            extra.values_mut().for_each(|value| vision.guard(value));
        }
        for (name, value) in &model.chat.template {
            extra.entry(name).or_insert_with(|| value.clone());
        }
        let marks = model.marks();
        let render = |messages: &[Value]| {
            let (messages, media) = place(messages);
            let request = RenderRequest {
                messages: &messages,
                tools: tools.as_deref().map(Vec::as_slice),
                add_generation_prompt: self.add_generation_prompt && !self.continue_final_message,
                extra: &extra,
            };
            let text = template.render_with_media(&request, &marks.for_template())?;
            Ok(Rendered { text, media })
        };
        let rendered = match render(&messages) {
            // Many a template insists on turns that alternate.
            Err(refused @ TemplateError::Raised { .. }) => {
                let merged = history::alternating(&messages);
                if merged == *messages { Err(refused) } else { render(&merged).map_err(|_| refused) }
            }
            result => result,
        };
        let Rendered { text, media } = rendered.map_err(PromptError::Template)?;
        if self.continue_final_message {
            let cut = history::cut_after_final_message(&text, &messages).ok_or(PromptError::NotContinuable)?;
            return Ok(Rendered { text: cut, media });
        }
        Ok(Rendered { text, media })
    }

    /// The messages as this template can show them.
    fn fit_to(&self, template: &ChatTemplate, tools: Option<&[Value]>) -> Cow<'_, [Value]> {
        let has = |field: &str| self.messages.iter().any(|message| message.get(field).is_some());
        let has_role = |name: &str| self.messages.iter().any(|message| message.get("role").is_some_and(|r| r == name));
        let write_out = (has("tool_calls") || has_role("tool")) && !template.shows_tool_calls();
        let describe = tools.filter(|_| !template.shows_tools());
        if !write_out && describe.is_none() {
            return Cow::Borrowed(&self.messages);
        }
        let mut messages = self.messages.clone();
        if write_out {
            history::write_out_calls(&mut messages);
        }
        if let Some(definitions) = describe {
            history::describe_tools(&mut messages, definitions);
        }
        Cow::Owned(messages)
    }
}
