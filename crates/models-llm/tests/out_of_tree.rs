//! A family of models that nothing in this workspace knows, as `docs/adding-a-model.md` shows: it depends on
//! `vllm-platform-mlx` alone, registers itself, and is found and served like any other.

use std::{collections::HashMap, fs};

use serde::Deserialize;
use vllm_platform_mlx::{
    Batch, Bias, LoadContext, Result, Tensor, inventory,
    kv::{AttentionSpec, KvStore},
    model::{CausalLm, Family, LayerSpec},
    nn::{Embedding, Linear},
};

inventory::submit! { Family::causal_lm("OneLayerForCausalLM", |ctx| Ok(Box::new(OneLayer::load(ctx)?))) }

#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
}

/// One layer of attention without positions (after Elhage et al., "A Mathematical Framework for Transformer
/// Circuits", 2021): `logits = U·(x + O·attention(Q·x, K·x, V·x))`.
struct OneLayer {
    config: Config,
    embedding: Embedding,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    unembedding: Linear,
}

impl OneLayer {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let (q, kv) = (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim);
        Ok(Self {
            embedding: ctx.embedding("embed", vocab, hidden)?,
            query: ctx.linear("attention.query", hidden, q, Bias::None)?,
            key: ctx.linear("attention.key", hidden, kv, Bias::None)?,
            value: ctx.linear("attention.value", hidden, kv, Bias::None)?,
            output: ctx.linear("attention.output", q, hidden, Bias::Added)?,
            unembedding: ctx.linear("unembed", hidden, vocab, Bias::None)?,
            config,
        })
    }

    fn heads(&self, x: &Tensor, heads: usize) -> Result<Tensor> {
        Ok(x.reshape(&[-1, heads as i32, self.config.head_dim as i32])?)
    }
}

impl CausalLm for OneLayer {
    fn layers(&self) -> Vec<LayerSpec> {
        vec![LayerSpec { kv_heads: self.config.num_key_value_heads, head_dim: self.config.head_dim, window: None }]
    }

    fn context_length(&self) -> usize {
        self.config.max_position_embeddings
    }

    fn vocab_size(&self) -> usize {
        self.config.vocab_size
    }

    fn forward(&self, batch: &Batch, kv: &mut dyn KvStore) -> Result<Tensor> {
        let x = self.embedding.forward(&batch.tokens)?;
        let [q, k, v] = Linear::forward_all(&x, [&self.query, &self.key, &self.value])?;
        let (heads, kv_heads) = (self.config.num_attention_heads, self.config.num_key_value_heads);
        let (q, k, v) = (self.heads(&q, heads)?, self.heads(&k, kv_heads)?, self.heads(&v, kv_heads)?);
        let spec = AttentionSpec { heads, scale: (self.config.head_dim as f32).powf(-0.5) };
        let attended = kv.attend(0, &q, &k, &v, batch, spec)?;
        Ok(x.add(self.output.forward(&attended)?)?)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.unembedding.forward(hidden)
    }
}

// ---- from here on, the test: the same mathematics once more in f64 ----

use safetensors::{Dtype, tensor::TensorView};
use vllm_platform::{
    DeviceChoice, KvDtype, LoadOptions, ModelSource, Platform, Row, SampleAt, SamplingParams, SeqId, StepPlan,
};
use vllm_platform_mlx::MlxPlatform;

const HIDDEN: usize = 32;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const DIM: usize = 16;
const VOCAB: usize = 24;

/// Name, rows and columns; a vector has one row.
const TENSORS: [(&str, usize, usize); 7] = [
    ("embed.weight", VOCAB, HIDDEN),
    ("attention.query.weight", HEADS * DIM, HIDDEN),
    ("attention.key.weight", KV_HEADS * DIM, HIDDEN),
    ("attention.value.weight", KV_HEADS * DIM, HIDDEN),
    ("attention.output.weight", HIDDEN, HEADS * DIM),
    ("attention.output.bias", 1, HIDDEN),
    ("unembed.weight", VOCAB, HIDDEN),
];

type Matrices = HashMap<&'static str, Vec<f32>>;

/// Numbers from −½ to ½, by a multiplicative congruential generator.
fn weights() -> Matrices {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    TENSORS.iter().map(|&(name, rows, columns)| (name, (0..rows * columns).map(|_| next()).collect())).collect()
}

fn write(directory: &std::path::Path, weights: &Matrices) {
    let config = serde_json::json!({
        "architectures": ["OneLayerForCausalLM"], "model_type": "one_layer", "hidden_size": HIDDEN,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": DIM, "vocab_size": VOCAB,
        "max_position_embeddings": 64,
    });
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let bytes: Vec<Vec<u8>> =
        TENSORS.iter().map(|(name, ..)| weights[name].iter().flat_map(|w| w.to_le_bytes()).collect()).collect();
    let views = TENSORS.iter().zip(&bytes).map(|(&(name, rows, columns), bytes)| {
        let shape = if name.ends_with("bias") { vec![columns] } else { vec![rows, columns] };
        (name, TensorView::new(Dtype::F32, shape, bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &directory.join("model.safetensors")).unwrap();
}

/// `W·x` of the matrix `name`.
fn apply(weights: &Matrices, name: &str, x: &[f64]) -> Vec<f64> {
    weights[name].chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()).collect()
}

/// Log probabilities after the last of `tokens`.
fn expected(weights: &Matrices, tokens: &[u32]) -> Vec<f64> {
    let embedded = |token: u32| -> Vec<f64> {
        weights["embed.weight"].chunks_exact(HIDDEN).nth(token as usize).unwrap().iter().map(|&w| w.into()).collect()
    };
    let xs: Vec<_> = tokens.iter().map(|&token| embedded(token)).collect();
    let mut last = xs[xs.len() - 1].clone();
    let q = apply(weights, "attention.query.weight", &last);
    let [ks, vs] = ["attention.key.weight", "attention.value.weight"]
        .map(|name| xs.iter().map(|x| apply(weights, name, x)).collect::<Vec<_>>());
    let mut attended = Vec::new();
    for (head, q) in q.chunks_exact(DIM).enumerate() {
        let shared = head / (HEADS / KV_HEADS) * DIM..(head / (HEADS / KV_HEADS) + 1) * DIM;
        let score =
            |k: &Vec<f64>| q.iter().zip(&k[shared.clone()]).map(|(q, k)| q * k).sum::<f64>() / (DIM as f64).sqrt();
        let weights: Vec<_> = ks.iter().map(|k| score(k).exp()).collect();
        let total: f64 = weights.iter().sum();
        attended.extend(shared.clone().map(|i| weights.iter().zip(&vs).map(|(w, v)| w / total * v[i]).sum::<f64>()));
    }
    let moved = apply(weights, "attention.output.weight", &attended);
    for ((x, moved), bias) in last.iter_mut().zip(moved).zip(&weights["attention.output.bias"]) {
        *x += moved + f64::from(*bias);
    }
    let logits = apply(weights, "unembed.weight", &last);
    let total = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
    logits.iter().map(|l| l - total).collect()
}

#[test]
fn a_family_of_ones_own() {
    let weights = weights();
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &weights);

    assert!(MlxPlatform.architectures().contains(&"OneLayerForCausalLM"));
    let kv_cache_dtype = Some(KvDtype::F32);
    let options = LoadOptions { device: DeviceChoice::Cpu, max_num_seqs: 1, kv_cache_dtype, ..Default::default() };
    let source = ModelSource { path: directory.path().into() };
    let mut runner = MlxPlatform.load(&source, &options, &mut |_, _| {}).unwrap();

    let prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4];
    let params = SamplingParams { temperature: 0.0, logprobs: Some(VOCAB), ..Default::default() };
    // A prompt in two chunks, then one token.
    for (start, end) in [(0, 7), (7, 19), (19, 20)] {
        let row = Row {
            seq: SeqId(1),
            tokens: &prompt[start..end],
            start,
            tables: &[vec![1, 0]],
            media: &[],
            sample: Some(SampleAt { params: &params, prompt: &[], output: &[], processors: &[] }),
        };
        let output = runner.step(&StepPlan { rows: vec![row], ..StepPlan::default() }).unwrap();
        let expected = expected(&weights, &prompt[..end]);
        for found in &output.sampled[0].logprobs.as_ref().unwrap().top {
            let wanted = expected[found.token as usize];
            assert!((f64::from(found.logprob) - wanted).abs() < 1e-4, "after {end}: {found:?}, {wanted}");
        }
    }
}
