//! Whisper tiny.en and Kokoro under OpenAI's own SDK, with whatever is no sound, and on the command line.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;
use vllm_tests::{Server, fetched, python, run};

const BOUNDARY: &str = "a-line-between";

/// A server that keeps its temporary files in a folder of its own.
fn server(temporary: &Path) -> Server {
    let (ears, mouth, vad) = (fetched("whisper-tiny.en"), fetched("kokoro-82m"), fetched("silero-vad"));
    let models = ["--transcription-model", &ears, "--speech-model", &mouth, "--vad-model", &vad];
    let limits = ["--max-audio-upload-mb", "5", "--max-audio-seconds", "60"];
    let server = Server::start_in(&[("TMPDIR", temporary)], &[&models[..], &limits[..]].concat());
    server.wait_ready();
    server
}

/// Five seconds of a novel, read aloud: 16 bits, 48,000 samples a second.
fn read_aloud() -> Vec<u8> {
    let mut file = fs::read(fetched("clips") + "/two_cities.wav").expect("a clip");
    assert_eq!(&file[36..40], b"data", "a plain WAV file");
    file.truncate(44 + 5 * 96_000);
    let data = (file.len() - 44) as u32;
    file[4..8].copy_from_slice(&(data + 36).to_le_bytes());
    file[40..44].copy_from_slice(&data.to_le_bytes());
    file
}

#[test]
fn the_official_python_sdk_listens_and_speaks() {
    let temporary = tempfile::tempdir().expect("a folder");
    let server = server(temporary.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/audio_sdk.py");
    let args = [server.url("/v1"), fetched("clips")];
    let out = Command::new(python()).arg(script).args(args).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
    assert_eq!(fs::read_dir(temporary.path()).expect("the folder").count(), 0);
}

/// A form with a model and a file.
fn form(file: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-tiny.en\r\n--{BOUNDARY}\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n"
    );
    [head.as_bytes(), file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}

fn head(length: usize) -> String {
    format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n"
    )
}

/// Sends a form and reads the answer, as a client does that first writes all and then reads.
fn post(server: &Server, body: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    stream.write_all(head(body.len()).as_bytes()).expect("send the head");
    stream.write_all(body).expect("send the body");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (_, json) = answer.split_once("\r\n\r\n").expect("a body");
    (status, serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {answer}")))
}

#[test]
fn what_is_no_sound_is_refused_and_gone() {
    let temporary = tempfile::tempdir().expect("a folder");
    let server = server(temporary.path());
    let good = read_aloud();
    let minutes = [&good[..44], &vec![0x11; 90 * 32_000 / 2]].concat();
    let mut silent = good.clone();
    silent[44..].fill(0);
    let mut hour = minutes;
    // 8,000 samples a second: 90 s.
    hour[24..28].copy_from_slice(&8000u32.to_le_bytes());
    let data = (hour.len() - 44) as u32;
    hour[4..8].copy_from_slice(&(data + 36).to_le_bytes());
    hour[40..44].copy_from_slice(&data.to_le_bytes());
    // (what, file, status, code)
    let cases: [(&str, Vec<u8>, u16, &str); 6] = [
        ("empty", Vec::new(), 400, "invalid_audio"),
        ("text", b"no sound at all, but a text that goes on for a while".to_vec(), 400, "invalid_audio"),
        ("truncated", good[..good.len() / 2].to_vec(), 400, "invalid_audio"),
        ("silent", silent, 400, "invalid_audio"),
        ("too long a sound", hour, 400, "audio_too_long"),
        ("too long a file", vec![1; 12 << 20], 413, "request_too_large"),
    ];
    for (what, file, wanted, code) in cases {
        let (status, answer) = post(&server, &form(&file));
        let error = &answer["error"];
        assert_eq!((status, error["code"].as_str()), (wanted, Some(code)), "{what}: {answer}");
        assert_eq!(
            (error["param"].as_str(), error["type"].as_str()),
            (Some("file"), Some("invalid_request_error")),
            "{what}"
        );
        assert_eq!(fs::read_dir(temporary.path()).expect("the folder").count(), 0, "{what}");
    }
    // A client that goes away in the middle.
    let body = form(&vec![1; 3 << 20]);
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).expect("connect");
    stream.write_all(head(body.len()).as_bytes()).expect("send the head");
    stream.write_all(&body[..2 << 20]).expect("send a part");
    stream.shutdown(Shutdown::Both).expect("go away");
    drop(stream);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read_dir(temporary.path()).expect("the folder").count(), 0);
    let (status, answer) = post(&server, &form(&good));
    assert_eq!((status, answer["text"].as_str().map(str::to_lowercase).is_some()), (200, true), "{answer}");
}

#[test]
fn the_command_line_speaks_and_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a UTF-8 path").to_owned();
    let (ears, mouth) = (fetched("whisper-tiny.en"), fetched("kokoro-82m"));
    let text = "The quick brown fox jumps over the lazy dog.";
    for name in ["fox.wav", "fox.mp3"] {
        let out = run(&["speak", text, "-o", &path(name), "--model", &mouth, "--voice", "bf_emma", "--speed", "1.1"]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let out = run(&["transcribe", &path(name), "--model", &ears]);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), text, "{name}");
    }
    let results = path("out");
    let files = [&path("fox.wav"), &(fetched("clips") + "/hello_world.wav")];
    let out = run(&[
        "transcribe",
        files[0],
        files[1],
        "--model",
        &ears,
        "--format",
        "all",
        "--output-dir",
        &results,
        "--word-timestamps",
    ]);
    assert!(out.status.success() && out.stdout.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut names: Vec<String> = fs::read_dir(&results)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names.len(), 10, "{names:?}");
    let json: Value = serde_json::from_slice(&fs::read(format!("{results}/fox.json")).expect("a file")).expect("JSON");
    assert_eq!(
        (json["words"].as_array().map(Vec::len), json["language"].as_str()),
        (Some(9), Some("english")),
        "{json}"
    );
    assert!(fs::read_to_string(format!("{results}/fox.srt")).expect("a file").starts_with("1\n00:00:0"));

    // (arguments, what the one line says)
    let nothing = path("nothing.wav");
    let cases: [(&[&str], &str); 6] = [
        (&["speak", text, "-o", &nothing, "--model", &mouth, "--voice", "nobody"], "nobody"),
        (&["speak", "***", "-o", &nothing, "--model", &mouth], "nothing in the text can be said"),
        (&["speak", text, "-o", &path("none/x.wav"), "--model", &mouth], "none/x.wav"),
        (&["speak", text, "-o", &nothing, "--model", &ears], "transcribes: it does not speak"),
        (&["transcribe", &path("gone.wav"), "--model", &ears], "gone.wav"),
        (&["transcribe", &path("fox.wav"), "--model", &ears, "--language", "de"], "has not learnt it"),
    ];
    for (args, wanted) in cases {
        let out = run(args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && stderr.contains(wanted), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{args:?}: {stderr}");
    }
    assert!(!Path::new(&nothing).exists());
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 3, "two sounds and the folder of texts");
}
