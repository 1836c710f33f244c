//! BERT: every token sees every other; norms come after what they normalise, residual and all.
//!
//! Source: Devlin et al., arXiv:1810.04805. Layer names as in the Hugging Face checkpoints. Sentence-BERT's embeddings
//! (Reimers & Gurevych, arXiv:1908.10084) pool these hidden states; its cross-encoders read two texts together.

use vllm_platform_mlx::{
    Activation, Bias, LoadContext, Ops, Result, Tensor,
    encoder::{CrossEncoder, EncoderBatch, EncoderFamily, TextEncoder},
    inventory,
    kv::{AttentionSpec, KvStore},
    mlx_rs::ops::tanh,
    model::LayerSpec,
    nn::{Embedding, LayerNorm, Linear},
};

use crate::config::Config;

inventory::submit! { EncoderFamily::embedding("BertModel", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! { EncoderFamily::embedding("BertForMaskedLM", |ctx| Ok(Box::new(load(ctx)?))) }
inventory::submit! {
    EncoderFamily::cross_encoder("BertForSequenceClassification", |ctx| Ok(Box::new(BertScores::load(ctx)?)))
}

fn load(ctx: &LoadContext<'_>) -> Result<Bert> {
    // What predicts masked words, and the next sentence, has no part in embeddings.
    ctx.ignore(|name| name.starts_with("cls."));
    let scope = Bert::scope(ctx, "bert");
    scope.ignore(|name| name.starts_with("pooler."));
    Bert::load(&scope, &Config::load(ctx)?, 0)
}

/// Attention of all tokens to all.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    heads: usize,
    scale: f32,
}

impl Attention {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        Ok(Self {
            query: ctx.linear("self.query", hidden, hidden, Bias::Added)?.into_heads(heads),
            key: ctx.linear("self.key", hidden, hidden, Bias::Added)?.into_heads(heads),
            value: ctx.linear("self.value", hidden, hidden, Bias::Added)?.into_heads(heads),
            output: ctx.linear("output.dense", hidden, hidden, Bias::Added)?,
            heads,
            scale: ((hidden / heads) as f32).powf(-0.5),
        })
    }

    /// [tokens, hidden] → [tokens, hidden].
    fn forward(&self, x: &Tensor, layer: usize, kv: &mut dyn KvStore, texts: &EncoderBatch) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.query, &self.key, &self.value])?;
        let spec = AttentionSpec { heads: self.heads, scale: self.scale };
        self.output.forward(&kv.attend(layer, &q, &k, &v, &texts.batch, spec)?)
    }
}

struct Block {
    ops: Ops,
    attention: Attention,
    attention_norm: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
    mlp_norm: LayerNorm,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.layer_norm_eps);
        Ok(Self {
            ops: ctx.ops(),
            attention: Attention::load(&ctx.at("attention"), config)?,
            attention_norm: ctx.layer_norm("attention.output.LayerNorm", hidden, eps)?,
            up: ctx.linear("intermediate.dense", hidden, inner, Bias::Added)?,
            activation: config.activation()?,
            down: ctx.linear("output.dense", inner, hidden, Bias::Added)?,
            mlp_norm: ctx.layer_norm("output.LayerNorm", hidden, eps)?,
        })
    }

    fn forward(&self, x: &Tensor, layer: usize, kv: &mut dyn KvStore, texts: &EncoderBatch) -> Result<Tensor> {
        let x = self.attention_norm.forward_residual(x, &self.attention.forward(x, layer, kv, texts)?)?;
        let inner = self.ops.activate(&self.up.forward(&x)?, self.activation)?;
        self.mlp_norm.forward_residual(&x, &self.down.forward(&inner)?)
    }
}

/// The network of BERT, RoBERTa and XLM-RoBERTa, which differ in where positions begin.
pub(crate) struct Bert {
    ops: Ops,
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    blocks: Vec<Block>,
    layers: Vec<LayerSpec>,
    hidden: usize,
    /// The first token's position.
    first_position: usize,
    max_input_len: usize,
}

impl Bert {
    /// Where the network's tensors are: under `name` in a checkpoint that has a head, at the top in one that has none.
    pub fn scope<'a>(ctx: &LoadContext<'a>, name: &str) -> LoadContext<'a> {
        ctx.at(if ctx.has("embeddings.word_embeddings.weight") { "" } else { name })
    }

    pub fn load(ctx: &LoadContext<'_>, config: &Config, first_position: usize) -> Result<Self> {
        let (hidden, positions) = (config.hidden_size, config.max_position_embeddings);
        // 0, 1, 2 …: older versions of transformers saved them.
        ctx.ignore(|name| name == "embeddings.position_ids");
        let embeddings = ctx.at("embeddings");
        let heads = config.num_attention_heads;
        let layer = LayerSpec { kv_heads: heads, head_dim: hidden / heads, window: None };
        Ok(Self {
            ops: ctx.ops(),
            words: embeddings.embedding("word_embeddings", config.vocab_size, hidden)?,
            positions: embeddings.embedding("position_embeddings", positions, hidden)?,
            types: embeddings.embedding("token_type_embeddings", config.type_vocab_size, hidden)?,
            norm: embeddings.layer_norm("LayerNorm", hidden, config.layer_norm_eps)?,
            blocks: (0..config.num_hidden_layers)
                .map(|layer| Block::load(&ctx.at(&format!("encoder.layer.{layer}")), config))
                .collect::<Result<_>>()?,
            layers: vec![layer; config.num_hidden_layers],
            hidden,
            first_position,
            max_input_len: positions.saturating_sub(first_position),
        })
    }

    fn embed(&self, texts: &EncoderBatch) -> Result<Tensor> {
        let first = Tensor::from_slice(&[u32::try_from(self.first_position).unwrap_or(u32::MAX)], &[1]);
        let positions = self.positions.forward(&texts.batch.positions.add(&first)?)?;
        let words = self.ops.add(&self.words.forward(&texts.batch.tokens)?, &self.types.forward(&texts.types)?)?;
        self.norm.forward_residual(&words, &positions)
    }
}

impl TextEncoder for Bert {
    fn layers(&self) -> Vec<LayerSpec> {
        self.layers.clone()
    }

    fn max_input_len(&self) -> usize {
        self.max_input_len
    }

    fn vocab_size(&self) -> usize {
        self.words.vocab_size()
    }

    fn hidden_size(&self) -> usize {
        self.hidden
    }

    fn forward(&self, texts: &EncoderBatch, kv: &mut dyn KvStore) -> Result<Tensor> {
        let mut x = self.embed(texts)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, kv, texts)?;
        }
        Ok(x)
    }
}

/// BERT with its pooler, tanh(W·h + b) of the first token, and one output on that.
struct BertScores {
    network: Bert,
    pooler: Linear,
    classifier: Linear,
}

impl BertScores {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config = Config::load(ctx)?;
        config.check_one_label()?;
        let bert = ctx.at("bert");
        Ok(Self {
            network: Bert::load(&bert, &config, 0)?,
            pooler: bert.linear("pooler.dense", config.hidden_size, config.hidden_size, Bias::Added)?,
            classifier: ctx.linear("classifier", config.hidden_size, 1, Bias::Added)?,
        })
    }
}

impl CrossEncoder for BertScores {
    fn network(&self) -> &dyn TextEncoder {
        &self.network
    }

    fn logits(&self, first: &Tensor) -> Result<Tensor> {
        self.classifier.forward(&tanh(self.pooler.forward(first)?)?)
    }
}
