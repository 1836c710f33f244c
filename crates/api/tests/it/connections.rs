//! Sockets: slow clients, many clients, and the end, over a fake engine.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    time::{sleep, timeout},
};
use vllm_api::{
    http::HttpConfig,
    listener::{ConnectionLimits, Listener},
};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{Server, fake, server, server_with};

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(10);

fn limits(head: Duration) -> ConnectionLimits {
    ConnectionLimits { head: Some(head), ..Default::default() }
}

/// All that comes until the server closes the connection.
async fn rest(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    timeout(LONG, client.read_to_end(&mut text)).await.expect("the server closes the connection").unwrap();
    String::from_utf8(text).unwrap()
}

fn impatient() -> Server {
    let http = HttpConfig { read_timeout: Some(SHORT), ..Default::default() };
    server_with(fake(), EngineConfig::default(), http)
}

#[tokio::test]
async fn connections_that_send_no_head_are_closed() {
    let address = server("x").listen(limits(SHORT)).await;
    for sent in ["", "GET /health HT", "GET /health HTTP/1.1\r\nhost: x\r\na"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        let start = Instant::now();
        let text = rest(&mut client).await;
        assert!(!text.contains("200 OK"), "{sent:?}: {text}");
        assert!(start.elapsed() >= SHORT / 2, "{sent:?}");
    }
    // One that has been served and sends nothing more.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn bodies_that_do_not_come_are_not_waited_for() {
    let address = impatient().listen(ConnectionLimits::default()).await;
    for declared in ["content-length: 1000", "transfer-encoding: chunked"] {
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\n{declared}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        // A byte now and then doesn't help.
        let (mut reader, mut writer) = client.into_split();
        let drip = async {
            let byte: &[u8] = if declared.contains("chunked") { b"1\r\n \r\n" } else { b" " };
            while writer.write_all(byte).await.is_ok() {
                sleep(SHORT / 5).await;
            }
        };
        let mut text = vec![0; 4096];
        let read = tokio::select! {
            read = timeout(LONG, reader.read(&mut text)) => read.expect("an answer").unwrap(),
            () = drip => 0,
        };
        let text = String::from_utf8_lossy(&text[..read]);
        assert!(text.starts_with("HTTP/1.1 408") && text.contains("request_timeout"), "{declared}: {text}");
    }
}

/// Sends a completion that takes 300 ms and waits until it is under way.
async fn busy(server: &Server, address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let body = r#"{"model":"tiny","prompt":"x","max_tokens":60,"ignore_eos":true}"#;
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    client.write_all((head + body).as_bytes()).await.unwrap();
    while server.model.engine.stats().running < 1 {
        sleep(Duration::from_millis(1)).await;
    }
    client
}

fn slow(http: HttpConfig) -> Server {
    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    server_with(slow, EngineConfig::default(), http)
}

#[tokio::test]
async fn an_answer_may_take_longer_than_a_question() {
    let server = slow(HttpConfig { read_timeout: Some(SHORT), ..Default::default() });
    let address = server.listen(limits(SHORT)).await;
    let start = Instant::now();
    let text = rest(&mut busy(&server, address).await).await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\"completion_tokens\":60"), "{text}");
    assert!(start.elapsed() > SHORT * 2);
}

#[tokio::test]
async fn more_connections_than_allowed_wait() {
    let address = server("x").listen(ConnectionLimits { count: 1, head: None }).await;
    let first = TcpStream::connect(address).await.unwrap();
    sleep(SHORT).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut byte = [0];
    assert!(timeout(SHORT, second.read(&mut byte)).await.is_err(), "one place, and the first has it");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn draining_lets_requests_end_and_closes_what_is_idle() {
    let server = slow(HttpConfig::default());
    let listener = Listener::bind("127.0.0.1", 0, None, ConnectionLimits::default()).await.unwrap();
    let address = listener.address().unwrap();
    let (drain, draining) = oneshot::channel::<()>();
    let serving = tokio::spawn(listener.serve(server.router.clone(), async { drop(draining.await) }));
    let mut idle = TcpStream::connect(address).await.unwrap();
    let mut busy = busy(&server, address).await;
    drain.send(()).unwrap();
    assert_eq!(rest(&mut idle).await, "");
    assert!(TcpStream::connect(address).await.is_err(), "the port is free already");
    let text = rest(&mut busy).await;
    assert!(text.starts_with("HTTP/1.1 200 OK") && text.contains("\"completion_tokens\":60"), "{text}");
    timeout(LONG, serving).await.expect("the server's end").unwrap();
}
