//! `vllm.Inference` over fake engines, by real clients over sockets.

use std::time::Duration;

use serde_json::json;
use tonic::{Code, Request};
use vllm_api::http::HttpConfig;
use vllm_grpc_proto::vllm_proto::{
    AbortRequest, CandidateTokens, DecodingParameters, GenerateRequest, KvCacheParameters, MediaItem, Modality,
    RandomSampling, ResponseOptions, StoppingCriteria,
    candidate_tokens::Select,
    decoding_parameters::{StringChoices, StructuredOutput},
    finish_info::{FinishReason, StopReason},
    generate_request::Prompt,
    media_item,
};
use vllm_platform::testing::{FakeConfig, FakeVisionConfig};
use vllm_scheduler::EngineConfig;

use crate::support::{
    EOS, Server, fake,
    grpc::{answer, clients, collect, field, ids, request},
    seeing::{IMAGE_PAD, Seeing, bmp, data_url, seeing},
    server, server_with,
};

type Change = fn(&mut GenerateRequest);

fn changed(change: Change) -> GenerateRequest {
    let mut request = request();
    change(&mut request);
    request
}

fn stopping(request: &mut GenerateRequest) -> &mut StoppingCriteria {
    request.stopping.get_or_insert_default()
}

fn decoding(request: &mut GenerateRequest) -> &mut DecodingParameters {
    request.decoding.get_or_insert_default()
}

fn response(request: &mut GenerateRequest) -> &mut ResponseOptions {
    request.response.get_or_insert_default()
}

fn endless() -> Server {
    let fake =
        FakeConfig { step_delay: Duration::from_millis(2), context_length: 100_000, num_blocks: 100_000, ..fake() };
    server_with(fake, EngineConfig::default(), HttpConfig::default())
}

/// Requests of both APIs that say the same.
#[tokio::test]
async fn answers_are_those_of_completions() {
    let server = server("abcdef");
    let (mut client, _) = clients(&server.app).await;
    let cases: [(&str, serde_json::Value, Change); 9] = [
        ("text", json!({}), |_| {}),
        ("tokens", json!({ "prompt": [104, 105] }), |r| r.prompt = Some(Prompt::TokenIds(ids(&[104, 105])))),
        ("its name", json!({ "model": "org/tiny" }), |r| r.model = "org/tiny".into()),
        ("few tokens", json!({ "max_tokens": 2 }), |r| stopping(r).max_new_tokens = 2),
        ("stop", json!({ "stop": ["de"] }), |r| stopping(r).stop_strings = vec!["de".into()]),
        ("stop, told", json!({ "stop": ["de"], "include_stop_str_in_output": true }), |r| {
            stopping(r).stop_strings = vec!["de".into()];
            stopping(r).include_stop_strings = true;
        }),
        ("stop token", json!({ "stop_token_ids": [100] }), |r| stopping(r).stop_token_ids = vec![100]),
        ("past the end", json!({ "ignore_eos": true, "max_tokens": 9 }), |r| {
            stopping(r).ignore_eos = true;
            stopping(r).max_new_tokens = 9;
        }),
        ("choice", json!({ "structured_outputs": { "choice": ["no", "abcd"] } }), |r| {
            let choices = StringChoices { choices: vec!["no".into(), "abcd".into()] };
            decoding(r).structured_output = Some(StructuredOutput::Choice(choices));
        }),
    ];
    for (name, fields, change) in cases {
        let http = server.complete(fields).await.json();
        let (whole, finish) = answer(client.generate(changed(change)).await.unwrap().into_inner());
        let choice = &http["choices"][0];
        assert_eq!(choice["text"], whole.text, "{name}");
        assert_eq!(http["usage"]["completion_tokens"], finish.num_output_tokens, "{name}");
        let reason = if choice["finish_reason"] == "stop" { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(finish.finish_reason(), reason, "{name}");
        let streamed = collect(&mut client, changed(change)).await.unwrap();
        assert_eq!((streamed.len(), &streamed[0]), (1, &whole), "{name}");
        assert_eq!(whole.num_tokens as usize, whole.token_ids.len(), "{name}");
    }
    server.idle().await;
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("endpoint=\"grpc_generate\""), "{metrics}");
}

#[tokio::test]
async fn ends_say_what_ended_them() {
    let server = server("abcdef");
    let (mut client, _) = clients(&server.app).await;
    let all = [97, 98, 99, 100, 101, 102, EOS];
    let cases: [(&str, Change, Option<StopReason>, &[u32]); 5] = [
        ("eos", |_| {}, Some(StopReason::EosTokenId(EOS)), &all),
        ("token", |r| stopping(r).stop_token_ids = vec![99], Some(StopReason::StopTokenId(99)), &all[..3]),
        (
            "string",
            |r| stopping(r).stop_strings = vec!["cd".into()],
            Some(StopReason::StopString("cd".into())),
            &all[..4],
        ),
        ("length", |r| stopping(r).max_new_tokens = 3, None, &all[..3]),
        ("its own length", |r| stopping(r).max_new_tokens = 0, Some(StopReason::EosTokenId(EOS)), &all),
    ];
    for (name, change, reason, tokens) in cases {
        let (output, finish) = answer(client.generate(changed(change)).await.unwrap().into_inner());
        assert_eq!(finish.stop_reason, reason, "{name}");
        assert_eq!(output.token_ids, tokens, "{name}");
        assert_eq!(finish.num_output_tokens as usize, tokens.len(), "{name}");
    }
    let long = changed(|r| *stopping(r) = StoppingCriteria { ignore_eos: true, ..Default::default() });
    assert_eq!(answer(client.generate(long).await.unwrap().into_inner()).1.num_output_tokens, 20);
    let long = changed(|r| {
        r.prompt = Some(Prompt::TokenIds(ids(&[1; 64])));
        stopping(r).max_new_tokens = 1;
    });
    for cached in [0, 63] {
        let (_, finish) = answer(client.generate(long.clone()).await.unwrap().into_inner());
        assert_eq!(finish.num_cached_tokens, Some(cached));
    }
    let bypass =
        GenerateRequest { kv: Some(KvCacheParameters { bypass_prefix_cache: true, ..Default::default() }), ..long };
    let (_, finish) = answer(client.generate(bypass).await.unwrap().into_inner());
    assert_eq!(finish.num_cached_tokens, Some(0), "past the cache");
}

#[tokio::test]
async fn what_is_told_is_what_was_asked_for() {
    let server = server("abc");
    let (mut client, _) = clients(&server.app).await;
    let plain = GenerateRequest { response: None, ..request() };
    let whole = client.generate(plain).await.unwrap().into_inner();
    let info = whole.prompt_info.clone().unwrap();
    assert_eq!((info.num_prompt_tokens, info.token_ids), (2, vec![]));
    let output = answer(whole).0;
    assert_eq!((output.text.as_str(), output.num_tokens, output.token_ids.len()), ("abc", 4, 0));
    assert_eq!((output.logprobs.len(), output.ranks.len(), output.candidate_tokens.len()), (0, 0, 0));

    let all = changed(|r| {
        *response(r) = ResponseOptions {
            prompt_token_ids: true,
            output_text: Some(false),
            output_token_ids: true,
            output_logprobs: true,
            output_candidates: Some(CandidateTokens { select: Some(Select::TopN(3)) }),
            ..Default::default()
        }
    });
    let whole = client.generate(all.clone()).await.unwrap().into_inner();
    assert_eq!(whole.prompt_info.clone().unwrap().token_ids, [104, 105]);
    let output = answer(whole).0;
    assert_eq!((output.text.as_str(), output.token_ids.as_slice()), ("", &[97, 98, 99, EOS][..]));
    assert_eq!((output.logprobs.len(), output.candidate_tokens.len()), (4, 4));
    assert_eq!(output.ranks, [1; 4], "the fake's scripted token is the most probable");
    for (position, candidates) in output.candidate_tokens.iter().enumerate() {
        let own = output.token_ids[position];
        assert_eq!(candidates.tokens.iter().map(|token| token.rank).collect::<Vec<_>>(), [2, 3]);
        assert!(candidates.tokens.iter().all(|token| token.id != own && token.logprob <= output.logprobs[position]));
    }
    assert_eq!(collect(&mut client, all).await.unwrap()[0], output);
}

#[tokio::test]
async fn several_sequences_come_by_their_numbers() {
    let server = server("abc");
    let (mut client, _) = clients(&server.app).await;
    let three = changed(|r| r.sampling = Some(RandomSampling { num_sequences: 3, ..Default::default() }));
    let answers = collect(&mut client, three.clone()).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>(), ["abc"; 3]);
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), [0, 1, 2]);
    let refused = client.generate(three).await.unwrap_err();
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "sampling.num_sequences"));
}

#[tokio::test]
async fn tokens_are_held_to_what_was_asked_for() {
    let server = server("abc");
    let (mut client, _) = clients(&server.app).await;
    let banned = changed(|r| decoding(r).bad_words_token_ids = vec![ids(&[97, 98])]);
    let (output, _) = answer(client.generate(banned).await.unwrap().into_inner());
    assert!(output.token_ids[0] == 97 && output.token_ids[1] != 98, "{:?}", output.token_ids);
    let allowed = changed(|r| {
        decoding(r).allowed_token_ids = vec![120, 121];
        stopping(r).max_new_tokens = 5;
    });
    let (output, _) = answer(client.generate(allowed).await.unwrap().into_inner());
    assert!(output.token_ids.iter().all(|token| [120, 121].contains(token)), "{:?}", output.token_ids);
    let cut = changed(|r| {
        r.prompt = Some(Prompt::TokenIds(ids(&[1, 2, 3, 4])));
        r.truncate_prompt_tokens = 3;
        response(r).prompt_token_ids = true;
    });
    let whole = client.generate(cut).await.unwrap().into_inner();
    assert_eq!(whole.prompt_info.unwrap().token_ids, [2, 3, 4]);
}

#[tokio::test]
async fn what_cannot_be_had_is_named() {
    let server = server("abc");
    let (mut client, _) = clients(&server.app).await;
    let cases: [(Change, &str); 33] = [
        (|r| r.prompt = None, "prompt"),
        (|r| r.prompt = Some(Prompt::TokenIds(ids(&[]))), "token_ids"),
        (|r| r.temperature = Some(3.0), "temperature"),
        (|r| r.temperature = Some(f32::NAN), "temperature"),
        (|r| r.sampling = Some(RandomSampling { top_p: Some(1.5), ..Default::default() }), "sampling.top_p"),
        (|r| r.sampling = Some(RandomSampling { top_p: Some(0.0), ..Default::default() }), "sampling.top_p"),
        (|r| r.sampling = Some(RandomSampling { min_p: Some(-1.0), ..Default::default() }), "sampling.min_p"),
        (|r| decoding(r).presence_penalty = 7.0, "decoding.presence_penalty"),
        (|r| decoding(r).frequency_penalty = f32::INFINITY, "decoding.frequency_penalty"),
        (|r| decoding(r).repetition_penalty = -1.0, "decoding.repetition_penalty"),
        (|r| decoding(r).logit_bias = [(9999, 1.0)].into(), "decoding.logit_bias"),
        (|r| decoding(r).allowed_token_ids = vec![9999], "decoding.allowed_token_ids"),
        (|r| decoding(r).bad_words_token_ids = vec![ids(&[])], "decoding.bad_words_token_ids"),
        (|r| decoding(r).structured_output = Some(StructuredOutput::Json("{".into())), "decoding.json"),
        (|r| decoding(r).structured_output = Some(StructuredOutput::Regex("(".into())), "decoding.structured_output"),
        (
            |r| decoding(r).structured_output = Some(StructuredOutput::StructuralTag("{}".into())),
            "decoding.structural_tag",
        ),
        (
            |r| decoding(r).structured_output = Some(StructuredOutput::Choice(StringChoices::default())),
            "decoding.choice",
        ),
        (|r| stopping(r).max_new_tokens = 100_000, "prompt"),
        (|r| stopping(r).min_new_tokens = 51, "stopping.min_new_tokens"),
        (|r| stopping(r).stop_strings = vec![String::new()], "stopping.stop_strings"),
        (|r| stopping(r).thinking_token_budget = Some(-2), "stopping.thinking_token_budget"),
        (|r| response(r).prompt_logprobs = true, "response.prompt_logprobs"),
        (|r| response(r).prompt_candidates = Some(CandidateTokens::default()), "response.prompt_candidates"),
        (|r| response(r).output_candidates = Some(CandidateTokens::default()), "response.output_candidates"),
        (
            |r| response(r).output_candidates = Some(CandidateTokens { select: Some(Select::All(true)) }),
            "response.output_candidates",
        ),
        (
            |r| response(r).output_candidates = Some(CandidateTokens { select: Some(Select::TopN(21)) }),
            "response.output_candidates.top_n",
        ),
        (
            |r| r.kv = Some(KvCacheParameters { kv_transfer_params: Some(Default::default()), ..Default::default() }),
            "kv.kv_transfer_params",
        ),
        (
            |r| r.kv = Some(KvCacheParameters { ec_transfer_params: Some(Default::default()), ..Default::default() }),
            "kv.ec_transfer_params",
        ),
        (|r| r.lora_name = "mine".into(), "lora_name"),
        (|r| r.watermarking = Some(true), "watermarking"),
        (|r| r.media = vec![MediaItem::default()], "media[0]"),
        (
            |r| {
                let source = Some(media_item::Source::RawBytes(vec![1]));
                r.media = vec![MediaItem { modality: Modality::Audio.into(), source, ..Default::default() }];
            },
            "media[0].modality",
        ),
        (
            |r| {
                let source = Some(media_item::Source::Url("file:///etc/passwd".into()));
                r.media = vec![MediaItem { modality: Modality::Image.into(), source, ..Default::default() }];
            },
            "media[0].url",
        ),
    ];
    for (number, (change, wanted)) in cases.into_iter().enumerate() {
        let status = client.generate(changed(change)).await.unwrap_err();
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, wanted), "{number}: {status}");
        assert!(status.message().contains(wanted), "{number}: {status}");
        let status = client.generate_stream(changed(change)).await.map(drop).unwrap_err();
        assert_eq!((status.code(), field(&status).as_str()), (Code::InvalidArgument, wanted), "{number}, streamed");
    }
    let other = client.generate(changed(|r| r.model = "other".into())).await.unwrap_err();
    assert_eq!((other.code(), field(&other).as_str()), (Code::NotFound, "model"));
    let off = changed(|r| r.watermarking = Some(false));
    assert!(client.generate(off).await.is_ok(), "what isn't done can be turned off");
}

#[tokio::test]
async fn requests_are_aborted_by_their_names() {
    let server = endless();
    let (mut client, mut control) = clients(&server.app).await;
    let named = changed(|r| {
        r.request_id = "mine".into();
        stopping(r).max_new_tokens = 50_000;
        stopping(r).ignore_eos = true;
    });
    let mut stream = client.generate_stream(named.clone()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let abort = |id: &str| AbortRequest { request_ids: vec!["other".into(), id.into()] };
    control.abort(abort("mine")).await.unwrap();
    let mut last = None;
    while let Some(part) = stream.message().await.unwrap() {
        last = part.outputs;
    }
    assert_eq!(last.unwrap().finish_info.unwrap().finish_reason(), FinishReason::Aborted);
    let mut other = client.clone();
    let whole = tokio::spawn(async move { other.generate(named).await });
    while server.model.engine.stats().running == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    control.abort(abort("mine")).await.unwrap();
    let (_, finish) = answer(whole.await.unwrap().unwrap().into_inner());
    assert_eq!(finish.finish_reason(), FinishReason::Aborted);
    server.idle().await;
}

#[tokio::test]
async fn who_goes_away_or_has_no_time_is_not_computed_for() {
    let server = endless();
    let (mut client, _) = clients(&server.app).await;
    let long = || {
        changed(|r| {
            stopping(r).max_new_tokens = 50_000;
            stopping(r).ignore_eos = true;
        })
    };
    let mut stream = client.generate_stream(long()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    server.idle().await;
    let mut hurried = Request::new(long());
    hurried.set_timeout(Duration::from_millis(100));
    let late = client.generate(hurried).await.unwrap_err();
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late}");
    server.idle().await;
}

/// The deadline is the server's own affair, too: here nobody else keeps it.
#[tokio::test]
async fn deadlines_are_kept_by_the_server() {
    let server = endless();
    let (mut client, _) = clients(&server.app).await;
    let mut hurried = Request::new(changed(|r| {
        stopping(r).max_new_tokens = 50_000;
        stopping(r).ignore_eos = true;
    }));
    hurried.metadata_mut().insert("grpc-timeout", "100000u".parse().unwrap());
    let mut stream = client.generate_stream(hurried).await.unwrap().into_inner();
    let late = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended"),
            Err(late) => break late,
        }
    };
    assert_eq!(late.code(), Code::DeadlineExceeded, "{late}");
    server.idle().await;
}

#[tokio::test]
async fn images_stand_where_their_markers_do() {
    let Seeing { server, .. } = seeing(FakeVisionConfig::default(), HttpConfig::default(), None);
    let (mut client, _) = clients(&server.app).await;
    let file = bmp(16, 24, [255, 0, 0]);
    let image = |source| MediaItem { modality: Modality::Image.into(), source: Some(source), ..Default::default() };
    let forms = [media_item::Source::RawBytes(file.clone()), media_item::Source::DataUri(data_url(&file))];
    // <|vision_start|><|image_pad|><|vision_end|>
    let marked = [104, 258, IMAGE_PAD, 259, 105];
    for source in forms {
        let request = GenerateRequest {
            prompt: Some(Prompt::TokenIds(ids(&marked))),
            media: vec![image(source)],
            response: Some(ResponseOptions { prompt_token_ids: true, ..Default::default() }),
            ..request()
        };
        let whole = client.generate(request).await.unwrap().into_inner();
        let mut wanted = vec![104, 258];
        wanted.extend([IMAGE_PAD; 6]);
        wanted.extend([259, 105]);
        assert_eq!(whole.prompt_info.clone().unwrap().token_ids, wanted);
        assert_eq!(answer(whole).0.text, "ok");
    }
    let none = GenerateRequest {
        prompt: Some(Prompt::TokenIds(ids(&[104, 105]))),
        media: vec![image(media_item::Source::RawBytes(file))],
        ..request()
    };
    let refused = client.generate(none).await.unwrap_err();
    assert_eq!((refused.code(), field(&refused).as_str()), (Code::InvalidArgument, "prompt"), "{refused}");
}
