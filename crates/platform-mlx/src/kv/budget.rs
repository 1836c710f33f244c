//! How much memory KV storage gets, and who gets it.
//!
//! `bytes = utilization · granted − weights − headroom`, unless an option names the bytes. Whatever is left over once
//! the running sequences have their blocks serves as prefix cache, so that all of it is used; on the host, whose memory
//! belongs to others too, at most half of what was granted.

use serde_json::Value;
use vllm_platform::{DeviceKind, KvDtype, KvGroup, LoadOptions};

use super::{LayerGroup, contiguous::slot_bytes, paged::block_bytes};
use crate::{Error, Result, model::LayerSpec};

/// Of what the host grants, the part that KV storage takes at most when nobody names its bytes.
const HOST_SHARE: f64 = 0.5;
/// What a process takes beside weights, KV and activations.
const BASE: u64 = 64 << 20;
/// Blocks of a group beyond which bookkeeping costs more than a longer memory is worth.
const MOST_BLOCKS: usize = 1 << 20;
/// Slots are numbered within a `u32` of tokens.
const MOST_TOKENS: usize = u32::MAX as usize;

/// What decides about the bytes of KV storage.
pub(crate) struct Request<'a> {
    pub options: &'a LoadOptions,
    pub device: DeviceKind,
    /// Bytes that the device granted before the model was loaded.
    pub granted: u64,
    /// Bytes of the weights, and of what else is loaded beside them.
    pub weights: u64,
    /// Bytes of what else a step needs.
    pub headroom: u64,
}

/// Bytes that the widest step's activations and logits take, roughly, and the process itself: for every token eight
/// rows of the hidden and four of the inner size, for every sequence two rows of logits, all in f32.
pub(crate) fn headroom(config: &Value, vocab_size: usize, options: &LoadOptions) -> u64 {
    let size = |key| config.get(key).and_then(Value::as_u64).unwrap_or(0);
    let row = 8 * size("hidden_size") + 4 * size("intermediate_size");
    let logits = 2 * vocab_size as u64 * options.max_num_seqs as u64;
    4 * (options.max_num_batched_tokens as u64 * row + logits) + BASE
}

impl Request<'_> {
    /// Bytes for KV storage.
    pub fn bytes(&self) -> Result<u64> {
        let share = self.options.memory_utilization;
        if !(share > 0.0 && share <= 1.0) {
            return Err(Error::Option(format!("gpu-memory-utilization {share}: it must be above 0 and at most 1")));
        }
        if let Some(bytes) = self.options.kv_cache_bytes {
            return Ok(bytes);
        }
        let allowed = part(self.granted, share);
        let taken = self.weights + self.headroom;
        if allowed <= taken {
            return Err(short(format!(
                "no memory is left for KV storage: {share} of the {} granted is {}, weights take {} and a step {}",
                mib(self.granted),
                mib(allowed),
                mib(self.weights),
                mib(self.headroom)
            )));
        }
        let left = allowed - taken;
        Ok(if self.device == DeviceKind::Cpu { left.min(part(self.granted, HOST_SHARE)) } else { left })
    }
}

/// Blocks of each group within `bytes`.
///
/// Windowed groups come first: what `max_num_seqs` sequences hold at once, and as much again for windows to come back
/// to; but never more than half of all bytes. Layers that read everything have the rest. If there are none, the
/// windowed groups share all of it.
pub(crate) fn paged(
    bytes: u64,
    groups: &[LayerGroup],
    layers: &[LayerSpec],
    block_size: usize,
    dtype: KvDtype,
    max_len: usize,
    options: &LoadOptions,
) -> Result<Vec<usize>> {
    // Of each group: bytes of a block, blocks of a sequence in the middle of a step, blocks wanted.
    let needs: Vec<(u64, usize, usize)> = groups
        .iter()
        .map(|group| {
            let block_bytes = block_bytes(group, layers, block_size, dtype);
            let numbers = KvGroup { window: group.window, num_blocks: 0, block_bytes };
            let one = match group.window {
                Some(_) => numbers.blocks_for(max_len, options.max_num_batched_tokens, block_size),
                None => 1,
            };
            (block_bytes, one, 2 * options.max_num_seqs.max(1) * one)
        })
        .collect();
    let least: u64 = needs.iter().map(|&(bytes, one, _)| bytes * one as u64).sum();
    if bytes < least {
        return Err(short(format!(
            "KV storage of {bytes} bytes is too small: one sequence takes {least} in blocks of {block_size} tokens"
        )));
    }
    let whole = groups.iter().any(|group| group.window.is_none());
    let windowed = || groups.iter().zip(&needs).filter(|(group, _)| group.window.is_some());
    let wanted: u64 = windowed().map(|(_, &(bytes, _, wanted))| bytes * wanted as u64).sum();
    let share = if whole { (bytes / 2).min(wanted) } else { bytes };
    // Beyond one sequence's blocks each.
    let firm: u64 = windowed().map(|(_, &(bytes, one, _))| bytes * one as u64).sum();
    let factor = share.saturating_sub(firm) as f64 / wanted.saturating_sub(firm).max(1) as f64;
    let mut left = bytes;
    let mut blocks = vec![0; groups.len()];
    for (i, (group, &(bytes, one, wanted))) in groups.iter().zip(&needs).enumerate() {
        if group.window.is_some() {
            blocks[i] = (one + part((wanted - one) as u64, factor) as usize).min(MOST_BLOCKS);
            left = left.saturating_sub(bytes * blocks[i] as u64);
        }
    }
    if let Some(i) = groups.iter().position(|group| group.window.is_none()) {
        blocks[i] = usize::try_from(left / needs[i].0.max(1)).unwrap_or(MOST_BLOCKS).min(MOST_BLOCKS);
    }
    Ok(blocks)
}

/// Slots of [`super::ContiguousKv`] within `bytes`.
pub(crate) fn contiguous(
    bytes: u64,
    layers: &[LayerSpec],
    dtype: KvDtype,
    max_len: usize,
    chunk: usize,
) -> Result<usize> {
    let slot = slot_bytes(layers, dtype, max_len, chunk);
    let slots = usize::try_from(bytes / slot.max(1)).unwrap_or(MOST_BLOCKS);
    if slots == 0 {
        return Err(short(format!(
            "KV storage of {bytes} bytes is too small: one sequence of {max_len} tokens takes {slot}; lower max-model-len"
        )));
    }
    Ok(slots.min(MOST_TOKENS / max_len.max(1)).clamp(1, MOST_BLOCKS))
}

fn short(problem: String) -> Error {
    vllm_platform::Error::OutOfMemory(problem).into()
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// `share` of `n`, rounded down.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn part(n: u64, share: f64) -> u64 {
    (n as f64 * share) as u64
}

#[cfg(test)]
mod tests;
