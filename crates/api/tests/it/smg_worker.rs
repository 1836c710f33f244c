//! What SMG asks of a worker beside answers: what it serves, its tokenizer, embeddings, health and its engine's time.

use std::{fs, io::Cursor, path::Path, sync::Arc};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tonic::Code;
use vllm_api::{
    encoder::{Overflow, ServedEncoder},
    http::{App, HttpConfig},
    model::{SamplingDefaults, ServedModel},
    residency::{Catalog, Residency},
};
use vllm_grpc_proto::smg::{
    common::{GetTokenizerRequest, StartProfileRequest, StopProfileRequest},
    mlx,
    vllm::{
        EmbedRequest, GetModelInfoRequest, GetModelInfoResponse, GetServerInfoRequest, HealthCheckRequest,
        TokenizedInput,
    },
};
use vllm_platform::{
    EncoderInput, EncoderOutput,
    testing::{FakeConfig, FakeEncoder, FakeEncoderConfig, FakeRunner, FakeVisionConfig},
};
use vllm_scheduler::{EncoderConfig, EncoderEngine, Engine, EngineConfig};

use crate::support::{
    EOS, fake,
    seeing::{Seeing, seeing},
    server,
    smg::{all, mlx_client, vllm_answers, vllm_client, vllm_request},
    tokenizer,
};

/// A model's folder: all files whose names count, and one that doesn't.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    let config = json!({ "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 258 });
    write("config.json", config.to_string().as_bytes());
    write("tokenizer.json", tokenizer().to_json().unwrap().as_bytes());
    write(
        "tokenizer_config.json",
        br#"{ "bos_token": "<user>", "eos_token": "<eos>", "chat_template": "{{ messages }}" }"#,
    );
    write("generation_config.json", br#"{ "temperature": 0.6 }"#);
    write("chat_template.jinja", b"{{ messages }}");
    write("another.jinja", b"");
    // Longer than a chunk, and of no pattern.
    let noise: Vec<u8> = (0..6_000_u32).flat_map(|at| Sha256::digest(at.to_le_bytes())).collect();
    write("merges.txt", &noise);
    write("README.md", b"not sent");
    write("model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    folder
}

fn app_of(folder: &Path) -> App {
    let make = || {
        let script = [u32::from(b'o'), u32::from(b'k'), EOS].to_vec();
        Ok(Box::new(FakeRunner::new(FakeConfig { script, ..fake() })) as Box<_>)
    };
    let engine = std::thread::spawn(move || Engine::start(make, EngineConfig::default()).unwrap()).join().unwrap();
    let sampling = SamplingDefaults { temperature: Some(0.6), top_k: Some(20), ..SamplingDefaults::default() };
    let names = vec!["tiny".to_owned(), "org/tiny".to_owned()];
    let model = ServedModel::new(names, tokenizer(), None, sampling, engine).with_path(folder.to_owned());
    let app = App::new(HttpConfig::default());
    app.set_model(Arc::new(model));
    app
}

fn embedder(overflow: Overflow) -> Arc<ServedEncoder> {
    let make = || Ok(Box::new(FakeEncoder::new(fake_encoder())) as Box<_>);
    let engine = EncoderEngine::start(make, EncoderConfig::default()).unwrap();
    Arc::new(ServedEncoder::new(vec!["embed".into()], tokenizer(), overflow, engine))
}

fn fake_encoder() -> FakeEncoderConfig {
    let output = EncoderOutput::Embedding { dimensions: 8, normalized: true };
    FakeEncoderConfig { output, vocab_size: 258, ..Default::default() }
}

#[tokio::test]
async fn the_model_is_described_as_it_is() {
    let folder = folder();
    let app = app_of(folder.path());
    let path = folder.path().to_str().unwrap().to_owned();
    let mut client = vllm_client(&app).await;
    let info = client.get_model_info(GetModelInfoRequest {}).await.unwrap().into_inner();
    let wanted = GetModelInfoResponse {
        model_path: path.clone(),
        is_generation: true,
        max_context_length: 200,
        vocab_size: 258,
        supports_vision: false,
        served_model_name: "tiny".into(),
        tokenizer_path: path.clone(),
        model_type: "llama".into(),
        architectures: vec!["LlamaForCausalLM".into()],
        eos_token_ids: vec![256],
        pad_token_id: 0,
        bos_token_id: 257,
        max_req_input_len: 199,
        default_sampling_params_json: r#"{"temperature":0.6,"top_k":20}"#.into(),
    };
    assert_eq!(info, wanted);
    let small = mlx_client(&app).await.get_model_info(mlx::GetModelInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((small.model_path, small.served_model_name.as_str(), small.is_generation), (path, "tiny", true));
    assert_eq!((small.eos_token_ids, small.bos_token_id, small.max_req_input_len), (vec![256], 257, 199));
    // A prompt of that length is answered; one of a token more isn't.
    let mut request = vllm_request();
    for (tokens, code) in [(199, None), (200, Some(Code::InvalidArgument))] {
        let input = TokenizedInput { original_text: String::new(), input_ids: vec![1; tokens] };
        request.input = Some(vllm_grpc_proto::smg::vllm::generate_request::Input::Tokenized(input));
        request.sampling_params.as_mut().unwrap().max_tokens = None;
        assert_eq!(vllm_answers(&app, request.clone()).await.err().map(|refused| refused.code()), code);
    }
    let info = client.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.server_type.as_str(), info.active_requests, info.is_paused), ("vllm-mlx", 0, false));
    assert_eq!((info.data_parallel_size, info.block_size, info.kv_cache_dtype.as_str()), (1, 4, "f32"));
    assert_eq!(info.max_num_seqs as usize, EngineConfig::default().max_num_seqs);
    assert_eq!((info.mm_processor.as_str(), info.constrained_decoding_start.as_str()), ("", "first_token"));
    assert!(info.last_receive_timestamp > 1e9 && info.uptime_seconds > 0.0, "{info:?}");
    let small = mlx_client(&app).await.get_server_info(mlx::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((small.server_type.as_str(), small.active_requests), ("vllm-mlx", 0));

    let Seeing { server, .. } = seeing(FakeVisionConfig::default(), HttpConfig::default(), Some(folder.path()));
    let mut client = vllm_client(&server.app).await;
    assert!(client.get_model_info(GetModelInfoRequest {}).await.unwrap().into_inner().supports_vision);
    let info = client.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.mm_processor.as_str(), info.mm_media_ref_schemes.as_str()), ("inprocess", "data,file"));
    assert_eq!(info.mm_item_limits, "image=32,video=4");
}

#[tokio::test]
async fn the_tokenizer_comes_as_a_zip() {
    let folder = folder();
    let app = app_of(folder.path());
    let mut client = vllm_client(&app).await;
    let chunks = all(client.get_tokenizer(GetTokenizerRequest {}).await.unwrap().into_inner()).await.unwrap();
    assert!(chunks.len() > 2, "{}", chunks.len());
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk.sha256.is_empty() && chunk.data.len() == 64 << 10));
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.data.clone()).collect();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(last.sha256, digest);
    let mut archive = zip::ZipArchive::new(Cursor::new(&bytes)).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    let wanted = [
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
        "generation_config.json",
        "merges.txt",
        "another.jinja",
        "chat_template.jinja",
    ];
    assert_eq!(names, wanted, "in the order of the protocol");
    for name in &names {
        let mut content = Vec::new();
        std::io::copy(&mut archive.by_name(name).unwrap(), &mut content).unwrap();
        assert_eq!(content, fs::read(folder.path().join(name)).unwrap(), "{name}");
    }
    // Another server of the same files, by the other contract.
    let twin = app_of(folder.path());
    let again = mlx_client(&twin).await.get_tokenizer(GetTokenizerRequest {}).await.unwrap().into_inner();
    let again: Vec<u8> = all(again).await.unwrap().into_iter().flat_map(|chunk| chunk.data).collect();
    assert!(again == bytes, "the same files are the same zip");
    // And one that has no files.
    let none = server("abc");
    let missing = vllm_client(&none.app).await.get_tokenizer(GetTokenizerRequest {}).await.unwrap_err();
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::Internal, "the tokenizer can't be packed: it was not read from files")
    );
}

#[tokio::test]
async fn embeddings_are_those_of_http() {
    let server = server("abc");
    let mut client = vllm_client(&server.app).await;
    let asked = |tokens: &[u32]| EmbedRequest {
        request_id: "one".into(),
        tokenized: Some(TokenizedInput { original_text: String::new(), input_ids: tokens.to_vec() }),
    };
    let none = client.embed(asked(&[104, 105])).await.unwrap_err();
    assert_eq!(none.code(), Code::Unimplemented);
    server.app.add_encoder(embedder(Overflow::Error));
    let got = client.embed(asked(&[104, 105])).await.unwrap().into_inner();
    assert_eq!((got.prompt_tokens, got.embedding_dim), (2, 8));
    let wanted = FakeEncoder::new(fake_encoder()).answer(&EncoderInput { tokens: &[104, 105], types: &[] });
    assert_eq!(got.embedding, wanted);
    let body = json!({ "model": "embed", "input": [[104, 105]] }).to_string();
    let http = server.post("/v1/embeddings", &body).await.json();
    let http: Vec<f32> =
        http["data"][0]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    assert_eq!(got.embedding, http);
    for (name, request, message) in [
        ("no input", EmbedRequest { request_id: String::new(), tokenized: None }, "tokenized: it is missing"),
        ("no tokens", asked(&[]), "has no tokens"),
        ("unknown tokens", asked(&[999]), "999"),
        ("too many", asked(&[1; 100_000]), "this model takes"),
    ] {
        let refused = client.embed(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{name}: {refused}");
        assert!(refused.message().contains(message), "{name}: {}", refused.message());
    }
}

/// A worker of embeddings alone.
#[tokio::test]
async fn without_a_model_that_generates_the_embedder_is_spoken_of() {
    let app = App::new(HttpConfig::default());
    app.add_encoder(embedder(Overflow::Truncate));
    app.set_models(Residency::new(Catalog::none(), Arc::new(|_, _| anyhow::bail!("none")), Arc::new(|_| {})));
    let mut client = vllm_client(&app).await;
    let info = client.get_model_info(GetModelInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.served_model_name.as_str(), info.is_generation, info.vocab_size), ("embed", false, 258));
    let refused = client.subscribe_kv_events(vllm_grpc_proto::smg::common::SubscribeKvEventsRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    let refused = vllm_answers(&app, vllm_request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let health = client.health_check(HealthCheckRequest {}).await.unwrap().into_inner();
    assert!(health.healthy);
}

#[tokio::test]
async fn health_is_that_of_http() {
    let loading = App::new(HttpConfig::default());
    let health = vllm_client(&loading).await.health_check(HealthCheckRequest {}).await.unwrap().into_inner();
    assert_eq!((health.healthy, health.message.as_str()), (false, "loading"));
    let server = server("abc");
    let mut client = mlx_client(&server.app).await;
    let health = client.health_check(mlx::HealthCheckRequest {}).await.unwrap().into_inner();
    assert_eq!((health.healthy, health.message.as_str()), (true, "ok"));
    server.model.engine.shutdown();
    server.model.engine.stopped().await;
    let health = client.health_check(mlx::HealthCheckRequest {}).await.unwrap().into_inner();
    assert_eq!((health.healthy, health.message.as_str()), (false, "stopped"));
}

#[tokio::test]
async fn the_engines_time_is_taken_on_request() {
    let server = server("abcdef");
    let mut client = vllm_client(&server.app).await;
    let option = StartProfileRequest { num_steps: Some(3), ..Default::default() };
    let refused = client.start_profile(option).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("num_steps: "), "{}", refused.message());
    assert!(client.start_profile(StartProfileRequest::default()).await.unwrap().into_inner().success);
    let answers = vllm_answers(&server.app, vllm_request()).await.unwrap();
    let steps = answers[0].tokens.len();
    let profile = client.stop_profile(StopProfileRequest {}).await.unwrap().into_inner();
    assert!(profile.success);
    let counted: Value = profile.message.split(' ').next().unwrap().parse().unwrap();
    assert!(counted.as_u64().unwrap() >= steps as u64, "{}", profile.message);
    let empty = client.stop_profile(StopProfileRequest {}).await.unwrap().into_inner();
    assert!(empty.message.starts_with("0 steps in "), "{}", empty.message);
}
