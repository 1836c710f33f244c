//! What the tests share: fixtures, and sequences driven through `ModelRunner::step` as the engine drives them.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod edited;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use vllm_models_llm as _;
use vllm_platform::{
    Activations, DeviceChoice, KvCacheSpec, KvDtype, KvStoreChoice, LoadOptions, MediaSpan, ModelRunner, ModelSource,
    Platform, Result, Row, SampleAt, Sampled, SamplingParams, SeqId, StepPlan,
};
use vllm_platform_mlx::MlxPlatform;

use self::tables::Tables;

/// Every folder of `tests/fixtures`.
pub fn fixtures() -> Vec<PathBuf> {
    let root = fixture("");
    let mut found: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("reference.safetensors").exists())
        .collect();
    found.sort();
    assert!(found.len() >= 20, "fixtures are missing: {found:?}");
    found
}

/// The folder of one fixture.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// What a reference implementation computed (see `fixtures/make.py`).
pub struct Reference {
    /// Prompt and greedy answer.
    pub tokens: Vec<u32>,
    /// Length of the prompt.
    pub prompt: usize,
    /// Positions with the logits after them.
    pub logits: Vec<(usize, Vec<f32>)>,
}

impl Reference {
    pub fn load(fixture: &Path) -> Self {
        let bytes = fs::read(fixture.join("reference.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let words = |name: &str| -> Vec<[u8; 4]> {
            file.tensor(name).unwrap().data().chunks_exact(4).map(|w| w.try_into().unwrap()).collect()
        };
        let numbers = |name| words(name).into_iter().map(u32::from_le_bytes).collect::<Vec<_>>();
        let logits: Vec<_> = words("logits").into_iter().map(f32::from_le_bytes).collect();
        let positions = numbers("positions");
        let rows = logits.chunks_exact(logits.len() / positions.len()).map(Into::into);
        Self {
            tokens: numbers("tokens"),
            prompt: metadata.metadata().as_ref().unwrap()["prompt"].parse().unwrap(),
            logits: positions.iter().map(|&p| p as usize).zip(rows).collect(),
        }
    }

    /// The logits after position `at`, if the reference has them.
    pub fn at(&self, at: usize) -> Option<&[f32]> {
        self.logits.iter().find(|(position, _)| *position == at).map(|(_, logits)| &logits[..])
    }

    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.prompt]
    }

    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }
}

/// Loads a folder, or the GGUF file in it, on the CPU, with KV storage for `sequences` sequences of `max_len` tokens.
pub fn load(path: &Path, sequences: usize, max_len: Option<usize>) -> Result<Box<dyn ModelRunner>> {
    load_into(KvStoreChoice::Auto, path, sequences, max_len)
}

/// As [`load`], with a KV store of one's choice.
pub fn load_into(
    kv_store: KvStoreChoice,
    path: &Path,
    sequences: usize,
    max_len: Option<usize>,
) -> Result<Box<dyn ModelRunner>> {
    load_with(LoadOptions { kv_store, ..LoadOptions::default() }, path, sequences, max_len)
}

/// As the other parameters say, on the CPU with two threads.
pub fn load_with(
    options: LoadOptions,
    path: &Path,
    sequences: usize,
    max_len: Option<usize>,
) -> Result<Box<dyn ModelRunner>> {
    let gguf = path.join("model.gguf");
    let path = if gguf.exists() { &gguf } else { path };
    let options = LoadOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        max_num_seqs: sequences,
        max_model_len: max_len,
        kv_cache_bytes: Some(1 << 30),
        ..options
    };
    MlxPlatform.load(&ModelSource { path: path.into() }, &options, &mut |_, _| {})
}

/// A runner and some sequences, greedy, with the log probabilities of the whole vocabulary.
pub struct Run {
    runner: Box<dyn ModelRunner>,
    params: SamplingParams,
    tables: Tables,
    /// Tokens computed so far, prompt and answer.
    known: Vec<Vec<u32>>,
    /// Pictures in each sequence.
    media: Vec<Vec<MediaSpan>>,
}

impl Run {
    pub fn new(path: &Path, sequences: usize, max_len: usize) -> Self {
        Self::with(KvStoreChoice::Auto, path, sequences, max_len)
    }

    pub fn with(kv_store: KvStoreChoice, path: &Path, sequences: usize, max_len: usize) -> Self {
        Self::of(LoadOptions { kv_store, ..LoadOptions::default() }, path, sequences, max_len)
    }

    /// With activations, keys and values as they are: what is left is the model's own arithmetic.
    pub fn exact(path: &Path, sequences: usize, max_len: usize) -> Self {
        let (activations, kv_cache_dtype) = (Activations::F32, Some(KvDtype::F32));
        let options = LoadOptions { activations, kv_cache_dtype, ..LoadOptions::default() };
        Self::of(options, path, sequences, max_len)
    }

    /// As `options` say.
    pub fn of(options: LoadOptions, path: &Path, sequences: usize, max_len: usize) -> Self {
        let runner = load_with(options, path, sequences, Some(max_len));
        let runner = runner.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let tables = Tables::new(&runner.info().kv_cache, sequences, max_len);
        let params =
            SamplingParams { temperature: 0.0, logprobs: Some(runner.info().vocab_size), ..Default::default() };
        Self { runner, params, tables, known: vec![Vec::new(); sequences], media: vec![Vec::new(); sequences] }
    }

    /// What the runner says of its KV storage.
    pub fn kv_cache(&self) -> &KvCacheSpec {
        &self.runner.info().kv_cache
    }

    /// Memory of the runner's device.
    pub fn memory(&self) -> vllm_platform::MemoryInfo {
        self.runner.memory().unwrap()
    }

    /// Blocks that left a window so far, of the sequences that run.
    pub fn given_back(&self) -> usize {
        self.tables.given_back()
    }

    /// Do not compute log probabilities: of 49,152 tokens they take longer than the model.
    pub fn tokens_only(mut self) -> Self {
        self.params.logprobs = None;
        self
    }

    /// The pictures of a sequence.
    pub fn show(&mut self, sequence: usize, media: Vec<MediaSpan>) {
        self.media[sequence] = media;
    }

    /// Forgets what comes after the first `tokens` of a sequence, whose KV stays: as if its prefix had been found.
    pub fn rewind(&mut self, sequence: usize, tokens: usize) {
        self.known[sequence].truncate(tokens);
    }

    /// Forgets a sequence; its blocks keep what they hold, as in the engine.
    pub fn restart(&mut self, sequence: usize) {
        self.known[sequence].clear();
        self.media[sequence].clear();
        self.tables.clear(sequence);
    }

    /// One step: more tokens for some sequences, and what was sampled after the last of each.
    pub fn step(&mut self, chunks: &[(usize, &[u32])]) -> Vec<Sampled> {
        for &(sequence, tokens) in chunks {
            let start = self.known[sequence].len();
            self.tables.cover(sequence, start, start + tokens.len());
        }
        let starts: Vec<_> = chunks.iter().map(|&(sequence, _)| self.known[sequence].len()).collect();
        let row = |(&(sequence, tokens), &start): (&(usize, _), &usize)| Row {
            seq: SeqId(sequence as u64),
            tokens,
            start,
            tables: self.tables.of(sequence),
            media: &self.media[sequence],
            sample: Some(SampleAt { params: &self.params, prompt: &[], output: &[], processors: &[] }),
        };
        let plan = StepPlan { rows: chunks.iter().zip(&starts).map(row).collect(), ..StepPlan::default() };
        let output = self.runner.step(&plan).unwrap();
        let order: Vec<_> = output.sampled.iter().map(|s| s.seq.0 as usize).collect();
        assert_eq!(order, chunks.iter().map(|chunk| chunk.0).collect::<Vec<_>>());
        for &(sequence, tokens) in chunks {
            self.known[sequence].extend_from_slice(tokens);
        }
        output.sampled
    }

    /// Prefills `prompt` whole and decodes greedily.
    pub fn greedy(&mut self, sequence: usize, prompt: &[u32], tokens: usize) -> Vec<Sampled> {
        let mut out = self.step(&[(sequence, prompt)]);
        while out.len() < tokens {
            let last = out[out.len() - 1].token;
            out.extend(self.step(&[(sequence, &[last])]));
        }
        out
    }
}

/// Largest difference to the reference's log probabilities, relative to the largest |logit|.
///
/// Logits are defined up to a constant that softmax takes out again, so their logarithms of probability are compared.
pub fn relative_error(found: &Sampled, logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(0f64, |m, l| m.max(f64::from(l.abs())));
    let total = logits.iter().map(|&l| (f64::from(l) - largest).exp()).sum::<f64>().ln() + largest;
    let top = &found.logprobs.as_ref().expect("asked for").top;
    assert_eq!(top.len(), logits.len(), "log probabilities of the whole vocabulary");
    top.iter()
        .map(|l| (f64::from(l.logprob) - (f64::from(logits[l.token as usize]) - total)).abs() / largest)
        .fold(0.0, f64::max)
}

/// Index of the largest.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
    u32::try_from(best.expect("not empty")).unwrap()
}
