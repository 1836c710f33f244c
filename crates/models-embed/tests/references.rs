//! Every family against transformers and sentence-transformers: tiny checkpoints and MiniLM's real weights.

mod support;

use std::path::Path;

use support::{Case, cases, fixture, minilm, relative_error};
use vllm_platform::{
    Activations, DeviceChoice, EncoderInput, EncoderOptions, EncoderOutput, EncoderRunner, EncoderTask, ModelPurpose,
    ModelSource, Platform,
};
use vllm_platform_mlx::MlxPlatform;

/// Of the largest number of a vector, in f32.
const TOLERANCE: f64 = 1e-4;

fn load(path: &Path, task: EncoderTask) -> Box<dyn EncoderRunner> {
    let options = EncoderOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        activations: Activations::F32,
        task,
        ..EncoderOptions::default()
    };
    let source = ModelSource { path: path.to_owned() };
    MlxPlatform.load_encoder(&source, &options, &mut |_, _| ()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn input(case: &Case) -> EncoderInput<'_> {
    EncoderInput { tokens: &case.tokens, types: &case.types }
}

/// Alone, all at once and in another order: always the reference's numbers.
fn assert_answers(name: &str, runner: &mut dyn EncoderRunner, cases: &[Case]) {
    let mut pauses = 0;
    let mut alone = Vec::new();
    for case in cases {
        let vector = runner.encode(&[input(case)], &mut || pauses += 1).expect(name).remove(0);
        let error = relative_error(&vector, &case.vector);
        assert!(error < TOLERANCE, "{name}, {} tokens: {error:.1e}", case.tokens.len());
        alone.push(vector);
    }
    assert!(pauses >= cases.len(), "{name}: a pause a layer");
    let inputs: Vec<_> = cases.iter().rev().map(input).collect();
    let together = runner.encode(&inputs, &mut || ()).expect(name);
    for ((together, alone), case) in together.iter().rev().zip(&alone).zip(cases) {
        assert_eq!(together, alone, "{name}: {} tokens in company", case.tokens.len());
    }
}

#[test]
fn tiny_checkpoints() {
    let embedding = |dimensions, normalized| EncoderOutput::Embedding { dimensions, normalized };
    // (fixture, what it says it is for, what it gives, longest input)
    let fixtures = [
        ("bert_cls", ModelPurpose::Embed, embedding(32, false), 80),
        ("bert_mean", ModelPurpose::Embed, embedding(64, true), 80),
        ("bert_mlx_4bit", ModelPurpose::Embed, embedding(64, true), 80),
        ("xlm_roberta", ModelPurpose::Embed, embedding(32, true), 80),
        ("bert_scores", ModelPurpose::Score, EncoderOutput::Score, 96),
        // Its first position is 2.
        ("xlm_roberta_scores", ModelPurpose::Score, EncoderOutput::Score, 96),
        ("qwen3_embedding", ModelPurpose::Embed, embedding(32, true), 80),
    ];
    for (name, purpose, output, longest) in fixtures {
        let path = fixture(name);
        assert_eq!(MlxPlatform.purpose(&ModelSource { path: path.clone() }), Ok(purpose), "{name}");
        let mut runner = load(&path, EncoderTask::Native);
        assert_eq!((runner.info().output, runner.info().max_input_len), (output, longest), "{name}");
        assert_answers(name, &mut *runner, &cases(&path.join("reference.json")));
    }
}

#[test]
fn a_reranker_that_answers_yes_or_no() {
    let path = fixture("qwen3_reranker");
    assert_eq!(MlxPlatform.purpose(&ModelSource { path: path.clone() }), Ok(ModelPurpose::Generate));
    let tokenizer = vllm_text::Tokenizer::from_json_file(&path.join("tokenizer.json")).unwrap();
    let [yes, no] = ["yes", "no"].map(|answer| tokenizer.token_to_id(answer).unwrap());
    let mut runner = load(&path, EncoderTask::Judge { yes, no });
    assert_eq!(runner.info().output, EncoderOutput::Score);
    assert_answers("qwen3_reranker", &mut *runner, &cases(&path.join("reference.json")));
}

/// all-MiniLM-L6-v2 as sentence-transformers computes it, from the texts' first token to their 256th.
#[test]
fn minilm_has_the_reference_embeddings() {
    let mut runner = load(&minilm(), EncoderTask::Native);
    let info = runner.info();
    assert_eq!(info.output, EncoderOutput::Embedding { dimensions: 384, normalized: true });
    assert_eq!((info.max_input_len, info.vocab_size, info.quantization.as_str()), (256, 30_522, "f32"));
    let cases = cases(&fixture("minilm.json"));
    assert_eq!(cases.iter().map(|case| case.tokens.len()).max(), Some(256));
    assert_answers("minilm", &mut *runner, &cases);
}

/// A call with input of all sorts that no caller should make: an error, and the runner lives on.
#[test]
fn bad_input_is_an_error_and_nothing_more() {
    let path = fixture("bert_mean");
    let mut runner = load(&path, EncoderTask::Native);
    let long = vec![5; 81];
    // (name, tokens, types, what the error says)
    let bad: [(&str, &[u32], &[u32], &str); 5] = [
        ("nothing", &[], &[], "no tokens"),
        ("too long", &long, &[], "81 tokens, the model takes 80"),
        ("no such token", &[5, 200], &[], "token 200 is beyond the vocabulary of 200"),
        ("types of others", &[5, 6], &[0], "1 types for 2 tokens"),
        ("no such type", &[5, 6], &[0, 2], "token 2 is beyond the vocabulary of 2"),
    ];
    for (name, tokens, types, wanted) in bad {
        let error = runner.encode(&[EncoderInput { tokens, types }], &mut || ()).expect_err(name).to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    assert_eq!(runner.encode(&[], &mut || ()), Ok(Vec::new()));
    assert_answers("afterwards", &mut *runner, &cases(&path.join("reference.json")));
}
