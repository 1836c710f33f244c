//! PL-BERT: an ALBERT over phonemes, whose layers share their weights.
//!
//! Source: Lan et al., arXiv:1909.11942; Li et al., arXiv:2301.08810; layer names as in the Hugging Face checkpoints. Its
//! nonlinearity is the tanh approximation of GELU (`transformers` calls it `gelu_new` and takes it where a configuration is
//! silent, as Kokoro's is).

use vllm_platform_mlx::{
    Activation, Bias, LoadContext, Ops, Result, Tensor,
    mlx_rs::fast::scaled_dot_product_attention,
    nn::{Embedding, LayerNorm, Linear},
};

use super::config::Albert as Config;

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    scale: f32,
}

impl Attention {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let projection = |name| ctx.linear(name, hidden, hidden, Bias::Added);
        Ok(Self {
            query: projection("query")?.into_heads(heads),
            key: projection("key")?.into_heads(heads),
            value: projection("value")?.into_heads(heads),
            output: projection("dense")?,
            scale: ((hidden / heads) as f32).powf(-0.5),
        })
    }

    /// [symbols, hidden] → [symbols, hidden]; all see all.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let projected = Linear::forward_all(x, [&self.query, &self.key, &self.value])?;
        // [symbols, heads, dim] → [1, heads, symbols, dim]
        let by_head = |t: &Tensor| t.expand_dims(0)?.transpose_axes(&[0, 2, 1, 3]);
        let [q, k, v] = [by_head(&projected[0])?, by_head(&projected[1])?, by_head(&projected[2])?];
        let attended = scaled_dot_product_attention(q, k, v, self.scale, None, None)?;
        let attended = attended.transpose_axes(&[0, 2, 1, 3])?.reshape(x.shape())?;
        self.output.forward(&attended)
    }
}

struct Block {
    ops: Ops,
    attention: Attention,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let &Config { hidden_size: hidden, intermediate_size: inner, layer_norm_eps: eps, .. } = config;
        Ok(Self {
            ops: ctx.ops(),
            attention: Attention::load(&ctx.at("attention"), config)?,
            attention_norm: ctx.layer_norm("attention.LayerNorm", hidden, eps)?,
            up: ctx.linear("ffn", hidden, inner, Bias::Added)?,
            down: ctx.linear("ffn_output", inner, hidden, Bias::Added)?,
            norm: ctx.layer_norm("full_layer_layer_norm", hidden, eps)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.attention_norm.forward_residual(x, &self.attention.forward(x)?)?;
        let inner = self.ops.activate(&self.up.forward(&x)?, Activation::GeluTanh)?;
        self.norm.forward_residual(&x, &self.down.forward(&inner)?)
    }
}

pub(super) struct Albert {
    ops: Ops,
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    widen: Linear,
    /// Groups of blocks, each run `rounds` times before the next.
    groups: Vec<Vec<Block>>,
    rounds: usize,
}

impl Albert {
    pub fn load(ctx: &LoadContext<'_>, config: &Config, vocab: usize) -> Result<Self> {
        // What sees the first symbol only, and 0, 1, 2 …: no part in what is said.
        ctx.ignore(|name| name.starts_with("pooler.") || name == "embeddings.position_ids");
        let (embeddings, encoder) = (ctx.at("embeddings"), ctx.at("encoder"));
        let width = config.embedding_size;
        let group = |group: usize| {
            (0..config.inner_group_num)
                .map(|i| Block::load(&encoder.at(&format!("albert_layer_groups.{group}.albert_layers.{i}")), config))
                .collect::<Result<_>>()
        };
        Ok(Self {
            ops: ctx.ops(),
            words: embeddings.embedding("word_embeddings", vocab, width)?,
            positions: embeddings.embedding("position_embeddings", config.max_position_embeddings, width)?,
            types: embeddings.embedding("token_type_embeddings", config.type_vocab_size, width)?,
            norm: embeddings.layer_norm("LayerNorm", width, config.layer_norm_eps)?,
            widen: encoder.linear("embedding_hidden_mapping_in", width, config.hidden_size, Bias::Added)?,
            groups: (0..config.num_hidden_groups).map(group).collect::<Result<_>>()?,
            rounds: config.num_hidden_layers / config.num_hidden_groups,
        })
    }

    /// Symbols `[symbols]`, u32 → [symbols, hidden].
    pub fn forward(&self, symbols: &Tensor) -> Result<Tensor> {
        let count = symbols.dim(0);
        let positions = Tensor::from_iter(0..count.unsigned_abs(), &[count]);
        let types = Tensor::from_slice(&vec![0u32; count as usize], &[count]);
        let words = self.ops.add(&self.words.forward(symbols)?, &self.types.forward(&types)?)?;
        let x = self.norm.forward_residual(&words, &self.positions.forward(&positions)?)?;
        let mut x = self.widen.forward(&x)?;
        for group in &self.groups {
            for _ in 0..self.rounds {
                for block in group {
                    x = block.forward(&x)?;
                }
            }
        }
        Ok(x)
    }
}
