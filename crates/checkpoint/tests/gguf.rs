//! GGUF files against the reference readers (`fixtures/make_gguf.py`).

mod common;

use common::{expected, fixture, numbers, open, sha256};
use half::f16;
use serde_json::Value;
use vllm_checkpoint::{Checkpoint, Dtype, QuantMode, Storage, TensorData, TokenType, TokenizerSource};

#[test]
fn every_kind_has_the_numbers_of_the_reference() {
    let model = open("kinds.gguf");
    let expected = expected("kinds.safetensors");
    assert_eq!(model.tensor_names().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let layer = |i: usize| format!("model.layers.{i}.mlp.gate_proj.weight");
    // name, what it is, bits (0: dense), type of scales or numbers
    let cases = [
        (layer(0), "Q4_0", 4, Dtype::F16),
        (layer(1), "Q4_1", 4, Dtype::F16),
        (layer(2), "Q5_0", 5, Dtype::F16),
        (layer(3), "Q5_1", 5, Dtype::F16),
        (layer(4), "Q8_0", 8, Dtype::F16),
        (layer(5), "Q4_K", 4, Dtype::F32),
        (layer(6), "Q5_K", 5, Dtype::F32),
        (layer(7), "Q6_K", 0, Dtype::F16),
        (layer(8), "Q4_0 with a bias beyond f16", 4, Dtype::F32),
        (layer(9), "Q5_0 with a bias beyond f16", 5, Dtype::F32),
        (layer(10), "Q8_0 with a bias beyond f16", 8, Dtype::F32),
        (layer(11), "Q6_K with numbers beyond f16", 0, Dtype::F32),
        ("model.embed_tokens.weight".into(), "F32", 0, Dtype::F32),
        ("lm_head.weight".into(), "F16", 0, Dtype::F16),
        ("model.layers.0.mlp.up_proj.weight".into(), "BF16", 0, Dtype::Bf16),
    ];
    assert_eq!(cases.len(), expected.len());
    for (name, kind, bits, dtype) in cases {
        let tensor = model.tensor(&name).unwrap();
        let (shape, wanted) = &expected[&name];
        assert_eq!(tensor.shape(), shape, "{kind}");
        match &tensor {
            TensorData::Quantized(q) => {
                assert_eq!(
                    (q.mode, q.bits, q.group_size, q.scales.dtype),
                    (QuantMode::Affine, bits, 32, dtype),
                    "{kind}"
                );
                assert_eq!(q.packed.shape, [shape[0], shape[1] * usize::from(bits) / 32], "{kind}");
                assert_eq!(q.scales.shape, [shape[0], shape[1] / 32], "{kind}");
            }
            TensorData::Dense(t) => assert_eq!((bits, t.dtype), (0, dtype), "{kind}"),
        }
        // Q6_K is the one kind that is rounded.
        let round = |x: f32| if kind == "Q6_K" { f16::from_f32(x).to_f32() } else { x };
        let wanted: Vec<f32> = wanted.iter().copied().map(round).collect();
        assert_eq!(numbers(&tensor), wanted, "{kind}");
    }
}

#[test]
fn plain_numbers_are_borrowed_and_outlive_the_checkpoint() {
    let model = open("kinds.gguf");
    let TensorData::Dense(tensor) = model.tensor("model.embed_tokens.weight").unwrap() else { panic!("dense") };
    let owner = tensor.owner().expect("F32 is in the file as it is wanted");
    let bytes = tensor.bytes.to_vec();
    let map = owner.downcast_ref::<memmap2::Mmap>().expect("the mapping itself");
    let offset = tensor.bytes.as_ptr().addr() - map.as_ptr().addr();
    drop(model);
    assert_eq!(map[offset..offset + bytes.len()], bytes);
}

#[test]
fn a_released_tensor_reads_the_same_again() {
    for name in ["kinds.gguf", "mlx"] {
        let model = open(name);
        let all = || model.tensor_names().map(|n| format!("{:?}", model.tensor(n).unwrap())).collect::<Vec<_>>();
        let before = all();
        model.tensor_names().for_each(|name| model.release(name));
        assert_eq!(all(), before);
    }
    let model = open("kinds.gguf");
    let name = "model.layers.4.mlp.gate_proj.weight";
    let before = numbers(&model.tensor(name).unwrap());
    model.release(name);
    assert_eq!(numbers(&model.tensor(name).unwrap()), before);
}

#[test]
fn every_family_reads_as_its_hugging_face_original() {
    let families: Value = serde_json::from_slice(&std::fs::read(fixture("families.json")).unwrap()).unwrap();
    for (family, wanted) in families.as_object().unwrap() {
        let model = open(&format!("{family}.gguf"));
        let wanted_tensors = wanted["tensors"].as_object().unwrap();
        let mut wanted_names: Vec<&String> = wanted_tensors.keys().collect();
        wanted_names.sort();
        assert_eq!(model.tensor_names().collect::<Vec<_>>(), wanted_names, "{family}");
        for (name, wanted) in wanted_tensors {
            let tensor = model.tensor(name).unwrap();
            assert_eq!(Value::from(tensor.shape().to_vec()), wanted["shape"], "{family} {name}");
            // Codes that mean zero may give either sign of it; the sums are of positive zeros.
            let bytes: Vec<u8> = numbers(&tensor).into_iter().flat_map(|x| (x + 0.0).to_le_bytes()).collect();
            assert_eq!(sha256(&bytes), wanted["sha256"].as_str().unwrap(), "{family} {name}");
            let spec = model.spec(name).unwrap();
            let storage = match &tensor {
                TensorData::Dense(t) => matches!(spec.storage, Storage::Dense(dtype) if dtype == t.dtype),
                TensorData::Quantized(t) => matches!(spec.storage, Storage::Quantized(q) if q.bits == t.bits),
            };
            assert!(storage && spec.shape == tensor.shape(), "{family} {name}: {spec:?}");
        }
        for (key, wanted) in wanted["config"].as_object().unwrap() {
            let found = &model.config()[key];
            let equal = match (found.as_f64(), wanted.as_f64()) {
                (Some(found), Some(wanted)) => (found - wanted).abs() <= 1e-6 * wanted.abs(),
                _ => found == wanted,
            };
            assert!(equal, "{family} config.{key}: found {found}, wanted {wanted}");
        }
    }
}

#[test]
fn the_text_side_is_read_from_the_metadata() {
    let model = open("llama.gguf");
    let TokenizerSource::Gguf(vocab) = model.tokenizer().unwrap() else { panic!("a GGUF vocabulary") };
    assert_eq!(vocab.tokens, ["<unk>", "<s>", "</s>", "<|im_end|>", "<0x0A>", "a", "b", "ab", "é", "▁a"]);
    assert_eq!(vocab.token_types[..5], [2, 3, 3, 3, 6].map(token_type));
    assert_eq!(
        (vocab.model.as_str(), vocab.pre.as_deref(), &vocab.merges[..]),
        ("gpt2", Some("test"), &["a b".to_owned()][..])
    );
    assert_eq!((vocab.bos_id, vocab.eos_id, vocab.unk_id, vocab.pad_id), (Some(1), Some(2), Some(0), None));
    assert_eq!((vocab.add_bos, vocab.add_eos), (Some(true), None));

    let special = model.special_tokens();
    assert_eq!(special.bos.and_then(|bos| bos.text).as_deref(), Some("<s>"));
    assert_eq!(special.eos_ids, [2, 3], "the named end, then the known end of a turn");
    assert_eq!(model.generation_config().unwrap()["eos_token_id"], serde_json::json!([2, 3]));

    assert_eq!(model.chat_template().unwrap().as_deref(), Some("D {{ messages }}"));
    assert_eq!(model.chat_templates().unwrap()["tool_use"], "T");
}

fn token_type(number: u8) -> TokenType {
    match number {
        2 => TokenType::Unknown,
        3 => TokenType::Control,
        _ => TokenType::Byte,
    }
}

#[test]
fn a_folder_with_one_gguf_file_is_that_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("qwen3.gguf"), folder.path().join("a.gguf")).unwrap();
    assert_eq!(Checkpoint::open(folder.path()).unwrap().architecture().unwrap(), "Qwen3ForCausalLM");
    std::fs::copy(fixture("qwen3.gguf"), folder.path().join("b.gguf")).unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err().to_string();
    assert!(error.ends_with("holds several GGUF files, give one of them: a.gguf, b.gguf"), "{error}");
}
