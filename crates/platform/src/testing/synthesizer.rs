//! A model that speaks, without a model.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::mix;
use crate::{DeviceKind, Error, MemoryInfo, Result, Synthesizer, SynthesizerInfo, TokenId, Utterance};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeSynthesizerConfig {
    /// Phonemes that it knows, each with its symbol.
    pub symbols: BTreeMap<String, TokenId>,
    /// Samples a second.
    pub sample_rate: u32,
    /// Longest utterance, in symbols.
    pub max_symbols: usize,
    /// Numbers of a voice's style.
    pub style_len: usize,
    /// Samples of a symbol at speed 1.
    pub symbol_samples: usize,
    /// Slices that the work on one utterance is done in: so often it pauses.
    pub slices: usize,
    /// Time that each slice takes.
    pub delay: Duration,
    /// Calls (counted from 0) that fail with [`Error::Step`].
    pub fail_at: HashSet<u64>,
    /// Calls that panic.
    pub panic_at: HashSet<u64>,
    /// Calls that give samples that are no numbers.
    pub not_finite_at: HashSet<u64>,
}

impl Default for FakeSynthesizerConfig {
    /// Knows the ASCII letters, a few marks and the space, in the order of their codes, from 1; 24 kHz, 0.05 s a symbol.
    fn default() -> Self {
        let known = (' '..='~').zip(1..).map(|(phoneme, symbol)| (phoneme.to_string(), symbol));
        Self {
            symbols: known.collect(),
            sample_rate: 24_000,
            max_symbols: 510,
            style_len: 256,
            symbol_samples: 1200,
            slices: 1,
            delay: Duration::ZERO,
            fail_at: HashSet::new(),
            panic_at: HashSet::new(),
            not_finite_at: HashSet::new(),
        }
    }
}

/// What a test may read of a model that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeSynthesizerProbe {
    /// Calls, failed ones too.
    pub calls: AtomicU64,
    /// Symbols spoken.
    pub symbols: AtomicU64,
    /// Times that it paused.
    pub pauses: AtomicU64,
}

/// The model. Each symbol is a tone of its own, between −0.5 and 0.5, that depends on style and seed, too.
///
/// ```
/// use vllm_platform::{Synthesizer, Utterance, testing::FakeSynthesizer};
///
/// let mut model = FakeSynthesizer::new(Default::default());
/// let slow = Utterance { symbols: &[1, 2], style: &[0.5; 256], speed: 0.5, seed: 0 };
/// let sound = model.synthesize(&slow, &mut || ()).unwrap();
/// assert_eq!((sound.len(), &sound), (2 * 2400, &model.answer(&slow)));
/// ```
#[derive(Debug)]
pub struct FakeSynthesizer {
    config: FakeSynthesizerConfig,
    info: SynthesizerInfo,
    probe: Arc<FakeSynthesizerProbe>,
}

impl FakeSynthesizer {
    /// A model.
    #[must_use]
    pub fn new(config: FakeSynthesizerConfig) -> Self {
        let info = SynthesizerInfo {
            architecture: "FakeSynthesizer".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            sample_rate: config.sample_rate,
            max_symbols: config.max_symbols,
            style_len: config.style_len,
            symbols: config.symbols.clone(),
        };
        Self { config, info, probe: Arc::default() }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeSynthesizerProbe> {
        Arc::clone(&self.probe)
    }

    /// What it says.
    #[must_use]
    pub fn answer(&self, utterance: &Utterance<'_>) -> Vec<f32> {
        let voice = utterance.style.iter().fold(utterance.seed, |digest, number| mix(digest, number.to_bits().into()));
        let samples = (self.config.symbol_samples as f32 / utterance.speed).round() as usize;
        let tone = |&symbol: &TokenId| {
            // Between 100 Hz and 1.1 kHz.
            let hertz = 100.0 + (mix(voice, symbol.into()) % 1000) as f32;
            let step = std::f32::consts::TAU * hertz / self.config.sample_rate as f32;
            (0..samples).map(move |i| 0.5 * (step * i as f32).sin())
        };
        utterance.symbols.iter().flat_map(tone).collect()
    }

    fn check(&self, utterance: &Utterance<'_>) -> Result<()> {
        let symbols = utterance.symbols.len();
        if symbols == 0 || symbols > self.config.max_symbols {
            return Err(Error::Step(format!("an utterance of {symbols} symbols")));
        }
        if utterance.style.len() != self.config.style_len {
            return Err(Error::Step(format!("a style of {} numbers", utterance.style.len())));
        }
        if !utterance.speed.is_finite() || utterance.speed <= 0.0 {
            return Err(Error::Step(format!("a speed of {}", utterance.speed)));
        }
        let known = |symbol: &TokenId| self.config.symbols.values().any(|known| known == symbol);
        match utterance.symbols.iter().find(|symbol| !known(symbol)) {
            Some(symbol) => Err(Error::Step(format!("there is no symbol {symbol}"))),
            None => Ok(()),
        }
    }
}

impl Synthesizer for FakeSynthesizer {
    fn info(&self) -> &SynthesizerInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active: 0, cached: 0, peak: 0 })
    }

    fn synthesize(&mut self, utterance: &Utterance<'_>, pause: &mut dyn FnMut()) -> Result<Vec<f32>> {
        let call = self.probe.calls.fetch_add(1, Relaxed);
        self.probe.symbols.fetch_add(utterance.symbols.len() as u64, Relaxed);
        for _ in 0..self.config.slices {
            std::thread::sleep(self.config.delay);
            self.probe.pauses.fetch_add(1, Relaxed);
            pause();
        }
        assert!(!self.config.panic_at.contains(&call), "the fake was told to panic at call {call}");
        if self.config.fail_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        self.check(utterance)?;
        let mut samples = self.answer(utterance);
        if self.config.not_finite_at.contains(&call) {
            samples[0] = f32::NAN;
        }
        Ok(samples)
    }
}
