//! Files that are too long, broken or never complete: refused clearly, and nothing is left of them. Alone in its process, for it
//! looks at all files that this has open.

#[path = "it/support/mod.rs"]
mod support;

use std::{io, time::Duration};

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::json;
use support::{
    Reply, Server, server_of,
    speech::{BOUNDARY, form, hearing, post_form, wav, words},
};
use vllm_api::http::{App, AudioLimits, HttpConfig};
use vllm_platform::testing::FakeListenerConfig;

/// Files without names that are open in the folder for temporary ones.
#[cfg(target_os = "linux")]
fn open_files() -> Vec<String> {
    let folder = std::env::temp_dir();
    let links = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    let links = links.filter(|link| link.starts_with(&folder)).map(|link| link.display().to_string());
    links.filter(|link| link.ends_with("(deleted)")).collect()
}

#[cfg(not(target_os = "linux"))]
fn open_files() -> Vec<String> {
    Vec::new()
}

fn listening(limits: AudioLimits) -> Server {
    let config = HttpConfig { audio: limits, read_timeout: Some(Duration::from_millis(300)), ..HttpConfig::default() };
    let server = server_of(support::fake(), Default::default(), App::new(config));
    hearing(&server, FakeListenerConfig::default());
    server
}

async fn send(server: &Server, body: impl Into<Body>) -> Reply {
    server.send(post_form("/v1/audio/transcriptions", body)).await
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let limits = AudioLimits { upload_bytes: 3 << 20, duration: Duration::from_secs(60), input_chars: 10 };
    let server = listening(limits);
    let ears: &[(&str, &str)] = &[("model", "ears")];
    let good = words();
    let long = wav(61_000, std::slice::from_ref(&(0..1000)));
    let mut not_finite = wav(1000, std::slice::from_ref(&(0..1000)));
    // 32-bit floats: the format's code and the bytes of a sample.
    not_finite[20..22].copy_from_slice(&3u16.to_le_bytes());
    not_finite[32..36].copy_from_slice(&[4, 0, 32, 0]);
    let nan = f32::NAN.to_le_bytes();
    not_finite[44..].chunks_exact_mut(4).for_each(|sample| sample.copy_from_slice(&nan));
    // (what, file, status, what the message says)
    let cases: &[(&str, &[u8], u16, &str)] = &[
        ("empty", &[], 400, "file is empty"),
        ("not a sound", b"once upon a time, there was no sound", 400, "not an audio file"),
        ("a header", &good[..30], 400, "file: "),
        ("truncated", &good[..good.len() / 2], 400, "truncated"),
        ("silent", &wav(2000, &[]), 400, "silence"),
        ("not finite", &not_finite, 400, "file: "),
        ("too long a sound", &long, 400, "too long"),
        ("too long a file", &vec![7; (3 << 20) + 1], 413, "longer than 3145728 bytes (3 MiB)"),
    ];
    for (what, file, status, wanted) in cases {
        let reply = send(&server, form(ears, Some(("a.wav", file)))).await;
        let (message, param, code) = reply.error();
        assert_eq!((reply.status.as_u16(), param), (*status, json!("file")), "{what}: {message}");
        assert!(message.contains(wanted) && code.is_string(), "{what}: {message} {code}");
        assert_eq!(open_files(), [""; 0], "{what}");
    }
    let two = [form(ears, Some(("a.wav", &good))), form(&[], Some(("b.wav", &good)))];
    let end = format!("--{BOUNDARY}--\r\n").len();
    let two = [&two[0][..two[0].len() - end], &two[1]].concat();
    let whole = form(ears, Some(("a.wav", &good)));
    // (what, body, what the message says)
    let broken: [(&str, Vec<u8>, &str); 6] = [
        ("no file", form(ears, None), "file is missing"),
        ("two files", two, "more than one file"),
        ("cut off", whole[..whole.len() / 2].to_vec(), "the form could not be read"),
        ("no form", b"{}".to_vec(), "the form could not be read"),
        ("a field without end", form(&[("prompt", &"x".repeat(2 << 20))], None), "prompt is longer"),
        ("too many fields", form(&[("a", "b"); 101], None), "more than 100 fields"),
    ];
    for (what, body, wanted) in broken {
        let reply = send(&server, body).await;
        assert_eq!(reply.status, 400, "{what}: {}", reply.body);
        assert!(reply.error().0.contains(wanted), "{what}: {}", reply.body);
        assert_eq!(open_files(), [""; 0], "{what}");
    }
    let reply = server.post("/v1/audio/transcriptions", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (400, json!("invalid_content_type")));

    // Clients that go away, or get slower and slower.
    let begin = Bytes::from(form(ears, Some(("a.wav", &vec![7; 2 << 20])))[..(3 << 20) / 2].to_vec());
    let pieces = stream::iter([Ok(begin.clone()), Err(io::Error::from(io::ErrorKind::ConnectionReset))]);
    assert_eq!(send(&server, Body::from_stream(pieces)).await.status, 400);
    assert_eq!(open_files(), [""; 0]);
    let endless = || {
        stream::unfold(Some(begin.clone()), |first| async move {
            let Some(first) = first else { return std::future::pending().await };
            Some((Ok::<_, io::Error>(first), None))
        })
    };
    assert_eq!(send(&server, Body::from_stream(endless())).await.status, 408);
    assert_eq!(open_files(), [""; 0]);
    // As the server does with a request whose connection is gone: it is dropped in mid-upload.
    let dropped = tokio::time::timeout(Duration::from_millis(100), send(&server, Body::from_stream(endless()))).await;
    assert!(dropped.is_err());
    assert_eq!(open_files(), [""; 0]);
    // A length that is announced is believed.
    let mut request = post_form("/v1/audio/transcriptions", Body::from_stream(endless()));
    request.headers_mut().insert("content-length", (100u64 << 20).into());
    assert_eq!(server.send(request).await.status, 413);

    let reply = send(&server, whole).await;
    assert_eq!(reply.json()["text"], "three five");
    assert_eq!(open_files(), [""; 0]);
}
