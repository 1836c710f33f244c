//! An encoder without a model.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::mix;
use crate::{DeviceKind, EncoderInfo, EncoderInput, EncoderOutput, EncoderRunner, Error, MemoryInfo, Result, TokenId};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeEncoderConfig {
    /// What it gives.
    pub output: EncoderOutput,
    /// Tokens it knows.
    pub vocab_size: usize,
    /// Longest input.
    pub max_input_len: usize,
    /// Time that each call takes.
    pub delay: Duration,
    /// Calls (counted from 0) that fail with [`Error::Step`].
    pub fail_at: HashSet<u64>,
    /// Calls that panic.
    pub panic_at: HashSet<u64>,
}

impl Default for FakeEncoderConfig {
    fn default() -> Self {
        Self {
            output: EncoderOutput::Embedding { dimensions: 8, normalized: true },
            vocab_size: 300,
            max_input_len: 64,
            delay: Duration::ZERO,
            fail_at: HashSet::new(),
            panic_at: HashSet::new(),
        }
    }
}

/// What a test may read of an encoder that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeEncoderProbe {
    /// Calls, failed ones too.
    pub calls: AtomicU64,
    /// Tokens encoded.
    pub tokens: AtomicU64,
    /// Most tokens in one call with several inputs.
    pub widest: AtomicU64,
    /// Most inputs in one call.
    pub most_inputs: AtomicU64,
}

/// The encoder. An embedding is a hash of the input's tokens, of length 1; a score is the share of the second text's
/// tokens that the first has, too.
///
/// ```
/// use vllm_platform::{EncoderInput, EncoderRunner, testing::FakeEncoder};
///
/// let mut encoder = FakeEncoder::new(Default::default());
/// let input = EncoderInput { tokens: &[1, 2], types: &[] };
/// let both = encoder.encode(&[input, input], &mut || ()).unwrap();
/// assert_eq!((both[0].len(), &both[0]), (8, &both[1]));
/// ```
#[derive(Debug)]
pub struct FakeEncoder {
    config: FakeEncoderConfig,
    info: EncoderInfo,
    probe: Arc<FakeEncoderProbe>,
}

impl FakeEncoder {
    /// An encoder.
    #[must_use]
    pub fn new(config: FakeEncoderConfig) -> Self {
        let info = EncoderInfo {
            architecture: "FakeModel".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            max_input_len: config.max_input_len,
            vocab_size: config.vocab_size,
            output: config.output,
        };
        Self { config, info, probe: Arc::default() }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeEncoderProbe> {
        Arc::clone(&self.probe)
    }

    /// What it gives for an input.
    #[must_use]
    pub fn answer(&self, input: &EncoderInput<'_>) -> Vec<f32> {
        match self.config.output {
            EncoderOutput::Embedding { dimensions, .. } => embedding(input.tokens, dimensions),
            EncoderOutput::Score => vec![overlap(input)],
        }
    }

    fn check(&self, input: &EncoderInput<'_>) -> Result<()> {
        let tokens = input.tokens.len();
        if tokens == 0 || tokens > self.config.max_input_len {
            return Err(Error::Step(format!("an input of {tokens} tokens")));
        }
        if !input.types.is_empty() && input.types.len() != tokens {
            return Err(Error::Step(format!("{} types for {tokens} tokens", input.types.len())));
        }
        match input.tokens.iter().find(|&&token| token as usize >= self.config.vocab_size) {
            Some(token) => Err(Error::Step(format!("token {token} is beyond the vocabulary"))),
            None => Ok(()),
        }
    }
}

impl EncoderRunner for FakeEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active: 0, cached: 0, peak: 0 })
    }

    fn encode(&mut self, batch: &[EncoderInput<'_>], pause: &mut dyn FnMut()) -> Result<Vec<Vec<f32>>> {
        let call = self.probe.calls.fetch_add(1, Relaxed);
        let tokens: usize = batch.iter().map(|input| input.tokens.len()).sum();
        self.probe.tokens.fetch_add(tokens as u64, Relaxed);
        self.probe.most_inputs.fetch_max(batch.len() as u64, Relaxed);
        if batch.len() > 1 {
            self.probe.widest.fetch_max(tokens as u64, Relaxed);
        }
        pause();
        if !self.config.delay.is_zero() {
            std::thread::sleep(self.config.delay);
        }
        assert!(!self.config.panic_at.contains(&call), "the fake was told to panic at call {call}");
        if self.config.fail_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        batch.iter().try_for_each(|input| self.check(input))?;
        Ok(batch.iter().map(|input| self.answer(input)).collect())
    }
}

fn embedding(tokens: &[TokenId], dimensions: usize) -> Vec<f32> {
    let digest = tokens.iter().fold(0, |digest, &token| mix(digest, token.into()));
    let number = |i: usize| (mix(digest, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let numbers: Vec<f32> = (0..dimensions).map(number).collect();
    let length = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
    numbers.into_iter().map(|x| x / length).collect()
}

fn overlap(input: &EncoderInput<'_>) -> f32 {
    let of = |text: u32| {
        let typed = input.tokens.iter().zip(input.types).filter(move |(_, of)| **of == text);
        typed.map(|(token, _)| *token).collect::<Vec<_>>()
    };
    let (first, second) = (of(0), of(1));
    second.iter().filter(|token| first.contains(token)).count() as f32 / second.len().max(1) as f32
}
