//! The command line on a real model, and on what isn't one.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use vllm_tests::{binary, run, smollm2};

fn model() -> String {
    smollm2().to_str().expect("a UTF-8 path").into()
}

#[test]
fn generate_answers_and_reports_its_speed() {
    let out = run(&["generate", &model(), "--prompt", "What is the capital of France?", "--max-tokens", "16"]);
    let (answer, report) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{report}");
    assert!(answer.contains("Paris"), "{answer}");
    for figure in ["prompt: ", "generation: ", "first token: ", "peak memory: "] {
        assert!(report.contains(figure), "{figure} is not in {report}");
    }
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    let model = model();
    let sample = |seed: &str| {
        let args = ["generate", &model, "-p", "Write a poem.", "--max-tokens", "24", "--temperature", "1.2"];
        let out = run(&[&args[..], &["--seed", seed]].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    assert_eq!(sample("7"), sample("7"));
    assert_ne!(sample("7"), sample("8"));
}

#[test]
fn chat_remembers_the_conversation() {
    let mut child = Command::new(binary())
        .args(["chat", &model(), "--max-tokens", "32", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start vllm-mlx chat");
    let mut stdin = child.stdin.take().expect("a piped stdin");
    let turns = "The capital of France is Paris. What is the capital of France?\nWhat was my question?\n/exit\n";
    stdin.write_all(turns.as_bytes()).expect("write the turns");
    drop(stdin);
    let out = child.wait_with_output().expect("wait for chat");
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let last = text.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains("capital of France"), "{text}");
}

#[test]
fn info_describes_without_loading() {
    let out = run(&["info", &model()]);
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for fact in ["LlamaForCausalLM", "134,515,008", "affine 4 bit", "8192", "23040"] {
        assert!(text.contains(fact), "{fact} is not in:\n{text}");
    }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vllm-tests-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a new folder");
        Self(path)
    }

    fn file(&self, name: &str, content: &[u8]) -> &Self {
        fs::write(self.0.join(name), content).expect("a new file");
        self
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Exit code 1, one line on stderr, and the line says `wanted`.
fn assert_refused(case: &str, args: &[&str], wanted: &str) {
    let out = run(args);
    let text = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{case}: {text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{case}: {text}");
    assert!(text.contains(wanted), "{case}: {wanted:?} is not in {text}");
    assert!(out.stdout.is_empty(), "{case}: {}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn what_is_not_a_model_is_refused_in_one_line() {
    let folder = Folder::new("bad-models");
    let whole = fs::read(smollm2()).expect("the model");
    let config = |value: Value| value.to_string().into_bytes();
    let llama = json!({"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 1, "num_attention_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 32});
    let mut unknown = llama.clone();
    unknown["architectures"] = json!(["GPT9ForCausalLM"]);
    /// Name, what to open, the files that are there, what the message names.
    type Case = (&'static str, &'static str, Vec<(&'static str, Vec<u8>)>, &'static str);
    let cases: [Case; 8] = [
        ("truncated GGUF", "cut.gguf", vec![("cut.gguf", whole[..whole.len() / 2].to_vec())], "cut.gguf"),
        ("wrong magic", "magic.gguf", vec![("magic.gguf", b"NOPE".repeat(64))], "magic"),
        ("empty file", "empty.gguf", vec![("empty.gguf", vec![])], "empty.gguf"),
        ("empty folder", "", vec![], "config.json"),
        ("config that isn't JSON", "", vec![("config.json", b"{".to_vec())], "config.json"),
        ("no weights", "", vec![("config.json", config(llama.clone()))], "safetensors"),
        (
            "truncated safetensors",
            "",
            vec![("config.json", config(llama.clone())), ("model.safetensors", vec![255, 0, 0, 0, 0, 0, 0, 0, b'{'])],
            "model.safetensors",
        ),
        (
            "unknown architecture",
            "",
            vec![
                ("config.json", config(unknown)),
                // A header of two bytes, `{}`: no tensors.
                ("model.safetensors", [&2u64.to_le_bytes()[..], b"{}"].concat()),
            ],
            "LlamaForCausalLM",
        ),
    ];
    for (case, model, files, wanted) in cases {
        let folder = Folder::new(&format!("bad-{}", case.replace(' ', "-")));
        for (name, content) in &files {
            folder.file(name, content);
        }
        let path = Path::new(folder.path()).join(model);
        assert_refused(case, &["generate", path.to_str().expect("UTF-8"), "-p", "hi"], wanted);
    }
    let missing = format!("{}/no-such-model", folder.path());
    assert_refused("missing path", &["generate", &missing, "-p", "hi"], "no-such-model");
}

#[test]
fn absurd_options_are_refused_in_one_line() {
    let model = model();
    for (case, option, value, wanted) in [
        ("negative temperature", "--temperature", "-1", "temperature"),
        ("temperature that is no number", "--temperature", "NaN", "temperature"),
        ("top-p above one", "--top-p", "1.5", "top_p"),
        ("min-p below zero", "--min-p", "-0.1", "min_p"),
        ("no tokens at all", "--max-tokens", "0", "max"),
        ("an absent device", "--device", "metal", "metal"),
        ("more context than the model has", "--max-model-len", "100000", "8192"),
    ] {
        let option = format!("{option}={value}");
        assert_refused(case, &["generate", &model, "-p", "hi", &option], wanted);
    }
    let long = "word ".repeat(9000);
    assert_refused("a prompt beyond the context", &["generate", &model, "-p", &long], "8192");
}
