//! Whisper: an encoder of windows of sound, and a decoder that writes down what it hears.
//!
//! Source: Radford et al., arXiv:2212.04356. Layer names as in OpenAI's checkpoints, to which those of other layouts are
//! brought ([`config::name`]). Blocks are pre-norm; keys have no bias; the token embedding is the output layer too.

mod config;

use vllm_platform::{ListenerInfo, MelScale, MelSettings};
use vllm_platform_mlx::{
    Activation, Batch, Bias, ConvGeometry, LoadContext, Ops, Result, Tensor, inventory,
    kv::AttentionSpec,
    model::LayerSpec,
    nn::{Conv1d, Embedding, LayerNorm, Linear},
    speech::{Hearing, ListenerModel, Listening, SpeechFamily},
};

use config::{Sizes, sinusoids};

inventory::submit! {
    SpeechFamily::listener("WhisperForConditionalGeneration", config::name, |ctx| Ok(Box::new(Whisper::load(ctx)?)))
}

/// Of all norms.
const EPS: f32 = 1e-5;

/// Projections of an attention.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    spec: AttentionSpec,
}

impl Attention {
    fn load(ctx: &LoadContext<'_>, state: usize, heads: usize) -> Result<Self> {
        Ok(Self {
            query: ctx.linear("query", state, state, Bias::Added)?.into_heads(heads),
            key: ctx.linear("key", state, state, Bias::None)?.into_heads(heads),
            value: ctx.linear("value", state, state, Bias::Added)?.into_heads(heads),
            out: ctx.linear("out", state, state, Bias::Added)?,
            spec: AttentionSpec { heads, scale: ((state / heads) as f32).powf(-0.5) },
        })
    }

    /// [rows, state] → [rows, heads, head_dim] three times.
    fn project(&self, x: &Tensor) -> Result<[Tensor; 3]> {
        Linear::forward_all(x, [&self.query, &self.key, &self.value])
    }
}

/// `W₂ · gelu(W₁ · x)`
struct Mlp {
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// `ctx` is the block's scope.
    fn load(ctx: &LoadContext<'_>, state: usize) -> Result<Self> {
        Ok(Self {
            up: ctx.linear("mlp1", state, 4 * state, Bias::Added)?,
            down: ctx.linear("mlp2", 4 * state, state, Bias::Added)?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward_activated(x, Activation::Gelu)?)
    }
}

struct EncoderBlock {
    ops: Ops,
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl EncoderBlock {
    fn load(ctx: &LoadContext<'_>, sizes: &Sizes) -> Result<Self> {
        let state = sizes.n_audio_state;
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.layer_norm("attn_ln", state, EPS)?,
            attention: Attention::load(&ctx.at("attn"), state, sizes.n_audio_head)?,
            mlp_norm: ctx.layer_norm("mlp_ln", state, EPS)?,
            mlp: Mlp::load(ctx, state)?,
        })
    }

    /// x [places, state], all of which see each other.
    fn forward(&self, x: &Tensor, layer: usize, listening: &mut Listening<'_>) -> Result<Tensor> {
        let [q, k, v] = self.attention.project(&self.attention_norm.forward(x)?)?;
        let seen = listening.attend(layer, [&q, &k, &v], self.attention.spec)?;
        let (x, normed) = self.mlp_norm.forward_with_sum(x, &self.attention.out.forward(&seen)?)?;
        self.ops.add(&x, &self.mlp.forward(&normed)?)
    }
}

struct Encoder {
    ops: Ops,
    conv1: Conv1d,
    conv2: Conv1d,
    /// [places, state].
    positions: Tensor,
    blocks: Vec<EncoderBlock>,
    norm: LayerNorm,
}

impl Encoder {
    fn load(ctx: &LoadContext<'_>, sizes: &Sizes) -> Result<Self> {
        let (state, places) = (sizes.n_audio_state, sizes.n_audio_ctx);
        let positions = if ctx.has("positions.weight") {
            ctx.tensor("positions.weight", &[places, state])?
        } else {
            ctx.constant(&sinusoids(places, state), &[places, state])?
        };
        ctx.ops().constant(&positions);
        let block = |layer| EncoderBlock::load(&ctx.at(&format!("blocks.{layer}")), sizes);
        Ok(Self {
            ops: ctx.ops(),
            conv1: ctx.conv1d("conv1", [state, sizes.n_mels, 3], ConvGeometry::same(3, 1), Bias::Added)?,
            conv2: ctx.conv1d(
                "conv2",
                [state, state, 3],
                ConvGeometry { stride: 2, ..ConvGeometry::same(3, 1) },
                Bias::Added,
            )?,
            positions,
            blocks: (0..sizes.n_audio_layer).map(block).collect::<Result<_>>()?,
            norm: ctx.layer_norm("ln_post", state, EPS)?,
        })
    }

    /// Log-mel [frames, bands] → [places, state], of which there are half as many.
    fn forward(&self, mel: &Tensor, listening: &mut Listening<'_>) -> Result<Tensor> {
        let x = self.ops.activate(&self.conv1.forward(mel)?, Activation::Gelu)?;
        let x = self.ops.activate(&self.conv2.forward(&x)?, Activation::Gelu)?;
        let mut x = self.ops.add(&x, &self.positions)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, listening)?;
        }
        self.norm.forward(&x)
    }
}

struct DecoderBlock {
    ops: Ops,
    attention_norm: LayerNorm,
    attention: Attention,
    cross_norm: LayerNorm,
    cross: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl DecoderBlock {
    fn load(ctx: &LoadContext<'_>, sizes: &Sizes) -> Result<Self> {
        let (state, heads) = (sizes.n_audio_state, sizes.n_text_head);
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.layer_norm("attn_ln", state, EPS)?,
            attention: Attention::load(&ctx.at("attn"), state, heads)?,
            cross_norm: ctx.layer_norm("cross_attn_ln", state, EPS)?,
            cross: Attention::load(&ctx.at("cross_attn"), state, heads)?,
            mlp_norm: ctx.layer_norm("mlp_ln", state, EPS)?,
            mlp: Mlp::load(ctx, state)?,
        })
    }

    /// x [tokens, state].
    fn forward(&self, x: &Tensor, layer: usize, batch: &Batch, hearing: &mut Hearing) -> Result<Tensor> {
        let [q, k, v] = self.attention.project(&self.attention_norm.forward(x)?)?;
        let own = hearing.attend_to_text(layer, [&q, &k, &v], batch, self.attention.spec)?;
        let (x, normed) = self.cross_norm.forward_with_sum(x, &self.attention.out.forward(&own)?)?;
        let heard = hearing.attend_to_sound(layer, &self.cross.query.forward(&normed)?, batch, self.cross.spec)?;
        let (x, normed) = self.mlp_norm.forward_with_sum(&x, &self.cross.out.forward(&heard)?)?;
        self.ops.add(&x, &self.mlp.forward(&normed)?)
    }
}

struct Decoder {
    ops: Ops,
    tokens: Embedding,
    positions: Embedding,
    blocks: Vec<DecoderBlock>,
    norm: LayerNorm,
}

impl Decoder {
    fn load(ctx: &LoadContext<'_>, sizes: &Sizes) -> Result<Self> {
        let state = sizes.n_audio_state;
        let block = |layer| DecoderBlock::load(&ctx.at(&format!("blocks.{layer}")), sizes);
        Ok(Self {
            ops: ctx.ops(),
            tokens: ctx.embedding("token_embedding", sizes.n_vocab, state)?,
            positions: ctx.embedding("positions", sizes.n_text_ctx, state)?,
            blocks: (0..sizes.n_text_layer).map(block).collect::<Result<_>>()?,
            norm: ctx.layer_norm("ln", state, EPS)?,
        })
    }

    /// [tokens, state], before the last norm.
    fn forward(&self, batch: &Batch, hearing: &mut Hearing) -> Result<Tensor> {
        let (tokens, positions) = (self.tokens.forward(&batch.tokens)?, self.positions.forward(&batch.positions)?);
        let mut x = self.ops.add(&tokens, &positions)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, batch, hearing)?;
        }
        Ok(x)
    }
}

/// The model.
struct Whisper {
    mel: MelSettings,
    info: ListenerInfo,
    layers: [Vec<LayerSpec>; 2],
    encoder: Encoder,
    decoder: Decoder,
}

impl Whisper {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let sizes = Sizes::load(ctx)?;
        // The output layer, which is the token embedding.
        ctx.ignore(|name| name == "proj_out.weight");
        let layer = |heads| LayerSpec { kv_heads: heads, head_dim: sizes.n_audio_state / heads, window: None };
        Ok(Self {
            mel: MelSettings {
                sample_rate: 16_000,
                fft: 400,
                window: 400,
                hop: 160,
                bands: sizes.n_mels,
                scale: MelScale::Whisper,
            },
            info: ListenerInfo {
                window_frames: 2 * sizes.n_audio_ctx,
                encoded_frames: sizes.n_audio_ctx,
                max_text_len: sizes.n_text_ctx,
                alignment_heads: sizes.alignment_heads(ctx)?,
            },
            layers: [
                vec![layer(sizes.n_audio_head); sizes.n_audio_layer],
                vec![layer(sizes.n_text_head); sizes.n_text_layer],
            ],
            encoder: Encoder::load(&ctx.at("encoder"), &sizes)?,
            decoder: Decoder::load(&ctx.at("decoder"), &sizes)?,
        })
    }
}

impl ListenerModel for Whisper {
    fn mel(&self) -> MelSettings {
        self.mel.clone()
    }

    fn listener_info(&self) -> ListenerInfo {
        self.info.clone()
    }

    fn vocab_size(&self) -> usize {
        self.decoder.tokens.vocab_size()
    }

    fn encoder_layers(&self) -> Vec<LayerSpec> {
        self.layers[0].clone()
    }

    fn decoder_layers(&self) -> Vec<LayerSpec> {
        self.layers[1].clone()
    }

    fn encode(&self, mel: &Tensor, listening: &mut Listening<'_>) -> Result<Tensor> {
        self.encoder.forward(mel, listening)
    }

    fn heard(&self, layer: usize, encoded: &Tensor) -> Result<[Tensor; 2]> {
        let cross = &self.decoder.blocks[layer].cross;
        Linear::forward_all(encoded, [&cross.key, &cross.value])
    }

    fn decode(&self, batch: &Batch, hearing: &mut Hearing) -> Result<Tensor> {
        self.decoder.forward(batch, hearing)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.decoder.tokens.as_output(&self.decoder.norm.forward(hidden)?)
    }
}
