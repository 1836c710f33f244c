//! Checkpoints that are wrong say what is wrong; those that only look odd load.

mod support;

use serde_json::json;
use support::{Reference, Run, edited::Edited, fixture, load};

const UP: &str = "model.layers.1.mlp.up_proj.weight";

/// (what is wrong, fixture, edit, what the message must say)
type Case = (&'static str, &'static str, fn(&mut Edited), &'static [&'static str]);

const REFUSED: &[Case] = &[
    ("a tensor is missing", "llama", |e| e.remove(UP), &[UP]),
    (
        "a bias is missing",
        "llama_bias_rope_linear",
        |e| e.remove("model.layers.0.self_attn.q_proj.bias"),
        &["model.layers.0.self_attn.q_proj.bias"],
    ),
    (
        "a tensor is surplus",
        "llama",
        |e| e.add("model.layers.1.mlp.fourth_proj.weight", UP),
        &["1 tensor", "model.layers.1.mlp.fourth_proj.weight", "LlamaForCausalLM"],
    ),
    (
        "a bias is surplus",
        "llama",
        |e| e.add("model.layers.0.self_attn.q_proj.bias", "model.norm.weight"),
        &["model.layers.0.self_attn.q_proj.bias"],
    ),
    (
        "a layer is surplus",
        "llama",
        |e| e.config["num_hidden_layers"] = json!(1),
        &["9 tensors", "model.layers.1.input_layernorm.weight"],
    ),
    ("a matrix is transposed", "llama", |e| e.shape(UP).reverse(), &[UP, "[64, 80] in file", "[80, 64] wanted"]),
    (
        "a quantized matrix has another shape",
        "qwen3_mlx_4bit",
        |e| e.config["intermediate_size"] = json!(96),
        &["model.layers.0.mlp.gate_proj.weight", "[128, 64] in file", "[96, 64] wanted"],
    ),
    (
        "the vocabulary is larger than the embedding",
        "llama",
        |e| e.config["vocab_size"] = json!(97),
        &["lm_head.weight", "[96, 64] in file", "[97, 64] wanted"],
    ),
    ("the head is missing and not tied", "llama", |e| e.remove("lm_head.weight"), &["lm_head.weight"]),
    (
        "the architecture is unknown",
        "llama",
        |e| e.config["architectures"] = json!(["GrandioseForCausalLM"]),
        &[
            "GrandioseForCausalLM",
            "Gemma3ForCausalLM, LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM",
        ],
    ),
    (
        "RoPE is scaled in a way that depends on the sequence's length",
        "llama",
        |e| e.config["rope_scaling"] = json!({"type": "dynamic", "factor": 2.0}),
        &["rope_scaling", "\"dynamic\" is not supported", "default, linear, llama3, yarn"],
    ),
    (
        "RoPE's scaling lacks its factor",
        "llama",
        |e| e.config["rope_scaling"] = json!({"rope_type": "linear"}),
        &["rope_scaling", "factor is missing"],
    ),
    (
        "RoPE turns a part of each head",
        "llama",
        |e| e.config["partial_rotary_factor"] = json!(0.5),
        &["partial_rotary_factor is 0.5"],
    ),
    ("a key is missing", "llama", |e| e.forget("hidden_size"), &["config.json", "hidden_size"]),
    (
        "a key has the wrong type",
        "llama",
        |e| e.config["hidden_size"] = json!("64"),
        &["config.json", "hidden_size", "\"64\""],
    ),
    (
        "heads do not share evenly",
        "llama",
        |e| e.config["num_key_value_heads"] = json!(3),
        &["num_attention_heads is 4", "num_key_value_heads 3"],
    ),
    ("there are no heads", "llama", |e| e.config["num_attention_heads"] = json!(0), &["num_attention_heads is 0"]),
    ("a head is odd", "llama", |e| e.config["head_dim"] = json!(15), &["head_dim is 15"]),
    (
        "heads do not divide the hidden size",
        "llama",
        |e| {
            e.config["num_attention_heads"] = json!(6);
            e.config["num_key_value_heads"] = json!(2);
        },
        &["hidden_size is 64", "6"],
    ),
    ("the activation is another", "llama", |e| e.config["hidden_act"] = json!("gelu"), &["hidden_act", "gelu", "silu"]),
    (
        "a layer type is unknown",
        "gemma3_layer_types",
        |e| e.config["layer_types"][1] = json!("chunked_attention"),
        &["chunked_attention", "sliding_attention"],
    ),
    (
        "layer types are too few",
        "gemma3_layer_types",
        |e| e.config["layer_types"] = json!(["full_attention"]),
        &["layer_types has 1 entries", "num_hidden_layers is 3"],
    ),
    (
        "a layer slides without a window",
        "gemma3",
        |e| e.config["sliding_window"] = json!(null),
        &["layer 0", "sliding_window is missing"],
    ),
    ("a window is empty", "mistral_window", |e| e.config["sliding_window"] = json!(0), &["sliding_window is 0"]),
    (
        "Gemma 3 with Gemma 2's soft cap",
        "gemma3",
        |e| e.config["attn_logit_softcapping"] = json!(50.0),
        &["attn_logit_softcapping is 50"],
    ),
    (
        "Gemma 3 that looks ahead",
        "gemma3",
        |e| e.config["use_bidirectional_attention"] = json!(true),
        &["use_bidirectional_attention"],
    ),
];

#[test]
fn what_is_wrong_is_named() {
    for (what, name, edit, says) in REFUSED {
        let mut edited = Edited::of(name);
        edit(&mut edited);
        let dir = edited.write();
        let Err(error) = load(dir.path(), 1, None) else { panic!("{what}: was loaded") };
        let message = error.to_string();
        for part in *says {
            assert!(message.contains(part), "{what}: {message:?} does not say {part:?}");
        }
        assert!(!message.contains('\n'), "{what}: {message:?}");
    }
}

/// (what is odd, fixture, edit); the model answers as before.
type Taken = (&'static str, &'static str, fn(&mut Edited));
const TAKEN: &[Taken] = &[
    ("both spellings of RoPE's type", "llama_bias_rope_linear", |e| {
        e.config["rope_scaling"] = json!({"type": "linear", "rope_type": "linear", "factor": 4.0});
    }),
    ("transformers 5's spelling", "llama_rope_llama3", |e| {
        let mut parameters = e.config["rope_scaling"].clone();
        parameters["rope_theta"] = e.config["rope_theta"].clone();
        e.forget("rope_theta");
        e.forget("rope_scaling");
        e.config["rope_parameters"] = parameters;
    }),
    ("frequencies beside the weights, as in Llama 1", "llama", |e| {
        e.add("model.layers.0.self_attn.rotary_emb.inv_freq", "model.norm.weight");
    }),
    ("a tied matrix written twice", "llama_rope_llama3", |e| e.add("lm_head.weight", "model.embed_tokens.weight")),
    ("no word about tying, and a head", "llama", |e| e.forget("tie_word_embeddings")),
    ("no word about tying, and no head", "llama_rope_llama3", |e| e.forget("tie_word_embeddings")),
    ("explicit nulls", "llama", |e| {
        for key in ["head_dim", "rope_scaling", "rope_parameters", "sliding_window", "layer_types"] {
            e.config[key] = json!(null);
        }
    }),
    ("Llama with a window that only Mistral heeds", "llama", |e| e.config["sliding_window"] = json!(8)),
    ("Mistral's windows by layer type", "mistral_window", |e| {
        e.config["layer_types"] = json!(["sliding_attention", "sliding_attention"]);
    }),
    ("Mistral without a window", "llama", |e| {
        e.config["architectures"] = json!(["MistralForCausalLM"]);
        e.config["sliding_window"] = json!(null);
    }),
    ("Gemma's pattern as layer types", "gemma3", |e| {
        e.forget("sliding_window_pattern");
        let [local, global] = ["sliding_attention", "full_attention"];
        e.config["layer_types"] = json!([local, local, global, local]);
    }),
];

#[test]
fn what_is_only_odd_is_taken() {
    for (what, name, edit) in TAKEN {
        let mut edited = Edited::of(name);
        edit(&mut edited);
        let dir = edited.write();
        let reference = Reference::load(&fixture(name));
        let answer = Run::new(dir.path(), 1, 64).greedy(0, reference.prompt(), reference.answer().len());
        let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
        assert_eq!(tokens, reference.answer(), "{what}");
    }
}

#[test]
fn yarn_stretches_the_context_and_a_longer_one_is_refused() {
    let yarn = fixture("qwen3_rope_yarn");
    assert_eq!(load(&yarn, 1, None).unwrap().info().context_length, 256);
    let mut edited = Edited::of("qwen3_rope_yarn");
    edited.config["max_position_embeddings"] = json!(64);
    let stretched = edited.write();
    assert_eq!(load(stretched.path(), 1, None).unwrap().info().context_length, 4 * 64);
    let Err(error) = load(stretched.path(), 1, Some(257)) else { panic!("was loaded") };
    assert!(error.to_string().contains("257"), "{error}");
}
