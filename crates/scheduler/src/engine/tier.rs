//! The tier below memory, from the engine's side: what is written behind and read ahead.

use std::collections::VecDeque;

use vllm_cache::{BlockHash, SsdConfig, SsdEntry, SsdError, SsdEvent, SsdTier, Unwritten};
use vllm_platform::{ModelInfo, ModelRunner, SeqId};

use crate::{SsdOptions, SsdStats, planner::Planner};

/// Blocks copied out between two steps. They take a fraction of the time that computing them took; more at once would
/// be felt by the answers in progress.
const BLOCKS_PER_STEP: usize = 32;

/// A last block of fewer tokens is sooner computed than read.
const MIN_TOKENS: usize = 64;

/// Prefixes on an SSD.
pub(super) struct Tier {
    ssd: SsdTier,
    /// To be copied out and written, oldest first.
    unwritten: VecDeque<BlockHash>,
}

impl Tier {
    pub fn open(
        options: &SsdOptions,
        info: &ModelInfo,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, SsdError> {
        let config = SsdConfig {
            dir: options.dir.clone(),
            max_bytes: options.max_bytes,
            fingerprint: info.kv_fingerprint.clone(),
            dtype: info.kv_cache.dtype,
            quantize: options.quantize,
            queue_bytes: SsdConfig::QUEUE_BYTES,
        };
        Ok(Self { ssd: SsdTier::open(config, wake)?, unwritten: VecDeque::new() })
    }

    pub fn stats(&self) -> SsdStats {
        self.ssd.stats()
    }

    /// Takes in what the tier's threads have done.
    pub fn take_in(&mut self, planner: &mut Planner, runner: &mut dyn ModelRunner) {
        while let Some(event) = self.ssd.poll() {
            match event {
                SsdEvent::Found(found) => {
                    found.iter().for_each(|found| planner.cache().found_on_ssd(&found.entry));
                }
                SsdEvent::ScanDone => planner.set_searching(false),
                SsdEvent::Written(hash) => planner.cache().set_on_ssd(hash, true),
                SsdEvent::Gone(hash) => {
                    planner.cache().set_on_ssd(hash, false);
                    planner.resolved(hash);
                }
                SsdEvent::Loaded { hash, groups } => {
                    load(hash, &groups, planner, runner);
                    planner.resolved(hash);
                }
            }
        }
    }

    /// Asks for what those who wait will need; says who waits for how many blocks.
    pub fn read_ahead(&mut self, planner: &mut Planner) -> Vec<(SeqId, usize)> {
        let asked = planner.read_ahead();
        asked.iter().flat_map(|read| &read.new).for_each(|&hash| self.ssd.read(hash));
        asked.into_iter().map(|read| (read.seq, read.blocks)).collect()
    }

    /// Says that prefixes were used, the last block first.
    pub fn touch(&self, hashes: impl DoubleEndedIterator<Item = BlockHash>) {
        hashes.rev().for_each(|hash| self.ssd.touch(hash));
    }

    /// Copies some of what has been computed out of the runner and queues it for writing; true: there is more.
    pub fn write_behind(&mut self, planner: &mut Planner, runner: &mut dyn ModelRunner) -> bool {
        self.unwritten.extend(planner.cache().take_new());
        let count = self.unwritten.len().min(BLOCKS_PER_STEP);
        for hash in self.unwritten.drain(..count) {
            let block_size = planner.cache().block_size();
            let Some(Unwritten { parent, tokens, media, blocks }) = planner.cache().unwritten(&hash) else { continue };
            if tokens.len() < block_size.min(MIN_TOKENS) {
                continue;
            }
            let exported: Result<Vec<_>, _> = blocks
                .iter()
                .enumerate()
                .map(|(group, block)| block.map(|block| runner.export_block(group, block, tokens.len())).transpose())
                .collect();
            match exported {
                Ok(groups) => {
                    let entry = SsdEntry { hash, parent, tokens: tokens.to_vec(), media: media.to_vec() };
                    self.ssd.write(entry, groups);
                }
                Err(error) => tracing::warn!(%error, "a block was not copied to the SSD"),
            }
        }
        !self.unwritten.is_empty()
    }

    /// Deletes everything.
    pub fn clear(&mut self) {
        self.unwritten.clear();
        self.ssd.clear();
    }
}

/// Puts a block that was read into memory, if there is room.
fn load(hash: BlockHash, groups: &[Option<Vec<u8>>], planner: &mut Planner, runner: &mut dyn ModelRunner) {
    let cache = planner.cache();
    let present: Vec<bool> = groups.iter().map(Option::is_some).collect();
    let Some(tokens) = cache.tokens_of(&hash) else { return };
    let Some(room) = cache.make_room(&hash, &present) else { return };
    let import = |&(group, block): &(usize, u32)| match &groups[group] {
        Some(bytes) => runner.import_block(group, block, tokens, bytes),
        None => Ok(()),
    };
    match room.iter().try_for_each(import) {
        Ok(()) => cache.loaded(hash, &room),
        Err(error) => {
            tracing::warn!(%error, "a block from the SSD does not fit");
            room.into_iter().for_each(|(group, block)| cache.release(group, block));
        }
    }
}
