//! Sizes of a Whisper model, as either layout's `config.json` has them, and what its tensors are called.

use serde::Deserialize;
use vllm_platform_mlx::{Error, LoadContext, Result};

/// Sizes, under the names that OpenAI gave them. Of an encoder or decoder, `state` is the width, and the MLP is four times as wide.
#[derive(Debug, Deserialize)]
pub(super) struct Sizes {
    #[serde(alias = "num_mel_bins")]
    pub n_mels: usize,
    #[serde(alias = "max_source_positions")]
    pub n_audio_ctx: usize,
    #[serde(alias = "d_model")]
    pub n_audio_state: usize,
    #[serde(alias = "encoder_attention_heads")]
    pub n_audio_head: usize,
    #[serde(alias = "encoder_layers")]
    pub n_audio_layer: usize,
    #[serde(alias = "vocab_size")]
    pub n_vocab: usize,
    #[serde(alias = "max_target_positions")]
    pub n_text_ctx: usize,
    /// As `n_audio_state`: the decoder attends to what the encoder gives.
    n_text_state: Option<usize>,
    #[serde(alias = "decoder_attention_heads")]
    pub n_text_head: usize,
    #[serde(alias = "decoder_layers")]
    pub n_text_layer: usize,
    /// Hugging Face's alone.
    encoder_ffn_dim: Option<usize>,
    decoder_ffn_dim: Option<usize>,
    activation_function: Option<String>,
    scale_embedding: Option<bool>,
    /// (layer, head) of those that follow the words.
    alignment_heads: Option<Vec<[usize; 2]>>,
}

impl Sizes {
    /// What isn't computed here must not be asked for, and the sizes must make later arithmetic safe.
    pub fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let sizes: Self = ctx.config()?;
        let wrong = |problem: String| Err(Error::Config(problem));
        let state = sizes.n_audio_state;
        for (key, heads) in [("n_audio_head", sizes.n_audio_head), ("n_text_head", sizes.n_text_head)] {
            if heads == 0 || state == 0 || !state.is_multiple_of(heads) {
                return wrong(format!("{heads} heads ({key}) in a state of {state}: it must be a multiple of them"));
            }
        }
        if sizes.n_text_state.is_some_and(|text| text != state) {
            return wrong(format!("n_text_state must be n_audio_state, {state}"));
        }
        for inner in [sizes.encoder_ffn_dim, sizes.decoder_ffn_dim].into_iter().flatten() {
            if inner != 4 * state {
                return wrong(format!("an MLP of {inner} in a state of {state}: it must be four times as wide"));
            }
        }
        if let Some(activation) = sizes.activation_function.as_deref().filter(|name| *name != "gelu") {
            return wrong(format!("activation_function is {activation:?}: it must be \"gelu\""));
        }
        if sizes.scale_embedding == Some(true) {
            return wrong("scale_embedding is true: Whisper's embeddings are as they are".into());
        }
        if !state.is_multiple_of(2) || state < 4 {
            return wrong(format!("a state of {state}: positions want an even number, at least 4"));
        }
        Ok(sizes)
    }

    /// The heads that follow the words, as (layer, head): those that the checkpoint names, in a tensor or beside its configuration,
    /// else all of the upper half of the layers.
    pub fn alignment_heads(&self, ctx: &LoadContext<'_>) -> Result<Vec<(usize, usize)>> {
        let (layers, heads) = (self.n_text_layer, self.n_text_head);
        let mut named: Option<Vec<(usize, usize)>> =
            self.alignment_heads.as_ref().map(|named| named.iter().map(|&[layer, head]| (layer, head)).collect());
        if let Some(numbers) = ctx.integers("alignment_heads")? {
            let pair = |pair: &[i64]| Some((usize::try_from(pair[0]).ok()?, usize::try_from(pair[1]).ok()?));
            let pairs: Option<Vec<_>> = numbers.chunks_exact(2).map(pair).collect();
            let wrong =
                || Error::Config(format!("alignment_heads {numbers:?}: pairs of a layer and a head are wanted"));
            named = Some(pairs.filter(|_| numbers.len().is_multiple_of(2)).ok_or_else(wrong)?);
        }
        let all = || (layers / 2..layers).flat_map(|layer| (0..heads).map(move |head| (layer, head))).collect();
        let named = named.filter(|named| !named.is_empty()).unwrap_or_else(all);
        match named.iter().find(|&&(layer, head)| layer >= layers || head >= heads) {
            Some((layer, head)) => Err(Error::Config(format!(
                "alignment_heads names head {head} of layer {layer}: there are {heads} in each of {layers}"
            ))),
            None => Ok(named),
        }
    }
}

/// What a tensor of a checkpoint is called here: OpenAI's names in MLX's spelling, with the tables of positions as layers.
pub(super) fn name(in_file: &str) -> String {
    // `model.` in Hugging Face's layout. The parts of a name are looked at one by one.
    let name = in_file.strip_prefix("model.").unwrap_or(in_file);
    let name = match name {
        "encoder.layer_norm.weight" | "encoder.layer_norm.bias" => name.replace("layer_norm", "ln_post"),
        "decoder.layer_norm.weight" | "decoder.layer_norm.bias" => name.replace("layer_norm", "ln"),
        _ => name.replace("mlp.0.", "mlp1.").replace("mlp.2.", "mlp2."),
    };
    let part = |part: &str| {
        match part {
            "layers" => "blocks",
            "self_attn" => "attn",
            "encoder_attn" => "cross_attn",
            "q_proj" => "query",
            "k_proj" => "key",
            "v_proj" => "value",
            "out_proj" => "out",
            "self_attn_layer_norm" => "attn_ln",
            "encoder_attn_layer_norm" => "cross_attn_ln",
            "final_layer_norm" => "mlp_ln",
            "fc1" => "mlp1",
            "fc2" => "mlp2",
            "embed_tokens" => "token_embedding",
            "embed_positions" => "positions",
            "positional_embedding" => "positions.weight",
            _ => return part.to_owned(),
        }
        .to_owned()
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// Fixed positions: [places, width], sines in the first half of a row and cosines in the second, of `place · f` with
/// frequencies from 1 down to 1/10,000.
pub(super) fn sinusoids(places: usize, width: usize) -> Vec<f32> {
    let half = width / 2;
    let step = 10_000f64.ln() / (half - 1) as f64;
    let row = |place: usize| {
        let angle = move |i: usize| place as f64 * (-step * i as f64).exp();
        (0..half).map(move |i| angle(i).sin()).chain((0..half).map(move |i| angle(i).cos()))
    };
    #[allow(clippy::cast_possible_truncation)]
    (0..places).flat_map(row).map(|x| x as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_layouts() {
        for (in_file, wanted) in [
            ("model.encoder.layers.3.self_attn.q_proj.weight", "encoder.blocks.3.attn.query.weight"),
            ("model.decoder.layers.0.encoder_attn.out_proj.bias", "decoder.blocks.0.cross_attn.out.bias"),
            ("model.decoder.layers.0.encoder_attn_layer_norm.bias", "decoder.blocks.0.cross_attn_ln.bias"),
            ("model.decoder.layers.1.final_layer_norm.weight", "decoder.blocks.1.mlp_ln.weight"),
            ("model.decoder.layers.1.fc2.weight", "decoder.blocks.1.mlp2.weight"),
            ("encoder.blocks.0.mlp.0.weight", "encoder.blocks.0.mlp1.weight"),
            ("encoder.blocks.0.mlp.2.bias", "encoder.blocks.0.mlp2.bias"),
            ("encoder.layers.0.self_attn_layer_norm.weight", "encoder.blocks.0.attn_ln.weight"),
            ("model.encoder.layer_norm.weight", "encoder.ln_post.weight"),
            ("model.decoder.layer_norm.bias", "decoder.ln.bias"),
            ("encoder.ln_post.weight", "encoder.ln_post.weight"),
            ("model.decoder.embed_tokens.weight", "decoder.token_embedding.weight"),
            ("model.decoder.embed_positions.weight", "decoder.positions.weight"),
            ("decoder.positional_embedding", "decoder.positions.weight"),
            ("encoder.positional_embedding", "encoder.positions.weight"),
            ("model.encoder.conv1.weight", "encoder.conv1.weight"),
            ("alignment_heads", "alignment_heads"),
            ("proj_out.weight", "proj_out.weight"),
        ] {
            assert_eq!(name(in_file), wanted);
        }
    }
}
