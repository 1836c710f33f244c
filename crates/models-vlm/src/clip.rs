//! CLIP's eyes: a ViT with a token for the picture as a whole before its patches, and a norm before the first block.
//!
//! Source: Radford et al., arXiv:2103.00020.

use serde_json::{Value, json};
use vllm_platform_mlx::{
    Bias, LoadContext, Ops, Result, Tensor,
    kv::Attending,
    mlx_rs::ops::{concatenate, indexing::TryIndexOp},
    model::LayerSpec,
    nn::{Embedding, LayerNorm, Linear},
    vision::Pictures,
};

use crate::{
    language::with_defaults,
    rows,
    vit::{Blocks, Config},
};

/// `vision_config`, with what `CLIPVisionConfig` has where it says nothing.
pub(crate) fn config(config: &Value) -> Result<Config> {
    let defaults = json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_channels": 3, "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    });
    Config::new(with_defaults(config.as_object(), defaults))
}

/// The encoder up to some block.
pub(crate) struct Clip {
    ops: Ops,
    config: Config,
    patches: Linear,
    /// [1, hidden].
    class: Tensor,
    positions: Embedding,
    norm: LayerNorm,
    blocks: Blocks,
}

impl Clip {
    /// With the first so many blocks.
    pub fn load(ctx: &LoadContext<'_>, config: Config, blocks: usize) -> Result<Self> {
        // 0, 1, 2 …: older versions of transformers saved them.
        ctx.ignore(|name| name == "embeddings.position_ids");
        let embeddings = ctx.at("embeddings");
        let (hidden, side) = (config.hidden_size, config.side());
        Ok(Self {
            ops: ctx.ops(),
            patches: config.patch_embedding(&embeddings, Bias::None)?,
            class: embeddings.tensor("class_embedding", &[hidden])?.expand_dims(0)?,
            positions: embeddings.embedding("position_embedding", side * side + 1, hidden)?,
            // The checkpoints' spelling.
            norm: ctx.layer_norm("pre_layrnorm", hidden, config.layer_norm_eps)?,
            blocks: Blocks::load(ctx, &config, blocks)?,
            config,
        })
    }

    /// What the KV store is told of its layers.
    pub fn layers(&self) -> Vec<LayerSpec> {
        self.blocks.layers()
    }

    /// Numbers of a patch.
    pub fn patch_len(&self) -> usize {
        self.config.patch_len()
    }

    /// Hidden states [tokens, hidden] after each of so many blocks: a token for each picture, and those of its patches.
    pub fn states(&self, pictures: &Pictures, after: &[usize], kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        self.config.check(&pictures.grids)?;
        let lengths: Vec<_> = rows::lengths(&pictures.grids).iter().map(|patches| patches + 1).collect();
        let batch = kv.segments(&lengths, None)?;
        let [patches] = kv.by_rows(&pictures.patches, |x| Ok([self.patches.forward(x)?]))?;
        let mut parts = Vec::new();
        let mut first = 0;
        for len in rows::lengths(&pictures.grids).into_iter().filter_map(|len| i32::try_from(len).ok()) {
            parts.extend([self.class.clone(), patches.try_index(first..first + len)?]);
            first += len;
        }
        let x = self.ops.add(&concatenate(&parts, 0)?, &self.positions.forward(&batch.positions)?)?;
        self.blocks.forward(self.norm.forward(&x)?, after, kv, &batch)
    }
}
