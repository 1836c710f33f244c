//! What a `GenerateRequest` asks, as the fields of a completion.

use serde_json::{Map, Value, json};
use tonic::Status;
use vllm_grpc_proto::vllm_proto::{
    CandidateTokens, DecodingParameters, GenerateRequest, KvCacheParameters, RandomSampling, ResponseOptions,
    StoppingCriteria, TokenIds, candidate_tokens::Select, decoding_parameters::StructuredOutput,
    generate_request::Prompt,
};
use vllm_platform::sampling::MAX_LOGPROBS;

use super::{media, response::Wanted};
use crate::{
    grpc::{
        ask::Ask,
        status::{Names, refused},
    },
    http::{call::Endpoint, completions::Terms},
};

/// As the service's messages say it.
const TERMS: Terms = Terms { max_tokens: 20, temperature: 0.0, max_alternatives: MAX_LOGPROBS as i64 };

/// The fields of a completion, and where a `GenerateRequest` has them.
const NAMES: Names = &[
    ("top_k", "sampling.top_k"),
    ("top_p", "sampling.top_p"),
    ("min_p", "sampling.min_p"),
    ("seed", "sampling.seed"),
    ("n", "sampling.num_sequences"),
    ("presence_penalty", "decoding.presence_penalty"),
    ("frequency_penalty", "decoding.frequency_penalty"),
    ("repetition_penalty", "decoding.repetition_penalty"),
    ("logit_bias", "decoding.logit_bias"),
    ("allowed_token_ids", "decoding.allowed_token_ids"),
    ("bad_words_token_ids", "decoding.bad_words_token_ids"),
    ("structured_outputs", "decoding.structured_output"),
    ("structured_outputs.json", "decoding.json"),
    ("structured_outputs.regex", "decoding.regex"),
    ("structured_outputs.choice", "decoding.choice"),
    ("structured_outputs.grammar", "decoding.grammar"),
    ("structured_outputs.structural_tag", "decoding.structural_tag"),
    ("max_tokens", "stopping.max_new_tokens"),
    ("min_tokens", "stopping.min_new_tokens"),
    ("stop", "stopping.stop_strings"),
    ("stop_token_ids", "stopping.stop_token_ids"),
    ("logprobs", "response.output_candidates.top_n"),
    ("cache_salt", "kv.cache_salt"),
    ("timeout", "grpc-timeout"),
];

/// A request that was understood.
pub struct Understood {
    pub ask: Ask,
    pub told: Wanted,
}

/// Reads a request.
///
/// # Errors
/// INVALID_ARGUMENT naming the field that can't be honoured.
pub fn understand(request: GenerateRequest, stream: bool) -> Result<Understood, Status> {
    refuse(&request)?;
    let mut fields = Map::new();
    let prompt = match request.prompt {
        None => return Err(refused("prompt", "there must be text or token_ids")),
        Some(Prompt::Text(text)) => json!(text),
        Some(Prompt::TokenIds(TokenIds { ids })) if ids.is_empty() => {
            return Err(refused("token_ids", "the prompt is empty"));
        }
        Some(Prompt::TokenIds(TokenIds { ids })) => json!(ids),
    };
    fields.insert("prompt".into(), prompt);
    put_number(&mut fields, "temperature", "temperature", request.temperature)?;
    put_sampling(&mut fields, request.sampling.unwrap_or_default(), stream)?;
    put_decoding(&mut fields, request.decoding.unwrap_or_default())?;
    put_stopping(&mut fields, request.stopping.unwrap_or_default());
    let told = put_response(&mut fields, request.response.unwrap_or_default())?;
    put_kv(&mut fields, request.kv.unwrap_or_default())?;
    if request.truncate_prompt_tokens > 0 {
        fields.insert("truncate_prompt_tokens".into(), json!(request.truncate_prompt_tokens));
    }
    fields.insert("priority".into(), json!(request.priority));
    let media = media::parts(request.media)?;
    let ask = Ask {
        endpoint: Endpoint::GrpcGenerate,
        request_id: request.request_id,
        model: Some(request.model).filter(|model| !model.is_empty()),
        fields,
        media,
        stream,
        terms: TERMS,
        names: NAMES,
    };
    Ok(Understood { ask, told })
}

/// Refuses what this engine doesn't have, whatever else is asked. A session's name is for those who route it.
fn refuse(request: &GenerateRequest) -> Result<(), Status> {
    if !request.lora_name.is_empty() {
        return Err(refused("lora_name", "this server loads no LoRA adapters: leave it out to use the model itself"));
    }
    if request.watermarking == Some(true) {
        return Err(refused("watermarking", "this engine has no watermark to apply"));
    }
    if request.kv_hints.as_ref().is_some_and(|hints| !hints.actions.is_empty()) {
        return Err(refused("kv_hints", "hints on KV are not understood here"));
    }
    let budget = request.stopping.as_ref().and_then(|stopping| stopping.thinking_token_budget);
    if budget.is_some_and(|budget| budget != -1) {
        let why = "thoughts are not bounded apart from the answer here: use /v1/chat/completions, or -1";
        return Err(refused("stopping.thinking_token_budget", why));
    }
    let constrained = request.decoding.as_ref().is_some_and(|decoding| decoding.structured_output.is_some());
    let gate = request.engine_reasoning_gate.as_ref().and_then(|gate| gate.reasoning_ended);
    if constrained && gate == Some(false) {
        let why = "a constraint holds from the first token here: give one that covers the reasoning, too";
        return Err(refused("engine_reasoning_gate.reasoning_ended", why));
    }
    Ok(())
}

fn put_sampling(fields: &mut Map<String, Value>, sampling: RandomSampling, stream: bool) -> Result<(), Status> {
    if sampling.num_sequences > 1 && !stream {
        let why = "Generate has room for one sequence in its response: use GenerateStream for more";
        return Err(refused("sampling.num_sequences", why));
    }
    fields.insert("n".into(), json!(sampling.num_sequences.max(1)));
    put_number(fields, "top_p", "sampling.top_p", sampling.top_p)?;
    if sampling.top_p == Some(0.0) {
        return Err(refused("sampling.top_p", "it must be above 0 and at most 1"));
    }
    put_number(fields, "min_p", "sampling.min_p", sampling.min_p)?;
    put(fields, "top_k", sampling.top_k);
    put(fields, "seed", sampling.seed);
    Ok(())
}

fn put_decoding(fields: &mut Map<String, Value>, decoding: DecodingParameters) -> Result<(), Status> {
    // 0 says "none" here, also where the model's makers have another default.
    let repetition = if decoding.repetition_penalty == 0.0 { 1.0 } else { decoding.repetition_penalty };
    let penalties = [
        ("presence_penalty", "decoding.presence_penalty", decoding.presence_penalty),
        ("frequency_penalty", "decoding.frequency_penalty", decoding.frequency_penalty),
        ("repetition_penalty", "decoding.repetition_penalty", repetition),
    ];
    for (name, at, penalty) in penalties {
        put_number(fields, name, at, Some(penalty))?;
    }
    if decoding.logit_bias.values().any(|bias| !bias.is_finite()) {
        return Err(refused("decoding.logit_bias", "a bias must be a finite number"));
    }
    let biases = decoding.logit_bias.into_iter().map(|(token, bias)| (token.to_string(), json!(bias)));
    fields.insert("logit_bias".into(), Value::Object(biases.collect()));
    if !decoding.allowed_token_ids.is_empty() {
        fields.insert("allowed_token_ids".into(), json!(decoding.allowed_token_ids));
    }
    let bad: Vec<Vec<u32>> = decoding.bad_words_token_ids.into_iter().map(|words| words.ids).collect();
    if !bad.is_empty() {
        fields.insert("bad_words_token_ids".into(), json!(bad));
    }
    let structured = decoding.structured_output.map(|output| match output {
        StructuredOutput::Json(schema) => json!({ "json": schema }),
        StructuredOutput::Regex(pattern) => json!({ "regex": pattern }),
        StructuredOutput::Choice(choices) => json!({ "choice": choices.choices }),
        StructuredOutput::Grammar(grammar) => json!({ "grammar": grammar }),
        StructuredOutput::JsonObject(on) => json!({ "json_object": on }),
        StructuredOutput::StructuralTag(tag) => json!({ "structural_tag": tag }),
    });
    fields.extend(structured.map(|structured| ("structured_outputs".to_owned(), structured)));
    Ok(())
}

fn put_stopping(fields: &mut Map<String, Value>, stopping: StoppingCriteria) {
    put(fields, "max_tokens", (stopping.max_new_tokens > 0).then_some(stopping.max_new_tokens));
    fields.insert("min_tokens".into(), json!(stopping.min_new_tokens));
    fields.insert("stop_token_ids".into(), json!(stopping.stop_token_ids));
    fields.insert("stop".into(), json!(stopping.stop_strings));
    fields.insert("include_stop_str_in_output".into(), json!(stopping.include_stop_strings));
    fields.insert("ignore_eos".into(), json!(stopping.ignore_eos));
}

fn put_response(fields: &mut Map<String, Value>, response: ResponseOptions) -> Result<Wanted, Status> {
    if response.prompt_logprobs {
        return Err(refused("response.prompt_logprobs", "log probabilities of prompts are not to be had here"));
    }
    if response.prompt_candidates.is_some() {
        return Err(refused("response.prompt_candidates", "log probabilities of prompts are not to be had here"));
    }
    let at = "response.output_candidates";
    let candidates = match response.output_candidates {
        None => None,
        Some(CandidateTokens { select: Some(Select::TopN(count)) }) => Some(count),
        Some(CandidateTokens { select: Some(Select::TokenIds(_) | Select::All(_)) }) => {
            return Err(refused(at, "only the most probable ones are to be had here: use top_n"));
        }
        Some(CandidateTokens { select: None }) => return Err(refused(at, "it says not which: use top_n")),
    };
    put(fields, "logprobs", candidates.or(response.output_logprobs.then_some(0)));
    put(fields, "skip_special_tokens", response.skip_special_tokens);
    Ok(Wanted {
        prompt_token_ids: response.prompt_token_ids,
        text: response.output_text.unwrap_or(true),
        token_ids: response.output_token_ids,
        logprobs: response.output_logprobs,
        candidates: candidates.is_some(),
    })
}

fn put_kv(fields: &mut Map<String, Value>, kv: KvCacheParameters) -> Result<(), Status> {
    let given = [
        ("kv.kv_transfer_params", kv.kv_transfer_params.is_some()),
        ("kv.ec_transfer_params", kv.ec_transfer_params.is_some()),
    ];
    if let Some((at, _)) = given.into_iter().find(|(_, given)| *given) {
        return Err(refused(at, "this server takes over no KV or features from others"));
    }
    let salt = if kv.bypass_prefix_cache {
        // Under a salt that nobody else has, there is nothing to be found, and nothing to be left for others.
        Some(format!("{}{}", kv.cache_salt, crate::random::hex_id()))
    } else {
        Some(kv.cache_salt).filter(|salt| !salt.is_empty())
    };
    put(fields, "cache_salt", salt);
    Ok(())
}

fn put(fields: &mut Map<String, Value>, name: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        fields.insert(name.to_owned(), json!(value));
    }
}

/// JSON has no infinities: they would look like nothing at all.
fn put_number(fields: &mut Map<String, Value>, name: &str, at: &str, value: Option<f32>) -> Result<(), Status> {
    if let Some(value) = value.filter(|value| !value.is_finite()) {
        return Err(refused(at, &format!("{value} is not a finite number")));
    }
    put(fields, name, value);
    Ok(())
}
