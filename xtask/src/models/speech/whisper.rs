//! Whisper's weights: from CTranslate2's names to those of OpenAI's own checkpoint, which MLX's has.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::ctranslate2::{self, Array};

/// Writes `config.json` and `weights.safetensors` of a `model.bin`.
pub fn convert(from: &Path, folder: &Path) -> Result<()> {
    let mut source = Source(ctranslate2::read(from)?);
    let (encoder, decoder) = (source.layers("encoder"), source.layers("decoder"));
    let weights = source.renamed(encoder, decoder)?;
    let path = folder.join("weights.safetensors");
    let written = File::create(&path).and_then(|file| write(&weights, &file));
    written.with_context(|| format!("cannot write {}", path.display()))?;

    let [vocab, width] = weights["decoder.token_embedding.weight"].shape[..] else { unreachable!("a matrix") };
    let [_, _, bands] = weights["encoder.conv1.weight"].shape[..] else { unreachable!("three dimensions") };
    let text_len = weights["decoder.positional_embedding"].shape[0];
    // All of Whisper's heads are of 64.
    let config = json!({
        "model_type": "whisper",
        "n_mels": bands, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": width / 64, "n_audio_layer": encoder,
        "n_vocab": vocab, "n_text_ctx": text_len, "n_text_state": width, "n_text_head": width / 64, "n_text_layer": decoder
    });
    std::fs::write(folder.join("config.json"), config.to_string()).context("cannot write config.json")
}

struct Source(BTreeMap<String, Array>);

impl Source {
    fn layers(&self, side: &str) -> usize {
        (0..).take_while(|layer| self.0.contains_key(&format!("{side}/layer_{layer}/ffn/linear_0/weight"))).count()
    }

    fn take(&mut self, name: &str) -> Result<Array> {
        self.0.remove(name).with_context(|| format!("no {name} in the file"))
    }

    fn renamed(&mut self, encoder: usize, decoder: usize) -> Result<BTreeMap<String, Array>> {
        let mut to = BTreeMap::new();
        for conv in ["conv1", "conv2"] {
            let weight = self.take(&format!("encoder/{conv}/weight"))?;
            to.insert(format!("encoder.{conv}.weight"), channels_last(&weight));
            to.insert(format!("encoder.{conv}.bias"), self.take(&format!("encoder/{conv}/bias"))?);
        }
        // The encoder's places are sines, which whoever loads it computes.
        to.insert("decoder.positional_embedding".into(), self.take("decoder/position_encodings/encodings")?);
        to.insert("decoder.token_embedding.weight".into(), self.take("decoder/embeddings/weight")?);
        self.norm("encoder/layer_norm", "encoder.ln_post", &mut to)?;
        self.norm("decoder/layer_norm", "decoder.ln", &mut to)?;
        let layers = (0..encoder).map(|layer| ("encoder", layer)).chain((0..decoder).map(|layer| ("decoder", layer)));
        for (side, layer) in layers {
            let (from, name) = (format!("{side}/layer_{layer}"), format!("{side}.blocks.{layer}"));
            self.norm(&format!("{from}/self_attention/layer_norm"), &format!("{name}.attn_ln"), &mut to)?;
            let queries_on = ["query", "key", "value"];
            self.stacked(&format!("{from}/self_attention/linear_0"), &format!("{name}.attn"), &queries_on, &mut to)?;
            self.linear(&format!("{from}/self_attention/linear_1"), &format!("{name}.attn.out"), &mut to)?;
            if side == "decoder" {
                let (from, name) = (format!("{from}/attention"), format!("{name}.cross_attn"));
                self.norm(&format!("{from}/layer_norm"), &format!("{name}_ln"), &mut to)?;
                self.linear(&format!("{from}/linear_0"), &format!("{name}.query"), &mut to)?;
                self.stacked(&format!("{from}/linear_1"), &name, &["key", "value"], &mut to)?;
                self.linear(&format!("{from}/linear_2"), &format!("{name}.out"), &mut to)?;
            }
            self.norm(&format!("{from}/ffn/layer_norm"), &format!("{name}.mlp_ln"), &mut to)?;
            self.linear(&format!("{from}/ffn/linear_0"), &format!("{name}.mlp1"), &mut to)?;
            self.linear(&format!("{from}/ffn/linear_1"), &format!("{name}.mlp2"), &mut to)?;
        }
        Ok(to)
    }

    fn norm(&mut self, from: &str, name: &str, to: &mut BTreeMap<String, Array>) -> Result<()> {
        to.insert(format!("{name}.weight"), self.take(&format!("{from}/gamma"))?);
        to.insert(format!("{name}.bias"), self.take(&format!("{from}/beta"))?);
        Ok(())
    }

    fn linear(&mut self, from: &str, name: &str, to: &mut BTreeMap<String, Array>) -> Result<()> {
        to.insert(format!("{name}.weight"), self.take(&format!("{from}/weight"))?);
        to.insert(format!("{name}.bias"), self.take(&format!("{from}/bias"))?);
        Ok(())
    }

    /// Matrices that stand one below the other in `from`. Whisper's keys have no bias: what stands there is zero.
    fn stacked(&mut self, from: &str, name: &str, parts: &[&str], to: &mut BTreeMap<String, Array>) -> Result<()> {
        let (weight, bias) = (self.take(&format!("{from}/weight"))?, self.take(&format!("{from}/bias"))?);
        for (i, part) in parts.iter().enumerate() {
            to.insert(format!("{name}.{part}.weight"), rows(&weight, i, parts.len()));
            if *part != "key" {
                to.insert(format!("{name}.{part}.bias"), rows(&bias, i, parts.len()));
            }
        }
        Ok(())
    }
}

/// One of `count` equal parts, by rows.
fn rows(array: &Array, part: usize, count: usize) -> Array {
    let (length, mut shape) = (array.bytes.len() / count, array.shape.clone());
    shape[0] /= count;
    Array { shape, bytes: array.bytes[part * length..(part + 1) * length].to_vec() }
}

/// [outputs, inputs, width] → [outputs, width, inputs].
fn channels_last(array: &Array) -> Array {
    let [outputs, inputs, width] = array.shape[..] else { unreachable!("a convolution's weight") };
    let mut bytes = Vec::with_capacity(array.bytes.len());
    for output in array.bytes.chunks(inputs * width * 2) {
        for place in 0..width {
            for input in output.chunks(width * 2) {
                bytes.extend_from_slice(&input[place * 2..place * 2 + 2]);
            }
        }
    }
    Array { shape: vec![outputs, width, inputs], bytes }
}

/// A safetensors file: the length of a header, the header, the numbers.
fn write(weights: &BTreeMap<String, Array>, mut to: &File) -> std::io::Result<()> {
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "mlx" }))]);
    let mut offset = 0;
    for (name, array) in weights {
        let end = offset + array.bytes.len();
        let entry: Value = json!({ "dtype": "F16", "shape": array.shape, "data_offsets": [offset, end] });
        header.insert(name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The numbers begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    weights.values().try_for_each(|array| to.write_all(&array.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_go_last() {
        let array = Array { shape: vec![1, 2, 3], bytes: vec![0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0] };
        let turned = channels_last(&array);
        assert_eq!((turned.shape, turned.bytes), (vec![1, 3, 2], vec![0, 0, 3, 0, 1, 0, 4, 0, 2, 0, 5, 0]));
    }

    #[test]
    fn rows_are_cut_apart() {
        let array = Array { shape: vec![2, 1], bytes: vec![1, 2, 3, 4] };
        assert_eq!(rows(&array, 1, 2), Array { shape: vec![1, 1], bytes: vec![3, 4] });
    }
}
