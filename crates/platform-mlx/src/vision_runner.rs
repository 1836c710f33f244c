//! [`VisionEncoder`] over MLX: patches in, features out.

use std::path::Path;

use mlx_rs::{Dtype, Stream, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_platform::{
    DeviceKind, Features, LoadProgress, MemoryInfo, VisionEncoder, VisionInfo, VisionInput, VisionOptions,
};

use crate::{
    Error, Ops, Result, Tensor,
    batch::dim,
    device,
    fingerprint::fingerprint,
    kv::TransientKv,
    load::{LoadContext, Loading},
    platform::{Threads, activation_dtype, device_ops},
    vision::{Pictures, VisionFamily, VisionModel, family_of},
};

/// A loaded vision encoder. Belongs to the thread that loaded it.
pub struct MlxVision {
    model: Box<dyn VisionModel>,
    ops: Ops,
    info: VisionInfo,
    stream: Stream,
    dtype: Dtype,
    /// Weights in memory that isn't MLX's.
    in_place_bytes: u64,
}

impl MlxVision {
    /// Loads the vision part of a checkpoint of that family.
    ///
    /// # Errors
    /// If the device is absent, or a tensor missing, surplus or mis-shaped.
    pub(crate) fn load(
        family: &VisionFamily,
        checkpoint: &Checkpoint,
        options: &VisionOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Self> {
        let device = options.device.resolve(&device::available())?;
        let stream = device::stream(device)?;
        let threads = Threads { count: options.threads, pinned: options.pin_threads };
        let ops = device_ops(device, threads, options.activations, &stream)?;
        Self::load_over(family, checkpoint, ops, device, stream, progress)
    }

    /// Loads the vision part of the checkpoint at `path` to run on the CPU over MLX's own operations, which are those of the other
    /// devices: slow, and what tests compare ours with.
    ///
    /// # Errors
    /// If it is not of a family that sees, or a tensor missing, surplus or mis-shaped.
    pub fn load_over_mlx(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let family = family_of(&checkpoint)?.ok_or_else(|| Error::Config("a model that does not see".into()))?;
        let stream = device::stream(DeviceKind::Cpu)?;
        Self::load_over(family, &checkpoint, Ops::mlx(), DeviceKind::Cpu, stream, &mut |_, _| {})
    }

    fn load_over(
        family: &VisionFamily,
        checkpoint: &Checkpoint,
        ops: Ops,
        device: DeviceKind,
        stream: Stream,
        progress: LoadProgress<'_>,
    ) -> Result<Self> {
        let view = family.vision(checkpoint)?;
        with_stream(&stream.clone(), || {
            let dtype = activation_dtype(checkpoint.config(), device);
            let loading = Loading::new(&view, ops.clone(), dtype, device, progress);
            let model = family.load(&LoadContext::root(&loading))?;
            loading.finish()?;
            let info = VisionInfo {
                architecture: view.architecture.clone(),
                device,
                parameters: loading.parameters(),
                weight_bytes: loading.bytes(),
                quantization: loading.quantization(),
                width: model.width(),
                levels: model.levels(),
                patch_len: model.patch_len(),
                fingerprint: fingerprint(&loading, "vision features 1", &ops, dtype),
            };
            let in_place_bytes = loading.in_place_bytes();
            Ok(Self { model, ops, info, stream, dtype, in_place_bytes })
        })
    }

    fn run(&self, input: &VisionInput, pause: &mut dyn FnMut()) -> Result<Features> {
        let (patches, len) = (input.num_patches(), input.patch_len);
        if patches == 0 || input.patches.len() != patches * len || len != self.info.patch_len {
            return Err(Error::Plan(format!(
                "{} numbers are not {patches} patches of {len}, or the encoder takes patches of {}",
                input.patches.len(),
                self.info.patch_len
            )));
        }
        let patches = Tensor::from_slice(&input.patches, &[dim(patches), dim(len)]).as_dtype(self.dtype)?;
        let mut kv = TransientKv::empty(self.model.layers(), false, &self.ops);
        let pictures = Pictures { patches, grids: input.grids.clone() };
        let levels = self.model.forward(&pictures, &mut kv.attending(pause))?;
        let mut numbers = Vec::new();
        for level in &levels {
            let level = level.as_dtype(Dtype::Float32)?.contiguous()?;
            level.eval()?;
            let level = level.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("features: {e}")))?;
            numbers.extend_from_slice(level);
        }
        Ok(Features::new(numbers, levels.len(), self.info.width))
    }
}

impl VisionEncoder for MlxVision {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        device::memory(self.info.device, self.in_place_bytes).map_err(Error::into_step_error)
    }

    fn encode(&mut self, input: &VisionInput, pause: &mut dyn FnMut()) -> vllm_platform::Result<Features> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.run(input, pause)).map_err(Error::into_step_error)
    }
}
