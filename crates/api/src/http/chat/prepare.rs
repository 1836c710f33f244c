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
        sampling::token_budget,
    },
    model::{PromptError, ServedModel},
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

impl ChatRequest {
    /// Blocks for as long as templating and tokenising take.
    ///
    /// # Errors
    /// 400 if the template refuses the messages or the prompt is too long.
    pub fn prepare(&self, model: &ServedModel, config: &HttpConfig) -> Result<PreparedChat, ApiError> {
        let param = self.messages_param;
        let text = self.render(model).map_err(|error| prompt_error(param, &error))?;
        // The template writes the special tokens out.
        let tokens = model.tokenizer.encode(&text, false);
        let tokens = tokens.map_err(|error| prompt_error(param, &PromptError::Tokenizer(error)))?;
        let max_tokens = token_budget(
            model,
            tokens.len(),
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
        Ok(PreparedChat { prompt: Prompt { tokens, max_tokens }, generation, output })
    }

    /// Number of tokens of the prompt. Blocks for as long as templating and tokenising take.
    ///
    /// # Errors
    /// 400 if the template refuses the messages.
    pub fn count_tokens(&self, model: &ServedModel) -> Result<usize, ApiError> {
        let error = |error: PromptError| prompt_error(self.messages_param, &error);
        let text = self.render(model).map_err(error)?;
        let tokens = model.tokenizer.encode(&text, false).map_err(|e| error(PromptError::Tokenizer(e)))?;
        Ok(tokens.len())
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

    fn render(&self, model: &ServedModel) -> Result<String, PromptError> {
        let template = model.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let tools = self.tools.is_active().then_some(self.tools.definitions.as_slice());
        let messages = self.fit_to(template, tools);
        let mut extra = self.template.clone();
        self.thinking.set_variables(&mut extra);
        for (name, value) in &model.chat.template {
            extra.entry(name).or_insert_with(|| value.clone());
        }
        let render = |messages: &[Value]| {
            template.render(&RenderRequest {
                messages,
                tools,
                add_generation_prompt: self.add_generation_prompt && !self.continue_final_message,
                extra: &extra,
            })
        };
        let text = match render(&messages) {
            // Many a template insists on turns that alternate.
            Err(refused @ TemplateError::Raised { .. }) => {
                let merged = history::alternating(&messages);
                if merged == *messages { Err(refused) } else { render(&merged).map_err(|_| refused) }
            }
            result => result,
        };
        let text = text.map_err(PromptError::Template)?;
        if self.continue_final_message {
            return history::cut_after_final_message(&text, &messages).ok_or(PromptError::NotContinuable);
        }
        Ok(text)
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

fn prompt_error(param: &str, error: &PromptError) -> ApiError {
    let code = match error {
        PromptError::NoTemplate => "no_chat_template",
        PromptError::Template(_) => "chat_template_error",
        PromptError::Tokenizer(_) => "tokenizer_error",
        PromptError::NotContinuable => "not_continuable",
    };
    ApiError::field(param, error.to_string()).with_code(code)
}
