//! A model that sees, of random weights: Qwen2.5-VL-3B's vision encoder before a small language model, so that what looking costs is
//! what it costs there and the rest is little.
//!
//! A folder in the layout of the published ones, which mlx-vlm and transformers read as well as we do.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::random::{SplitMix, byte_alphabet};
use crate::{disk, progress};

/// The model, in one of two precisions that hold the same numbers.
pub struct Seeing {
    pub name: &'static str,
    pub about: &'static str,
    /// As MLX on Linux wants them: its bf16 is slower by far.
    wide: bool,
}

pub const MODELS: [Seeing; 2] = [
    Seeing {
        name: "qwen2.5-vl-3b-eyes",
        about: "random weights, Qwen2.5-VL-3B's vision encoder before a small language model, bf16",
        wide: false,
    },
    Seeing { name: "qwen2.5-vl-3b-eyes-f32", about: "the same numbers in f32", wide: true },
];

/// The vision encoder, as published.
const DEPTH: usize = 32;
const HIDDEN: usize = 1280;
const INNER: usize = 3420;
const PATCH: usize = 14;
const MERGED: usize = 4 * HIDDEN;

/// The language model.
const LAYERS: usize = 12;
const WIDTH: usize = 1024;
const FEED_FORWARD: usize = 2816;
const HEADS: usize = 8;
const KV_HEADS: usize = 2;
const HEAD_DIM: usize = 128;

const SPECIAL: [&str; 7] = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
];
/// A token for each byte, and those.
const VOCAB: usize = 256 + SPECIAL.len();
const SEED: u64 = 0x7669_7369_6f6e_0003;

const TEMPLATE: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n\
    {% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
    {% if part.type == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>\
    {% elif part.type == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>\
    {% elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// What a tensor's numbers are.
#[derive(Clone, Copy, PartialEq)]
enum Numbers {
    Ones,
    Zeros,
    /// Of such a size that a product with as many inputs stays as large as these.
    Random {
        inputs: usize,
    },
}

struct Tensor {
    name: String,
    shape: Vec<usize>,
    numbers: Numbers,
}

impl Seeing {
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name)
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> u64 {
        tensors().iter().map(|tensor| (self.size() * tensor.shape.iter().product::<usize>()) as u64).sum()
    }

    pub fn is_there(&self, folder: &Path) -> bool {
        // The folder gets its name when it is whole.
        self.path(folder).join("model.safetensors").is_file()
    }

    /// Makes the model's folder in `folder` if it isn't there.
    pub fn make(&self, folder: &Path) -> Result<PathBuf> {
        let path = self.path(folder);
        if self.is_there(folder) {
            return Ok(path);
        }
        let _lock = disk::Lock::acquire()?;
        let spinner = progress::spinner(&format!("making {}", self.name));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let staging = disk::Staging::beside(&path)?;
        let made = staging.path().join("folder");
        fs::create_dir(&made)?;
        for (name, value) in [
            ("config.json", config(self.wide)),
            ("preprocessor_config.json", preprocessor()),
            ("tokenizer.json", tokenizer()),
            ("tokenizer_config.json", tokenizer_config()),
            ("generation_config.json", json!({ "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")] })),
        ] {
            fs::write(made.join(name), serde_json::to_vec_pretty(&value)?)?;
        }
        let weights = made.join("model.safetensors");
        let mut file = BufWriter::with_capacity(1 << 20, File::create(&weights)?);
        let written = write(&tensors(), self.wide, &mut file);
        written.with_context(|| format!("cannot write {}", weights.display()))?;
        file.into_inner()?.sync_all()?;
        fs::rename(&made, &path).with_context(|| format!("cannot rename {}", made.display()))?;
        spinner.finish_and_clear();
        Ok(path)
    }

    /// Bytes of a number.
    fn size(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }
}

fn token(name: &str) -> usize {
    256 + SPECIAL.iter().position(|special| *special == name).unwrap_or(SPECIAL.len())
}

fn config(wide: bool) -> Value {
    json!({
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "torch_dtype": if wide { "float32" } else { "bfloat16" },
        "bos_token_id": token("<|endoftext|>"),
        "eos_token_id": token("<|im_end|>"),
        "vision_start_token_id": token("<|vision_start|>"),
        "vision_end_token_id": token("<|vision_end|>"),
        "image_token_id": token("<|image_pad|>"),
        "video_token_id": token("<|video_pad|>"),
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 128_000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "rope_scaling": { "type": "mrope", "mrope_section": [16, 24, 24] },
        "sliding_window": 32_768,
        "use_sliding_window": false,
        "max_window_layers": 70,
        "tie_word_embeddings": true,
        "vocab_size": VOCAB,
        "vision_config": vision_config()
    })
}

fn vision_config() -> Value {
    json!({
        "model_type": "qwen2_5_vl",
        "depth": DEPTH,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_heads": 16,
        "in_chans": 3,
        "in_channels": 3,
        "out_hidden_size": WIDTH,
        "patch_size": PATCH,
        "spatial_patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2
    })
}

fn preprocessor() -> Value {
    json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 3136,
        "max_pixels": 12_845_056,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11]
    })
}

fn tokenizer() -> Value {
    let vocab: Map<String, Value> = byte_alphabet().enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .map(|content| {
            json!({ "id": token(content), "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false })
        })
        .collect();
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []
        }
    })
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "Qwen2Tokenizer",
        "processor_class": "Qwen2_5_VLProcessor",
        "add_bos_token": false,
        "bos_token": null,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": null,
        "model_max_length": 131_072,
        "additional_special_tokens": SPECIAL,
        "chat_template": TEMPLATE
    })
}

/// All tensors, in the order of the file.
fn tensors() -> Vec<Tensor> {
    let mut all = Vec::new();
    let mut add = |name: String, shape: &[usize], numbers| all.push(Tensor { name, shape: shape.to_vec(), numbers });
    let mut linear = |name: String, outputs: usize, inputs: usize, biased: bool| {
        add(format!("{name}.weight"), &[outputs, inputs], Numbers::Random { inputs });
        if biased {
            add(format!("{name}.bias"), &[outputs], Numbers::Zeros);
        }
    };
    for layer in 0..LAYERS {
        let at = format!("model.layers.{layer}");
        linear(format!("{at}.self_attn.q_proj"), HEADS * HEAD_DIM, WIDTH, true);
        linear(format!("{at}.self_attn.k_proj"), KV_HEADS * HEAD_DIM, WIDTH, true);
        linear(format!("{at}.self_attn.v_proj"), KV_HEADS * HEAD_DIM, WIDTH, true);
        linear(format!("{at}.self_attn.o_proj"), WIDTH, HEADS * HEAD_DIM, false);
        linear(format!("{at}.mlp.gate_proj"), FEED_FORWARD, WIDTH, false);
        linear(format!("{at}.mlp.up_proj"), FEED_FORWARD, WIDTH, false);
        linear(format!("{at}.mlp.down_proj"), WIDTH, FEED_FORWARD, false);
    }
    for block in 0..DEPTH {
        let at = format!("visual.blocks.{block}");
        linear(format!("{at}.attn.qkv"), 3 * HIDDEN, HIDDEN, true);
        linear(format!("{at}.attn.proj"), HIDDEN, HIDDEN, true);
        linear(format!("{at}.mlp.gate_proj"), INNER, HIDDEN, true);
        linear(format!("{at}.mlp.up_proj"), INNER, HIDDEN, true);
        linear(format!("{at}.mlp.down_proj"), HIDDEN, INNER, true);
    }
    linear("visual.merger.mlp.0".into(), MERGED, MERGED, true);
    linear("visual.merger.mlp.2".into(), WIDTH, MERGED, true);
    let patch = 3 * 2 * PATCH * PATCH;
    add("visual.patch_embed.proj.weight".into(), &[HIDDEN, 3, 2, PATCH, PATCH], Numbers::Random { inputs: patch });
    add("visual.merger.ln_q.weight".into(), &[HIDDEN], Numbers::Ones);
    add("model.embed_tokens.weight".into(), &[VOCAB, WIDTH], Numbers::Random { inputs: WIDTH });
    add("model.norm.weight".into(), &[WIDTH], Numbers::Ones);
    let norms = ["input_layernorm", "post_attention_layernorm"];
    for (layer, norm) in (0..LAYERS).flat_map(|layer| norms.map(|norm| (layer, norm))) {
        add(format!("model.layers.{layer}.{norm}.weight"), &[WIDTH], Numbers::Ones);
    }
    for (block, norm) in (0..DEPTH).flat_map(|block| ["norm1", "norm2"].map(|norm| (block, norm))) {
        add(format!("visual.blocks.{block}.{norm}.weight"), &[HIDDEN], Numbers::Ones);
    }
    all
}

/// A safetensors file: the length of a header, the header, the numbers.
fn write(tensors: &[Tensor], wide: bool, to: &mut impl Write) -> Result<()> {
    let (size, dtype) = if wide { (4, "F32") } else { (2, "BF16") };
    let mut header = Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + size * tensor.shape.iter().product::<usize>();
        let entry = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end] });
        header.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    // The numbers begin at a multiple of eight.
    header.resize(header.len().next_multiple_of(8), b' ');
    to.write_all(&(header.len() as u64).to_le_bytes())?;
    to.write_all(&header)?;
    let mut random = SplitMix(SEED);
    let mut row = Vec::new();
    for tensor in tensors {
        let count = tensor.shape.iter().product::<usize>();
        row.clear();
        let mut push = |number| {
            let bytes = upper_half(number).to_le_bytes();
            row.extend_from_slice(if wide { &bytes } else { &bytes[2..] });
        };
        match tensor.numbers {
            Numbers::Ones => (0..count).for_each(|_| push(1.0)),
            Numbers::Zeros => (0..count).for_each(|_| push(0.0)),
            Numbers::Random { inputs } => {
                let scale = (3.0 / inputs as f32).sqrt();
                (0..count).for_each(|_| push(scale * uniform(&mut random)));
            }
        }
        to.write_all(&row)?;
    }
    Ok(())
}

/// Above -1 and below 1.
fn uniform(random: &mut SplitMix) -> f32 {
    let bits = (random.next() >> 40) as f32;
    bits / (1 << 23) as f32 - 1.0
}

/// The number that a bf16 holds of it, towards zero.
fn upper_half(number: f32) -> f32 {
    f32::from_bits(number.to_bits() & 0xffff_0000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoder_has_as_many_weights_as_the_published_one_but_for_its_last_layer() {
        let count = |prefix: &str| {
            let all = tensors().into_iter().filter(|tensor| tensor.name.starts_with(prefix));
            all.map(|tensor| tensor.shape.iter().product::<usize>()).sum::<usize>()
        };
        // 668,684,288 with 2,048 outputs, of 5,120 weights and a bias each.
        assert_eq!(count("visual.") + (2048 - WIDTH) * (MERGED + 1), 668_684_288);
    }

    #[test]
    fn the_header_says_where_the_numbers_are() {
        let tensors = [
            Tensor { name: "a".into(), shape: vec![2, 3], numbers: Numbers::Random { inputs: 3 } },
            Tensor { name: "b".into(), shape: vec![2], numbers: Numbers::Ones },
        ];
        let (mut file, mut wide) = (Vec::new(), Vec::new());
        write(&tensors, false, &mut file).unwrap();
        write(&tensors, true, &mut wide).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
        assert_eq!(header["b"], json!({ "dtype": "BF16", "shape": [2], "data_offsets": [12, 16] }));
        let halves = &file[8 + length..];
        assert_eq!(halves[12..], [0x80, 0x3f, 0x80, 0x3f]);
        let numbers = &wide[wide.len() - 32..];
        assert!(numbers.chunks(4).zip(halves.chunks(2)).all(|(wide, half)| wide == [&[0, 0], half].concat()));
    }
}
