//! `vllm-mlx bench-serve` against our own server: its figures add up, its failures are counted.

use std::{env, fs, process};

use serde_json::Value;
use vllm_tests::{Server, run};

fn server() -> Server {
    Server::smollm2(&["--served-model-name", "smollm2"])
}

/// Runs `bench-serve` for JSON; the exit code, the report and stderr.
fn bench(server: &Server, args: &[&str]) -> (Option<i32>, Value, String) {
    let url = server.url("/v1");
    let output = run(&[&["bench-serve", "--url", &url, "--format", "json"], args].concat());
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{stderr}"));
    (output.status.code(), report, stderr)
}

#[test]
fn a_sweep_measures_every_level() {
    let server = server();
    let args = ["--prompt-tokens", "40", "--max-tokens", "6", "--ignore-eos", "--concurrency", "1,3"];
    let (code, report, stderr) = bench(&server, &[&args[..], &["--num-requests", "4", "--repetitions", "2"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!((&report["model"], &report["workload"]), (&"smollm2".into(), &"random".into()));
    let levels = report["levels"].as_array().expect("levels");
    assert_eq!(levels.iter().map(|level| &level["concurrency"]).collect::<Vec<_>>(), [1, 3]);
    for level in levels {
        assert_eq!((&level["requests"], &level["completed"], &level["failed"]), (&8.into(), &8.into(), &0.into()));
        assert_eq!((&level["completion_tokens"], &level["tokens_counted_by"]), (&48.into(), &"usage".into()));
        // About 40 of the prompt itself and 31 of SmolLM2's template.
        let prompt = level["prompt_tokens"].as_f64().expect("prompt tokens") / 8.0;
        assert!((62.0..82.0).contains(&prompt), "{prompt}");
        assert!(level["cached_tokens"].is_u64(), "{level}");
        assert_eq!(level["repetitions_output_tok_s"].as_array().map(Vec::len), Some(2));
        let figure = |name: &str, of: &str| level[name][of].as_f64().unwrap_or_else(|| panic!("{name} {of}: {level}"));
        for name in ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"] {
            let sorted = ["p50", "p90", "p95", "p99"].map(|of| figure(name, of));
            assert!(sorted.is_sorted() && sorted[0] > 0.0, "{name}: {level}");
        }
        assert!(figure("e2e_ms", "mean") > figure("ttft_ms", "mean"));
        let speed = 48.0 / level["duration_s"].as_f64().expect("a duration");
        assert!((level["output_tok_s"].as_f64().expect("a speed") / speed - 1.0).abs() < 1e-6);
    }
}

#[test]
fn workloads_send_what_they_say() {
    let server = server();
    let common = ["--prompt-tokens", "12", "--max-tokens", "4", "--warmup", "0", "--num-requests", "2"];
    let run = |args: &[&str]| {
        let (code, report, stderr) = bench(&server, &[&common, args].concat());
        assert_eq!(code, Some(0), "{stderr}");
        report["levels"][0].clone()
    };
    let random = run(&["--endpoint", "completions"]);
    let shared = run(&["--endpoint", "completions", "--workload", "shared-prefix", "--shared-prefix-tokens", "100"]);
    let longer = (shared["prompt_tokens"].as_i64().zip(random["prompt_tokens"].as_i64())).map(|(a, b)| (a - b) / 2);
    assert!((90..120).contains(&longer.expect("counts")), "{longer:?}");

    let turns = run(&["--workload", "multi-turn", "--turns", "3", "--request-rate", "inf"]);
    assert_eq!((&turns["requests"], &turns["completed"]), (&6.into(), &6.into()));
    assert_eq!((&turns["concurrency"], &turns["request_rate"]), (&Value::Null, &"inf".into()));

    let body = run(&["--request-rate", "50", "--extra-body", r#"{"max_tokens": 2, "ignore_eos": true}"#]);
    assert_eq!(body["completion_tokens"], 4);
}

#[test]
fn failures_are_counted_and_only_all_of_them_are_an_error() {
    let server = server();
    let file = env::temp_dir().join(format!("vllm-mlx-prompts.{}", process::id()));
    fs::write(&file, "Say hi.\n[{\"role\": \"nobody\", \"content\": 1}]\n").expect("write prompts");
    let path = file.to_str().expect("a UTF-8 path");
    let common = ["--prompt-file", path, "--max-tokens", "4", "--warmup", "0"];
    let (code, report, _) = bench(&server, &[&common[..], &["--num-requests", "4"]].concat());
    let level = &report["levels"][0];
    assert_eq!((code, &level["completed"], &level["failed"]), (Some(0), &2.into(), &2.into()));
    assert_eq!(level["errors"]["http 400"]["count"], 2, "{level}");
    assert_eq!(report["workload"], "file");

    let (code, report, stderr) = bench(&server, &[&common[..], &["--model", "nobody"]].concat());
    assert_eq!((code, &report["levels"][0]["completed"]), (Some(1), &0.into()));
    assert!(stderr.contains("4 × http 404"), "{stderr}");
    fs::remove_file(&file).expect("remove prompts");
}
