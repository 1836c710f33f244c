//! Damaged, hostile and misplaced files: each is one clear line that names the file, and never a panic.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{fixture, safetensors_bytes};
use proptest::prelude::*;
use serde_json::json;
use vllm_checkpoint::Checkpoint;

/// The message of opening `path`, which must fail in one line naming `file`.
fn refusal(path: &Path, file: &Path, case: &str) -> String {
    let error = Checkpoint::open(path).and_then(|model| model.architecture().map(drop)).expect_err(case).to_string();
    assert!(error.starts_with(file.to_str().unwrap()), "{case}: `{error}` does not begin with {}", file.display());
    assert_eq!(error.lines().count(), 1, "{case}: {error}");
    error
}

#[test]
fn folders_that_are_not_models() {
    let sound = safetensors_bytes(&[("a", "U8", &[1], vec![1])]);
    let config = br#"{"architectures": ["X"]}"#.to_vec();
    let index = |map: serde_json::Value| json!({ "weight_map": map }).to_string().into_bytes();
    type Case = (&'static str, Vec<(&'static str, Vec<u8>)>, &'static str, &'static str);
    let cases: Vec<Case> = vec![
        ("an empty folder", vec![], "", "no config.json; a model folder holds config.json"),
        ("no config.json", vec![("model.safetensors", sound.clone())], "", "no config.json"),
        ("no weights", vec![("config.json", config.clone())], "", "no *.safetensors"),
        (
            "PyTorch weights",
            vec![("config.json", config.clone()), ("pytorch_model.bin", vec![1])],
            "",
            "pytorch_model.bin must be converted",
        ),
        (
            "config.json that is not JSON",
            vec![("config.json", b"{\"a\": ".to_vec())],
            "config.json",
            "not valid JSON: EOF",
        ),
        ("config.json that is a list", vec![("config.json", b"[]".to_vec())], "config.json", "must hold a JSON object"),
        (
            "no architectures",
            vec![("config.json", b"{}".to_vec()), ("model.safetensors", sound.clone())],
            "config.json",
            "has no `architectures`",
        ),
        (
            "an empty file of weights",
            vec![("config.json", config.clone()), ("model.safetensors", vec![])],
            "model.safetensors",
            "the file is empty",
        ),
        (
            "a shard that is not there",
            vec![
                ("config.json", config.clone()),
                ("model.safetensors.index.json", index(json!({"a": "model-1.safetensors"}))),
            ],
            "model.safetensors.index.json",
            "names model-1.safetensors, which is not in the folder",
        ),
        (
            "an index that leads out of the folder",
            vec![
                ("config.json", config.clone()),
                ("model.safetensors.index.json", index(json!({"a": "../model.safetensors"}))),
            ],
            "model.safetensors.index.json",
            "has no `weight_map`",
        ),
        (
            "a tensor in two files",
            vec![
                ("config.json", config.clone()),
                ("model-1.safetensors", sound.clone()),
                ("model-2.safetensors", sound.clone()),
            ],
            "model-2.safetensors",
            "tensor a is also in ",
        ),
        (
            "another quantizer",
            vec![
                (
                    "config.json",
                    json!({"architectures": ["X"], "quantization_config": {"quant_method": "awq"}}).to_string().into(),
                ),
                ("model.safetensors", sound),
            ],
            "config.json",
            "quantized by \"awq\", which is not supported",
        ),
    ];
    for (case, files, blamed, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        let blamed = if blamed.is_empty() { folder.path().to_owned() } else { folder.path().join(blamed) };
        let error = refusal(folder.path(), &blamed, case);
        assert!(error.contains(wanted), "{case}: {error}");
    }
    let nowhere = PathBuf::from("/no/such/model");
    assert!(refusal(&nowhere, &nowhere, "a path that is not there").contains("No such file"));
}

#[test]
fn damaged_safetensors() {
    let sound = safetensors_bytes(&[("a", "F32", &[2, 2], vec![0; 16]), ("b", "U8", &[3], vec![0; 3])]);
    let header = |text: &str| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 64]].concat();
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        header(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#))
    };
    let cases = [
        ("cut in the header", sound[..20].to_vec(), "truncated, or not a safetensors file: the header should have"),
        ("cut in the data", sound[..sound.len() - 5].to_vec(), "truncated: an offset lies beyond the end of the file"),
        ("bytes to spare", [&sound[..], b"junk"].concat(), "damaged; the header describes"),
        ("a few bytes", vec![1, 2, 3], "too short for a header"),
        ("a picture", b"\x89PNG\r\n\x1a\n and so on and so on".to_vec(), "not a safetensors file"),
        (
            "a header of 2^63 bytes",
            [&(1u64 << 63).to_le_bytes()[..], &[0; 100]].concat(),
            "announce a header of 9223372036854775808",
        ),
        ("a header that is not JSON", header("{{{{"), "not valid JSON"),
        ("an offset far away", tensor("F32", "[4]", "[0,1000000000000]"), "data_offsets do not fit its shape"),
        ("data beyond the end", tensor("U8", "[1000]", "[0,1000]"), "truncated: an offset lies beyond the end"),
        ("offsets that run backwards", tensor("U8", "[4]", "[8,4]"), "run backwards"),
        ("a shape that does not fit", tensor("F32", "[5]", "[0,64]"), "do not fit its shape and element type"),
        (
            "an absurd shape",
            tensor("F32", "[4294967296,4294967296,4294967296]", "[0,64]"),
            "not a sound safetensors file",
        ),
        ("an unknown element type", tensor("F7", "[64]", "[0,64]"), "not valid JSON"),
    ];
    for (case, bytes, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), br#"{"architectures": ["X"]}"#).unwrap();
        let file = folder.path().join("model.safetensors");
        fs::write(&file, bytes).unwrap();
        let error = refusal(folder.path(), &file, case);
        assert!(error.contains(wanted), "{case}: {error}");
    }
    let file = fixture("mlx.safetensors");
    assert!(refusal(&file, &file, "weights alone").contains("give the folder that holds config.json"));
}

/// Parts of a GGUF header.
fn text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

fn tensor(name: &str, dimensions: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = [&text(name)[..], &(dimensions.len() as u32).to_le_bytes()].concat();
    dimensions.iter().for_each(|d| bytes.extend(d.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn gguf(version: u32, metadata: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let counts = [tensors.len() as u64, metadata.len() as u64];
    let mut bytes = [b"GGUF", &version.to_le_bytes()[..]].concat();
    counts.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
    bytes.extend(metadata.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + 256, 0);
    bytes
}

#[test]
fn damaged_gguf() {
    let sound = fs::read(fixture("llama.gguf")).unwrap();
    let llama = || entry("general.architecture", 8, &text("llama"));
    let with_tensor = |tensor: Vec<u8>| gguf(3, &[llama()], &[tensor]);
    let counts = |tensors: u64, metadata: u64| {
        [b"GGUF", &3u32.to_le_bytes()[..], &tensors.to_le_bytes(), &metadata.to_le_bytes(), &[0; 64]].concat()
    };
    let array = |kind: u32, length: u64| [&kind.to_le_bytes()[..], &length.to_le_bytes()].concat();
    let huge = 1u64 << 45;
    let cases = [
        ("cut in the header", sound[..300].to_vec(), "truncated or damaged"),
        ("cut in the data", sound[..sound.len() - 64].to_vec(), "beyond the end of the file"),
        ("another magic", b"GGML and more".to_vec(), "not a GGUF file: it starts with GGML"),
        ("a zip file", b"PK\x03\x04 and more".to_vec(), "it starts with PK\\x03\\x04"),
        ("an empty file", vec![], "the file is empty"),
        ("two bytes", b"GG".to_vec(), "truncated or damaged: the magic"),
        ("version 1", gguf(1, &[], &[]), "version 1 is not supported"),
        ("version 9", gguf(9, &[], &[]), "version 9 is not supported"),
        ("big-endian", gguf(3u32.swap_bytes(), &[], &[]), "big-endian"),
        ("2^64 - 1 tensors", counts(u64::MAX, 0), "truncated or damaged: tensor `` (2 of 18446744073709551615)"),
        ("2^64 - 1 metadata entries", counts(0, u64::MAX), "metadata key `` appears twice"),
        ("no architecture", gguf(3, &[], &[]), "no general.architecture"),
        (
            "an unknown architecture",
            gguf(3, &[entry("general.architecture", 8, &text("rwkv7"))], &[]),
            "architecture rwkv7 is not known; known are llama, qwen2, qwen3, gemma3",
        ),
        ("a key of 2^45 bytes", gguf(3, &[huge.to_le_bytes().to_vec()], &[]), "needs 35184372088832 bytes"),
        ("a string of 2^45 bytes", gguf(3, &[entry("k", 8, &huge.to_le_bytes())], &[]), "the value of k at byte"),
        (
            "an array of 2^45 numbers",
            gguf(3, &[entry("k", 9, &array(4, huge))], &[]),
            "truncated or damaged: the value of k",
        ),
        ("an array of 2^62 numbers", gguf(3, &[entry("k", 9, &array(12, 1 << 62))], &[]), "which is absurd"),
        (
            "an array of 2^45 strings",
            gguf(3, &[entry("k", 9, &array(8, huge))], &[]),
            "truncated or damaged: the value of k",
        ),
        ("arrays of arrays", gguf(3, &[entry("k", 9, &array(9, 1))], &[]), "array of arrays"),
        ("an unknown type", gguf(3, &[entry("k", 77, &[])], &[]), "the value of k has unknown type 77"),
        ("a key twice", gguf(3, &[llama(), llama()], &[]), "appears twice"),
        (
            "an odd alignment",
            gguf(3, &[llama(), entry("general.alignment", 4, &7u32.to_le_bytes())], &[]),
            "wanted a power of two",
        ),
        (
            "a tensor twice",
            gguf(3, &[llama()], &[tensor("t", &[8], 0, 0), tensor("t", &[8], 0, 0)]),
            "tensor t appears twice",
        ),
        ("an offset beyond the file", with_tensor(tensor("t", &[8], 0, 4096)), "tensor t: ends at byte"),
        ("an offset that overflows", with_tensor(tensor("t", &[8], 0, u64::MAX - 31)), "are absurd"),
        ("an odd offset", with_tensor(tensor("t", &[8], 0, 5)), "offset 5 is not a multiple"),
        ("dimensions that overflow", with_tensor(tensor("t", &[1 << 40, 1 << 40], 0, 0)), "are absurd"),
        ("a dimension of zero", with_tensor(tensor("t", &[8, 0], 0, 0)), "hold a zero"),
        ("five dimensions", with_tensor(tensor("t", &[1; 5], 0, 0)), "has 5 dimensions"),
        ("half a block", with_tensor(tensor("t", &[40], 8, 0)), "do not hold whole Q8_0 blocks of 32"),
        (
            "a kind we don't read",
            with_tensor(tensor("t", &[256], 10, 0)),
            "GGML type 10 (Q2_K) is not supported; supported are",
        ),
        ("a kind nobody knows", with_tensor(tensor("t", &[256], 999, 0)), "GGML type 999 (unknown)"),
        ("no hyperparameters", gguf(3, &[llama()], &[]), "metadata has no llama.embedding_length"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (case, bytes, wanted) in cases {
        let file = folder.path().join("model.gguf");
        fs::write(&file, bytes).unwrap();
        let error = refusal(&file, &file, case);
        assert!(error.contains(wanted), "{case}: {error}");
    }
}

/// Opens the file and reads everything in it; only panics and aborts are failures.
fn read_everything(path: &Path) {
    let Ok(model) = Checkpoint::open(path) else { return };
    let names: Vec<&str> = model.tensor_names().collect();
    for name in names {
        if let Ok(spec) = model.spec(name)
            && let Ok(tensor) = model.tensor(name)
        {
            assert_eq!(spec.shape, tensor.shape(), "{name}");
        }
        model.release(name);
    }
    drop((model.architecture().map(drop), model.tokenizer(), model.chat_template(), model.special_tokens()));
}

/// A few bytes changed, at any place or among the lengths at the front, and perhaps the end cut off.
fn mutated(sound: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let length = sound.len();
    let place = prop_oneof![0..length, 0..length.min(64), 0..length.min(2048)];
    let value = prop_oneof![any::<u8>(), Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)];
    let cut = prop_oneof![3 => Just(length), 1 => 0..length];
    (prop::collection::vec((place, value, 1..9usize), 1..6), cut).prop_map(move |(changes, cut)| {
        let mut bytes = sound.clone();
        for (at, value, run) in changes {
            let end = (at + run).min(length);
            bytes[at..end].fill(value);
        }
        bytes.truncate(cut);
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_gguf_never_panics(bytes in prop::sample::select(vec!["llama.gguf", "gemma3.gguf", "kinds.gguf"])
        .prop_flat_map(|name| mutated(fs::read(fixture(name)).unwrap())))
    {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.gguf");
        fs::write(&file, bytes).unwrap();
        read_everything(&file);
    }

    #[test]
    fn mutated_safetensors_never_panic(bytes in mutated(fs::read(fixture("mlx/model.safetensors")).unwrap())) {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(fixture("mlx/config.json"), folder.path().join("config.json")).unwrap();
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        read_everything(folder.path());
    }

    #[test]
    fn mutated_config_never_panics(bytes in mutated(fs::read(fixture("mlx/config.json")).unwrap())) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), bytes).unwrap();
        fs::copy(fixture("mlx/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        read_everything(folder.path());
    }
}
