//! What a gateway is told of the model and the server: only what is so; what isn't known stays empty.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tonic::Status;
use vllm_checkpoint::{Checkpoint, SpecialTokens};
use vllm_grpc_proto::smg::{mlx, vllm};
use vllm_platform::TokenId;

use super::{Served, Worker};
use crate::model::{SamplingDefaults, ServedModel};

/// A model, as both contracts describe it.
#[derive(Debug, Default)]
pub(super) struct ModelFacts {
    name: String,
    /// Folder or file; empty for one that has none.
    path: String,
    generates: bool,
    sees: bool,
    /// Longest sequence in tokens, prompt and answer together.
    context: u32,
    /// Longest prompt.
    longest_prompt: u32,
    vocab: u32,
    model_type: String,
    architectures: Vec<String>,
    eos: Vec<TokenId>,
    bos: Option<TokenId>,
    pad: Option<TokenId>,
    /// How it is sampled where requests don't say, as a JSON object.
    sampling: String,
}

/// What the files of a model say that its engine doesn't know.
#[derive(Debug, Default)]
struct FileFacts {
    model_type: String,
    architectures: Vec<String>,
    special: SpecialTokens,
}

impl FileFacts {
    /// Blocks.
    fn read(served: &Served) -> anyhow::Result<Self> {
        let Some(path) = served.path() else { return Ok(Self::default()) };
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.config();
        let architectures = config.get("architectures").and_then(Value::as_array).into_iter().flatten();
        Ok(Self {
            model_type: config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned(),
            architectures: architectures.filter_map(Value::as_str).map(str::to_owned).collect(),
            special: checkpoint.special_tokens(),
        })
    }
}

impl Worker {
    /// The model that is spoken of.
    pub async fn model_facts(&self) -> Result<ModelFacts, Status> {
        let served = self.served().await?;
        let sees = matches!(&served, Served::Model(model) if self.looks_at_media(model));
        let facts = tokio::task::spawn_blocking(move || ModelFacts::of(&served, sees)).await;
        let facts = facts.map_err(|error| Status::internal(error.to_string()))?;
        facts.map_err(|error| Status::internal(format!("the model's files can't be read: {error:#}")))
    }

    /// Whether it sees and there is something to read images with.
    fn looks_at_media(&self, model: &ServedModel) -> bool {
        model.vision.is_some() && self.app.loader.is_some()
    }

    pub fn mlx_server_info(&self) -> mlx::GetServerInfoResponse {
        mlx::GetServerInfoResponse {
            server_type: SERVER_TYPE.to_owned(),
            active_requests: self.active_requests(),
            uptime_seconds: self.app.uptime().as_secs_f64(),
        }
    }

    pub fn vllm_server_info(&self) -> vllm::GetServerInfoResponse {
        let mut info = vllm::GetServerInfoResponse {
            active_requests: self.active_requests(),
            uptime_seconds: self.app.uptime().as_secs_f64(),
            server_type: SERVER_TYPE.to_owned(),
            data_parallel_size: 1,
            // Nothing waits for a thought to end: see http::completions.
            constrained_decoding_start: "first_token".to_owned(),
            ..Default::default()
        };
        let Some(model) = self.loaded() else { return info };
        let kv = &model.engine.info().kv_cache;
        info.last_receive_timestamp = last_step(&model);
        info.kv_cache_dtype = kv.dtype.name().to_owned();
        info.block_size = number(kv.block_size);
        info.max_num_seqs = number(model.engine.load().max_running);
        if let Some(loader) = self.app.loader.as_deref().filter(|_| self.looks_at_media(&model)) {
            let limits = self.app.config.media;
            let videos = if model.media().1 { limits.videos } else { 0 };
            let limits = [("image", limits.images), ("video", videos)].into_iter().filter(|(_, most)| *most > 0);
            info.mm_processor = "inprocess".to_owned();
            info.mm_processor_source = "default".to_owned();
            info.mm_media_ref_schemes = loader.schemes().join(",");
            info.mm_item_limits = limits.map(|(kind, most)| format!("{kind}={most}")).collect::<Vec<_>>().join(",");
        }
        info
    }

    fn active_requests(&self) -> u32 {
        let generating = self.app.loaded().into_iter().map(|model| {
            let load = model.engine.load();
            load.running + load.waiting
        });
        let encoding = self.app.encoders().into_iter().map(|encoder| encoder.engine.stats().waiting);
        number(generating.chain(encoding).sum())
    }
}

const SERVER_TYPE: &str = "vllm-mlx";

/// When the engine's last step ended, in seconds since 1970; 0 before the first.
fn last_step(model: &ServedModel) -> f64 {
    let ago = model.engine.stats().last_step.map(|then| then.elapsed());
    let at = ago.and_then(|ago| SystemTime::now().checked_sub(ago)?.duration_since(SystemTime::UNIX_EPOCH).ok());
    at.map_or(0.0, |at| at.as_secs_f64())
}

impl ModelFacts {
    /// Blocks.
    fn of(served: &Served, sees: bool) -> anyhow::Result<Self> {
        let FileFacts { model_type, architectures, special } = FileFacts::read(served)?;
        let facts = Self {
            name: served.name().to_owned(),
            path: served.path().map(|path| path.display().to_string()).unwrap_or_default(),
            sees,
            model_type,
            architectures,
            eos: served.tokenizer().eos_ids().to_vec(),
            bos: special.bos.and_then(|token| token.id),
            pad: special.pad.and_then(|token| token.id),
            ..Self::default()
        };
        Ok(match served {
            Served::Model(model) => {
                let info = model.engine.info();
                Self {
                    generates: true,
                    context: number(info.context_length),
                    // An answer has a token at least, and both have to be kept.
                    longest_prompt: number(info.context_length.min(info.kv_cache.capacity()).saturating_sub(1)),
                    vocab: number(info.vocab_size),
                    architectures: or(facts.architectures, &info.architecture),
                    sampling: sampling(&model.sampling),
                    ..facts
                }
            }
            Served::Encoder(encoder) => {
                let info = encoder.engine.info();
                Self {
                    context: number(info.max_input_len),
                    longest_prompt: number(info.max_input_len),
                    vocab: number(info.vocab_size),
                    architectures: or(facts.architectures, &info.architecture),
                    ..facts
                }
            }
        })
    }
}

fn or(architectures: Vec<String>, loaded: &str) -> Vec<String> {
    if architectures.is_empty() { vec![loaded.to_owned()] } else { architectures }
}

/// Numbers here are of 32 bits with a sign or without.
fn number<T: TryFrom<usize> + Default>(number: usize) -> T {
    T::try_from(number).unwrap_or_default()
}

/// The defaults that there are; nothing at all if there are none.
fn sampling(defaults: &SamplingDefaults) -> String {
    let SamplingDefaults { temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty } = defaults;
    let numbers = [
        ("temperature", temperature),
        ("top_p", top_p),
        ("min_p", min_p),
        ("repetition_penalty", repetition_penalty),
        ("presence_penalty", presence_penalty),
    ];
    let numbers = numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), decimal((*value)?))));
    let defaults: Map<String, Value> = numbers.chain(top_k.map(|top_k| ("top_k".to_owned(), json!(top_k)))).collect();
    if defaults.is_empty() { String::new() } else { Value::Object(defaults).to_string() }
}

/// As it was written: 0.7, not the f32 that is next to it in 17 digits.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, |number| json!(number))
}

impl From<ModelFacts> for mlx::GetModelInfoResponse {
    fn from(facts: ModelFacts) -> Self {
        Self {
            model_path: facts.path,
            is_generation: facts.generates,
            max_context_length: facts.context,
            vocab_size: facts.vocab,
            served_model_name: facts.name,
            model_type: facts.model_type,
            architectures: facts.architectures,
            eos_token_ids: facts.eos,
            pad_token_id: facts.pad.unwrap_or(0),
            bos_token_id: facts.bos.unwrap_or(0),
            max_req_input_len: facts.longest_prompt,
        }
    }
}

impl From<ModelFacts> for vllm::GetModelInfoResponse {
    fn from(facts: ModelFacts) -> Self {
        let id = |token: TokenId| i32::try_from(token).unwrap_or(0);
        Self {
            tokenizer_path: facts.path.clone(),
            model_path: facts.path,
            is_generation: facts.generates,
            max_context_length: facts.context,
            vocab_size: facts.vocab,
            supports_vision: facts.sees,
            served_model_name: facts.name,
            model_type: facts.model_type,
            architectures: facts.architectures,
            eos_token_ids: facts.eos.into_iter().map(id).collect(),
            pad_token_id: facts.pad.map_or(0, id),
            bos_token_id: facts.bos.map_or(0, id),
            max_req_input_len: i32::try_from(facts.longest_prompt).unwrap_or(i32::MAX),
            default_sampling_params_json: facts.sampling,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_told_as_they_were_written() {
        let all = SamplingDefaults { temperature: Some(0.7), top_k: Some(20), top_p: Some(0.8), ..Default::default() };
        assert_eq!(sampling(&all), r#"{"temperature":0.7,"top_p":0.8,"top_k":20}"#);
        assert_eq!(sampling(&SamplingDefaults::default()), "");
    }
}
