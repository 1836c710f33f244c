//! Folders of safetensors: MLX-quantized (against MLX's own `dequantize`), sharded, and the text files beside them.

mod common;

use std::fs;
use std::path::Path;

use common::{dequantize, expected, open, safetensors_bytes};
use serde_json::json;
use vllm_checkpoint::{Checkpoint, Dtype, Error, QuantMode, Storage, TensorData, TokenizerSource};

#[test]
fn affine_weights_have_the_numbers_of_mlx() {
    let model = open("mlx");
    for (name, (shape, wanted)) in expected("mlx.safetensors") {
        let TensorData::Quantized(q) = model.tensor(&format!("{name}.weight")).unwrap() else { panic!("{name}") };
        assert_eq!(q.shape, shape, "{name}");
        assert_eq!(dequantize(&q), wanted, "{name}");
    }
}

#[test]
fn each_module_is_quantized_as_config_says() {
    let model = open("mlx");
    let names: Vec<&str> = model.tensor_names().collect();
    let wanted = [
        "affine2.weight",
        "affine3.weight",
        "affine4.weight",
        "affine5.weight",
        "affine6.weight",
        "affine8.weight",
        "mxfp4.weight",
        "mxfp8.weight",
        "norm.weight",
        "nvfp4.weight",
        "plain.scales",
        "plain.weight",
    ];
    assert_eq!(names, wanted, "scales and biases belong to their weights; an exempt module's tensors are plain");
    let cases = [
        ("affine4", QuantMode::Affine, 4, 64, Dtype::F32, &[2, 3, 128][..]),
        ("affine5", QuantMode::Affine, 5, 32, Dtype::F32, &[3, 128]),
        ("affine8", QuantMode::Affine, 8, 128, Dtype::F16, &[3, 128]),
        ("mxfp4", QuantMode::Mxfp4, 4, 32, Dtype::U8, &[3, 128]),
        ("mxfp8", QuantMode::Mxfp8, 8, 32, Dtype::U8, &[3, 128]),
        ("nvfp4", QuantMode::Nvfp4, 4, 16, Dtype::U8, &[3, 128]),
    ];
    for (name, mode, bits, group_size, scales, shape) in cases {
        let weight = format!("{name}.weight");
        let TensorData::Quantized(q) = model.tensor(&weight).unwrap() else { panic!("{name} is quantized") };
        assert_eq!((q.mode, q.bits, q.group_size, q.scales.dtype), (mode, bits, group_size, scales), "{name}");
        assert_eq!((&q.shape[..], q.biases.is_some()), (shape, mode == QuantMode::Affine), "{name}");
        assert!(q.packed.owner().is_some(), "{name} is borrowed from the file");
        let spec = model.spec(&weight).unwrap();
        assert_eq!((&spec.shape[..], matches!(spec.storage, Storage::Quantized(_))), (shape, true), "{name}");
        let bytes = q.packed.bytes.len() + q.scales.bytes.len() + q.biases.map_or(0, |b| b.bytes.len());
        assert_eq!(spec.file_bytes, bytes as u64, "{name}");
    }
    assert!(matches!(model.tensor("plain.weight").unwrap(), TensorData::Dense(_)));
}

#[test]
fn a_missing_tensor_is_told_with_its_neighbours() {
    let error = open("mlx").tensor("afine4.weight").unwrap_err();
    let Error::MissingTensor { nearest, .. } = &error else { panic!("{error:?}") };
    assert_eq!(nearest[0], "affine4.weight");
}

/// A folder with a config.json and whatever `files` adds.
fn folder(config: &serde_json::Value, files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    folder
}

fn weights(name: &str, value: u8) -> Vec<u8> {
    safetensors_bytes(&[(name, "U8", &[1], vec![value])])
}

fn names(path: &Path) -> Vec<String> {
    Checkpoint::open(path).unwrap_or_else(|e| panic!("{e}")).tensor_names().map(str::to_owned).collect()
}

#[test]
fn shards_are_found_by_index_or_by_name() {
    let index =
        json!({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}});
    let shards = || {
        vec![
            ("model-00001-of-00002.safetensors", weights("a", 1)),
            ("model-00002-of-00002.safetensors", weights("b", 2)),
            ("consolidated.safetensors", weights("c", 3)),
        ]
    };
    let mut indexed = shards();
    indexed.push(("model.safetensors.index.json", index.to_string().into_bytes()));
    let config = json!({"architectures": ["X"]});
    assert_eq!(names(folder(&config, &indexed).path()), ["a", "b"], "by index");
    assert_eq!(names(folder(&config, &shards()).path()), ["a", "b"], "model*.safetensors before others");
    let old = [("weights.00.safetensors", weights("x", 1)), ("weights.01.safetensors", weights("y", 1))];
    assert_eq!(names(folder(&config, &old).path()), ["x", "y"], "any *.safetensors");
}

#[test]
fn parts_of_a_quantized_weight_must_fit() {
    let config = json!({"architectures": ["X"], "quantization": {"group_size": 32, "bits": 4}});
    let scales = |groups: usize| ("m.scales", "F32", [2, groups], vec![0; 8 * groups]);
    let biases = ("m.biases", "F32", [2, 2], vec![0; 16]);
    let words = |n: usize| ("m.weight", "U32", [2, n], vec![0; 8 * n]);
    let cases = [
        ("sound", vec![words(8), scales(2), biases.clone()], None),
        (
            "scales of another length",
            vec![words(8), scales(3), biases.clone()],
            Some("scales have shape [2, 3], wanted [2, 2]"),
        ),
        (
            "no words of an absurd shape",
            vec![("m.weight", "U32", [0, 1 << 62], vec![]), scales(2), biases.clone()],
            Some("do not hold whole groups"),
        ),
        ("words that hold no whole group", vec![words(7), scales(2), biases.clone()], Some("do not hold whole groups")),
        (
            "codes that are not words",
            vec![("m.weight", "F32", [2, 8], vec![0; 64]), scales(2), biases.clone()],
            Some("should be U32 words, found F32"),
        ),
        ("no biases", vec![words(8), scales(2)], Some("no tensor `m.biases`")),
        (
            "scales of a wrong type",
            vec![words(8), ("m.scales", "U8", [2, 2], vec![0; 4]), biases],
            Some("scales are U8, wanted F32, F16 or BF16"),
        ),
    ];
    for (case, tensors, wanted) in cases {
        let tensors: Vec<_> = tensors.iter().map(|(n, d, s, b)| (*n, *d, &s[..], b.clone())).collect();
        let folder = folder(&config, &[("model.safetensors", safetensors_bytes(&tensors))]);
        let model = Checkpoint::open(folder.path()).unwrap();
        let found = model.tensor("m.weight").map(drop).map_err(|e| e.to_string());
        match (wanted, found) {
            (None, found) => assert_eq!(found, Ok(()), "{case}"),
            (Some(wanted), Err(error)) => {
                assert!(error.contains(wanted) && error.contains(folder.path().to_str().unwrap()), "{case}: {error}");
            }
            (Some(_), Ok(())) => panic!("{case} was accepted"),
        }
    }
}

#[test]
fn special_tokens_come_from_every_file_that_names_them() {
    let tokenizer = json!({"model": {}, "added_tokens": [{"id": 1, "content": "<s>"}, {"id": 2, "content": "</s>"}, {"id": 7, "content": "<pad>"}]});
    let cases = [
        (
            "texts in tokenizer_config.json, ids in tokenizer.json",
            json!({}),
            vec![
                (
                    "tokenizer_config.json",
                    json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true}),
                ),
                ("tokenizer.json", tokenizer.clone()),
                ("generation_config.json", json!({"eos_token_id": [9, 2]})),
            ],
            (Some("<s>"), Some(1), Some("</s>"), vec![9, 2], Some(true)),
        ),
        (
            "ids in added_tokens_decoder",
            json!({"eos_token_id": 5}),
            vec![(
                "tokenizer_config.json",
                json!({"eos_token": "</s>", "added_tokens_decoder": {"6": {"content": "</s>"}}}),
            )],
            (None, None, Some("</s>"), vec![5, 6], None),
        ),
        (
            "ids in config.json only",
            json!({"bos_token_id": 1, "eos_token_id": [2]}),
            vec![("tokenizer.json", tokenizer.clone())],
            (Some("<s>"), Some(1), Some("</s>"), vec![2], None),
        ),
        (
            "special_tokens_map.json",
            json!({}),
            vec![("special_tokens_map.json", json!({"bos_token": "<s>"})), ("tokenizer.json", tokenizer)],
            (Some("<s>"), Some(1), None, vec![], None),
        ),
    ];
    for (case, mut config, files, wanted) in cases {
        config["architectures"] = json!(["X"]);
        let mut files: Vec<_> = files.into_iter().map(|(name, json)| (name, json.to_string().into_bytes())).collect();
        files.push(("model.safetensors", weights("a", 1)));
        let folder = folder(&config, &files);
        let special = Checkpoint::open(folder.path()).unwrap().special_tokens();
        let (bos, eos) = (special.bos.unwrap_or_default(), special.eos.unwrap_or_default());
        let found = (bos.text.as_deref(), bos.id, eos.text.as_deref(), special.eos_ids, special.add_bos);
        assert_eq!(found, wanted, "{case}");
    }
}

#[test]
fn chat_templates_are_found_wherever_they_stand() {
    let named = json!({"chat_template": [{"name": "default", "template": "A"}, {"name": "tool_use", "template": "B"}]});
    type Files = Vec<(&'static str, Vec<u8>)>;
    let cases: [(&str, Files, Option<&str>, usize); 6] = [
        ("none", vec![], None, 0),
        ("a string", vec![("tokenizer_config.json", json!({"chat_template": "A"}).to_string().into())], Some("A"), 1),
        ("a list of named ones", vec![("tokenizer_config.json", named.to_string().into())], Some("A"), 2),
        (
            "a file beats JSON",
            vec![("tokenizer_config.json", named.to_string().into()), ("chat_template.jinja", b"C".into())],
            Some("C"),
            2,
        ),
        (
            "a file of JSON",
            vec![("chat_template.json", json!({"chat_template": "D"}).to_string().into())],
            Some("D"),
            1,
        ),
        (
            "a folder of more",
            vec![("chat_template.jinja", b"E".into()), ("additional_chat_templates/rag.jinja", b"F".into())],
            Some("E"),
            2,
        ),
    ];
    for (case, mut files, wanted, count) in cases {
        files.push(("model.safetensors", weights("a", 1)));
        let folder = folder(&json!({"architectures": ["X"]}), &files);
        let model = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(model.chat_template().unwrap().as_deref(), wanted, "{case}");
        assert_eq!(model.chat_templates().unwrap().len(), count, "{case}");
    }
}

#[test]
fn the_tokenizer_is_tokenizer_json() {
    let files = |name| {
        folder(&json!({"architectures": ["X"]}), &[("model.safetensors", weights("a", 1)), (name, b"{}".into())])
    };
    let with = files("tokenizer.json");
    let wanted = TokenizerSource::Json(with.path().join("tokenizer.json"));
    assert_eq!(Checkpoint::open(with.path()).unwrap().tokenizer().unwrap(), wanted);
    let old = files("tokenizer.model");
    let error = Checkpoint::open(old.path()).unwrap().tokenizer().unwrap_err().to_string();
    assert!(error.contains("no tokenizer.json; tokenizer.model alone is not supported"), "{error}");
}
