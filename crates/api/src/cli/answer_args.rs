//! Flags on how answers are sampled and written where requests don't say.

use clap::Args;
use serde_json::{Map, Value};
use vllm_parsers::{CallFormat, ReasoningFormat, calls, reasoning};

use crate::model::{ChatDefaults, Formats, LoadSpec, SamplingDefaults};

/// What holds for requests that don't say.
#[derive(Debug, Clone, Args)]
pub struct DefaultArgs {
    /// temperature of requests that don't say [default: what the model's makers recommend]
    #[arg(long, value_name = "T", value_parser = number_in::<0, 2>)]
    default_temperature: Option<f32>,
    /// The same for top_p
    #[arg(long, value_name = "P", value_parser = number_in::<0, 1>)]
    default_top_p: Option<f32>,
    /// The same for top_k
    #[arg(long, value_name = "K")]
    default_top_k: Option<usize>,
    /// The same for min_p
    #[arg(long, value_name = "P", value_parser = number_in::<0, 1>)]
    default_min_p: Option<f32>,
    /// The same for presence_penalty
    #[arg(long, value_name = "X", value_parser = number_in::<-2, 2>, allow_negative_numbers = true)]
    default_presence_penalty: Option<f32>,
    /// The same for repetition_penalty
    #[arg(long, value_name = "X", value_parser = number_in::<0, 10>)]
    default_repetition_penalty: Option<f32>,
    /// Most tokens of the chain of thought of requests that don't say
    #[arg(long, value_name = "TOKENS")]
    default_thinking_token_budget: Option<usize>,
    /// Variables for the chat template, a JSON object, e.g. '{"enable_thinking": false}'
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    default_chat_template_kwargs: Option<Map<String, Value>>,
}

impl DefaultArgs {
    /// Puts them into what is loaded.
    pub fn apply(&self, spec: &mut LoadSpec) {
        spec.sampling = SamplingDefaults {
            temperature: self.default_temperature,
            top_k: self.default_top_k,
            top_p: self.default_top_p,
            min_p: self.default_min_p,
            repetition_penalty: self.default_repetition_penalty,
            presence_penalty: self.default_presence_penalty,
        };
        spec.chat = ChatDefaults {
            template: self.default_chat_template_kwargs.clone().unwrap_or_default(),
            thinking_budget: self.default_thinking_token_budget,
        };
    }
}

fn number_in<const LOW: i8, const HIGH: i8>(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(number) if (f32::from(LOW)..=f32::from(HIGH)).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {LOW} to {HIGH}")),
    }
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

/// How answers are written. What isn't given, the chat template shows.
#[derive(Debug, Clone, Args)]
pub struct FormatArgs {
    /// How the model writes tool calls, e.g. hermes, mistral or llama3 [default: what its chat template shows]
    #[arg(long, value_name = "NAME", value_parser = call_format)]
    tool_call_parser: Option<&'static CallFormat>,
    /// Tool calls are always looked for when a request has tools: for commands written for the original
    #[arg(long, hide = true)]
    enable_auto_tool_choice: bool,
    /// How the model writes its chain of thought, e.g. qwen3 or deepseek_r1 [default: what its chat template shows]
    #[arg(long, value_name = "NAME", value_parser = reasoning_format)]
    reasoning_parser: Option<&'static ReasoningFormat>,
}

impl FormatArgs {
    /// Those that were named.
    pub fn formats(&self) -> Formats {
        Formats { calls: self.tool_call_parser, reasoning: self.reasoning_parser }
    }
}

fn call_format(name: &str) -> Result<&'static CallFormat, String> {
    let known = || calls::FORMATS.iter().flat_map(|format| format.names.iter().copied()).collect::<Vec<_>>().join(", ");
    calls::by_name(name).ok_or_else(|| format!("unknown format: use one of {}", known()))
}

fn reasoning_format(name: &str) -> Result<&'static ReasoningFormat, String> {
    let known =
        || reasoning::FORMATS.iter().flat_map(|format| format.names.iter().copied()).collect::<Vec<_>>().join(", ");
    reasoning::by_name(name).ok_or_else(|| format!("unknown format: use one of {}", known()))
}
