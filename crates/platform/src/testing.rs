//! A model runner without a model, for tests of everything above the seam.
//!
//! [`FakeRunner`] keeps what a real one keeps, a pool of KV blocks, but what it stores for a token is the token
//! itself, its position and a digest of everything before it. It answers from what it *reads back* through the
//! block tables, so that a wrong block table, a block used twice or a position never written is found at once,
//! as an [`Error::Step`] that says which, and counted in [`FakeProbe::violations`].
//!
//! Its logits are a hash of the whole sequence: the same sequence always gets the same continuation, whatever
//! batch and whatever chunks it was computed in. For a token that stands for a picture it is the vectors of its features
//! that are hashed, and where it stands on the axes of the rotary embedding, so that KV of another picture under the same
//! tokens gives another answer.
//!
//! [`FakeEncoder`] is the same for texts that are encoded as a whole, [`FakeVision`] for pictures, [`FakeListener`],
//! [`FakeTransducer`] and [`FakeSynthesizer`] for sound.

mod bursts;
mod encoder;
mod listener;
mod media;
mod synthesizer;
#[cfg(test)]
mod tests;
mod transducer;
mod vision;
mod whisper_tokens;

pub use encoder::{FakeEncoder, FakeEncoderConfig, FakeEncoderProbe};
pub use listener::{FakeListener, FakeListenerConfig, FakeListenerProbe};
pub use synthesizer::{FakeSynthesizer, FakeSynthesizerConfig, FakeSynthesizerProbe};
pub use transducer::{FakeTransducer, FakeTransducerConfig, FakeTransducerProbe};
pub use vision::{FakeVision, FakeVisionConfig, FakeVisionProbe};
pub use whisper_tokens::whisper_tokenizer;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    BlockCopy, BlockId, DeviceKind, Error, KvCacheSpec, KvDtype, KvGroup, MemoryInfo, ModelInfo, ModelRunner, Result,
    Row, SampleAt, Sampled, StepOutput, StepPlan, TokenId,
    sampling::{Draw, Sampler},
};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeConfig {
    /// Tokens it knows.
    pub vocab_size: usize,
    /// Longest sequence.
    pub context_length: usize,
    /// Tokens a block holds.
    pub block_size: usize,
    /// Blocks there are.
    pub num_blocks: usize,
    /// A second group of layers that read only this many tokens back, with as many blocks.
    pub windowed: Option<(usize, usize)>,
    /// As in [`KvCacheSpec::rewind`].
    pub rewind: Option<usize>,
    /// Time that each step takes.
    pub step_delay: Duration,
    /// Answers with these tokens, over and over, instead of by hash: the token at place `i` of an answer is
    /// `script[i % script.len()]`, unless sampling parameters outweigh a logit of 50.
    pub script: Vec<TokenId>,
    /// Steps (counted from 0) that fail with [`Error::Step`].
    pub fail_at: HashSet<u64>,
    /// Steps that fail with [`Error::OutOfMemory`].
    pub out_of_memory_at: HashSet<u64>,
    /// Steps that panic.
    pub panic_at: HashSet<u64>,
}

impl Default for FakeConfig {
    fn default() -> Self {
        Self {
            vocab_size: 64,
            context_length: 256,
            block_size: 4,
            num_blocks: 256,
            windowed: None,
            rewind: None,
            step_delay: Duration::ZERO,
            script: Vec::new(),
            fail_at: HashSet::new(),
            out_of_memory_at: HashSet::new(),
            panic_at: HashSet::new(),
        }
    }
}

/// What a test may read of a runner that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeProbe {
    /// Steps taken, failed ones too.
    pub steps: AtomicU64,
    /// Tokens computed.
    pub tokens: AtomicU64,
    /// Most tokens in one step.
    pub widest: AtomicU64,
    /// Most rows in one step.
    pub most_rows: AtomicU64,
    /// Plans that broke the rules of [`StepPlan`].
    pub violations: AtomicU64,
    /// Blocks copied.
    pub copies: AtomicU64,
    /// Blocks exported.
    pub exports: AtomicU64,
    /// Blocks imported.
    pub imports: AtomicU64,
}

/// One token's place in the pool.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slot {
    token: TokenId,
    position: usize,
    /// Of the vectors that it stands for; 0 if it stands for itself.
    shown: u64,
    /// Digest of the sequence up to and including this token.
    digest: u64,
}

/// The runner. See the [module](self).
///
/// ```
/// use vllm_platform::{ModelRunner, Row, SampleAt, SamplingParams, SeqId, StepPlan, testing::FakeRunner};
///
/// let mut runner = FakeRunner::new(Default::default());
/// let params = SamplingParams::default();
/// let sample = Some(SampleAt { params: &params, prompt: &[3, 4], output: &[], processors: &[] });
/// let tables = [vec![9]];
/// let row = Row { seq: SeqId(0), tokens: &[3, 4], start: 0, tables: &tables, media: &[], sample };
/// let first = runner.step(&StepPlan { rows: vec![row.clone()], ..Default::default() }).unwrap();
/// let again = runner.step(&StepPlan { rows: vec![row], ..Default::default() }).unwrap();
/// assert_eq!(first, again);
/// ```
#[derive(Debug)]
pub struct FakeRunner {
    config: FakeConfig,
    info: ModelInfo,
    /// By group, then by block and token.
    pools: Vec<Vec<Option<Slot>>>,
    /// The fewest tokens that each block of the first group can be cut back to.
    floors: Vec<usize>,
    sampler: Sampler,
    probe: Arc<FakeProbe>,
}

impl FakeRunner {
    /// A runner whose blocks hold nothing yet.
    #[must_use]
    pub fn new(config: FakeConfig) -> Self {
        let block_bytes = (config.block_size * SLOT_BYTES) as u64;
        let mut groups = vec![KvGroup { window: None, num_blocks: config.num_blocks, block_bytes }];
        if let Some((window, num_blocks)) = config.windowed {
            groups.push(KvGroup { window: Some(window), num_blocks, block_bytes });
        }
        let pools = groups.iter().map(|group| vec![None; group.num_blocks * config.block_size]).collect();
        let info = ModelInfo {
            architecture: "FakeForCausalLM".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            context_length: config.context_length,
            vocab_size: config.vocab_size,
            kv_cache: KvCacheSpec { block_size: config.block_size, dtype: KvDtype::F32, groups, rewind: config.rewind },
            kv_fingerprint: format!("{:064x}", config.block_size),
        };
        let floors = vec![0; config.num_blocks];
        Self { config, info, pools, floors, sampler: Sampler::default(), probe: Arc::default() }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeProbe> {
        Arc::clone(&self.probe)
    }

    fn run(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput, String> {
        for copy in &plan.copies {
            self.copy(copy)?;
        }
        let mut seen = HashSet::new();
        let mut written = HashSet::new();
        for row in &plan.rows {
            if !seen.insert(row.seq) {
                return Err(at_row(row, "stands in two rows"));
            }
            self.check(row).map_err(|e| at_row(row, &e))?;
            for (group, table) in row.tables.iter().enumerate() {
                for position in row.start..row.start + row.tokens.len() {
                    written.insert((group, table[position / self.config.block_size], row.seq));
                }
            }
        }
        let blocks: HashSet<_> = written.iter().map(|(group, block, _)| (group, block)).collect();
        if blocks.len() != written.len() {
            return Err(format!("a block is written by two sequences in one step: {written:?}"));
        }
        // All writes come before all reads, as in a real step.
        for row in &plan.rows {
            self.write(row).map_err(|e| at_row(row, &e))?;
        }
        let mut output = StepOutput::default();
        for row in &plan.rows {
            self.check_reads(row).map_err(|e| at_row(row, &e))?;
            if let Some(at) = &row.sample {
                let digest = self.read_back(row, at).map_err(|e| at_row(row, &e))?;
                let draw = self.sample(digest, at).map_err(|e| at_row(row, &e.to_string()))?;
                output.sampled.push(Sampled { seq: row.seq, token: draw.token, logprobs: draw.logprobs });
            }
        }
        Ok(output)
    }

    fn copy(&mut self, copy: &BlockCopy) -> Result<(), String> {
        let size = self.config.block_size;
        let blocks = self.info.kv_cache.groups.get(copy.group).map_or(0, |group| group.num_blocks);
        if copy.from as usize >= blocks || copy.to as usize >= blocks || copy.tokens == 0 || copy.tokens > size {
            return Err(format!("{copy:?}: block {} of {blocks}, or as many tokens, there are not", copy.from));
        }
        self.probe.copies.fetch_add(1, Relaxed);
        if copy.group == 0 {
            let floor = self.floors[copy.from as usize];
            if copy.tokens < floor {
                return Err(format!("{copy:?}: the block can be cut back to {floor} tokens only"));
            }
            self.floors[copy.to as usize] = floor;
        }
        let pool = &mut self.pools[copy.group];
        let (from, to) = (copy.from as usize * size, copy.to as usize * size);
        for token in 0..size {
            pool[to + token] = if token < copy.tokens { pool[from + token] } else { None };
        }
        Ok(())
    }

    fn check(&self, row: &Row<'_>) -> Result<(), String> {
        let end = row.start + row.tokens.len();
        if row.tokens.is_empty() {
            return Err("has no tokens".into());
        }
        if end > self.config.context_length {
            return Err(format!("ends at {end}, the context at {}", self.config.context_length));
        }
        let groups = &self.info.kv_cache.groups;
        if row.tables.len() != groups.len() {
            return Err(format!("has {} block tables, there are {} groups", row.tables.len(), groups.len()));
        }
        for (group, table) in groups.iter().zip(row.tables) {
            if table.len() * self.config.block_size < end {
                return Err(format!("ends at {end}, its {} blocks before that", table.len()));
            }
            let first = group.first_read(row.start, self.config.block_size);
            let used = &table[first..end.div_ceil(self.config.block_size)];
            if let Some(block) = used.iter().find(|&&b| b as usize >= group.num_blocks) {
                return Err(format!("has block {block} of {}", group.num_blocks));
            }
        }
        media::check(row)?;
        if let Some(token) = row.tokens.iter().find(|&&t| t as usize >= self.config.vocab_size) {
            return Err(format!("has token {token}, the vocabulary ends at {}", self.config.vocab_size));
        }
        Ok(())
    }

    fn index(&self, row: &Row<'_>, group: usize, position: usize) -> usize {
        let block = row.tables[group][position / self.config.block_size] as usize;
        block * self.config.block_size + position % self.config.block_size
    }

    fn write(&mut self, row: &Row<'_>) -> Result<(), String> {
        let mut digest = match row.start.checked_sub(1) {
            None => 0,
            Some(last) => self.slot(row, 0, last)?.digest,
        };
        for ((position, &token), shown) in (row.start..).zip(row.tokens).zip(media::shown(row)) {
            digest = chain(digest, token, shown);
            let (block, place) = (position / self.config.block_size, position % self.config.block_size);
            let own = self.config.rewind.map_or(0, |rewind| (place + 1).saturating_sub(rewind));
            let floor = &mut self.floors[row.tables[0][block] as usize];
            *floor = if place == 0 { own } else { own.max(*floor) };
            for group in 0..self.pools.len() {
                let index = self.index(row, group, position);
                self.pools[group][index] = Some(Slot { token, position, shown, digest });
            }
        }
        Ok(())
    }

    /// The positions of `group` that a row starting at `start` reads.
    fn first_read(&self, group: usize, start: usize) -> usize {
        self.info.kv_cache.groups[group].window.map_or(0, |window| (start + 1).saturating_sub(window))
    }

    /// Every token that the row's tokens see must be there.
    fn check_reads(&self, row: &Row<'_>) -> Result<(), String> {
        for group in 0..self.pools.len() {
            for position in self.first_read(group, row.start)..row.start {
                self.slot(row, group, position)?;
            }
        }
        Ok(())
    }

    fn slot(&self, row: &Row<'_>, group: usize, position: usize) -> Result<Slot, String> {
        match self.pools[group][self.index(row, group, position)] {
            Some(slot) if slot.position == position => Ok(slot),
            Some(slot) => Err(format!("reads position {position} and finds position {}", slot.position)),
            None => Err(format!("reads position {position}, which was never written")),
        }
    }

    /// Digest of the whole sequence as it stands in the pool.
    fn read_back(&self, row: &Row<'_>, at: &SampleAt<'_>) -> Result<u64, String> {
        let end = row.start + row.tokens.len();
        let truth: Vec<TokenId> = at.prompt.iter().chain(at.output).copied().collect();
        if truth.len() != end {
            return Err(format!("samples after {end} tokens, prompt and output have {}", truth.len()));
        }
        let mut digest = 0;
        for (position, &token) in truth.iter().enumerate() {
            // What a picture that was computed long ago looked like is not told again: the pool knows.
            let is_shown = row.media.iter().any(|span| (span.start..span.end()).contains(&position));
            let shown = if is_shown { self.slot(row, 0, position)?.shown } else { 0 };
            digest = chain(digest, token, shown);
            for group in 0..self.pools.len() {
                if position < self.first_read(group, row.start) {
                    continue;
                }
                let slot = self.slot(row, group, position)?;
                if slot != (Slot { token, position, shown, digest }) {
                    return Err(format!("position {position} is token {token}, its block holds {slot:?}"));
                }
            }
        }
        Ok(digest)
    }

    fn sample(&mut self, digest: u64, at: &SampleAt<'_>) -> Result<Draw> {
        let unit = |i: u64| (mix(digest, i) >> 40) as f32 / (1 << 24) as f32;
        let mut logits: Vec<f32> = (0..self.config.vocab_size as u64).map(|i| 6.0 * unit(i)).collect();
        if !self.config.script.is_empty() {
            let token = self.config.script[at.output.len() % self.config.script.len()];
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = 50.0;
            }
        }
        self.sampler.sample(&logits, at)
    }
}

impl ModelRunner for FakeRunner {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        let active = self.info.kv_cache.total_bytes();
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active, cached: 0, peak: active })
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        let step = self.probe.steps.fetch_add(1, Relaxed);
        let tokens = plan.num_tokens() as u64;
        self.probe.tokens.fetch_add(tokens, Relaxed);
        self.probe.widest.fetch_max(tokens, Relaxed);
        self.probe.most_rows.fetch_max(plan.rows.len() as u64, Relaxed);
        if !self.config.step_delay.is_zero() {
            std::thread::sleep(self.config.step_delay);
        }
        assert!(!self.config.panic_at.contains(&step), "the fake was told to panic at step {step}");
        if self.config.fail_at.contains(&step) {
            return Err(Error::Step(format!("the fake was told to fail at step {step}")));
        }
        if self.config.out_of_memory_at.contains(&step) {
            return Err(Error::OutOfMemory(format!("the fake was told to run out at step {step}")));
        }
        self.run(plan).map_err(|violation| {
            self.probe.violations.fetch_add(1, Relaxed);
            Error::Step(violation)
        })
    }

    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>> {
        self.probe.exports.fetch_add(1, Relaxed);
        let slots = self.block(group, block, tokens)?;
        let unwritten = || Error::Step(format!("block {block} was not written to its end"));
        let slots = slots.iter().map(|slot| slot.ok_or_else(unwritten).map(Slot::to_bytes));
        Ok(slots.collect::<Result<Vec<_>>>()?.concat())
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()> {
        self.probe.imports.fetch_add(1, Relaxed);
        if bytes.len() != tokens * SLOT_BYTES {
            return Err(Error::Step(format!("{} bytes for {tokens} tokens", bytes.len())));
        }
        let slots = self.block(group, block, tokens)?;
        for (slot, bytes) in slots.iter_mut().zip(bytes.chunks_exact(SLOT_BYTES)) {
            *slot = Some(Slot::from_bytes(bytes));
        }
        if group == 0 {
            self.floors[block as usize] = self.config.rewind.map_or(0, |rewind| tokens.saturating_sub(rewind));
        }
        Ok(())
    }
}

/// Bytes of an exported slot.
const SLOT_BYTES: usize = size_of::<u32>() + 3 * size_of::<u64>();

impl Slot {
    fn to_bytes(self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&self.token.to_le_bytes());
        bytes[4..12].copy_from_slice(&(self.position as u64).to_le_bytes());
        bytes[12..20].copy_from_slice(&self.shown.to_le_bytes());
        bytes[20..].copy_from_slice(&self.digest.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let word = |range: std::ops::Range<usize>| bytes[range].iter().rev().fold(0, |n, &b| n << 8 | u64::from(b));
        Self { token: word(0..4) as TokenId, position: word(4..12) as usize, shown: word(12..20), digest: word(20..28) }
    }
}

impl FakeRunner {
    fn block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<&mut [Option<Slot>]> {
        let size = self.config.block_size;
        let start = block as usize * size;
        let slots = self.pools.get_mut(group).and_then(|pool| pool.get_mut(start..start + size));
        let slots = slots.and_then(|slots| slots.get_mut(..tokens));
        slots.ok_or_else(|| Error::Step(format!("there is no block {block} of {tokens} tokens in group {group}")))
    }
}

fn at_row(row: &Row<'_>, error: &str) -> String {
    format!("row of sequence {}, from {}: {error}", row.seq.0, row.start)
}

/// Digest of a sequence one token longer, which stands for itself or for what has the digest `shown`.
fn chain(digest: u64, token: TokenId, shown: u64) -> u64 {
    let digest = mix(digest, token.into());
    if shown == 0 { digest } else { mix(digest, shown) }
}

fn mix(digest: u64, number: u64) -> u64 {
    let mut z = (digest ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z = (z ^ (z >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    z ^ (z >> 32)
}
