//! The loader: sources of every kind, what it remembers, and what it refuses.

mod fixtures;

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use fixtures::{files, folder};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use vllm_media::{FetchPolicy, Limits, Loader, MediaErrorKind, Sampling, Source};

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(folder(path)).unwrap()
}

fn loader(policy: &FetchPolicy) -> Loader {
    Loader::new(policy, Limits::default(), 1 << 20).unwrap()
}

fn here() -> FetchPolicy {
    FetchPolicy {
        allowed_domains: vec!["127.0.0.1".to_owned()],
        allow_private_networks: true,
        local_root: Some(folder("pictures")),
    }
}

/// A server that has this file at every address, as many times as it is asked.
async fn serve(file: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/picture", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![];
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", file.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&file).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_picture_is_the_same_however_it_comes() {
    let png = bytes("pictures/rgb.png");
    let loader = loader(&here());
    let sources = [
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(&png)),
        BASE64_STANDARD.encode(&png),
        serve(png.clone()).await,
        "rgb.png".to_owned(),
        folder("pictures/rgb.png").display().to_string(),
        format!("file://{}", folder("pictures/rgb.png").display()),
        // Other files of the same pixels.
        "interlaced.png".to_owned(),
        "lossless.webp".to_owned(),
        "lzw.tiff".to_owned(),
    ];
    let mut hashes = vec![];
    for source in &sources {
        hashes.push(loader.picture(&Source::parse(source).unwrap()).await.unwrap().hash());
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let remembered = loader.remembered();
    assert_eq!((remembered.misses, remembered.hits, remembered.entries), (4, 5, 4));
    assert_eq!(remembered.bytes, 4 * 37 * 29 * 3);
    loader.forget();
    assert_eq!((loader.remembered().entries, loader.remembered().bytes), (0, 0));
}

#[tokio::test]
async fn what_changes_at_an_address_is_seen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        for name in ["pictures/rgb.png", "pictures/gray.png"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1000]).await.unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await.unwrap();
            stream.write_all(&bytes(name)).await.unwrap();
        }
    });
    let loader = loader(&here());
    let source = Source::parse(&address).unwrap();
    let (first, second) = (loader.picture(&source).await.unwrap(), loader.picture(&source).await.unwrap());
    assert_ne!(first.hash(), second.hash());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_are_decoded_once() {
    let loader = Arc::new(loader(&here()));
    let tasks = (0..16).map(|_| {
        let loader = loader.clone();
        tokio::spawn(async move { loader.picture(&Source::parse("444.jpg").unwrap()).await.unwrap().hash() })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((loader.remembered().misses, loader.remembered().hits), (1, 15));
}

#[tokio::test]
async fn videos_and_lists_of_frames() {
    let loader = loader(&here());
    let gif = Source::Bytes(bytes("animations/plain.gif").into());
    let all = Sampling { fps: Some(100.0), ..Sampling::default() };
    let (first, again) = (loader.video(&gif, &all).await.unwrap(), loader.video(&gif, &all).await.unwrap());
    assert_eq!((first.frames.len(), &first), (5, &again));
    assert_eq!(loader.video(&gif, &Sampling { max_frames: Some(2), ..all }).await.unwrap().frames.len(), 2);
    // As a picture it is another thing.
    assert_eq!(loader.picture(&gif).await.unwrap(), first.frames[0].picture);
    assert_eq!((loader.remembered().misses, loader.remembered().hits), (3, 1));

    let list = ["rgb.png", "gray.png", "rgb.png"].map(|name| Source::parse(name).unwrap());
    let video = loader.frames(&list, Some(4.0)).await.unwrap();
    assert_eq!(video.frames.iter().map(|frame| frame.at).collect::<Vec<_>>(), [0.0, 0.25, 0.5]);
    let odd = ["rgb.png", "oriented.png"].map(|name| Source::parse(name).unwrap());
    assert_eq!(loader.frames(&odd, None).await.unwrap_err().kind, MediaErrorKind::Invalid);
    assert_eq!(loader.frames(&list, Some(0.0)).await.unwrap_err().kind, MediaErrorKind::Invalid);
    assert_eq!(loader.frames(&[], None).await.unwrap_err().kind, MediaErrorKind::Invalid);
    let many = vec![list[0].clone(); 769];
    assert_eq!(loader.frames(&many, None).await.unwrap_err().kind, MediaErrorKind::TooLarge);
}

#[tokio::test]
async fn by_default_nothing_is_read_from_elsewhere() {
    let closed = loader(&FetchPolicy::default());
    let address = serve(bytes("pictures/rgb.png")).await;
    for (source, option) in [
        (address, "--allowed-media-domains"),
        ("/etc/passwd".to_owned(), "--allowed-local-media-path"),
        ("file:///etc/passwd".to_owned(), "--allowed-local-media-path"),
    ] {
        let error = closed.picture(&Source::parse(&source).unwrap()).await.unwrap_err();
        assert!(error.kind == MediaErrorKind::Forbidden && error.message.contains(option), "{source}: {error:?}");
    }
    let small = Loader::new(&here(), Limits { image_bytes: 100, ..Limits::default() }, 0).unwrap();
    for source in [
        serve(bytes("pictures/rgb.png")).await,
        "rgb.png".to_owned(),
        BASE64_STANDARD.encode(bytes("pictures/rgb.png")),
    ] {
        let error = small.picture(&Source::parse(&source).unwrap()).await.unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::TooLarge, "{source}");
    }
    let wrong = FetchPolicy { allowed_domains: vec!["http://example.com".to_owned()], ..FetchPolicy::default() };
    assert_eq!(Loader::new(&wrong, Limits::default(), 0).unwrap_err().kind, MediaErrorKind::Invalid);
}

#[tokio::test]
async fn nothing_is_remembered_without_room() {
    let loader = Loader::new(&here(), Limits::default(), 37 * 29 * 3 * 2).unwrap();
    for (name, _) in files("pictures") {
        loader.picture(&Source::parse(&name).unwrap()).await.unwrap();
        assert!(loader.remembered().bytes <= 37 * 29 * 3 * 2);
    }
    assert_eq!(loader.remembered().entries, 2);
}
