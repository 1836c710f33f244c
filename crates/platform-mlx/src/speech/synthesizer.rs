//! [`Synthesizer`] over MLX: phonemes in, sound out.

use std::{collections::BTreeMap, path::Path};

use mlx_rs::{Dtype, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_platform::{LoadProgress, MemoryInfo, SpeechOptions, Synthesizer, SynthesizerInfo, TokenId, Utterance};

use super::{LoadSpeech, Machine, speech_family_of};
use crate::{
    Error, Result, Tensor, device,
    load::{LoadContext, View},
};

/// What a [`SynthesizerModel`] is asked to say.
pub struct Voiced<'a> {
    /// Symbols of the phonemes, without those that the model adds at either end.
    pub symbols: &'a [TokenId],
    /// The voice's style, [1, style_len].
    pub style: Tensor,
    /// How fast: 1 as the model would by itself.
    pub speed: f32,
    /// Of all that is random.
    pub seed: u64,
}

/// A model that speaks. Written once for all devices, like a [`CausalLm`](crate::model::CausalLm).
pub trait SynthesizerModel {
    /// Samples a second.
    fn sample_rate(&self) -> u32;

    /// Longest utterance, in symbols.
    fn max_symbols(&self) -> usize;

    /// Numbers of a voice's style.
    fn style_len(&self) -> usize;

    /// Phonemes that it knows, each with its symbol.
    fn symbols(&self) -> BTreeMap<String, TokenId>;

    /// The sound, `[samples]`.
    ///
    /// `done` is to be called every few tens of milliseconds, when all that was asked of the device has been computed, with the
    /// name of a stage and what came out of it.
    ///
    /// # Errors
    /// MLX's own.
    fn synthesize(&self, utterance: &Voiced<'_>, done: &mut dyn FnMut(&'static str, &Tensor)) -> Result<Tensor>;
}

/// A loaded model that speaks. Belongs to the thread that loaded it.
pub struct MlxSynthesizer {
    model: Box<dyn SynthesizerModel>,
    machine: Machine,
    info: SynthesizerInfo,
    dtype: Dtype,
    in_place_bytes: u64,
}

/// Loads the model of a checkpoint.
pub(super) fn load(
    checkpoint: &Checkpoint,
    machine: Machine,
    load: fn(&LoadContext<'_>) -> Result<Box<dyn SynthesizerModel>>,
    progress: LoadProgress<'_>,
) -> Result<MlxSynthesizer> {
    // Phases go on over a whole utterance and spectra span orders of magnitude: half the bits would be heard.
    let (model, weights) = machine.load_view(&View::whole(checkpoint)?, Dtype::Float32, progress, load)?;
    let info = SynthesizerInfo {
        architecture: weights.architecture,
        device: machine.device,
        parameters: weights.parameters,
        weight_bytes: weights.bytes,
        quantization: weights.quantization,
        sample_rate: model.sample_rate(),
        max_symbols: model.max_symbols(),
        style_len: model.style_len(),
        symbols: model.symbols(),
    };
    Ok(MlxSynthesizer { model, machine, info, dtype: weights.dtype, in_place_bytes: weights.in_place_bytes })
}

impl MlxSynthesizer {
    /// Loads the checkpoint at `path`.
    ///
    /// # Errors
    /// If the device is absent, the model of no family that speaks, or a tensor missing, surplus or mis-shaped.
    pub fn load(path: &Path, options: &SpeechOptions) -> Result<Self> {
        Self::load_on(path, Machine::new(options)?)
    }

    /// The same, to run on the CPU over MLX's own operations, which are those of the other devices: slow, and what tests compare
    /// ours with.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_over_mlx(path: &Path) -> Result<Self> {
        Self::load_on(path, Machine::mlx()?)
    }

    fn load_on(path: &Path, machine: Machine) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        match speech_family_of(&checkpoint)?.map(|family| family.load) {
            Some(LoadSpeech::Synthesizer(family)) => load(&checkpoint, machine, family, &mut |_, _| {}),
            _ => Err(Error::Config("a model that does not speak".into())),
        }
    }

    /// [`Synthesizer::synthesize`], with what comes out of each stage: for tests, and to see where time goes.
    ///
    /// # Errors
    /// As [`Synthesizer::synthesize`].
    pub fn synthesize_by_stages(
        &self,
        utterance: &Utterance<'_>,
        done: &mut dyn FnMut(&'static str, &Tensor),
    ) -> vllm_platform::Result<Vec<f32>> {
        let stream = self.machine.stream.clone();
        with_stream(&stream, || self.run(utterance, done)).map_err(Error::into_step_error)
    }

    fn run(&self, utterance: &Utterance<'_>, done: &mut dyn FnMut(&'static str, &Tensor)) -> Result<Vec<f32>> {
        let Utterance { symbols, style, speed, seed } = *utterance;
        let info = &self.info;
        if symbols.is_empty() || symbols.len() > info.max_symbols || style.len() != info.style_len {
            return Err(Error::Plan(format!(
                "{} symbols in a style of {} numbers; the model takes 1 to {} in one of {}",
                symbols.len(),
                style.len(),
                info.max_symbols,
                info.style_len
            )));
        }
        if !(speed.is_finite() && speed > 0.0) {
            return Err(Error::Plan(format!("a speed of {speed}")));
        }
        let width = crate::batch::dim(style.len());
        let style = Tensor::from_slice(style, &[1, width]).as_dtype(self.dtype)?;
        let sound = self.model.synthesize(&Voiced { symbols, style, speed, seed }, done)?;
        let sound = sound.as_dtype(Dtype::Float32)?.contiguous()?;
        sound.eval()?;
        let samples = sound.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("the sound: {e}")))?;
        Ok(samples.to_vec())
    }
}

impl Synthesizer for MlxSynthesizer {
    fn info(&self) -> &SynthesizerInfo {
        &self.info
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        device::memory(self.info.device, self.in_place_bytes).map_err(Error::into_step_error)
    }

    fn synthesize(&mut self, utterance: &Utterance<'_>, pause: &mut dyn FnMut()) -> vllm_platform::Result<Vec<f32>> {
        self.synthesize_by_stages(utterance, &mut |_, _| pause())
    }
}
