//! [`Platform`] over MLX: opens checkpoints, picks operations and KV storage for the device, and makes runners.

use std::sync::Arc;

use mlx_rs::{Dtype, with_stream};
use vllm_checkpoint::Checkpoint;
use vllm_kernels_cpu::Pool;
use vllm_platform::{
    DeviceKind, KvCacheSpec, LoadOptions, LoadProgress, MemoryInfo, ModelInfo, ModelRunner, ModelSource, Platform,
    PlatformPlugin, inventory,
};

use crate::{
    Error, MlxRunner, Ops, Result, device,
    kv::{self, ContiguousKv, KvStore, PagedKv},
    load::{LoadContext, Loading},
    model::{CausalLm, families},
};

/// Tokens of a block in the paged store.
const BLOCK_SIZE: usize = 16;
/// Share of the free memory that KV storage may take when nobody says.
const KV_SHARE: f64 = 0.8;

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

    fn architectures(&self) -> Vec<&'static str> {
        families().iter().map(|family| family.architecture).collect()
    }

    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: LoadProgress<'_>,
    ) -> vllm_platform::Result<Box<dyn ModelRunner>> {
        let checkpoint = Checkpoint::open(&source.path).map_err(|e| Error::from(e).into_load_error())?;
        let runner = load_runner(&checkpoint, options, progress).map_err(Error::into_load_error)?;
        Ok(Box::new(runner))
    }
}

/// Loads an opened checkpoint. The runner, like all of MLX, stays on the calling thread.
///
/// # Errors
/// If the device is absent, the architecture unknown, a tensor missing, surplus or mis-shaped, or memory short.
pub(crate) fn load_runner(
    checkpoint: &Checkpoint,
    options: &LoadOptions,
    progress: LoadProgress<'_>,
) -> Result<MlxRunner> {
    let device = options.device.resolve(&device::available())?;
    let stream = device::stream(device)?;
    with_stream(&stream, || {
        let ops = match device {
            DeviceKind::Cpu => Ops::cpu(Arc::new(Pool::new(options.threads.unwrap_or(0))), stream.clone()),
            DeviceKind::Metal | DeviceKind::Cuda => Ops::mlx(),
        };
        let dtype = activation_dtype(checkpoint, device);
        let name = checkpoint.architecture()?;
        let family = families().into_iter().find(|f| f.architecture == name).ok_or_else(|| {
            let known: Vec<_> = families().iter().map(|f| f.architecture).collect();
            Error::UnknownArchitecture { name: name.into(), known: known.join(", ") }
        })?;
        let loading = Loading::new(checkpoint, ops.clone(), dtype, device, progress);
        let model = (family.load)(&LoadContext::root(&loading))?;
        loading.finish()?;

        let context_length = context_length(&*model, options)?;
        let store = kv_store(&*model, &ops, options, device, context_length)?;
        let info = ModelInfo {
            architecture: name.into(),
            device,
            parameters: loading.parameters(),
            weight_bytes: loading.bytes(),
            quantization: loading.quantization(),
            context_length,
            vocab_size: model.vocab_size(),
            kv_cache: KvCacheSpec {
                block_size: store.block_size(),
                num_blocks: store.num_blocks(),
                bytes_per_token: kv::bytes_per_token(&model.layers(), kv_element(device)),
            },
        };
        Ok(MlxRunner::new(model, store, info, stream.clone(), loading.in_place_bytes()))
    })
}

/// f32 on the CPU, whose kernels compute in it; elsewhere the checkpoint's own type.
fn activation_dtype(checkpoint: &Checkpoint, device: DeviceKind) -> Dtype {
    let config = checkpoint.config();
    let named = config.get("dtype").or_else(|| config.get("torch_dtype")).and_then(|v| v.as_str());
    match (device, named) {
        (DeviceKind::Cpu, _) | (_, Some("float32")) => Dtype::Float32,
        (_, Some("float16")) => Dtype::Float16,
        _ => Dtype::Bfloat16,
    }
}

/// Bytes of a stored key or value element.
fn kv_element(device: DeviceKind) -> usize {
    match device {
        DeviceKind::Cpu => 4,
        DeviceKind::Metal | DeviceKind::Cuda => 2,
    }
}

fn context_length(model: &dyn CausalLm, options: &LoadOptions) -> Result<usize> {
    let own = model.context_length();
    match options.max_model_len {
        Some(0) => Err(Error::Config("max-model-len must be at least 1".into())),
        Some(asked) if asked > own => {
            Err(Error::Config(format!("max-model-len {asked} exceeds the {own} positions that the model was made for")))
        }
        Some(asked) => Ok(asked),
        None => Ok(own),
    }
}

/// KV storage for `max_num_seqs` full-length sequences, or for as many tokens as memory allows.
fn kv_store(
    model: &dyn CausalLm,
    ops: &Ops,
    options: &LoadOptions,
    device: DeviceKind,
    context_length: usize,
) -> Result<Box<dyn KvStore>> {
    let layers = model.layers();
    let token_bytes = kv::bytes_per_token(&layers, kv_element(device));
    let memory = device::memory(device, 0)?;
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let budget = options.kv_cache_bytes.unwrap_or_else(|| {
        // A GPU's limit counts what MLX holds; the host's available memory has the weights taken off already.
        let free = match device {
            DeviceKind::Cpu => memory.limit,
            DeviceKind::Metal | DeviceKind::Cuda => memory.limit.saturating_sub(memory.active),
        };
        (free as f64 * KV_SHARE) as u64
    });
    let affordable = usize::try_from(budget / token_bytes.max(1)).unwrap_or(usize::MAX);
    let wanted = options.max_num_seqs.max(1).saturating_mul(context_length);
    let tokens = affordable.min(wanted);
    let short = || {
        vllm_platform::Error::OutOfMemory(format!(
            "KV storage of {budget} bytes holds {affordable} tokens of {token_bytes} bytes each: too few"
        ))
    };
    Ok(match ops.threads() {
        Some((threads, stream)) => {
            let blocks = tokens / BLOCK_SIZE;
            if blocks == 0 {
                return Err(short().into());
            }
            Box::new(PagedKv::new(layers, Arc::clone(threads), stream.clone(), BLOCK_SIZE, blocks)?)
        }
        None => {
            let slots = (tokens / context_length.max(1)).min(options.max_num_seqs.max(1));
            if slots == 0 {
                return Err(short().into());
            }
            Box::new(ContiguousKv::new(layers, slots, context_length))
        }
    })
}
