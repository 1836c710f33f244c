//! [`Platform`] over MLX: opens checkpoints, picks operations and KV storage for the device, and makes runners.

use std::{ops::Range, sync::Arc};

use mlx_rs::{Dtype, Stream, with_stream};
use serde_json::Value;
use vllm_checkpoint::Checkpoint;
use vllm_kernels_cpu::{self as kernels, Isa, Pool};
use vllm_platform::{
    Activations, DeviceKind, EncoderOptions, EncoderRunner, HiddenDtype, KvDtype, KvStoreChoice, Link, LoadOptions,
    LoadProgress, MemoryInfo, ModelInfo, ModelOutline, ModelPurpose, ModelRunner, ModelSource, Platform,
    PlatformPlugin, SpeechOptions, StageRunner, Synthesizer, Transcriber, VisionEncoder, VisionOptions, inventory,
};

use crate::{
    Error, MlxRunner, Ops, Result, device,
    dist::MlxLink,
    encoder::encoder_families,
    ffi,
    fingerprint::fingerprint,
    kv::{ContiguousKv, KvStore, PagedKv, budget, group_layers},
    load::{LoadContext, Loading, View},
    load_encoder::{load_encoder, purpose},
    model::{CausalLm, Family, families},
    outline::{check_layers, outline},
    runner::Stage,
    speech::{self, speech_families},
    vision::{family_of, vision_families},
    vision_runner::MlxVision,
};

/// Tokens of a block in the paged store.
const BLOCK_SIZE: usize = 16;
/// What the paged store keeps numbers as unless told otherwise: half of what is computed, at an error far below that of
/// activations as integers (`docs/decisions/0018-kv-cache-types.md`); all of it where activations are to stay as they are.
fn paged_dtype(options: &LoadOptions) -> KvDtype {
    options.kv_cache_dtype.unwrap_or(match options.activations {
        Activations::F32 => KvDtype::F32,
        Activations::Int16 | Activations::Int8 => KvDtype::F16,
    })
}

inventory::submit! {
    PlatformPlugin { name: "mlx", open: || Ok(Box::new(MlxPlatform)) }
}

/// Apple MLX, as linked into this binary.
#[derive(Debug, Clone, Copy)]
pub struct MlxPlatform;

impl Platform for MlxPlatform {
    fn devices(&self) -> Vec<DeviceKind> {
        device::available()
    }

    fn memory(&self, device: DeviceKind) -> vllm_platform::Result<MemoryInfo> {
        device::memory(device, 0).map_err(Error::into_step_error)
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let version = ffi::mlx_version().unwrap_or_else(|| "unknown".into());
        let isas = Isa::available().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        vec![
            ("MLX", version),
            ("CPU kernels", format!("{} (this processor has {isas})", Isa::detect())),
            ("CPU threads", Pool::new(0).threads().to_string()),
        ]
    }

    fn architectures(&self) -> Vec<&'static str> {
        let encoders = encoder_families().into_iter().map(|family| family.architecture);
        let seeing = vision_families().into_iter().map(|family| family.architecture);
        let speech = speech_families().into_iter().map(|family| family.architecture);
        let mut all: Vec<_> =
            families().iter().map(|family| family.architecture).chain(encoders).chain(seeing).chain(speech).collect();
        all.sort_unstable();
        all
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Box<dyn ModelRunner>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        let runner = load_runner(&checkpoint, options, None, progress).map_err(Error::into_load_error)?;
        Ok(Box::new(runner))
    }

    fn outline(&self, source: &ModelSource) -> vllm_platform::Result<ModelOutline> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        outline_of(&checkpoint).map_err(Error::into_load_error)
    }

    fn load_stage(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        layers: Range<usize>,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Box<dyn StageRunner>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        let load = || {
            check_layers(&layers, &outline_of(&checkpoint)?)?;
            load_runner(&checkpoint, options, Some(layers), progress)
        };
        Ok(Box::new(load().map_err(Error::into_load_error)?))
    }

    fn link(&self, transport: &str) -> vllm_platform::Result<Box<dyn Link>> {
        Ok(Box::new(MlxLink::open(transport).map_err(Error::into_load_error)?))
    }

    fn purpose(&self, source: &ModelSource) -> vllm_platform::Result<ModelPurpose> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        purpose(&checkpoint).map_err(Error::into_load_error)
    }

    fn load_encoder(
        &self,
        source: &ModelSource,
        options: &EncoderOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Box<dyn EncoderRunner>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        let runner = load_encoder(&checkpoint, options, progress).map_err(Error::into_load_error)?;
        Ok(Box::new(runner))
    }

    fn load_vision(
        &self,
        source: &ModelSource,
        options: &VisionOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Option<Box<dyn VisionEncoder>>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        let mut load = || {
            let Some(family) = family_of(&checkpoint)? else { return Ok(None) };
            let encoder: Box<dyn VisionEncoder> = Box::new(MlxVision::load(family, &checkpoint, options, progress)?);
            Ok(Some(encoder))
        };
        load().map_err(Error::into_load_error)
    }

    fn load_transcriber(
        &self,
        source: &ModelSource,
        options: &SpeechOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Transcriber> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        speech::load_transcriber(&checkpoint, options, progress).map_err(Error::into_load_error)
    }

    fn load_synthesizer(
        &self,
        source: &ModelSource,
        options: &SpeechOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Box<dyn Synthesizer>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        speech::load_synthesizer(&checkpoint, options, progress).map_err(Error::into_load_error)
    }
}

/// What of a checkpoint is a language model, and its family.
fn language(checkpoint: &Checkpoint) -> Result<(View<'_>, &'static Family)> {
    let view = match family_of(checkpoint)? {
        Some(family) => family.language(checkpoint)?,
        None => View::whole(checkpoint)?,
    };
    let family = families().into_iter().find(|f| f.architecture == view.architecture).ok_or_else(|| {
        let known: Vec<_> = families().iter().map(|f| f.architecture).collect();
        Error::UnknownArchitecture { name: view.architecture.clone(), known: known.join(", ") }
    })?;
    Ok((view, family))
}

/// What a checkpoint is made of, if its layers can be apart from each other.
fn outline_of(checkpoint: &Checkpoint) -> Result<ModelOutline> {
    let (view, family) = language(checkpoint)?;
    let known: Vec<_> = families().iter().filter(|f| f.stages).map(|f| f.architecture).collect();
    outline(&view, family, &known.join(", "))
}

/// Loads an opened checkpoint, or some layers of it. The runner, like all of MLX, stays on the calling thread.
///
/// # Errors
/// If the device is absent, the architecture unknown, a tensor missing, surplus or mis-shaped, or memory short.
pub(crate) fn load_runner(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    stage: Option<Range<usize>>,
    progress: LoadProgress<'_>,
) -> Result<MlxRunner> {
    let device = options.device.resolve(&device::available())?;
    let stream = device::stream(device)?;
    // Before the weights take their part.
    let granted = device::granted(device)?;
    with_stream(&stream, || {
        let threads = Threads { count: options.threads, pinned: options.pin_threads };
        let ops = device_ops(device, threads, options.activations, &stream)?;
        let dtype = activation_dtype(checkpoint.config(), device);
        let (view, family) = language(checkpoint)?;
        let loading = Loading::new(&view, ops.clone(), dtype, device, progress).of_stage(stage.clone());
        let model = (family.load)(&LoadContext::root(&loading))?;
        loading.finish()?;

        let context_length = context_length(&*model, options)?;
        let request = budget::Request {
            options,
            device,
            granted,
            weights: loading.bytes() + options.media_cache_bytes.map_or(0, |cache| view.left_bytes + cache),
            headroom: budget::headroom(loading.config(), model.vocab_size(), options),
        };
        let store = kv_store(&*model, &ops, &request, dtype, context_length)?;
        let spec = store.spec();
        let stored = format!("{}: {} tokens of {:?}", store.name(), spec.block_size, spec.dtype);
        let info = ModelInfo {
            architecture: checkpoint.architecture()?.into(),
            device,
            parameters: loading.parameters(),
            weight_bytes: loading.bytes(),
            quantization: loading.quantization(),
            context_length,
            vocab_size: model.vocab_size(),
            kv_fingerprint: fingerprint(&loading, &stored, &ops, dtype),
            kv_cache: store.spec().clone(),
        };
        let runner = MlxRunner::new(model, store, ops, info, stream.clone(), loading.in_place_bytes());
        let Some(layers) = stage else { return Ok(runner) };
        let size = |key| loading.config().get(key).and_then(Value::as_u64).unwrap_or(0) as usize;
        let last = layers.end == size("num_hidden_layers");
        Ok(runner.of_stage(Stage { layers, last, width: size("hidden_size"), dtype: hidden_dtype(dtype) }))
    })
}

/// Threads for kernels on the CPU.
pub(crate) struct Threads {
    /// `None`: one for each physical core.
    pub count: Option<usize>,
    /// Whether each has a core of its own.
    pub pinned: bool,
}

/// The operations of `device`; on the CPU with threads of their own.
pub(crate) fn device_ops(
    device: DeviceKind,
    threads: Threads,
    activations: Activations,
    stream: &Stream,
) -> Result<Ops> {
    let activations = match activations {
        Activations::Int16 => kernels::Activations::Int16,
        Activations::Int8 => kernels::Activations::Int8,
        Activations::F32 => kernels::Activations::F32,
    };
    let count = threads.count.unwrap_or(0);
    match device {
        DeviceKind::Cpu => {
            let pool = if threads.pinned {
                Pool::pinned(count).map_err(|error| Error::Option(format!("pin-threads: {error}")))?
            } else {
                Pool::new(count)
            };
            Ok(Ops::cpu(Arc::new(pool.with_activations(activations)), stream.clone()))
        }
        DeviceKind::Metal | DeviceKind::Cuda if threads.pinned => {
            Err(Error::Option(format!("pin-threads: {device} has no threads of ours to pin")))
        }
        DeviceKind::Metal | DeviceKind::Cuda => Ok(Ops::mlx()),
    }
}

/// f32 on the CPU, whose kernels compute in it; elsewhere the checkpoint's own type.
pub(crate) fn activation_dtype(config: &Value, device: DeviceKind) -> Dtype {
    let named = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(|v| v.as_str());
    match (device, named) {
        (DeviceKind::Cpu, _) | (_, Some("float32")) => Dtype::Float32,
        (_, Some("float16")) => Dtype::Float16,
        _ => Dtype::Bfloat16,
    }
}

fn context_length(model: &dyn CausalLm, options: &LoadOptions) -> Result<usize> {
    let own = model.context_length();
    match options.max_model_len {
        Some(0) => Err(Error::Option("max-model-len must be at least 1".into())),
        Some(asked) if asked > own => {
            Err(Error::Option(format!("max-model-len {asked} exceeds the {own} positions that the model was made for")))
        }
        Some(asked) => Ok(asked),
        None => Ok(own),
    }
}

/// The store that was asked for, or that suits the device, as large as the budget allows.
fn kv_store(
    model: &dyn CausalLm,
    ops: &Ops,
    request: &budget::Request<'_>,
    dtype: Dtype,
    max_len: usize,
) -> Result<Box<dyn KvStore>> {
    let (layers, options) = (model.layers(), request.options);
    let bytes = request.bytes()?;
    match (options.kv_store, ops.threads()) {
        (KvStoreChoice::Auto | KvStoreChoice::Paged, Some((threads, stream))) => {
            let (groups, dtype) = (group_layers(&layers, max_len), paged_dtype(options));
            let sizes = budget::paged(bytes, &groups, &layers, BLOCK_SIZE, dtype, max_len, options)?;
            let groups = groups.into_iter().zip(sizes).collect();
            Ok(Box::new(PagedKv::new(&layers, groups, Arc::clone(threads), stream.clone(), BLOCK_SIZE, dtype)?))
        }
        (KvStoreChoice::Paged, None) => Err(Error::Option(format!(
            "the paged KV store has an attention kernel for the CPU only, none for {} yet: use contiguous, or auto",
            request.device
        ))),
        (KvStoreChoice::Auto | KvStoreChoice::Contiguous, _) => {
            let (dtype, chunk) = (kv_dtype(dtype), options.max_num_batched_tokens);
            if let Some(asked) = options.kv_cache_dtype.filter(|&asked| asked != dtype) {
                return Err(Error::Option(format!(
                    "kv-cache-dtype {asked}: the contiguous KV store keeps keys and values as they are computed, here in \
                     {dtype}; use that, auto, or the paged store (on the CPU)"
                )));
            }
            let slots = budget::contiguous(bytes, &layers, dtype, max_len, chunk)?;
            Ok(Box::new(ContiguousKv::new(&layers, dtype, slots, max_len, chunk)))
        }
    }
}

/// What hidden states are computed in.
fn hidden_dtype(activations: Dtype) -> HiddenDtype {
    match activations {
        Dtype::Float16 => HiddenDtype::F16,
        Dtype::Bfloat16 => HiddenDtype::Bf16,
        _ => HiddenDtype::F32,
    }
}

/// Keys and values are kept as they are computed.
fn kv_dtype(activations: Dtype) -> KvDtype {
    match activations {
        Dtype::Float16 => KvDtype::F16,
        Dtype::Bfloat16 => KvDtype::Bf16,
        _ => KvDtype::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Tensor, model::LayerSpec};

    /// A model that is only ever asked for its sizes.
    struct Sizes;

    impl CausalLm for Sizes {
        fn layers(&self) -> Vec<LayerSpec> {
            [None, Some(32)].map(|window| LayerSpec { kv_heads: 1, head_dim: 16, window }).to_vec()
        }

        fn context_length(&self) -> usize {
            2048
        }

        fn vocab_size(&self) -> usize {
            8
        }

        fn forward(&self, _: &Batch, _: &mut dyn KvStore) -> Result<Tensor> {
            Err(Error::Plan("it cannot run".into()))
        }

        fn logits(&self, _: &Tensor) -> Result<Tensor> {
            Err(Error::Plan("it cannot run".into()))
        }
    }

    #[test]
    fn the_store_suits_the_device_or_is_refused() {
        let cpu = || Ops::cpu(Arc::new(Pool::new(1)), device::stream(DeviceKind::Cpu).expect("a stream"));
        let store_of = |kv_store, kv_cache_dtype, device, ops: &Ops, dtype| {
            let options =
                LoadOptions { kv_store, kv_cache_dtype, kv_cache_bytes: Some(1 << 22), ..LoadOptions::default() };
            let request = budget::Request { options: &options, device, granted: 0, weights: 0, headroom: 0 };
            super::kv_store(&Sizes, ops, &request, dtype, 2048)
        };
        let store = |kv_store, device, ops: &Ops, dtype| store_of(kv_store, None, device, ops, dtype);
        let (gpu, half) = (Ops::mlx(), Dtype::Bfloat16);
        // (choice, device, its operations, activations, block size, numbers, groups)
        for (choice, device, ops, dtype, wanted) in [
            (KvStoreChoice::Auto, DeviceKind::Cpu, &cpu(), Dtype::Float32, (16, KvDtype::F16, 2)),
            (KvStoreChoice::Paged, DeviceKind::Cpu, &cpu(), Dtype::Float32, (16, KvDtype::F16, 2)),
            (KvStoreChoice::Contiguous, DeviceKind::Cpu, &cpu(), Dtype::Float32, (2048, KvDtype::F32, 1)),
            (KvStoreChoice::Auto, DeviceKind::Metal, &gpu, half, (2048, KvDtype::Bf16, 1)),
            (KvStoreChoice::Contiguous, DeviceKind::Cuda, &gpu, half, (2048, KvDtype::Bf16, 1)),
        ] {
            let store = store(choice, device, ops, dtype).expect("room enough");
            let spec = store.spec();
            assert_eq!((spec.block_size, spec.dtype, spec.groups.len()), wanted, "{choice:?} on {device}");
            assert!(spec.total_bytes() <= 1 << 22, "{choice:?} on {device}: {spec:?}");
        }
        let refused = store(KvStoreChoice::Paged, DeviceKind::Metal, &gpu, half).map(drop).expect_err("no kernel");
        assert!(refused.to_string().contains("for the CPU only, none for metal yet"), "{refused}");

        let mut sizes = Vec::new();
        for dtype in KvDtype::ALL {
            let paged = store_of(KvStoreChoice::Auto, Some(dtype), DeviceKind::Cpu, &cpu(), Dtype::Float32);
            let spec = paged.expect("room enough").spec().clone();
            assert_eq!(spec.dtype, dtype);
            assert!(spec.total_bytes() <= 1 << 22, "{spec:?}");
            sizes.push(spec.groups[0].block_bytes);
            let contiguous = store_of(KvStoreChoice::Contiguous, Some(dtype), DeviceKind::Metal, &gpu, half);
            match contiguous.map(|store| store.spec().dtype) {
                Ok(found) => assert_eq!((found, dtype), (KvDtype::Bf16, KvDtype::Bf16)),
                Err(error) => {
                    assert!(dtype != KvDtype::Bf16 && error.to_string().contains("as they are computed"), "{error}");
                }
            }
        }
        // One layer, 16 tokens of one head of 16 numbers, keys and values.
        assert_eq!(sizes, [16 * 2 * 64, 16 * 2 * 32, 16 * 2 * 32, 16 * 2 * (16 + 4)]);
    }
}
