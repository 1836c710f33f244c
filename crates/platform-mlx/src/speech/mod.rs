//! What families of models that hear or speak implement, where they register, and how they are loaded.

mod listener;
mod synthesizer;
mod transducer;

use mlx_rs::{Dtype, Stream, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_platform::{DeviceKind, LoadProgress, ModelPurpose, SpeechOptions, Synthesizer, Transcriber, inventory};

pub(crate) use self::listener::HeardText;
use self::listener::LoadListener;
pub use self::listener::{Hearing, ListenerModel, MlxListener};
pub use self::synthesizer::{MlxSynthesizer, SynthesizerModel, Voiced};
use self::transducer::LoadTransducer;
pub use self::transducer::{MlxTransducer, TransducerModel};
use crate::{
    Error, Ops, Result, device,
    load::{LoadContext, Loading, View},
    platform::{Threads, device_ops},
};

/// How to load a model, and what it is for.
#[derive(Clone, Copy)]
pub(crate) enum LoadSpeech {
    Listener(LoadListener),
    Transducer(LoadTransducer),
    Synthesizer(fn(&LoadContext<'_>) -> Result<Box<dyn SynthesizerModel>>),
}

/// A family of models that hear or speak: one architecture name and how to load it. [`Family`](crate::model::Family) has an
/// example of how to submit one.
pub struct SpeechFamily {
    /// As in `config.json`'s `architectures`, or what the keys of one that has none tell.
    pub architecture: &'static str,
    load: LoadSpeech,
}

impl SpeechFamily {
    /// Models that speak.
    #[must_use]
    pub const fn synthesizer(
        architecture: &'static str,
        load: fn(&LoadContext<'_>) -> Result<Box<dyn SynthesizerModel>>,
    ) -> Self {
        Self { architecture, load: LoadSpeech::Synthesizer(load) }
    }

    /// Models that write down what they hear in a window of fixed length. `names` gives what a tensor of a checkpoint is called in
    /// the model, whichever layout the checkpoint has.
    #[must_use]
    pub const fn listener(
        architecture: &'static str,
        names: fn(&str) -> String,
        load: fn(&LoadContext<'_>) -> Result<Box<dyn ListenerModel>>,
    ) -> Self {
        Self { architecture, load: LoadSpeech::Listener(LoadListener { names, load }) }
    }

    /// Models that go along a sound of any length and emit tokens as they pass them.
    #[must_use]
    pub const fn transducer(
        architecture: &'static str,
        load: fn(&LoadContext<'_>) -> Result<Box<dyn TransducerModel>>,
    ) -> Self {
        Self { architecture, load: LoadSpeech::Transducer(load) }
    }

    /// What its models are for.
    pub(crate) fn purpose(&self) -> ModelPurpose {
        match self.load {
            LoadSpeech::Listener(_) | LoadSpeech::Transducer(_) => ModelPurpose::Transcribe,
            LoadSpeech::Synthesizer(_) => ModelPurpose::Speak,
        }
    }
}

inventory::collect!(SpeechFamily);

/// Families of models that hear or speak, linked into this binary, sorted by name.
#[must_use]
pub fn speech_families() -> Vec<&'static SpeechFamily> {
    let mut families: Vec<_> = inventory::iter::<SpeechFamily>().collect();
    families.sort_by_key(|family| family.architecture);
    families
}

/// The family of a checkpoint, if it is of one that hears or speaks.
pub(crate) fn speech_family_of(checkpoint: &Checkpoint) -> Result<Option<&'static SpeechFamily>> {
    let name = checkpoint.architecture()?;
    Ok(speech_families().into_iter().find(|family| family.architecture == name))
}

/// Loads an opened checkpoint of a model that speaks.
///
/// # Errors
/// If the device is absent, the model is none that speaks, or a tensor missing, surplus or mis-shaped.
pub(crate) fn load_synthesizer(
    checkpoint: &Checkpoint,
    options: &SpeechOptions,
    progress: LoadProgress<'_>,
) -> Result<Box<dyn Synthesizer>> {
    let machine = Machine::new(options)?;
    match speech_family_of(checkpoint)?.map(|family| family.load) {
        Some(LoadSpeech::Synthesizer(load)) => Ok(Box::new(synthesizer::load(checkpoint, machine, load, progress)?)),
        _ => Err(other_purpose(checkpoint, "speaks", |family| family.purpose() == ModelPurpose::Speak)),
    }
}

/// Loads an opened checkpoint of a model that hears.
///
/// # Errors
/// As [`load_synthesizer`].
pub(crate) fn load_transcriber(
    checkpoint: &Checkpoint,
    options: &SpeechOptions,
    progress: LoadProgress<'_>,
) -> Result<Transcriber> {
    match speech_family_of(checkpoint)?.map(|family| family.load) {
        Some(LoadSpeech::Listener(load)) => {
            let machine = Machine::new(options)?;
            Ok(Transcriber::Listener(Box::new(listener::load(checkpoint, machine, load, progress)?)))
        }
        Some(LoadSpeech::Transducer(load)) => {
            let machine = Machine::new(options)?;
            Ok(Transcriber::Transducer(Box::new(transducer::load(checkpoint, machine, load, progress)?)))
        }
        _ => Err(other_purpose(checkpoint, "hears", |family| family.purpose() == ModelPurpose::Transcribe)),
    }
}

fn other_purpose(checkpoint: &Checkpoint, does: &str, suits: fn(&SpeechFamily) -> bool) -> Error {
    let known: Vec<_> = speech_families().into_iter().filter(|f| suits(f)).map(|f| f.architecture).collect();
    match checkpoint.architecture() {
        Ok(name) => Error::Config(format!("{name} is no model that {does}; known are: {}", known.join(", "))),
        Err(error) => error.into(),
    }
}

/// Where a model is to run.
pub(crate) struct Machine {
    pub device: DeviceKind,
    pub stream: Stream,
    pub ops: Ops,
}

impl Machine {
    /// What the options name.
    ///
    /// # Errors
    /// If the device is absent, or threads can't be pinned.
    pub fn new(options: &SpeechOptions) -> Result<Self> {
        let device = options.device.resolve(&device::available())?;
        let stream = device::stream(device)?;
        let threads = Threads { count: options.threads, pinned: options.pin_threads };
        let ops = device_ops(device, threads, options.activations, &stream)?;
        Ok(Self { device, stream, ops })
    }

    /// The CPU over MLX's own operations, which are those of the other devices: slow, and what tests compare ours with.
    ///
    /// # Errors
    /// MLX's own.
    pub fn mlx() -> Result<Self> {
        Ok(Self { device: DeviceKind::Cpu, stream: device::stream(DeviceKind::Cpu)?, ops: Ops::mlx() })
    }

    /// Loads a view of a checkpoint, with activations of that type: what `load` makes of it, and what was loaded.
    ///
    /// # Errors
    /// If a tensor is missing, surplus or mis-shaped.
    pub fn load_view<T>(
        &self,
        view: &View<'_>,
        dtype: Dtype,
        progress: LoadProgress<'_>,
        load: impl FnOnce(&LoadContext<'_>) -> Result<T>,
    ) -> Result<(T, Weights)> {
        with_stream(&self.stream.clone(), || {
            let loading = Loading::new(view, self.ops.clone(), dtype, self.device, progress);
            let model = load(&LoadContext::root(&loading))?;
            loading.finish()?;
            let weights = Weights {
                architecture: view.architecture.clone(),
                dtype,
                parameters: loading.parameters(),
                bytes: loading.bytes(),
                in_place_bytes: loading.in_place_bytes(),
                quantization: loading.quantization(),
            };
            Ok((model, weights))
        })
    }
}

/// What was loaded.
pub(crate) struct Weights {
    pub architecture: String,
    /// The activations' type.
    pub dtype: Dtype,
    pub parameters: u64,
    pub bytes: u64,
    /// Of these, in memory that isn't MLX's.
    pub in_place_bytes: u64,
    pub quantization: String,
}
