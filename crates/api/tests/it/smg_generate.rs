//! SMG's `Generate` over fake engines: the same tokens as over HTTP, told as each contract wants it.

use std::time::Duration;

use serde_json::{Value, json};
use tonic::Code;
use vllm_api::http::HttpConfig;
use vllm_grpc_proto::smg::{
    common::Modality,
    mlx,
    vllm::{
        self, ChoiceConstraint, GenerateRequest, KvTransferParams, MediaRef, MediaRefs, MultimodalInputs,
        SamplingParams, TokenizedInput, generate_request::Input, sampling_params::Constraint,
    },
};
use vllm_platform::testing::{FakeConfig, FakeVisionConfig};
use vllm_scheduler::EngineConfig;

use crate::support::{
    EOS, Server, fake,
    seeing::{IMAGE_PAD, Seeing, bmp, data_url, image_url, seeing, user},
    server, server_with,
    smg::{Answer, End, all, mlx_answers, mlx_client, mlx_request, vllm_answers, vllm_client, vllm_request},
};

type Change = fn(&mut GenerateRequest);

fn changed(change: Change) -> GenerateRequest {
    let mut request = vllm_request();
    change(&mut request);
    request
}

fn params(request: &mut GenerateRequest) -> &mut SamplingParams {
    request.sampling_params.get_or_insert_default()
}

fn tokens(ids: &[u32]) -> Option<Input> {
    Some(Input::Tokenized(TokenizedInput { original_text: String::new(), input_ids: ids.to_vec() }))
}

fn constrained(request: &mut GenerateRequest, constraint: Constraint) {
    params(request).constraint = Some(constraint);
}

fn endless() -> Server {
    let fake =
        FakeConfig { step_delay: Duration::from_millis(2), context_length: 100_000, num_blocks: 100_000, ..fake() };
    server_with(fake, EngineConfig::default(), HttpConfig::default())
}

/// Requests of both APIs that say the same. What the answer's tokens have more than the text over HTTP is what ended it.
#[tokio::test]
async fn answers_are_those_of_completions() {
    let server = server("abcdef");
    let cases: [(&str, Value, Change, &str); 15] = [
        ("text", json!({}), |_| {}, ""),
        ("tokens", json!({ "prompt": [104, 105] }), |r| r.input = tokens(&[104, 105]), ""),
        ("few tokens", json!({ "max_tokens": 2 }), |r| params(r).max_tokens = Some(2), ""),
        ("as many as there may be", json!({ "max_tokens": 198 }), |r| params(r).max_tokens = None, ""),
        ("a stop string", json!({ "stop": ["de"] }), |r| params(r).stop = vec!["de".into()], "de"),
        (
            "its text, too",
            json!({ "stop": ["de"], "include_stop_str_in_output": true }),
            |r| {
                params(r).stop = vec!["de".into()];
                params(r).include_stop_str_in_output = true;
            },
            "",
        ),
        ("a stop token", json!({ "stop_token_ids": [100] }), |r| params(r).stop_token_ids = vec![100], "d"),
        (
            "no end",
            json!({ "ignore_eos": true, "max_tokens": 20 }),
            |r| {
                params(r).ignore_eos = true;
                params(r).max_tokens = Some(20);
            },
            "",
        ),
        (
            "at least",
            json!({ "min_tokens": 9, "max_tokens": 12 }),
            |r| {
                params(r).min_tokens = 9;
                params(r).max_tokens = Some(12);
            },
            "",
        ),
        (
            "a bias",
            json!({ "logit_bias": { "97": -100, "98": -100 } }),
            |r| {
                params(r).logit_bias.extend([(97, -100.0), (98, -100.0)]);
            },
            "",
        ),
        ("several", json!({ "n": 3 }), |r| params(r).n = 3, ""),
        (
            "a regex",
            json!({ "structured_outputs": { "regex": "[xyz]{4}" } }),
            |r| {
                constrained(r, Constraint::Regex("[xyz]{4}".into()));
            },
            "",
        ),
        (
            "a choice",
            json!({ "structured_outputs": { "choice": ["yes", "no"] } }),
            |r| {
                constrained(r, Constraint::Choice(ChoiceConstraint { choices: vec!["yes".into(), "no".into()] }));
            },
            "",
        ),
        (
            "a schema",
            json!({ "structured_outputs": { "json": { "enum": [12] } } }),
            |r| {
                constrained(r, Constraint::JsonSchema(r#"{ "enum": [12] }"#.into()));
                params(r).grammar_from_first_token = true;
            },
            "",
        ),
        (
            "a grammar",
            json!({ "structured_outputs": { "grammar": "root ::= \"u\" \"v\"" } }),
            |r| {
                constrained(r, Constraint::Grammar("root ::= \"u\" \"v\"".into()));
            },
            "",
        ),
    ];
    for (name, fields, change, more) in cases {
        let reply = server.complete(fields).await.json();
        let wanted: Vec<(String, &Value)> = reply["choices"]
            .as_array()
            .unwrap_or_else(|| panic!("{name}: {reply}"))
            .iter()
            .map(|choice| (format!("{}{more}", choice["text"].as_str().unwrap()), &choice["finish_reason"]))
            .collect();
        for stream in [false, true] {
            let answers = vllm_answers(&server.app, GenerateRequest { stream, ..changed(change) }).await.unwrap();
            let ends: Vec<&End> = answers.iter().map(|answer| answer.end.as_ref().expect("an end")).collect();
            let got: Vec<(String, Value)> =
                answers.iter().zip(&ends).map(|(answer, end)| (answer.text(), json!(end.reason))).collect();
            let got: Vec<(String, &Value)> = got.iter().map(|(text, reason)| (text.clone(), reason)).collect();
            assert_eq!(got, wanted, "{name}, stream: {stream}");
            let completion: u32 = ends.iter().map(|end| end.completion).sum();
            assert_eq!(completion, reply["usage"]["completion_tokens"], "{name}");
            assert_eq!(ends[0].prompt, reply["usage"]["prompt_tokens"], "{name}");
            if stream {
                let counted: u32 = answers.iter().map(|answer| answer.counted).sum();
                assert_eq!(counted, completion, "{name}");
            }
        }
    }
    server.idle().await;
}

/// Without defaults of its own, a gateway of the small contract leaves them to us; one of the large contract says all.
#[tokio::test]
async fn the_small_contract_leaves_what_it_does_not_say_to_the_model() {
    let server = server("abcdef");
    let mut request = mlx_request();
    request.sampling_params = None;
    for stream in [false, true] {
        let answers = mlx_answers(&server.app, mlx::GenerateRequest { stream, ..request.clone() }).await.unwrap();
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].text(), "abcdef", "greedy, as the model's makers recommend");
        assert_eq!(answers[0].tokens.last(), Some(&EOS));
        let end = answers[0].end.clone().unwrap();
        assert_eq!((end.reason.as_str(), end.matched, end.completion), ("stop", None, 7));
        assert_eq!(answers[0].counted, if stream { 7 } else { 0 });
    }
    let stopped = mlx::SamplingParams { stop_token_ids: vec![99], logprobs: Some(2), ..Default::default() };
    request.sampling_params = Some(stopped);
    request.input = Some(mlx::generate_request::Input::Tokenized(mlx::TokenizedInput {
        original_text: "not looked at".into(),
        input_ids: vec![104, 105],
    }));
    let answers = mlx_answers(&server.app, request).await.unwrap();
    assert_eq!(answers[0].text(), "abc");
    assert_eq!(answers[0].end.clone().unwrap().matched.as_deref(), Some("99"));
    let logprobs: Vec<u32> = answers[0].logprobs.iter().map(|(token, _)| *token).collect();
    assert_eq!(logprobs, [97, 98, 99], "one entry a token");
    assert!(answers[0].top.iter().all(|top| top.len() == 2));
}

#[tokio::test]
async fn log_probabilities_are_those_of_completions() {
    let server = server("abc");
    let lists = server.complete(json!({ "logprobs": 2 })).await.json()["choices"][0]["logprobs"].clone();
    let wanted: Vec<f64> = lists["token_logprobs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    for stream in [false, true] {
        let mut request = changed(|request| params(request).logprobs = Some(2));
        request.stream = stream;
        let answer = vllm_answers(&server.app, request).await.unwrap().remove(0);
        assert_eq!(answer.tokens, [97, 98, 99, EOS]);
        let (tokens, logprobs): (Vec<u32>, Vec<f32>) = answer.logprobs.iter().copied().unzip();
        assert_eq!(tokens, answer.tokens, "one entry a token, the last one's, too");
        for (got, wanted) in logprobs.iter().zip(&wanted) {
            assert!((f64::from(*got) - wanted).abs() < 1e-6, "{got} {wanted}");
        }
        assert_eq!(
            answer.top.iter().map(|top| (top[0], top.len())).collect::<Vec<_>>(),
            [(97, 2), (98, 2), (99, 2), (EOS, 2)]
        );
    }
    let chosen = changed(|request| params(request).logprobs = Some(0));
    let answer = vllm_answers(&server.app, chosen).await.unwrap().remove(0);
    assert_eq!((answer.logprobs.len(), answer.top.len()), (4, 0));
}

#[tokio::test]
async fn prefixes_that_were_there_are_counted() {
    let server = server("abc");
    let prompt: Vec<u32> = (0..20).collect();
    for (stream, cached) in [(false, 0), (true, 19), (false, 19)] {
        let request = GenerateRequest { input: tokens(&prompt), stream, ..vllm_request() };
        let end = vllm_answers(&server.app, request).await.unwrap()[0].end.clone().unwrap();
        assert_eq!((end.prompt, end.cached), (20, cached));
    }
    let last = changed(|request| {
        request.input = tokens(&(0..20).collect::<Vec<u32>>());
        params(request).truncate_prompt_tokens = Some(7);
    });
    let end = vllm_answers(&server.app, last).await.unwrap()[0].end.clone().unwrap();
    assert_eq!(end.prompt, 7, "the prompt's end");
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_by_name() {
    let server = server("abc");
    let cases: [(&str, Change, &str); 21] = [
        ("no input", |r| r.input = None, "input: there is none"),
        ("no tokens", |r| r.input = tokens(&[]), "input is an empty list"),
        ("unknown tokens", |r| r.input = tokens(&[999]), "999"),
        ("a prompt too long", |r| r.input = tokens(&[1; 200]), "the prompt has 200 tokens"),
        ("no answer", |r| params(r).max_tokens = Some(0), "sampling_params.max_tokens is 0"),
        ("no number", |r| params(r).temperature = Some(f32::NAN), "sampling_params.temperature: NaN is no number"),
        ("out of range", |r| params(r).top_p = 2.0, "sampling_params.top_p"),
        ("an endless bias", |r| params(r).logit_bias = [(1, f32::INFINITY)].into(), "logit_bias[1]: inf is no number"),
        ("too many", |r| params(r).n = 1000, "sampling_params.n is 1000"),
        ("all alternatives", |r| params(r).logprobs = Some(-1), "sampling_params.logprobs is -1"),
        ("prompt logprobs", |r| params(r).prompt_logprobs = Some(1), "sampling_params.prompt_logprobs: "),
        ("a bad regex", |r| constrained(r, Constraint::Regex("(".into())), "sampling_params.constraint: "),
        ("no JSON", |r| constrained(r, Constraint::JsonSchema("{".into())), "sampling_params.json_schema is a string"),
        (
            "tags",
            |r| constrained(r, Constraint::StructuralTag("{}".into())),
            "sampling_params.structural_tag is not supported",
        ),
        ("no choices", |r| constrained(r, Constraint::Choice(Default::default())), "sampling_params.choice is empty"),
        ("KV from elsewhere", |r| r.kv_transfer_params = Some(KvTransferParams::default()), "kv_transfer_params: "),
        ("the same as JSON", |r| r.kv_transfer_params_json = Some("{}".into()), "kv_transfer_params_json: "),
        ("pixels", |r| r.mm_inputs = Some(MultimodalInputs::default()), "mm_inputs: this worker looks at media itself"),
        ("another rank", |r| r.data_parallel_rank = Some(1), "data_parallel_rank: there is no rank 1"),
        ("media in text", |r| r.media_refs = Some(MediaRefs::default()), "media_refs: they want their places"),
        (
            "no media",
            |r| {
                r.input = tokens(&[1]);
                r.media_refs = Some(MediaRefs::default());
            },
            "media_refs.items: there are none",
        ),
    ];
    for (name, change, message) in cases {
        for stream in [false, true] {
            let refused = vllm_answers(&server.app, GenerateRequest { stream, ..changed(change) }).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
            assert!(refused.message().contains(message), "{name}: {}", refused.message());
        }
    }
    let same_rank = changed(|request| request.data_parallel_rank = Some(0));
    assert_eq!(vllm_answers(&server.app, same_rank).await.unwrap()[0].text(), "abc");
    let refused = mlx_answers(&server.app, mlx::GenerateRequest { input: None, ..mlx_request() }).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "input: there is none: give tokenized or text")
    );
    server.idle().await;
}

/// By the request's own name, as SMG does it when its client goes away.
#[tokio::test]
async fn requests_are_ended_by_their_names() {
    let server = endless();
    let request = |name: &str, stream: bool| {
        let mut request = vllm_request();
        (request.request_id, request.stream) = (name.into(), stream);
        params(&mut request).max_tokens = Some(90_000);
        params(&mut request).ignore_eos = true;
        request
    };
    let mut client = vllm_client(&server.app).await;
    let mut streamed = client.generate(request("streamed", true)).await.unwrap().into_inner();
    streamed.message().await.unwrap().expect("a chunk");
    let app = server.app.clone();
    let waited = tokio::spawn(async move { vllm_answers(&app, request("waited for", false)).await });
    while server.model.engine.stats().running < 2 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let names = ["streamed", "waited for", "nobody's"].map(str::to_owned).to_vec();
    client.abort(vllm::AbortRequest { request_ids: names }).await.unwrap();
    let rest: Vec<vllm::GenerateResponse> = all(streamed).await.unwrap();
    let last = rest.last().and_then(|last| last.response.clone()).unwrap();
    let vllm::generate_response::Response::Complete(complete) = last else { panic!("{last:?}") };
    assert_eq!(complete.finish_reason, "abort");
    assert_eq!(waited.await.unwrap().unwrap()[0].end.clone().unwrap().reason, "abort");
    server.idle().await;

    let mut small = mlx_client(&server.app).await;
    let mut request = mlx_request();
    (request.request_id, request.stream) = ("small".into(), true);
    request.sampling_params = Some(mlx::SamplingParams { max_tokens: Some(90_000), ..Default::default() });
    let mut stream = small.generate(request).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a chunk");
    small.abort(mlx::AbortRequest { request_ids: vec!["small".into()] }).await.unwrap();
    all(stream).await.unwrap();
    // Going away is as good.
    let mut stream = small.generate(mlx::GenerateRequest { stream: true, ..mlx_request() }).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a chunk");
    drop(stream);
    server.idle().await;
}

/// The gateway leaves one placeholder where each item stands.
#[tokio::test]
async fn media_are_looked_at_by_the_worker() {
    let Seeing { server, .. } = seeing(FakeVisionConfig::default(), HttpConfig::default(), None);
    let red = data_url(&bmp(16, 24, [255, 0, 0]));
    let chat = server.chat(user(json!([image_url(&red)]))).await.json();
    let request = |ids: &[u32], items: &[(Modality, &str)]| {
        let items = items.iter().map(|(modality, url)| MediaRef { modality: (*modality).into(), url: (*url).into() });
        GenerateRequest { input: tokens(ids), media_refs: Some(MediaRefs { items: items.collect() }), ..vllm_request() }
    };
    let mut prompt: Vec<u32> = b"user:".iter().copied().map(u32::from).collect();
    prompt.extend([258, IMAGE_PAD, 259]);
    prompt.extend(b";>".iter().copied().map(u32::from));
    let answer: Answer =
        vllm_answers(&server.app, request(&prompt, &[(Modality::Image, &red)])).await.unwrap().remove(0);
    let end = answer.end.clone().unwrap();
    assert_eq!((answer.text().as_str(), end.prompt), ("ok", chat["usage"]["prompt_tokens"].as_u64().unwrap() as u32));
    assert!(end.cached > 6, "the same prompt as chat's, image and all: {end:?}");
    for (name, refused, code, message) in [
        ("no place", request(&[1, 2], &[(Modality::Image, &red)]), Code::InvalidArgument, "input"),
        (
            "sound",
            request(&prompt, &[(Modality::Audio, &red)]),
            Code::InvalidArgument,
            "media_refs.items[0].modality: AUDIO",
        ),
        ("nothing", request(&prompt, &[(Modality::Image, "")]), Code::InvalidArgument, "media_refs.items[0].url"),
        (
            "a place that isn't allowed",
            request(&prompt, &[(Modality::Image, "https://example.com/a.png")]),
            Code::InvalidArgument,
            "media_refs.items[0]",
        ),
    ] {
        let status = vllm_answers(&server.app, refused).await.unwrap_err();
        assert_eq!(status.code(), code, "{name}: {status}");
        assert!(status.message().contains(message), "{name}: {}", status.message());
    }
    server.idle().await;
}
