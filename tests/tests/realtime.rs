//! OpenAI's own Python SDK talks to real models over `/v1/realtime`.

use std::{path::Path, process::Command};

use vllm_tests::{Server, fetched, python};

#[test]
fn the_official_python_sdk_talks_and_is_answered() {
    let [whisper, kokoro, silero] = ["whisper-tiny.en", "kokoro-82m", "silero-vad"].map(fetched);
    let flags = [("--transcription-model", &whisper), ("--speech-model", &kokoro), ("--vad-model", &silero)];
    let flags = flags.map(|(flag, path)| [flag, path.as_str()]).concat();
    let server = Server::smollm2(&[flags, vec!["--served-model-name", "smollm2"]].concat());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/realtime_sdk.py");
    let clip = Path::new(&fetched("clips")).join("two_cities.wav");
    let out = Command::new(python()).arg(script).arg(server.url("/v1")).arg(clip).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}
