//! The same checkpoints as each tool writes them, and configurations that are refused.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{
    Reference, encoder,
    sequences::{Run, edited::Edited, fixture, load},
};

/// Gives tensors other beginnings; the first that fits counts.
fn rename(edited: &mut Edited, beginnings: &[(&str, &str)]) {
    let tensors = std::mem::take(&mut edited.tensors);
    let renamed = |name: String| {
        let fits = beginnings.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
        fits.unwrap_or(name)
    };
    edited.tensors = tensors.into_iter().map(|(name, tensor)| (renamed(name), tensor)).collect();
}

/// Transformers 5 with `save_original_format=False`: both parts under `model`, the language part's configuration apart and its rotary
/// embedding spelled anew, defaults written out.
fn as_transformers_5(edited: &mut Edited) {
    rename(edited, &[("model.", "model.language_model."), ("visual.", "model.visual.")]);
    let config = edited.config.as_object_mut().unwrap();
    let outside = ["architectures", "model_type", "tie_word_embeddings", "vision_config", "image_token_id"];
    let (mut text, mut root) = (serde_json::Map::new(), serde_json::Map::new());
    for (key, value) in std::mem::take(config) {
        if outside.contains(&key.as_str()) { &mut root } else { &mut text }.insert(key, value);
    }
    let (theta, mut rope) = (text.remove("rope_theta").unwrap(), text.remove("rope_scaling").unwrap());
    rope["rope_theta"] = theta;
    rope["rope_type"] = json!("default");
    text.insert("rope_parameters".into(), rope);
    text.insert("sliding_window".into(), Value::Null);
    text.insert("layer_types".into(), json!(["full_attention", "full_attention"]));
    root.insert("text_config".into(), text.into());
    let vision = &mut root["vision_config"];
    vision["in_channels"] = json!(3);
    vision["rope_parameters"] = json!({"rope_theta": 10000.0, "rope_type": "axial"});
    edited.config = root.into();
}

/// mlx-vlm's converter: the convolution's channels last.
fn as_mlx(edited: &mut Edited) {
    rename(
        edited,
        &[
            ("model.language_model.", "language_model.model."),
            ("model.visual.", "vision_tower."),
            ("visual.", "vision_tower."),
            ("model.", "language_model.model."),
            ("lm_head.", "language_model.lm_head."),
        ],
    );
    let (_, shape, bytes) = edited.tensors.get_mut("vision_tower.patch_embed.proj.weight").unwrap();
    let (outputs, channels, rest) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
    let at = |output: usize, i: usize, channel: usize| (output * channels + channel) * rest + i;
    let order = (0..outputs).flat_map(|o| (0..rest).flat_map(move |i| (0..channels).map(move |c| at(o, i, c))));
    *bytes = order.flat_map(|number| [bytes[2 * number], bytes[2 * number + 1]]).collect();
    shape[1..].rotate_left(1);
}

fn assert_answers(path: &Path, reference: &Reference, what: &str) {
    let features = encoder(path).unwrap_or_else(|e| panic!("{what}: {e}"));
    let features = { features }.encode(&reference.pictures, &mut || {}).unwrap();
    let (features, mut run) = (features.into(), Run::exact(path, 1, 96));
    for case in &reference.cases {
        run.restart(0);
        run.show(0, case.media(&features));
        let answer = run.greedy(0, case.prompt(), case.answer().len());
        let tokens: Vec<_> = answer.iter().map(|s| s.token).collect();
        assert_eq!(tokens, case.answer(), "{what}, {}", case.name);
    }
}

type Edit = fn(&mut Edited);

#[test]
fn layouts() {
    let cases: [(&str, &str, Edit); 6] = [
        ("transformers 5", "qwen2_vl", as_transformers_5),
        ("transformers 5", "qwen2_5_vl", as_transformers_5),
        ("MLX", "qwen2_5_vl", as_mlx),
        ("MLX", "qwen3_vl", as_mlx),
        ("MLX's of a file that says nothing of turns", "qwen3_vl", |e| {
            as_mlx(e);
            e.config["text_config"]["rope_scaling"] = json!({"type": "default", "mrope_section": [4, 2, 2]});
        }),
        ("tied by the inner configuration alone", "qwen2_5_vl", |e| {
            as_transformers_5(e);
            e.config["tie_word_embeddings"] = json!(false);
            e.config["text_config"]["tie_word_embeddings"] = json!(true);
        }),
    ];
    for (what, name, edit) in cases {
        let mut edited = Edited::of(name);
        edit(&mut edited);
        assert_answers(edited.write().path(), &Reference::load(&fixture(name)), &format!("{name} as {what}"));
    }
}

/// (what is wrong, fixture, edit, what the message must say)
type Case = (&'static str, &'static str, Edit, &'static str);

#[test]
fn refused_encoders() {
    let cases: [Case; 8] = [
        ("a tensor is missing", "qwen2_vl", |e| e.remove("visual.merger.mlp.0.bias"), "vision.merger.mlp.0.bias"),
        (
            "a tensor is surplus",
            "qwen2_5_vl",
            |e| e.add("visual.blocks.0.norm3.weight", "visual.blocks.0.norm1.weight"),
            "vision.blocks.0.norm3.weight",
        ),
        (
            "a convolution of another size",
            "qwen3_vl",
            |e| e.config["vision_config"]["patch_size"] = json!(8),
            "[16, 3, 2, 8, 8]",
        ),
        (
            "windows smaller than a token",
            "qwen2_5_vl",
            |e| e.config["vision_config"]["window_size"] = json!(7),
            "window_size is 7",
        ),
        (
            "heads that don't divide",
            "qwen2_vl",
            |e| e.config["vision_config"]["num_heads"] = json!(5),
            "24 elements in 5 heads",
        ),
        (
            "heads without two axes",
            "qwen2_vl",
            |e| e.config["vision_config"]["num_heads"] = json!(4),
            "a multiple of 4",
        ),
        (
            "an output after a block that there isn't",
            "qwen3_vl",
            |e| e.config["vision_config"]["deepstack_visual_indexes"] = json!([1, 3]),
            "no block 3 of 3",
        ),
        (
            "positions of no square",
            "qwen3_vl",
            |e| e.config["vision_config"]["num_position_embeddings"] = json!(24),
            "num_position_embeddings is 24",
        ),
    ];
    for (what, name, edit, wanted) in cases {
        let mut edited = Edited::of(name);
        edit(&mut edited);
        let error = encoder(edited.write().path()).map(drop).expect_err(what).to_string();
        assert!(error.contains(wanted), "{what}: {error}");
    }
}

#[test]
fn refused_language_parts() {
    let cases: [Case; 3] = [
        ("no sections", "qwen2_vl", |e| e.forget("rope_scaling"), "mrope_section is missing"),
        (
            "levels unknown",
            "qwen3_vl",
            |e| drop(e.config["vision_config"].as_object_mut().unwrap().remove("deepstack_visual_indexes")),
            "deepstack_visual_indexes is missing",
        ),
        (
            "experts of another size",
            "qwen3_vl_moe",
            |e| e.config["text_config"]["moe_intermediate_size"] = json!(16),
            "model.layers.0.mlp.experts.gate_up_proj",
        ),
    ];
    for (what, name, edit, wanted) in cases {
        let mut edited = Edited::of(name);
        edit(&mut edited);
        let error = load(edited.write().path(), 1, None).map(drop).expect_err(what).to_string();
        assert!(error.contains(wanted), "{what}: {error}");
    }
}
