//! SigLIP's eyes: a ViT whose patches have learned positions, and no token for the picture as a whole.
//!
//! Source: Zhai et al., arXiv:2303.15343.

use serde_json::{Value, json};
use vllm_platform_mlx::{
    Bias, LoadContext, Ops, Result, Tensor,
    kv::Attending,
    model::LayerSpec,
    nn::{Embedding, Linear},
    vision::Pictures,
};

use crate::{
    language::with_defaults,
    rows,
    vit::{Blocks, Config},
};

/// `vision_config`, with what `SiglipVisionConfig` has where it says nothing.
pub(crate) fn config(config: &Value) -> Result<Config> {
    let defaults = json!({
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "num_channels": 3, "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
    });
    Config::new(with_defaults(config.as_object(), defaults))
}

/// The encoder up to some block. What follows the blocks (a norm, a head that pools) is up to who uses it.
pub(crate) struct Siglip {
    ops: Ops,
    config: Config,
    patches: Linear,
    positions: Embedding,
    blocks: Blocks,
}

impl Siglip {
    /// With the first so many blocks.
    pub fn load(ctx: &LoadContext<'_>, config: Config, blocks: usize) -> Result<Self> {
        // The head makes one vector of a picture; features are of patches.
        ctx.ignore(|name| name.starts_with("head.") || name == "embeddings.position_ids");
        let embeddings = ctx.at("embeddings");
        let side = config.side();
        Ok(Self {
            ops: ctx.ops(),
            patches: config.patch_embedding(&embeddings, Bias::Added)?,
            positions: embeddings.embedding("position_embedding", side * side, config.hidden_size)?,
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

    /// Hidden states [patches, hidden] after each of so many blocks, of pictures of the size that the model was made for.
    pub fn states(&self, pictures: &Pictures, after: &[usize], kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        self.config.check(&pictures.grids)?;
        self.states_at(&positions(&pictures.grids, self.config.side()), pictures, after, kv)
    }

    /// The same of pictures of any size; `positions` has each patch's.
    pub fn states_at(
        &self,
        positions: &[u32],
        pictures: &Pictures,
        after: &[usize],
        kv: &mut Attending<'_>,
    ) -> Result<Vec<Tensor>> {
        let batch = kv.segments(&rows::lengths(&pictures.grids), None)?;
        let [patches] = kv.by_rows(&pictures.patches, |x| Ok([self.patches.forward(x)?]))?;
        let x = self.ops.add(&patches, &self.positions.forward(&rows::ids(positions))?)?;
        self.blocks.forward(x, after, kv, &batch)
    }
}

/// Positions of patches among `side` by `side` that were learned: a picture with fewer rows or columns is spread over all of them
/// (NaViT's fractional coordinates: Dehghani et al., arXiv:2307.06304).
pub(crate) fn positions(grids: &[[usize; 2]], side: usize) -> Vec<u32> {
    let of_picture = |&[rows, columns]: &[usize; 2]| {
        (0..rows * columns).map(move |i| (i / columns) * side / rows * side + (i % columns) * side / columns)
    };
    grids.iter().flat_map(of_picture).map(|position| u32::try_from(position).unwrap_or(u32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_spread_over_those_learned() {
        assert_eq!(positions(&[[2, 2], [2, 2]], 2), [0, 1, 2, 3, 0, 1, 2, 3]);
        // Rows 0, 2 and columns 0, 1, 2 of 4 by 4.
        assert_eq!(positions(&[[2, 3]], 4), [0, 1, 2, 8, 9, 10]);
    }
}
