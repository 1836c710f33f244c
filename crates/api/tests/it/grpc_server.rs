//! The port under gRPC's services: keys, limits, certificates, health, reflection, the end.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{net::TcpStream, sync::oneshot, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;
use vllm_api::{
    grpc,
    http::{App, HttpConfig, Rate, Rules},
    listener::{Alpn, ConnectionLimits, Listener, Tls, TlsFiles},
};
use vllm_grpc_proto::vllm_proto::{
    GenerateRequest, GetKvEventSourcesRequest, GetModelInfoRequest, GetServerInfoRequest, IsPausedRequest,
    IsSleepingRequest, ListLorasRequest, LoadLoraRequest, PauseGenerationRequest, ShutdownRequest, SleepRequest,
    StoppingCriteria, UpdateWeightsRequest, generate_request::Prompt, inference_client::InferenceClient,
};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{
    fake,
    grpc::{answer, clients, connect, ids, listen, request},
    server, server_with,
};

const LONG: Duration = Duration::from_secs(20);

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.into() };
    Ok(HealthClient::new(channel.clone()).check(request).await?.into_inner().status())
}

#[tokio::test]
async fn keys_open_all_but_health_and_reflection() {
    let server = server("abc");
    let mut rules = Rules::default();
    rules.keys.add_lines("alice one").unwrap();
    server.app.set_rules(rules);
    let channel = connect(listen(&server.app).await).await;
    let mut client = InferenceClient::new(channel.clone());
    let cases = [
        ("none", "accept-language", "de", Err(Code::Unauthenticated)),
        ("wrong", "authorization", "Bearer two", Err(Code::Unauthenticated)),
        ("bearer", "authorization", "Bearer one", Ok(())),
        ("key", "x-api-key", "one", Ok(())),
    ];
    for (name, header, value, wanted) in cases {
        let mut asked = Request::new(request());
        asked.metadata_mut().insert(header, value.parse().unwrap());
        let found = client.generate(asked).await.map(drop).map_err(|status| status.code());
        assert_eq!(found, wanted, "{name}");
    }
    assert_eq!(health(&channel, "").await.unwrap(), ServingStatus::Serving);
    assert!(services(channel).await.contains(&"vllm.Inference".to_owned()));
}

#[tokio::test]
async fn quotas_are_the_same_as_over_http() {
    let server = server("abc");
    server.app.set_rules(Rules { rate: Rate { requests: 2, tokens: 0 }, ..Rules::default() });
    let channel = connect(listen(&server.app).await).await;
    let mut client = InferenceClient::new(channel.clone());
    let first = client.generate(request()).await.unwrap();
    assert_eq!(first.metadata().get("x-ratelimit-remaining-requests").unwrap(), "1");
    assert!(first.metadata().contains_key("x-request-id"));
    client.generate_stream(request()).await.unwrap();
    let refused = client.generate(request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let wait = refused.get_error_details().retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!((1..=30).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(refused.metadata().get("x-ratelimit-remaining-requests").unwrap(), "0");
    assert_eq!(health(&channel, "").await.unwrap(), ServingStatus::Serving, "looking is free");
}

#[tokio::test]
async fn messages_have_a_longest() {
    let http = HttpConfig { body_limit: 4096, ..HttpConfig::default() };
    let server = server_with(fake(), EngineConfig::default(), http);
    let (mut client, _) = clients(&server.app).await;
    let long = GenerateRequest { prompt: Some(Prompt::TokenIds(ids(&[200; 10_000]))), ..request() };
    let refused = client.generate(long).await.unwrap_err();
    let wanted = (Code::ResourceExhausted, "the message is longer than 4096 bytes (--max-body-mb)");
    assert_eq!((refused.code(), refused.message()), wanted);
    client.generate(request()).await.unwrap();
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let server = server("abc");
    let (_, mut control) = clients(&server.app).await;
    let info = control.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    let spec = server.model.engine.info();
    assert_eq!(info.max_model_len, 200);
    assert_eq!(info.kv_block_size as usize, spec.kv_cache.block_size);
    assert_eq!(info.total_kv_blocks, 1000);
    assert_eq!(info.max_running_requests as usize, EngineConfig::default().max_num_seqs);
    assert_eq!(info.proto_version, vllm_grpc_proto::vllm_proto::VERSION);
    assert_eq!(info.parallelism.unwrap().world_size, 1);
    let model = control.get_model_info(GetModelInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((model.model_id.as_str(), model.served_model_aliases), ("tiny", vec!["org/tiny".to_owned()]));
    assert_eq!((model.supports_token_ids_input, model.supports_multimodal, model.supports_lora), (true, false, false));
    assert!(control.list_loras(ListLorasRequest {}).await.unwrap().into_inner().adapters.is_empty());
    let sources = control.get_kv_event_sources(GetKvEventSourcesRequest {}).await.unwrap();
    assert!(sources.into_inner().sources.is_empty());
    assert!(!control.is_paused(IsPausedRequest {}).await.unwrap().into_inner().paused);
    assert!(!control.is_sleeping(IsSleepingRequest {}).await.unwrap().into_inner().sleeping);
    let refused = [
        (control.shutdown(ShutdownRequest {}).await.map(drop), Code::FailedPrecondition),
        (control.load_lora(LoadLoraRequest::default()).await.map(drop), Code::Unimplemented),
        (control.pause_generation(PauseGenerationRequest::default()).await.map(drop), Code::Unimplemented),
        (control.sleep(SleepRequest::default()).await.map(drop), Code::Unimplemented),
        (control.update_weights(UpdateWeightsRequest::default()).await.map(drop), Code::Unimplemented),
    ];
    for (result, code) in refused {
        let status = result.unwrap_err();
        assert!(status.code() == code && !status.message().is_empty(), "{status}");
    }
}

/// Names that reflection knows.
async fn services(channel: Channel) -> Vec<String> {
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(channel);
    let mut answers = client.server_reflection_info(futures_util::stream::iter([asked])).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|service| service.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn services_are_known_by_reflection() {
    let server = server("abc");
    let channel = connect(listen(&server.app).await).await;
    let names = services(channel.clone()).await;
    for name in ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "vllm.Control", "vllm.Inference"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    let asked = ServerReflectionRequest {
        message_request: Some(MessageRequest::FileContainingSymbol("vllm.GenerateRequest".into())),
        ..Default::default()
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(futures_util::stream::iter([asked])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    assert!(matches!(answer, MessageResponse::FileDescriptorResponse(_)), "{answer:?}");
    // A service that isn't there is said so, not dropped.
    let mut stranger = tonic::client::Grpc::new(channel);
    stranger.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let path = axum::http::uri::PathAndQuery::from_static("/no.Such/Thing");
    let status = stranger.unary(Request::new(HealthCheckRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn health_follows_the_server() {
    let app = App::new(HttpConfig::default());
    let channel = connect(listen(&app).await).await;
    assert_eq!(health(&channel, "vllm.Inference").await.unwrap(), ServingStatus::NotServing);
    let watch = |service: &str| {
        let (mut client, service) = (HealthClient::new(channel.clone()), service.to_owned());
        async move { client.watch(HealthCheckRequest { service }).await.unwrap().into_inner() }
    };
    let (mut watcher, mut stranger) = (watch("").await, watch("no.Such").await);
    assert_eq!(watcher.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(stranger.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let early = InferenceClient::new(channel.clone()).generate(request()).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable, "{early}");

    app.set_model(Arc::clone(&server("abc").model));
    let next = timeout(LONG, watcher.message()).await.unwrap().unwrap();
    assert_eq!(next.unwrap().status(), ServingStatus::Serving);
    assert_eq!(health(&channel, "vllm.Control").await.unwrap(), ServingStatus::Serving);
    assert_eq!(health(&channel, "no.Such").await.unwrap_err().code(), Code::NotFound);

    app.drain();
    let next = timeout(LONG, watcher.message()).await.unwrap().unwrap();
    assert_eq!(next.unwrap().status(), ServingStatus::NotServing);
    assert!(timeout(LONG, watcher.message()).await.unwrap().unwrap().is_none(), "nobody waits for watchers");
}

#[tokio::test]
async fn the_end_waits_for_what_runs_and_for_nothing_else() {
    let slow = FakeConfig { step_delay: Duration::from_millis(10), ..fake() };
    let server = server_with(slow, EngineConfig::default(), HttpConfig::default());
    let listener = Listener::bind("127.0.0.1", 0, None, ConnectionLimits::default()).await.unwrap();
    let address = listener.address().unwrap();
    let (end, ended) = oneshot::channel::<()>();
    let app = server.app.clone();
    let serving = tokio::spawn(listener.serve_grpc(grpc::router(app.clone()), async move {
        drop(ended.await);
        app.drain();
    }));
    let channel = connect(address).await;
    let watched = HealthCheckRequest::default();
    let mut watcher = HealthClient::new(channel.clone()).watch(watched).await.unwrap().into_inner();
    watcher.message().await.unwrap().unwrap();
    // Nothing ends this stream: its client has no more to ask, and doesn't say so.
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let open = reflection.server_reflection_info(futures_util::stream::pending()).await.unwrap();
    let long = GenerateRequest {
        stopping: Some(StoppingCriteria { max_new_tokens: 60, ignore_eos: true, ..Default::default() }),
        ..request()
    };
    let mut stream = InferenceClient::new(channel.clone()).generate_stream(long).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    end.send(()).unwrap();
    let (mut tokens, mut finished) = (1, false);
    while let Some(part) = timeout(LONG, stream.message()).await.unwrap().unwrap() {
        let output = part.outputs.unwrap();
        tokens += output.num_tokens;
        finished |= output.finish_info.is_some();
    }
    assert_eq!((tokens, finished), (60, true), "what ran was answered in full");
    timeout(LONG, serving).await.expect("the server waits for watchers").unwrap();
    drop((watcher, open));
    assert!(TcpStream::connect(address).await.is_err());
}

/// An authority, a server's certificate and a client's, as PEM files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, strange) = (authority("ours"), authority("strange"));
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", ours.pem());
        for (name, issuer) in [("server", &ours), ("client", &ours), ("stranger", &strange)] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, issuer).unwrap();
            write(&format!("{name}.pem"), certificate.pem() + &key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens a port with the server's certificate, for those who have one of ours if `mutual`.
    async fn listen(&self, app: &App, mutual: bool) -> SocketAddr {
        let files = TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.pem"),
            client_roots: mutual.then(|| self.path("ca.pem")),
            alpn: Alpn::Grpc,
        };
        let tls = Arc::new(Tls::new(files.read().unwrap()));
        let listener = Listener::bind("127.0.0.1", 0, Some(tls), ConnectionLimits::default()).await.unwrap();
        let address = listener.address().unwrap();
        tokio::spawn(listener.serve_grpc(grpc::router(app.clone()), std::future::pending()));
        address
    }

    /// A connection by TLS, with a client's certificate if there is a name.
    async fn connect(&self, address: SocketAddr, client: Option<&str>) -> Result<Channel, tonic::transport::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let path = self.path(&format!("{name}.pem"));
                let chain = vec![CertificateDer::from_pem_file(&path).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&path).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from("localhost").unwrap();
                let stream = connector.connect(name, stream).await?;
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connect).await
    }
}

#[tokio::test]
async fn certificates_of_both_sides() {
    let server = server("abc");
    let certificates = Certificates::new();
    let cases: [(bool, Option<&str>, bool); 5] = [
        (false, None, true),
        (false, Some("client"), true),
        (true, Some("client"), true),
        (true, None, false),
        (true, Some("stranger"), false),
    ];
    for (mutual, client, wanted) in cases {
        let address = certificates.listen(&server.app, mutual).await;
        // With TLS 1.3 a client learns that it was turned away when it first reads.
        let said = async {
            let channel = certificates.connect(address, client).await.ok()?;
            let whole = InferenceClient::new(channel).generate(request()).await.ok()?;
            Some(answer(whole.into_inner()).0.text)
        };
        let said = timeout(LONG, said).await.unwrap();
        assert_eq!(said.as_deref(), wanted.then_some("abc"), "mutual: {mutual}, client: {client:?}");
    }
}
