//! Speech to text, and text to speech.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{Activations, DeviceChoice, DeviceKind, MemoryInfo, Result, TokenId};

/// How to load a model that hears or speaks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpeechOptions {
    /// Device to run on.
    pub device: DeviceChoice,
    /// Threads for work on the CPU; `None`: one for each physical core.
    pub threads: Option<usize>,
    /// Whether each of them is bound to a core of its own.
    pub pin_threads: bool,
    /// As [`LoadOptions::activations`](crate::LoadOptions::activations).
    pub activations: Activations,
}

/// How a model wants sound laid out in time and pitch: the settings of its log-mel spectrogram.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MelSettings {
    /// Samples a second of the sound it is computed from.
    pub sample_rate: u32,
    /// Samples of a Fourier transform.
    pub fft: usize,
    /// Samples of the Hann window, in the middle of a transform.
    pub window: usize,
    /// Samples from one frame to the next.
    pub hop: usize,
    /// Bands of pitch.
    pub bands: usize,
    /// What is made of the bands' power.
    pub scale: MelScale,
}

/// What is made of the power in a spectrogram's bands.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MelScale {
    /// Whisper's: the decimal logarithm, at most 8 below the greatest of the window, `(x + 4) / 4`.
    Whisper,
    /// NeMo's: the sound pre-emphasised by `preemphasis`, the natural logarithm, each band made to have mean 0 and variance 1
    /// over the sound.
    PerBand {
        /// How much of a sample is taken from the next.
        preemphasis: f32,
    },
}

/// A log-mel spectrogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Mel {
    /// [frames, bands].
    pub numbers: Vec<f32>,
    /// Frames.
    pub frames: usize,
}

/// A loaded model that hears, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TranscriberInfo {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Device it runs on.
    pub device: DeviceKind,
    /// Parameters; a quantized weight counts as what it stands for.
    pub parameters: u64,
    /// Bytes of all weights as held in memory.
    pub weight_bytes: u64,
    /// E.g. `affine 4 bit, group 32`, or `bf16`.
    pub quantization: String,
    /// What it listens to.
    pub mel: MelSettings,
    /// Tokens known.
    pub vocab_size: usize,
}

/// A loaded model that hears. Lives on one thread.
pub enum Transcriber {
    /// A decoder that continues a text while it attends to an encoded window of sound (Whisper).
    Listener(Box<dyn Listener>),
    /// A network that goes along the sound and emits tokens as it passes them (Parakeet).
    Transducer(Box<dyn Transducer>),
}

impl Transcriber {
    /// The model in numbers.
    #[must_use]
    pub fn info(&self) -> &TranscriberInfo {
        match self {
            Self::Listener(model) => model.info(),
            Self::Transducer(model) => model.info(),
        }
    }
}

/// A window of sound that a [`Listener`] has encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowId(pub u64);

/// A text that a [`Listener`] writes while it attends to a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextId(pub u64);

/// What a [`Listener`]'s decoder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerInfo {
    /// Frames of a window: a shorter [`Mel`] is not taken, what is missing has been filled up with silence.
    pub window_frames: usize,
    /// Places of the encoded window, to which the decoder attends: half as many as frames in Whisper.
    pub encoded_frames: usize,
    /// Longest text, prompt and all, in tokens.
    pub max_text_len: usize,
    /// Attention heads, as (layer, head), that follow the words through the sound.
    pub alignment_heads: Vec<(usize, usize)>,
}

/// Tokens that a text goes on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRow<'a> {
    /// Which text.
    pub text: TextId,
    /// The next of its tokens: at least one.
    pub tokens: &'a [TokenId],
    /// For how many of the last of these tokens logits are wanted: at least one.
    pub logits: usize,
}

/// A model that writes down what it hears in a window of fixed length.
pub trait Listener {
    /// The model in numbers.
    fn info(&self) -> &TranscriberInfo;

    /// Its decoder in numbers.
    fn listener_info(&self) -> &ListenerInfo;

    /// Memory of the model's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Encodes windows, each of [`ListenerInfo::window_frames`] frames, and keeps what the decoder attends to until
    /// [`forget`](Self::forget).
    ///
    /// `pause` is called now and then, whenever nothing is under way on the device: it may block to let others have it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; nothing is kept, and the model is ready for the next call.
    fn encode(&mut self, windows: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<WindowId>>;

    /// Begins a text about a window, empty so far.
    ///
    /// # Errors
    /// [`crate::Error::Step`] if there is no such window.
    fn begin(&mut self, window: WindowId) -> Result<TextId>;

    /// Goes on with texts, of any windows, each at most once: for each row its logits, [row.logits, vocab], as of after each of
    /// the last tokens.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the texts of the rows then may only be ended.
    fn step(&mut self, rows: &[TextRow<'_>]) -> Result<Vec<Vec<f32>>>;

    /// How much the alignment heads attend from each token of a whole text to each place of its window, before the softmax:
    /// [heads, tokens, places], in the order of [`ListenerInfo::alignment_heads`]. `tokens` begin a text of their own.
    ///
    /// # Errors
    /// As [`step`](Self::step); if there is no such window.
    fn alignment(&mut self, window: WindowId, tokens: &[TokenId]) -> Result<Vec<f32>>;

    /// Ends a text. One that is not known is none any more: that is no error.
    fn end(&mut self, text: TextId);

    /// Gives back what is kept of a window, and its texts.
    fn forget(&mut self, window: WindowId);
}

/// A token and when it was heard.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeardToken {
    /// The token.
    pub token: TokenId,
    /// When it begins, from the sound's beginning.
    pub start: Duration,
    /// For how long.
    pub duration: Duration,
    /// How probable it was, among all tokens.
    pub probability: f32,
}

/// A model that emits tokens along a sound of any length.
pub trait Transducer {
    /// The model in numbers.
    fn info(&self) -> &TranscriberInfo;

    /// The text of each token: pieces with `▁` where a word begins.
    fn pieces(&self) -> &[String];

    /// Memory of the model's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// The tokens of each sound, most probable at each place.
    ///
    /// `pause` is called now and then, whenever nothing is under way on the device: it may block to let others have it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the model is ready for the next call.
    fn transcribe(&mut self, sounds: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<Vec<HeardToken>>>;
}

/// A loaded model that speaks, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SynthesizerInfo {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Device it runs on.
    pub device: DeviceKind,
    /// Parameters; a quantized weight counts as what it stands for.
    pub parameters: u64,
    /// Bytes of all weights as held in memory.
    pub weight_bytes: u64,
    /// E.g. `affine 4 bit, group 32`, or `bf16`.
    pub quantization: String,
    /// Samples a second of what it says.
    pub sample_rate: u32,
    /// Longest utterance, in symbols.
    pub max_symbols: usize,
    /// Numbers of a voice's style.
    pub style_len: usize,
    /// Phonemes that it knows, each with its symbol.
    pub symbols: BTreeMap<String, TokenId>,
}

/// Something to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utterance<'a> {
    /// Phonemes, as [`SynthesizerInfo::symbols`]: at least one, at most [`SynthesizerInfo::max_symbols`].
    pub symbols: &'a [TokenId],
    /// Whose voice, and how: [`SynthesizerInfo::style_len`] numbers.
    pub style: &'a [f32],
    /// How fast: 1 as the model would by itself, 2 twice as fast.
    pub speed: f32,
    /// Of the noise in voiceless sounds and of phases: the same seed, the same sound.
    pub seed: u64,
}

/// A model that speaks. Lives on one thread.
pub trait Synthesizer {
    /// The model in numbers.
    fn info(&self) -> &SynthesizerInfo;

    /// Memory of the model's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// The sound of an utterance, one channel at [`SynthesizerInfo::sample_rate`].
    ///
    /// `pause` is called now and then, whenever nothing is under way on the device: it may block to let others have it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the model is ready for the next call.
    fn synthesize(&mut self, utterance: &Utterance<'_>, pause: &mut dyn FnMut()) -> Result<Vec<f32>>;
}
