//! What can't be computed is refused in words.

use serde_json::{Value, json};
use vllm_platform::{KvStoreChoice, VisionInput};

use super::{Reference, Seeing, encoder, fixture};
use crate::sequences::{edited::Edited, load};

#[test]
fn configurations() {
    // (fixture, where in config.json, what stands there, error of the eyes)
    let cases: [(&str, &str, Value, &str); 9] = [
        ("gemma3", "/mm_tokens_per_image", json!(16), "mm_tokens_per_image is 16: 6 by 6 patches don't become as many"),
        ("gemma3", "/vision_config/num_attention_heads", json!(5), "32 elements in 5 heads"),
        ("llava_clip", "/vision_feature_layer", json!(-5), "vision_feature_layer is [-5]: the encoder has 3 blocks"),
        ("llava_clip", "/vision_config/model_type", json!("dinov2"), "\"dinov2\"; known are clip_vision_model"),
        ("llava_clip", "/projector_hidden_act", json!("sine"), "\"sine\"; known are gelu"),
        ("llava_siglip", "/vision_feature_select_strategy", json!("default"), "only CLIP has one"),
        ("pixtral", "/vision_config/head_dim", json!(8), "2 heads of 8 elements in a hidden size of 32"),
        ("mistral3", "/vision_feature_layer", json!([-2, -1]), "patches are merged of one block's states"),
        ("smolvlm", "/scale_factor", json!(2), "modality_projection.proj.weight"),
    ];
    for (name, place, value, wanted) in cases {
        let mut edited = Edited::of(name);
        *edited.config.pointer_mut(place).unwrap_or_else(|| panic!("{name}: no {place}")) = value;
        let error = encoder(edited.write().path()).map(drop).expect_err(place).to_string();
        assert!(error.contains(wanted), "{name}, {place}: {error}");
    }
    let mut edited = Edited::of("llava_clip");
    edited.config["text_config"]["model_type"] = "phi3".into();
    let error = load(edited.write().path(), 1, None).map(drop).expect_err("an unknown language model").to_string();
    assert!(error.contains("text_config.model_type is \"phi3\"; known are llama"), "{error}");
}

#[test]
fn pictures() {
    for (name, grid, wanted) in [
        ("gemma3", [6, 5], "a picture of 6 by 5 patches; the model takes 6 by 6"),
        ("llava_clip", [5, 6], "a picture of 5 by 6 patches; the model takes 6 by 6"),
        ("smolvlm", [3, 4], "3 by 4 patches are no blocks of 3 by 3"),
        ("mistral3", [2, 3], "2 by 3 patches are no blocks of 2 by 2"),
    ] {
        let patch_len = Reference::load(name).pictures.patch_len;
        let patches = vec![0.0; grid[0] * grid[1] * patch_len];
        let input = VisionInput { patches, patch_len, grids: vec![grid] };
        let error = encoder(&fixture(name)).unwrap().encode(&input, &mut || {}).expect_err(name).to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
}

#[test]
#[should_panic(expected = "see each other, but the row ends at")]
fn a_step_that_ends_within_a_picture_whose_tokens_see_each_other() {
    let mut seeing = Seeing::new("gemma3", KvStoreChoice::Paged, 1);
    seeing.begin(0, 1);
    let case = &seeing.reference.cases[1];
    let within = case.spans[0][0] + 2;
    seeing.run.step(&[(0, &case.tokens[..within])]);
}
