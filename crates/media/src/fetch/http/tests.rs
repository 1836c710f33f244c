use std::{
    net::Ipv4Addr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;

/// A server that gives each request the next of these answers, and remembers the requests. After an answer that ends in `…`
/// it neither says more nor hangs up.
struct Server {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn new(answers: impl IntoIterator<Item = String>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(vec![]));
        let (log, answers): (_, Vec<String>) = (asked.clone(), answers.into_iter().collect());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![];
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                log.lock().unwrap().push(String::from_utf8(request).unwrap());
                let answer = answer.replace("{port}", &port.to_string());
                // Whoever has heard enough hangs up.
                let _ = stream.write_all(answer.trim_end_matches('…').as_bytes()).await;
                if answer.ends_with('…') {
                    tokio::time::sleep(Duration::from_secs(1000)).await;
                }
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

/// One that may fetch from these domains, on this machine too.
fn fetcher(domains: &[&str]) -> Fetcher {
    let allowed_domains = domains.iter().map(|&domain| domain.to_owned()).collect();
    Fetcher::new(&FetchPolicy { allowed_domains, allow_private_networks: true, local_root: None }).unwrap()
}

async fn fetch(fetcher: &Fetcher, url: &str) -> Result<Bytes, MediaError> {
    fetcher.fetch("picture", &address(url).unwrap(), 1000, Duration::from_secs(20)).await
}

#[tokio::test]
async fn a_body() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_owned();
    let open = "HTTP/1.0 200 OK\r\n\r\nuntil the end".to_owned();
    let server = Server::new([ok("hello"), chunked, open]).await;
    let fetcher = fetcher(&["127.0.0.1"]);
    for wanted in ["hello", "abcde", "until the end"] {
        let url = format!("http://127.0.0.1:{}/a?b", server.port);
        assert_eq!(fetch(&fetcher, &url).await.unwrap(), wanted);
    }
    let request = server.asked.lock().unwrap()[0].to_ascii_lowercase();
    assert!(request.starts_with("get /a?b http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", server.port)), "{request}");
    assert!(!request.contains("cookie") && !request.contains("authorization"), "{request}");
}

#[tokio::test]
async fn what_is_not_asked() {
    let server = Server::new([ok("hello")]).await;
    let port = server.port;
    let not_private = |domains: &[&str]| Fetcher { allow_private: false, ..fetcher(domains) };
    let cases = [
        ("nothing is allowed", fetcher(&[]), format!("http://127.0.0.1:{port}/"), "--allowed-media-domains"),
        ("another host is", fetcher(&["example.com"]), format!("http://127.0.0.1:{port}/"), "127.0.0.1 is not among"),
        ("private networks are not", not_private(&["127.0.0.1"]), format!("http://127.0.0.1:{port}/"), "private"),
        ("nor by name", not_private(&["localhost"]), format!("http://localhost:{port}/"), "private"),
        ("nor by a pattern", fetcher(&["*"]), format!("http://127.0.0.1:{port}/"), "private"),
        ("nor in another notation", fetcher(&["*"]), format!("http://2130706433:{port}/"), "private"),
        ("nor mapped into IPv6", fetcher(&["*"]), format!("http://[::ffff:127.0.0.1]:{port}/"), "private"),
        ("a password", fetcher(&["127.0.0.1"]), format!("http://me:secret@127.0.0.1:{port}/"), "password"),
    ];
    for (name, fetcher, url, message) in cases {
        let error = fetch(&fetcher, &url).await.unwrap_err();
        assert!(error.kind == MediaErrorKind::Forbidden && error.message.contains(message), "{name}: {error:?}");
        assert!(!error.message.contains("secret"), "{name}: {error:?}");
    }
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn a_name_is_looked_up_once_and_that_address_connected_to() {
    let server = Server::new([ok("hello")]).await;
    let looked_up = Arc::new(AtomicUsize::new(0));
    let count = looked_up.clone();
    let lookup: Box<Lookup> = Box::new(move |host, port| {
        assert_eq!(host, "pictures.test");
        // Another address the second time.
        let last = if count.fetch_add(1, Ordering::SeqCst) == 0 { 1 } else { 2 };
        Box::pin(async move { Ok(vec![SocketAddr::from(([127, 0, 0, last], port))]) })
    });
    let fetcher = Fetcher { lookup, ..fetcher(&["pictures.test"]) };
    let url = format!("http://pictures.test:{}/", server.port);
    assert_eq!(fetch(&fetcher, &url).await.unwrap(), "hello");
    assert_eq!(looked_up.load(Ordering::SeqCst), 1);
    assert!(server.asked.lock().unwrap()[0].contains(&format!("host: pictures.test:{}\r\n", server.port)));
}

#[tokio::test]
async fn one_private_address_is_enough_to_refuse() {
    let lookup: Box<Lookup> = Box::new(|_, port| {
        let both = [[8, 8, 8, 8], [10, 0, 0, 1]].map(|ip| SocketAddr::from((ip, port)));
        Box::pin(async move { Ok(both.to_vec()) })
    });
    let fetcher = Fetcher { lookup, ..fetcher(&["*"]) };
    let error = fetch(&fetcher, "https://pictures.test/").await.unwrap_err();
    assert!(error.kind == MediaErrorKind::Forbidden && error.message.contains("private"), "{error:?}");
}

#[tokio::test]
async fn redirects() {
    use MediaErrorKind::{Forbidden, Invalid, Unreachable};
    let cases: [(&str, Vec<String>, Result<&str, MediaErrorKind>); 9] = [
        ("to a path", vec![moved("/b"), ok("b")], Ok("GET /b ")),
        ("to a sibling", vec![moved("b"), ok("b")], Ok("GET /x/b ")),
        ("to a query", vec![moved("?b"), ok("b")], Ok("GET /x/y?b ")),
        ("to an address", vec![moved("http://127.0.0.1:{port}/b"), ok("b")], Ok("GET /b ")),
        ("to a private host by another name", vec![moved("http://localhost:{port}/b"), ok("b")], Err(Forbidden)),
        ("to another scheme", vec![moved("file:///etc/passwd")], Err(Invalid)),
        ("to nowhere", vec!["HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_owned()], Err(Unreachable)),
        ("five times", [0; 5].map(|_| moved("/b")).into_iter().chain([ok("b")]).collect(), Ok("GET /b ")),
        ("six times", [0; 6].map(|_| moved("/b")).into_iter().chain([ok("b")]).collect(), Err(Unreachable)),
    ];
    // "localhost" is allowed, but only by a pattern.
    let fetcher = fetcher(&["127.0.0.1", "*"]);
    for (name, answers, wanted) in cases {
        let server = Server::new(answers).await;
        let fetched = fetch(&fetcher, &format!("http://127.0.0.1:{}/x/y?z", server.port)).await;
        match wanted {
            Ok(begin) => {
                assert_eq!(fetched.unwrap(), "b", "{name}");
                assert!(server.asked.lock().unwrap().last().unwrap().starts_with(begin), "{name}");
            }
            Err(kind) => assert_eq!(fetched.unwrap_err().kind, kind, "{name}"),
        }
    }
}

#[test]
fn https_stays_https() {
    let from = Uri::from_static("https://example.com/a/b?c");
    let cases = [
        ("d", "https://example.com/a/d"),
        ("//example.net/d", "https://example.net/d"),
        ("http://example.com/d", "http://example.com/d"),
        ("d?e:f", "https://example.com/a/d?e:f"),
        ("/é", "https://example.com/%C3%A9"),
    ];
    for (to, wanted) in cases {
        assert_eq!(join(&from, to).unwrap(), wanted, "{to}");
    }
    assert!(join(&from, "ftp://example.com/").is_err() && join(&from, "data:x").is_err());
}

#[tokio::test]
async fn what_goes_wrong() {
    let long = "x".repeat(1001);
    let chunk = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n…", long.len());
    use MediaErrorKind::{Invalid, TooLarge, Unreachable};
    let cases = [
        ("too long by its head", "HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n…".to_owned(), TooLarge),
        ("too long, without saying so", format!("HTTP/1.0 200 OK\r\n\r\n{long}…"), TooLarge),
        ("too long in chunks", chunk, TooLarge),
        ("a head without end", format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(MAX_HEAD * 2)), Unreachable),
        ("nothing", ok(""), Invalid),
        ("cut off", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".to_owned(), Unreachable),
        ("not there", "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno".to_owned(), Unreachable),
        ("part of it", "HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\nno".to_owned(), Unreachable),
        (
            "compressed",
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nno".to_owned(),
            Unreachable,
        ),
        ("no HTTP", "220 mail.example.com ESMTP\r\n".to_owned(), Unreachable),
    ];
    let fetcher = fetcher(&["127.0.0.1"]);
    for (name, answer, kind) in cases {
        let server = Server::new([answer]).await;
        let error = fetch(&fetcher, &format!("http://127.0.0.1:{}/", server.port)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{name}: {error}");
    }
    let error = fetch(&fetcher, "http://127.0.0.1:1/").await.unwrap_err();
    assert_eq!(error.kind, Unreachable, "{error}");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    tokio::spawn(async move { listener.accept().await.unwrap().0.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await });
    let error = fetch(&fetcher, &url).await.unwrap_err();
    assert!(error.kind == Unreachable && error.message.contains("TLS"), "{error}");
}

#[tokio::test]
async fn slow_servers() {
    let fetcher = fetcher(&["127.0.0.1"]);
    for answer in ["…", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc…"] {
        let server = Server::new([answer.to_owned()]).await;
        let url = address(&format!("http://127.0.0.1:{}/", server.port)).unwrap();
        let error = fetcher.fetch("picture", &url, 1000, Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(
            (error.kind, error.to_string()),
            (MediaErrorKind::Timeout, "fetching the picture took longer than 0.05 s".to_owned())
        );
    }
}
