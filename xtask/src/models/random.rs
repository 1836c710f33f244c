//! Models of random weights: the shape and the quantization of a published one, for figures that depend on nothing else.
//!
//! One GGUF file, which llama.cpp reads as well as we do. A quantized block is a scale and some bytes of codes, so random bytes are a
//! quantized matrix already; scales are such that a matrix keeps the size of what it multiplies, and activations stay finite.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::gguf::{Header, Kind};
use crate::{disk, paths, progress};

/// What a decoder's matrices look like.
pub struct Shape {
    pub layers: u64,
    pub hidden: u64,
    pub intermediate: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    pub vocab: u64,
}

/// A model that is made here.
pub struct Random {
    pub name: &'static str,
    pub about: &'static str,
    kind: Kind,
}

pub const MODELS: [Random; 3] = [
    Random { name: "qwen3-0.6b-q4_0", about: "random weights, Qwen3-0.6B's shape, Q4_0", kind: Kind::Q4_0 },
    Random { name: "qwen3-0.6b-q4_1", about: "random weights, Qwen3-0.6B's shape, Q4_1", kind: Kind::Q4_1 },
    Random { name: "qwen3-0.6b-q8_0", about: "random weights, Qwen3-0.6B's shape, Q8_0", kind: Kind::Q8_0 },
];

/// Qwen3-0.6B; its output matrix is its embedding.
pub const QWEN3: Shape =
    Shape { layers: 28, hidden: 1024, intermediate: 3072, heads: 16, kv_heads: 8, head_dim: 128, vocab: 151_936 };

const CONTEXT: u32 = 40_960;
const ROPE_BASE: f32 = 1e6;
const EPSILON: f32 = 1e-6;
/// So that every machine makes the same file.
const SEED: u64 = 0x7177_656e_3300_0600;

impl Shape {
    /// Numbers in the matrices of all layers.
    pub const fn layer_weights(&self) -> u64 {
        let (attended, kept) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        self.layers * self.hidden * (2 * attended + 2 * kept + 3 * self.intermediate)
    }

    /// Numbers in the embedding.
    pub const fn embedding_weights(&self) -> u64 {
        self.vocab * self.hidden
    }
}

impl Random {
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.gguf", self.name))
    }

    /// About what the file takes: the matrices.
    pub fn bytes(&self) -> u64 {
        self.kind.bytes(QWEN3.layer_weights() + QWEN3.embedding_weights())
    }

    pub fn is_there(&self, folder: &Path) -> bool {
        // The vocabulary is the rest. A file gets its name when it is whole.
        self.path(folder).metadata().is_ok_and(|found| found.len() > self.bytes())
    }

    /// Writes the file into `folder` if it isn't there.
    pub fn make(&self, folder: &Path) -> Result<PathBuf> {
        let path = self.path(folder);
        if self.is_there(folder) {
            return Ok(path);
        }
        let _lock = disk::Lock::acquire()?;
        let spinner = progress::spinner(&format!("making {}", self.name));
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let staging = disk::Staging::beside(&path)?;
        let part = staging.path().join("file");
        let written = File::create(&part).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            write(&QWEN3, self.kind, &mut file)?;
            file.into_inner()?.sync_all()
        });
        written.with_context(|| format!("cannot write {}", part.display()))?;
        fs::rename(&part, &path).with_context(|| format!("cannot rename {}", part.display()))?;
        spinner.finish_and_clear();
        Ok(path)
    }
}

/// Where a random model goes unless said otherwise: all in one folder.
pub fn folder() -> PathBuf {
    paths::target().join("models/random")
}

/// The whole file.
fn write(shape: &Shape, kind: Kind, to: &mut impl Write) -> std::io::Result<()> {
    let mut header = Header::default();
    header.text("general.architecture", "qwen3");
    header.text("general.name", "random weights");
    header.unsigned("general.file_type", kind.file_type());
    header.unsigned("general.quantization_version", 2);
    let numbers = [
        ("context_length", CONTEXT),
        ("block_count", shape.layers as u32),
        ("embedding_length", shape.hidden as u32),
        ("feed_forward_length", shape.intermediate as u32),
        ("attention.head_count", shape.heads as u32),
        ("attention.head_count_kv", shape.kv_heads as u32),
        ("attention.key_length", shape.head_dim as u32),
        ("attention.value_length", shape.head_dim as u32),
    ];
    for (key, number) in numbers {
        header.unsigned(&format!("qwen3.{key}"), number);
    }
    header.float("qwen3.rope.freq_base", ROPE_BASE);
    header.float("qwen3.attention.layer_norm_rms_epsilon", EPSILON);
    vocabulary(shape.vocab, &mut header);
    let tensors = tensors(shape, kind);
    for (name, kind, dimensions) in &tensors {
        header.tensor(name, *kind, dimensions);
    }
    header.write(to)?;
    let mut random = SplitMix(SEED);
    for (_, kind, dimensions) in &tensors {
        let elements: u64 = dimensions.iter().product();
        kind.write_random(elements, &mut || random.next(), to)?;
    }
    Ok(())
}

/// Names, kinds and dimensions, the summed one first. No output matrix: that is how a file says that it is the embedding.
fn tensors(shape: &Shape, kind: Kind) -> Vec<(String, Kind, Vec<u64>)> {
    let (attended, kept) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
    let mut all = vec![
        ("token_embd.weight".to_owned(), kind, vec![shape.hidden, shape.vocab]),
        ("output_norm.weight".to_owned(), Kind::Ones, vec![shape.hidden]),
    ];
    for layer in 0..shape.layers {
        let parts = [
            ("attn_norm", Kind::Ones, vec![shape.hidden]),
            ("attn_q", kind, vec![shape.hidden, attended]),
            ("attn_k", kind, vec![shape.hidden, kept]),
            ("attn_v", kind, vec![shape.hidden, kept]),
            ("attn_output", kind, vec![attended, shape.hidden]),
            ("attn_q_norm", Kind::Ones, vec![shape.head_dim]),
            ("attn_k_norm", Kind::Ones, vec![shape.head_dim]),
            ("ffn_norm", Kind::Ones, vec![shape.hidden]),
            ("ffn_gate", kind, vec![shape.hidden, shape.intermediate]),
            ("ffn_up", kind, vec![shape.hidden, shape.intermediate]),
            ("ffn_down", kind, vec![shape.intermediate, shape.hidden]),
        ];
        all.extend(parts.map(|(name, kind, dimensions)| (format!("blk.{layer}.{name}.weight"), kind, dimensions)));
    }
    all
}

/// A token for each byte, one that a merge makes, an end, and as many more as the shape wants.
fn vocabulary(size: u64, header: &mut Header) {
    const NORMAL: i32 = 1;
    const CONTROL: i32 = 3;
    let mut tokens: Vec<String> = byte_alphabet().map(String::from).collect();
    tokens.push("Ġt".into());
    let end = tokens.len();
    tokens.push("<|endoftext|>".into());
    tokens.extend((tokens.len()..size as usize).map(|id| format!("token{id}")));
    let types: Vec<i32> = (0..tokens.len()).map(|id| if id == end { CONTROL } else { NORMAL }).collect();
    header.text("tokenizer.ggml.model", "gpt2");
    header.text("tokenizer.ggml.pre", "qwen2");
    header.texts("tokenizer.ggml.tokens", &tokens);
    header.integers("tokenizer.ggml.token_type", &types);
    header.texts("tokenizer.ggml.merges", &["Ġ t".to_owned()]);
    header.unsigned("tokenizer.ggml.eos_token_id", end as u32);
    header.flag("tokenizer.ggml.add_bos_token", false);
}

/// The character that byte-level BPE writes for each byte: itself if it can be seen, else the next one from U+0100 on.
pub fn byte_alphabet() -> impl Iterator<Item = char> {
    let mut next = 0x100;
    (0..=255).map(move |byte: u32| {
        let shown = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if shown { byte } else { next };
        next += u32::from(!shown);
        char::from_u32(code).expect("below the surrogates")
    })
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: Shape =
        Shape { layers: 2, hidden: 64, intermediate: 96, heads: 2, kv_heads: 1, head_dim: 32, vocab: 304 };

    #[test]
    fn a_file_holds_its_matrices_and_is_the_same_each_time() {
        for kind in [Kind::Q4_0, Kind::Q4_1, Kind::Q8_0] {
            let made = || {
                let mut file = vec![];
                write(&TINY, kind, &mut file).unwrap();
                file
            };
            let file = made();
            assert_eq!(file, made());
            let norms = 4 * (TINY.hidden + TINY.layers * (2 * TINY.hidden + 2 * TINY.head_dim));
            let tensors = kind.bytes(TINY.layer_weights() + TINY.embedding_weights()) + norms;
            let data = file.len() - tensors as usize;
            assert!(data.is_multiple_of(32), "the data of {kind:?} begins at {data}");
            // The first matrix is the embedding, and the norm that follows is ones.
            let norm = data + kind.bytes(TINY.embedding_weights()) as usize;
            assert_eq!(file[norm..norm + 8], [1f32.to_le_bytes(), 1f32.to_le_bytes()].concat(), "{kind:?}");
        }
    }

    #[test]
    fn qwen3_has_as_many_weights_as_its_name_says() {
        assert_eq!(QWEN3.layer_weights() + QWEN3.embedding_weights(), 595_984_384);
    }

    #[test]
    fn every_byte_has_its_own_character() {
        let all: Vec<char> = byte_alphabet().collect();
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (256, 256));
        assert_eq!((all[b' ' as usize], all[b'\n' as usize], all[b'a' as usize]), ('Ġ', 'Ċ', 'a'));
    }
}
