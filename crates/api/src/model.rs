//! A model that is served: its engine, its tokenizer, its chat template.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use serde_json::{Map, Value};
use vllm_checkpoint::{
    Checkpoint,
    hub::{self, HubOptions},
};
use vllm_dist::PipelineStatus;
use vllm_grammar::Vocabulary;
use vllm_media::Sampling;
use vllm_parsers::{CallFormat, ReasoningFormat, calls, reasoning};
use vllm_platform::{LoadOptions, ModelRunner, ModelSource, Platform, SamplingParams, TokenId};
use vllm_scheduler::{Engine, EngineConfig, EngineHandle, EngineState, VisionConfig};
use vllm_text::{ChatTemplate, RenderRequest, TemplateError, TextError, Tokenizer};

use crate::pipeline::{PipelineSpec, surroundings};
use crate::vision::{self, Marks, Medium, SeeError, SeenPrompt, Vision};

/// Everything that a request needs. Shared by all routes and commands.
#[derive(Debug)]
pub struct ServedModel {
    /// Names it answers to; the first is its own.
    pub names: Vec<String>,
    /// Where its files are, if it has any.
    pub path: Option<PathBuf>,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// The same for grammars; made when the first one is.
    pub vocabulary: Arc<Vocabulary>,
    /// Messages to text, for models that have one.
    pub template: Option<ChatTemplate>,
    /// How it writes tool calls.
    pub calls: Option<&'static CallFormat>,
    /// How it writes its chain of thought, if it has one.
    pub reasoning: Option<&'static ReasoningFormat>,
    /// How to sample where a request doesn't say: what the operator says, else `generation_config.json`.
    pub sampling: SamplingDefaults,
    /// What else an operator has set for requests that don't say.
    pub chat: ChatDefaults,
    /// Where tokens come from.
    pub engine: EngineHandle,
    /// What it sees with, if it does.
    pub vision: Option<Vision>,
    /// Whether all machines are there that have its layers, if others than this one do.
    pub pipeline: Option<PipelineStatus>,
}

impl ServedModel {
    /// Puts the parts together. Formats of tool calls and reasoning are those that the template shows.
    #[must_use]
    pub fn new(
        names: Vec<String>,
        tokenizer: Tokenizer,
        template: Option<ChatTemplate>,
        sampling: SamplingDefaults,
        engine: EngineHandle,
    ) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let source = template.as_ref().map_or("", ChatTemplate::source);
        let calls = calls::detect(source).or_else(|| calls::by_name("auto"));
        let reasoning = reasoning::detect(source);
        let tokenizer = Arc::new(tokenizer);
        let vocabulary = Arc::new(Vocabulary::new(Arc::clone(&tokenizer)));
        Self {
            names,
            path: None,
            created,
            tokenizer,
            vocabulary,
            template,
            calls,
            reasoning,
            sampling,
            chat: ChatDefaults::default(),
            engine,
            vision: None,
            pipeline: None,
        }
    }

    /// Was read from there.
    #[must_use]
    pub fn with_path(self, path: PathBuf) -> Self {
        Self { path: Some(path), ..self }
    }

    /// Sees with this.
    #[must_use]
    pub fn with_vision(self, vision: Option<Vision>) -> Self {
        Self { vision, ..self }
    }

    /// Has layers on other machines.
    #[must_use]
    pub fn with_pipeline(self, pipeline: Option<PipelineStatus>) -> Self {
        Self { pipeline, ..self }
    }

    /// Why it can't compute anything now, though it was loaded: a machine is missing that has some of its layers.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.pipeline.as_ref().and_then(PipelineStatus::problem)
    }

    /// Takes an operator's defaults instead of the model's makers', where there are any.
    #[must_use]
    pub fn with_defaults(mut self, sampling: SamplingDefaults, chat: ChatDefaults) -> Self {
        self.sampling = sampling.or(self.sampling);
        self.chat = chat;
        self
    }

    /// Takes these formats instead of those that the template shows.
    #[must_use]
    pub fn with_formats(mut self, formats: Formats) -> Self {
        self.calls = formats.calls.or(self.calls);
        self.reasoning = formats.reasoning.or(self.reasoning);
        self
    }

    /// Whether it sees images, and videos.
    #[must_use]
    pub fn media(&self) -> (bool, bool) {
        self.vision.as_ref().map_or((false, false), |vision| (true, vision.processor.takes_video()))
    }

    /// Which frames of a video it is used to.
    #[must_use]
    pub fn frames(&self) -> Sampling {
        self.vision.as_ref().map_or_else(Sampling::default, |vision| vision.processor.sampling())
    }

    /// What may stand in its prompts, as `/v1/models` has it.
    #[must_use]
    pub fn modalities(&self) -> Vec<&'static str> {
        vision::modalities(self.vision.as_ref().map(|vision| &vision.processor))
    }

    /// Stops its engines.
    pub fn shutdown(&self) {
        self.engine.shutdown();
        if let Some(vision) = &self.vision {
            vision.engine.shutdown();
        }
    }

    /// Waits until its engines have stopped.
    pub async fn stopped(&self) {
        self.engine.stopped().await;
        if let Some(vision) = &self.vision {
            vision.engine.stopped().await;
        }
    }

    /// Waits until one of its engines has stopped that should not have, and says which.
    pub async fn lost(&self) -> String {
        let vision = async {
            match &self.vision {
                Some(vision) => vision.engine.stopped().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            state = self.engine.stopped() => format!("the engine has stopped: {state:?}"),
            state = vision => format!("the vision encoder has stopped: {state:?}"),
        }
    }

    /// Whether its engines still take work.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let ends = |state| matches!(state, EngineState::Stopped | EngineState::Broken);
        !ends(self.engine.stats().state) && !self.vision.as_ref().is_some_and(|v| ends(v.engine.stats().state))
    }

    /// How long one of its engines has had work in hand without getting on; the longest.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        self.engine.silence().max(self.vision.as_ref().and_then(|vision| vision.engine.silence()))
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn stop_tokens(&self) -> Vec<TokenId> {
        self.tokenizer.eos_ids().to_vec()
    }

    /// Tokens of a conversation, ready to be answered. Blocks for as long as templating and tokenising take.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn chat_prompt(&self, chat: &ChatPrompt) -> Result<SeenPrompt, PromptError> {
        let template = self.template.as_ref().ok_or(PromptError::NoTemplate)?;
        let (mut messages, marks) = (Cow::Borrowed(&chat.messages), self.marks());
        if let Some(vision) = &self.vision {
            messages.to_mut().iter_mut().for_each(|message| vision.guard(message));
        }
        let request = RenderRequest {
            messages: &messages,
            tools: None,
            add_generation_prompt: chat.add_generation_prompt,
            extra: &self.chat.template,
        };
        let text = template.render_with_media(&request, &marks.for_template()).map_err(PromptError::Template)?;
        let media: Vec<&Medium> = chat.media.iter().collect();
        self.prompt(&text, &media)
    }

    /// What templates that know nothing of images are to write for them; nothing, if the model sees none.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.vision.as_ref().map(Vision::marks).unwrap_or_default()
    }

    /// Tokens of what a template has rendered, with `media` in their places.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn prompt(&self, rendered: &str, media: &[&Medium]) -> Result<SeenPrompt, PromptError> {
        match &self.vision {
            Some(vision) => vision.prompt(rendered, media, &self.tokenizer).map_err(PromptError::Media),
            // The template writes the special tokens out.
            None => {
                let tokens = self.tokenizer.encode(rendered, false).map_err(PromptError::Tokenizer)?;
                Ok(SeenPrompt { tokens, ..SeenPrompt::default() })
            }
        }
    }
}

/// What an operator has set for conversations whose request doesn't say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatDefaults {
    /// Variables for the chat template.
    pub template: Map<String, Value>,
    /// Most tokens of the chain of thought.
    pub thinking_budget: Option<usize>,
}

/// Formats that an operator named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Formats {
    /// How tool calls are written.
    pub calls: Option<&'static CallFormat>,
    /// How the chain of thought is written.
    pub reasoning: Option<&'static ReasoningFormat>,
}

/// What a chat template is given.
#[derive(Debug, Clone, Default)]
pub struct ChatPrompt {
    /// Messages as templates expect them.
    pub messages: Vec<Value>,
    /// What stands where they have parts of type `image` and `video`.
    pub media: Vec<Medium>,
    /// Whether the prompt ends with the start of the assistant's turn.
    pub add_generation_prompt: bool,
}

/// Why messages could not be made into a prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// The model is a plain language model.
    #[error("this model has no chat template: use plain completions")]
    NoTemplate,
    /// The template refused the messages.
    #[error("the model's chat template cannot render these messages: {0}")]
    Template(#[source] TemplateError),
    /// The last message is not to be found in what the template made of it.
    #[error("the last message can't be continued: it is empty, or the model's chat template changes its text")]
    NotContinuable,
    /// The text could not be encoded.
    #[error(transparent)]
    Tokenizer(TextError),
    /// The images and videos could not be put into it.
    #[error(transparent)]
    Media(SeeError),
}

/// Sampling parameters that a model's makers recommend, or an operator.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[allow(missing_docs)]
pub struct SamplingDefaults {
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
    pub presence_penalty: Option<f32>,
}

impl SamplingDefaults {
    /// These, and `others` where these don't say.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            temperature: self.temperature.or(others.temperature),
            top_k: self.top_k.or(others.top_k),
            top_p: self.top_p.or(others.top_p),
            min_p: self.min_p.or(others.min_p),
            repetition_penalty: self.repetition_penalty.or(others.repetition_penalty),
            presence_penalty: self.presence_penalty.or(others.presence_penalty),
        }
    }

    /// From a `generation_config.json`. Values out of their ranges are left out, not passed on to every request.
    #[must_use]
    pub fn from_config(config: &Value) -> Self {
        let number = |name: &str, valid: fn(f32) -> SamplingParams| {
            let value = config.get(name)?.as_f64()? as f32;
            valid(value).validate(0).is_ok().then_some(value)
        };
        Self {
            temperature: number("temperature", |temperature| SamplingParams { temperature, ..Default::default() }),
            top_p: number("top_p", |top_p| SamplingParams { top_p, ..Default::default() }),
            min_p: number("min_p", |min_p| SamplingParams { min_p, ..Default::default() }),
            repetition_penalty: number("repetition_penalty", |repetition_penalty| SamplingParams {
                repetition_penalty,
                ..Default::default()
            }),
            top_k: config.get("top_k").and_then(Value::as_u64).map(|k| k as usize),
            presence_penalty: None,
        }
    }
}

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// A folder, a GGUF file, or `org/name` on the hub.
    pub model: String,
    /// Names to answer to; none: `model` as given.
    pub names: Vec<String>,
    /// For the hub.
    pub hub: HubOptions,
    /// For the platform.
    pub load: LoadOptions,
    /// For the engine.
    pub engine: EngineConfig,
    /// For the engine that sees, if the model has eyes; `None`: it is not to see.
    pub vision: Option<VisionConfig>,
    /// How its answers are written; what isn't given is found out.
    pub formats: Formats,
    /// How to sample where requests don't say.
    pub sampling: SamplingDefaults,
    /// What else holds where requests don't say.
    pub chat: ChatDefaults,
    /// Other machines that have some of its layers.
    pub pipeline: Option<PipelineSpec>,
}

impl LoadSpec {
    /// A model of these names, and all else as it is by default.
    #[must_use]
    pub fn named(names: &[String]) -> Self {
        Self {
            model: names.first().cloned().unwrap_or_default(),
            names: names.to_vec(),
            hub: HubOptions::from_env(),
            load: LoadOptions::default(),
            engine: EngineConfig::default(),
            vision: Some(VisionConfig::default()),
            formats: Formats::default(),
            sampling: SamplingDefaults::default(),
            chat: ChatDefaults::default(),
            pipeline: None,
        }
    }
}

/// What loading is at.
#[derive(Debug)]
pub enum LoadStage<'a> {
    /// Files are being fetched.
    Download(hub::Progress<'a>),
    /// Weights are being read.
    Weights {
        /// Tensors done.
        done: usize,
        /// Tensors in all.
        total: usize,
    },
    /// Everything is there.
    Ready,
}

/// Is told how loading gets on, from any thread.
pub type LoadObserver = Arc<dyn Fn(LoadStage<'_>) + Send + Sync>;

/// Finds a model's files, fetching them if need be.
///
/// # Errors
/// If they can't be found or fetched.
pub fn resolve(model: &str, options: &HubOptions, observer: &LoadObserver) -> anyhow::Result<PathBuf> {
    Ok(hub::resolve(model, options, &mut |progress| observer(LoadStage::Download(progress)))?)
}

/// The platform that this binary was built with.
///
/// # Errors
/// If there is none, or it does not open.
pub fn open_platform() -> vllm_platform::Result<Box<dyn Platform>> {
    let plugin = vllm_platform::platforms().next().ok_or(vllm_platform::Error::NoPlatform)?;
    (plugin.open)()
}

/// Loads a model and starts its engine. Blocks; not for async workers.
///
/// # Errors
/// Whatever is wrong with the files, the device or the figures, in one line.
pub fn load(mut spec: LoadSpec, observer: &LoadObserver) -> anyhow::Result<ServedModel> {
    let path = resolve(&spec.model, &spec.hub, observer)?;
    let processor = if spec.vision.is_some() { vision::processor(&path)? } else { None };
    let seeing = processor.zip(spec.vision.take());
    spec.load.media_cache_bytes = seeing.as_ref().map(|(_, config)| config.cache_bytes as u64);
    if let Some((_, config)) = &seeing
        && let (Some(kv), Some(features)) = (&mut spec.engine.ssd, &config.ssd)
    {
        // One folder, and one limit for both.
        kv.max_bytes = kv.max_bytes.saturating_sub(features.max_bytes);
    }
    let names = if spec.names.is_empty() { vec![spec.model.clone()] } else { spec.names.clone() };
    let (formats, defaults) = (spec.formats, (spec.sampling, spec.chat.clone()));
    let pipeline = spec.pipeline.as_ref().map(|_| PipelineStatus::default());
    // The vocabulary takes as long to read as the weights of a small model: side by side.
    let (text, vision, engine) = thread::scope(|scope| {
        let text = scope.spawn(|| load_text(&path));
        let vision = scope.spawn(|| {
            seeing.map(|(processor, config)| Vision::start(processor, &path, &spec.load, config)).transpose()
        });
        let engine = Engine::start(make_runner(&path, &spec, pipeline.clone(), observer), spec.engine.clone());
        (text.join(), vision.join(), engine)
    });
    let engine = engine?;
    let vision = vision.map_err(|_| anyhow!("loading the vision encoder panicked"))??;
    let (tokenizer, template, sampling) = text.map_err(|_| anyhow!("reading the tokenizer panicked"))??;
    observer(LoadStage::Ready);
    Ok(ServedModel::new(names, tokenizer, template, sampling, engine)
        .with_path(path)
        .with_vision(vision)
        .with_pipeline(pipeline)
        .with_formats(formats)
        .with_defaults(defaults.0, defaults.1))
}

fn make_runner(
    path: &Path,
    spec: &LoadSpec,
    pipeline: Option<PipelineStatus>,
    observer: &LoadObserver,
) -> impl FnOnce() -> vllm_platform::Result<Box<dyn ModelRunner>> + Send + use<> {
    let source = ModelSource { path: path.to_owned() };
    let options = spec.load.clone();
    let pipeline = spec.pipeline.clone().zip(pipeline);
    let observer = Arc::clone(observer);
    move || {
        let platform = open_platform()?;
        let progress = &mut |done, total| observer(LoadStage::Weights { done, total });
        let Some((PipelineSpec { pipeline, token }, status)) = pipeline else {
            return platform.load(&source, &options, progress);
        };
        let runner = vllm_dist::lead(&*platform, &source, &options, &pipeline, surroundings(token), status, progress);
        match runner {
            Ok(runner) => Ok(Box::new(runner)),
            Err(vllm_dist::Error::Stage(error)) => Err(error),
            Err(other) => Err(vllm_platform::Error::Model(other.to_string())),
        }
    }
}

fn load_text(path: &Path) -> anyhow::Result<(Tokenizer, Option<ChatTemplate>, SamplingDefaults)> {
    let checkpoint = Checkpoint::open(path)?;
    let tokenizer = Tokenizer::load(&checkpoint)?;
    let template = ChatTemplate::load(&checkpoint, &tokenizer).context("the model's chat template is unusable")?;
    let sampling = checkpoint.generation_config().map(SamplingDefaults::from_config).unwrap_or_default();
    Ok((tokenizer, template, sampling))
}
