//! Qwen2-VL: a ViT over pictures of any size whose patches know their row and column by a rotary embedding on two axes; each
//! block of 2 by 2 patches becomes one token of Qwen2, which has positions in time, height and width (M-RoPE).
//!
//! Source: Wang et al., arXiv:2409.12191. Layer names as in the Hugging Face checkpoints. The processor orders patches block by
//! block, so that those of a token stand together.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Activation, Bias, LoadContext, Result, Tensor, inventory,
    kv::Attending,
    model::LayerSpec,
    nn::{LayerNorm, Linear},
    vision::{Language, Pictures, VisionFamily, VisionModel},
};

use crate::{
    config::{activation, text_config, vision_config},
    qwen_vision::{Block, EPS, Mlp, MlpForm, NAMES, Patches, axes, by_token, check_mrope},
};

inventory::submit! {
    VisionFamily::new("Qwen2VLForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Qwen2Vl::load(ctx)?)))
}

/// Qwen2 with positions on three axes.
pub(crate) fn language(config: &Value) -> Result<Language> {
    let text = text_config(config);
    check_mrope(&text)?;
    Ok(Language { architecture: "Qwen2ForCausalLM".into(), config: text.into(), levels: 1 })
}

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    depth: usize,
    embed_dim: usize,
    /// The language model's.
    hidden_size: usize,
    hidden_act: String,
    mlp_ratio: usize,
    num_heads: usize,
}

impl Default for Config {
    fn default() -> Self {
        let hidden_act = "quick_gelu".into();
        Self { depth: 32, embed_dim: 1280, hidden_size: 3584, hidden_act, mlp_ratio: 4, num_heads: 16 }
    }
}

struct Qwen2Vl {
    patches: Patches,
    embedding: Linear,
    blocks: Vec<Block>,
    merger_norm: LayerNorm,
    merger: Mlp,
    width: usize,
}

impl Qwen2Vl {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let (config, patches): (Config, Patches) = (vision_config(ctx)?, vision_config(ctx)?);
        let (ctx, hidden, width) = (ctx.at("vision"), config.embed_dim, config.hidden_size);
        let merged = hidden * patches.of_token();
        let merger = ctx.at("merger");
        let mlp = MlpForm {
            names: ["fc1", "fc2"],
            inner: hidden * config.mlp_ratio,
            activation: activation(&config.hidden_act)?,
        };
        Ok(Self {
            embedding: patches.embedding(&ctx, hidden, Bias::None)?,
            blocks: (0..config.depth)
                .map(|layer| Block::load(&ctx.at(&format!("blocks.{layer}")), hidden, config.num_heads, mlp, &patches))
                .collect::<Result<_>>()?,
            merger_norm: merger.layer_norm("ln_q", hidden, EPS)?,
            merger: Mlp::load(&merger, ["mlp.0", "mlp.2"], [merged, merged, width], Activation::Gelu)?,
            patches,
            width,
        })
    }
}

impl VisionModel for Qwen2Vl {
    fn layers(&self) -> Vec<LayerSpec> {
        self.blocks.iter().map(|block| block.attention.layer()).collect()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn patch_len(&self) -> usize {
        self.patches.len()
    }

    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let lengths: Vec<_> = pictures.grids.iter().map(|[rows, columns]| rows * columns).collect();
        let batch = kv.segments(&lengths, Some(axes(&self.patches.places(&pictures.grids)?)))?;
        let [mut x] = kv.by_rows(&pictures.patches, |patches| Ok([self.embedding.forward(patches)?]))?;
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, kv, &batch)?;
        }
        let features = kv.by_rows(&by_token(&x, &self.patches)?, |x| {
            Ok([self.merger.forward(&self.merger_norm.forward(x)?.flatten(1, 2)?)?])
        })?;
        Ok(features.into())
    }
}
