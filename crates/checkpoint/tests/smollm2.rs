//! A real model: SmolLM2-135M-Instruct, Q4_1 with a Q8_0 embedding, against the reference converter's MLX folder.

mod common;

use std::path::Path;

use common::{floats, sha256};
use sha2::{Digest, Sha256};
use vllm_checkpoint::{Checkpoint, TensorData, TokenizerSource};

fn smollm2() -> Checkpoint {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is not there; run `cargo xtask models fetch smollm2` first", path.display());
    Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// The bytes of a weight's parts, scales and other floats widened to f32: what the reference converter wrote.
fn parts(tensor: &TensorData<'_>) -> Vec<Vec<u8>> {
    let wide = |numbers: Vec<f32>| numbers.into_iter().flat_map(f32::to_le_bytes).collect();
    match tensor {
        TensorData::Dense(t) => vec![wide(floats(t))],
        TensorData::Quantized(t) => {
            vec![t.packed.bytes.to_vec(), wide(floats(&t.scales)), wide(floats(t.biases.as_ref().unwrap()))]
        }
    }
}

#[test]
fn every_weight_is_the_reference_converters() {
    let model = smollm2();
    let cases = [
        (
            "model.embed_tokens.weight",
            [
                "e0c48894ac1ba693ce382d1a23c1331817ef330ce4a5f9d232c6017b96bd8413",
                "bcadb27eff814b618c6c37eec7d5e08571e0c0990e3d4d7204681fcb3fb37c35",
                "e8b702c4d71c067dd3d81c94c2c78645b68e5ea890653dd0f15e600c9a936e60",
            ]
            .as_slice(),
        ),
        (
            "model.layers.0.self_attn.q_proj.weight",
            &[
                "3b596e3a2c22a523ffd8f08945d07ec02cb2a747e745e99d52e138396b1004b0",
                "f5ddda076171f3bac980d55c60e9474e8e54413f9cff9342165dc6c3b9aa163a",
                "f152010c7cb456f2efbe6ebef29ff47bad9510c62469703ae7de73af16ee57a4",
            ],
        ),
        (
            "model.layers.29.mlp.down_proj.weight",
            &[
                "7539a9484a76e6d62d383fe18ec09516c110a51d3bdab0b137d2d03294561d51",
                "26db2490376f37d2dd29f0063931838e6c0610f650f69e95fcfe67e381a2695e",
                "3e63f7962ca22347ead444bca4a9d738726e9d863a60f6a6335473255ebb5f25",
            ],
        ),
        ("model.norm.weight", &["3b87f8e27335e67fc08f159cabfd2d18f205d6c5b225a6f978153552bf01d559"]),
    ];
    for (name, wanted) in cases {
        let found: Vec<String> = parts(&model.tensor(name).unwrap()).iter().map(|part| sha256(part)).collect();
        assert_eq!(found, wanted, "{name}");
    }
    let mut all = Sha256::new();
    for name in model.tensor_names() {
        all.update(name);
        parts(&model.tensor(name).unwrap()).iter().for_each(|part| all.update(part));
    }
    let all: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        all, "b7fd8c65ce4561b762ef195cb43ce40f08df84deed4564a487ee1af2d4ce5371",
        "all tensors together, in order of their names"
    );
    assert_eq!(model.tensor_names().count(), 272);
}

#[test]
fn the_configuration_and_the_text_side_are_there() {
    let model = smollm2();
    assert_eq!(model.architecture().unwrap(), "LlamaForCausalLM");
    let config = model.config();
    for (key, wanted) in [
        ("hidden_size", 576.0),
        ("num_hidden_layers", 30.0),
        ("num_attention_heads", 9.0),
        ("num_key_value_heads", 3.0),
        ("head_dim", 64.0),
        ("vocab_size", 49152.0),
        ("rope_theta", 100_000.0),
        ("max_position_embeddings", 8192.0),
    ] {
        assert_eq!(config[key].as_f64(), Some(wanted), "{key}");
    }
    assert_eq!(config["tie_word_embeddings"], true);
    let TokenizerSource::Gguf(vocab) = model.tokenizer().unwrap() else { panic!("a GGUF vocabulary") };
    assert_eq!((vocab.tokens.len(), vocab.merges.len(), vocab.pre.as_deref()), (49152, 48900, Some("smollm")));
    let special = model.special_tokens();
    assert_eq!(special.eos_ids, [2, 0], "<|im_end|> by name, <|endoftext|> by its text");
    assert_eq!(special.add_bos, Some(false));
    assert!(model.chat_template().unwrap().unwrap().contains("<|im_start|>"));
}
