//! A model that is served for its embeddings or scores: its engine and its tokenizer.

mod judge;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{anyhow, bail};
pub use judge::JudgePrompt;
use vllm_checkpoint::{Checkpoint, hub::HubOptions};
use vllm_platform::{EncoderOptions, EncoderOutput, EncoderTask, ModelPurpose, ModelSource};
use vllm_scheduler::{EncodeInput, EncoderConfig, EncoderEngine, EncoderHandle};
use vllm_text::{EncodedInput, TextError, Tokenizer};

use crate::model::{LoadObserver, LoadStage, open_platform, resolve};

/// What happens to texts that are longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Overflow {
    /// Their ends are cut off.
    #[default]
    Truncate,
    /// They are refused.
    Error,
}

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To give a text's embedding.
    Embed,
    /// To give a pair of texts a score.
    Score,
}

impl Role {
    /// Of a model of that purpose, if it is an encoder's.
    #[must_use]
    pub fn of(purpose: ModelPurpose) -> Option<Self> {
        match purpose {
            ModelPurpose::Embed => Some(Self::Embed),
            ModelPurpose::Score => Some(Self::Score),
            ModelPurpose::Generate | ModelPurpose::Transcribe | ModelPurpose::Speak => None,
        }
    }
}

/// Everything that a request for embeddings or scores needs.
#[derive(Debug)]
pub struct ServedEncoder {
    /// Names it answers to; the first is its own.
    pub names: Vec<String>,
    /// Where its files are, if it has any.
    pub path: Option<PathBuf>,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// How pairs are put, if the model is one that answers yes or no.
    pub judge: Option<JudgePrompt>,
    /// What happens to texts that are too long for an embedding.
    pub overflow: Overflow,
    /// Texts that were cut off so far.
    pub truncated: AtomicU64,
    /// Where vectors and scores come from.
    pub engine: EncoderHandle,
}

impl ServedEncoder {
    /// Puts the parts together.
    #[must_use]
    pub fn new(names: Vec<String>, tokenizer: Tokenizer, overflow: Overflow, engine: EncoderHandle) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { names, path: None, created, tokenizer, judge: None, overflow, truncated: AtomicU64::new(0), engine }
    }

    /// Was read from there.
    #[must_use]
    pub fn with_path(self, path: PathBuf) -> Self {
        Self { path: Some(path), ..self }
    }

    /// The same, asking for pairs in `judge`'s words.
    #[must_use]
    pub fn with_judge(mut self, judge: Option<JudgePrompt>) -> Self {
        self.judge = judge;
        self
    }

    /// What it does.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.engine.info().output {
            EncoderOutput::Embedding { .. } => Role::Embed,
            EncoderOutput::Score => Role::Score,
        }
    }

    /// A pair of texts as the model reads it, cut to at most `max` tokens.
    ///
    /// # Errors
    /// If a text can't be encoded.
    pub fn pair(
        &self,
        query: &str,
        document: &str,
        instruction: Option<&str>,
        max: usize,
    ) -> Result<EncodedInput, TextError> {
        match &self.judge {
            Some(judge) => judge.ask(&self.tokenizer, query, document, instruction, max),
            None => self.tokenizer.encode_pair(query, document, max),
        }
    }
}

/// As the engine takes it.
#[must_use]
pub fn engine_input(input: EncodedInput) -> EncodeInput {
    // Of one text only: BERT's first type, which is what an encoder supposes.
    let types = if input.types.iter().all(|&of| of == 0) { Vec::new() } else { input.types };
    EncodeInput { tokens: input.tokens, types }
}

/// What to load and how.
#[derive(Debug, Clone)]
pub struct EncoderSpec {
    /// A folder, or `org/name` on the hub.
    pub model: String,
    /// Names to answer to; none: `model` as given.
    pub names: Vec<String>,
    /// For the hub.
    pub hub: HubOptions,
    /// For the platform.
    pub load: EncoderOptions,
    /// For the engine.
    pub engine: EncoderConfig,
    /// What it is to do.
    pub role: Role,
    /// What happens to texts that are too long for an embedding.
    pub overflow: Overflow,
}

/// What the model at `path` is for.
///
/// # Errors
/// If its files don't say.
pub fn purpose(path: &Path) -> vllm_platform::Result<ModelPurpose> {
    open_platform()?.purpose(&ModelSource { path: path.to_owned() })
}

/// Loads a model and starts its engine. Blocks; not for async workers.
///
/// # Errors
/// Whatever is wrong with the files, the device or the figures, or that the model is for something else, in one line.
pub fn load_encoder(spec: EncoderSpec, observer: &LoadObserver) -> anyhow::Result<ServedEncoder> {
    let path = resolve(&spec.model, &spec.hub, observer)?;
    let tokenizer = Tokenizer::load(&Checkpoint::open(&path)?)?;
    let judge = match (spec.role, purpose(&path)?) {
        (Role::Embed, ModelPurpose::Embed | ModelPurpose::Generate) | (Role::Score, ModelPurpose::Score) => None,
        (Role::Score, ModelPurpose::Generate) => Some(JudgePrompt::new(&tokenizer)?),
        (Role::Embed, ModelPurpose::Score) => bail!("{} scores pairs of texts: it is no embedding model", spec.model),
        (Role::Score, ModelPurpose::Embed) => bail!("{} makes embeddings: it is no reranker", spec.model),
        (_, ModelPurpose::Transcribe | ModelPurpose::Speak) => {
            bail!("{} hears or speaks: it reads no texts", spec.model)
        }
    };
    let mut options = spec.load;
    if let Some(judge) = &judge {
        options.task = EncoderTask::Judge { yes: judge.yes, no: judge.no };
    }
    let (source, observer) = (ModelSource { path: path.clone() }, Arc::clone(observer));
    let make_runner = move || {
        let loaded = open_platform()?.load_encoder(&source, &options, &mut |done, total| {
            observer(LoadStage::Weights { done, total });
        });
        observer(LoadStage::Ready);
        loaded
    };
    // Not where async tasks may run: it waits for the runner.
    let started = thread::scope(|scope| scope.spawn(|| EncoderEngine::start(make_runner, spec.engine)).join());
    let engine = started.map_err(|_| anyhow!("starting the encoder panicked"))??;
    let names = if spec.names.is_empty() { vec![spec.model] } else { spec.names };
    Ok(ServedEncoder::new(names, tokenizer, spec.overflow, engine).with_path(path).with_judge(judge))
}
