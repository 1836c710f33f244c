//! [`Transducer`] over MLX: spectrograms in, tokens with their times out.

use std::path::Path;

use mlx_rs::{Dtype, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_platform::{HeardToken, LoadProgress, Mel, MelSettings, MemoryInfo, TranscriberInfo, Transducer};

use super::{LoadSpeech, Machine, speech_family_of};
use crate::{
    Error, Result, Tensor,
    batch::dim,
    device,
    load::{LoadContext, View},
    platform::activation_dtype,
};

/// A model that goes along a sound. Written once for all devices, like a [`CausalLm`](crate::model::CausalLm).
pub trait TransducerModel {
    /// What it listens to.
    fn mel(&self) -> MelSettings;

    /// The text of each token.
    fn pieces(&self) -> &[String];

    /// The tokens of a sound, log-mel [frames, bands], most probable at each place.
    ///
    /// `pause` is to be called every few tens of milliseconds, when all that was asked of the device has been computed.
    ///
    /// # Errors
    /// MLX's own.
    fn transcribe(&self, mel: &Tensor, pause: &mut dyn FnMut()) -> Result<Vec<HeardToken>>;
}

/// How such a model is loaded.
pub(crate) type LoadTransducer = fn(&LoadContext<'_>) -> Result<Box<dyn TransducerModel>>;

/// A loaded model that goes along sounds. Belongs to the thread that loaded it.
pub struct MlxTransducer {
    model: Box<dyn TransducerModel>,
    machine: Machine,
    info: TranscriberInfo,
    dtype: Dtype,
    in_place_bytes: u64,
}

/// Loads the model of a checkpoint.
pub(super) fn load(
    checkpoint: &Checkpoint,
    machine: Machine,
    load: LoadTransducer,
    progress: LoadProgress<'_>,
) -> Result<MlxTransducer> {
    let view = View::whole(checkpoint)?;
    let dtype = activation_dtype(&view.config, machine.device);
    let (model, weights) = machine.load_view(&view, dtype, progress, load)?;
    let info = TranscriberInfo {
        architecture: weights.architecture,
        device: machine.device,
        parameters: weights.parameters,
        weight_bytes: weights.bytes,
        quantization: weights.quantization,
        mel: model.mel(),
        vocab_size: model.pieces().len(),
    };
    Ok(MlxTransducer { model, machine, info, dtype, in_place_bytes: weights.in_place_bytes })
}

impl MlxTransducer {
    /// Loads the checkpoint at `path` to run on the CPU over MLX's own operations, which are those of the other devices: slow,
    /// and what tests compare ours with.
    ///
    /// # Errors
    /// If it is of no such family, or a tensor missing, surplus or mis-shaped.
    pub fn load_over_mlx(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        match speech_family_of(&checkpoint)?.map(|family| family.load) {
            Some(LoadSpeech::Transducer(family)) => load(&checkpoint, Machine::mlx()?, family, &mut |_, _| {}),
            _ => Err(Error::Config("no model that goes along a sound".into())),
        }
    }

    fn run(&self, sounds: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<Vec<HeardToken>>> {
        let bands = self.info.mel.bands;
        let one = |sound: &&Mel| {
            let Mel { numbers, frames } = sound;
            if numbers.len() != frames * bands {
                return Err(Error::Plan(format!("{} numbers are not {frames} frames of {bands} bands", numbers.len())));
            }
            if *frames == 0 {
                return Ok(Vec::new());
            }
            let mel = Tensor::from_slice(numbers, &[dim(*frames), dim(bands)]).as_dtype(self.dtype)?;
            self.model.transcribe(&mel, pause)
        };
        sounds.iter().map(one).collect()
    }
}

impl Transducer for MlxTransducer {
    fn info(&self) -> &TranscriberInfo {
        &self.info
    }

    fn pieces(&self) -> &[String] {
        self.model.pieces()
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        device::memory(self.info.device, self.in_place_bytes).map_err(Error::into_step_error)
    }

    fn transcribe(&mut self, sounds: &[&Mel], pause: &mut dyn FnMut()) -> vllm_platform::Result<Vec<Vec<HeardToken>>> {
        let stream = self.machine.stream.clone();
        with_stream(&stream, || self.run(sounds, pause)).map_err(Error::into_step_error)
    }
}
