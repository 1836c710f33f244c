//! Loading encoders, and telling from a checkpoint's small files whether it is one.

use mlx_rs::with_stream;
use serde::Deserialize;
use vllm_checkpoint::{Checkpoint, Pooling, SentenceModel};
use vllm_platform::{EncoderInfo, EncoderOptions, EncoderTask, LoadProgress, ModelPurpose};

use crate::{
    Error, MlxEncoder, Result, device,
    encoder::{EncoderFamily, LoadEncoder, encoder_families},
    encoder_runner::Network,
    kv::TransientKv,
    load::{LoadContext, Loading, View},
    model::families,
    platform::{Threads, activation_dtype, device_ops},
    speech::speech_family_of,
};

/// Of an encoder without `modules.json`: what sentence-transformers would do, and vectors of length 1 as all servers
/// give them.
const ENCODER: SentenceModel = SentenceModel { pooling: Pooling::Mean, normalize: true };
/// Of a decoder without it: no other token has seen the whole text.
const DECODER: SentenceModel = SentenceModel { pooling: Pooling::LastToken, normalize: true };

fn family(architecture: &str) -> Option<&'static EncoderFamily> {
    encoder_families().into_iter().find(|family| family.architecture == architecture)
}

/// What a checkpoint is for.
///
/// # Errors
/// If its files don't say of which architecture it is.
pub(crate) fn purpose(checkpoint: &Checkpoint) -> Result<ModelPurpose> {
    Ok(match family(checkpoint.architecture()?).map(|family| family.load) {
        Some(LoadEncoder::Embedding(_)) => ModelPurpose::Embed,
        Some(LoadEncoder::Scores(_)) => ModelPurpose::Score,
        None if let Some(family) = speech_family_of(checkpoint)? => family.purpose(),
        None if checkpoint.sentence_model()?.is_some() => ModelPurpose::Embed,
        None => ModelPurpose::Generate,
    })
}

/// Loads an opened checkpoint as an encoder. The runner, like all of MLX, stays on the calling thread.
///
/// # Errors
/// If the device is absent, the architecture unknown or not up to the task, or a tensor missing, surplus or mis-shaped.
pub(crate) fn load_encoder(
    checkpoint: &Checkpoint,
    options: &EncoderOptions,
    progress: LoadProgress<'_>,
) -> Result<MlxEncoder> {
    let device = options.device.resolve(&device::available())?;
    let stream = device::stream(device)?;
    with_stream(&stream, || {
        let threads = Threads { count: options.threads, pinned: options.pin_threads };
        let ops = device_ops(device, threads, options.activations, &stream)?;
        let dtype = activation_dtype(checkpoint.config(), device);
        let view = View::whole(checkpoint)?;
        let loading = Loading::new(&view, ops.clone(), dtype, device, progress);
        let network = load(checkpoint, &LoadContext::root(&loading), options.task)?;
        loading.finish()?;
        let limits = [checkpoint.max_input_tokens()?, options.max_input_len];
        let max_input_len = limits.into_iter().flatten().fold(network.max_input_len(), usize::min).max(1);
        let info = EncoderInfo {
            architecture: checkpoint.architecture()?.into(),
            device,
            parameters: loading.parameters(),
            weight_bytes: loading.bytes(),
            quantization: loading.quantization(),
            max_input_len,
            vocab_size: network.vocab_size(),
            output: network.output(),
        };
        let (layers, causal) = (network.layers(), network.is_causal());
        let kv = TransientKv::new(layers, causal, &ops, max_input_len, options.max_num_batched_tokens)?;
        Ok(MlxEncoder::new(network, kv, info, stream.clone(), loading.in_place_bytes()))
    })
}

fn load(checkpoint: &Checkpoint, ctx: &LoadContext<'_>, task: EncoderTask) -> Result<Network> {
    let name = checkpoint.architecture()?;
    let decoder = || families().into_iter().find(|family| family.architecture == name);
    match (task, family(name).map(|family| family.load)) {
        (EncoderTask::Native, Some(LoadEncoder::Embedding(load))) => {
            Ok(Network::Embedding(load(ctx)?, checkpoint.sentence_model()?.unwrap_or(ENCODER)))
        }
        (EncoderTask::Native, Some(LoadEncoder::Scores(load))) => Ok(Network::Scores(load(ctx)?)),
        (EncoderTask::Judge { .. }, Some(_)) => {
            Err(Error::Option(format!("{name} continues no texts: it cannot answer with yes or no")))
        }
        (task, None) => {
            let model = (decoder().ok_or_else(|| unknown(name))?.load)(ctx)?;
            Ok(match task {
                EncoderTask::Judge { yes, no } => Network::Judge { model, yes, no },
                EncoderTask::Native => {
                    let how = checkpoint.sentence_model()?.unwrap_or(DECODER);
                    Network::DecoderEmbedding { model, how, hidden: hidden_size(ctx)? }
                }
            })
        }
    }
}

fn hidden_size(ctx: &LoadContext<'_>) -> Result<usize> {
    #[derive(Deserialize)]
    struct Config {
        hidden_size: usize,
    }
    Ok(ctx.config::<Config>()?.hidden_size)
}

fn unknown(name: &str) -> Error {
    let encoders = encoder_families().into_iter().map(|family| family.architecture);
    let mut known: Vec<_> = encoders.chain(families().into_iter().map(|family| family.architecture)).collect();
    known.sort_unstable();
    Error::UnknownArchitecture { name: name.into(), known: known.join(", ") }
}
