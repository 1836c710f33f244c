//! Transcriptions and translations over a model that hears without a model.

use std::collections::HashSet;

use axum::http::StatusCode;
use serde_json::{Value, json};
use vllm_platform::testing::FakeListenerConfig;

use crate::support::{
    Server, server,
    speech::{form, hearing, hearing_along, post_form, transcribe, wav, words},
};

fn listening() -> Server {
    let server = server("hello");
    hearing(&server, FakeListenerConfig::default());
    server
}

/// Fields of a form.
type Sent<'a> = &'a [(&'a str, &'a str)];

#[tokio::test]
async fn every_format() {
    let server = listening();
    let reply = transcribe(&server, &[]).await;
    let usage = json!({ "type": "duration", "seconds": 4 });
    assert_eq!(reply.json(), json!({ "text": "three five", "language": "en", "duration": 4.0, "usage": usage }));

    // (format, content type, how it begins)
    let cases = [
        ("text", "text/plain; charset=utf-8", "three five\n"),
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,"),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n"),
    ];
    for (format, kind, start) in cases {
        let reply = transcribe(&server, &[("response_format", format)]).await;
        assert_eq!((reply.status, reply.headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind));
        assert!(reply.body.starts_with(start), "{format}: {}", reply.body);
    }

    let whole = transcribe(&server, &[("response_format", "verbose_json")]).await.json();
    assert_eq!((&whole["task"], &whole["language"]), (&json!("transcribe"), &json!("english")));
    assert_eq!((&whole["duration"], &whole["text"]), (&json!(4.0), &json!("three five")));
    let segments = whole["segments"].as_array().unwrap();
    assert_eq!(segments.iter().map(|s| s["text"].as_str().unwrap()).collect::<Vec<_>>(), [" three", " five"]);
    for (segment, start) in segments.iter().zip([0.5, 2.0]) {
        assert!((segment["start"].as_f64().unwrap() - start).abs() < 0.05, "{segment}");
        let mut keys: Vec<_> = segment.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let wanted = [
            "avg_logprob",
            "compression_ratio",
            "end",
            "id",
            "no_speech_prob",
            "seek",
            "start",
            "temperature",
            "text",
            "tokens",
        ];
        assert_eq!(keys, wanted);
    }
    assert!(whole.get("words").is_none());
}

#[tokio::test]
async fn segments_and_words_as_asked() {
    let server = listening();
    // (granularities, whether there are segments, whether there are words)
    let cases: [(&[&str], bool, bool); 4] =
        [(&[], true, false), (&["segment"], true, false), (&["word"], false, true), (&["word", "segment"], true, true)];
    for (wanted, segments, words) in cases {
        let mut fields = vec![("response_format", "verbose_json")];
        fields.extend(wanted.iter().map(|&wanted| ("timestamp_granularities[]", wanted)));
        let found = transcribe(&server, &fields).await.json();
        assert_eq!((found.get("segments").is_some(), found.get("words").is_some()), (segments, words), "{wanted:?}");
        if words {
            let words: Vec<&Value> = found["words"].as_array().unwrap().iter().map(|word| &word["word"]).collect();
            assert_eq!(words, ["three", "five"]);
        }
    }
}

#[tokio::test]
async fn events_add_up_to_the_text() {
    let server = listening();
    for format in ["json", "text"] {
        let events = transcribe(&server, &[("stream", "true"), ("response_format", format)]).await.events();
        let (done, deltas) = events.split_last().unwrap();
        let text: String = deltas.iter().map(|event| event["delta"].as_str().unwrap()).collect();
        assert!(deltas.len() >= 2 && deltas.iter().all(|event| event["type"] == "transcript.text.delta"));
        assert_eq!((text.as_str(), &done["text"]), ("three five", &json!("three five")));
        assert_eq!(done["type"], "transcript.text.done");
        assert_eq!(done["usage"], json!({ "type": "duration", "seconds": 4 }));
    }
}

#[tokio::test]
async fn the_originals_query_and_names() {
    let server = listening();
    let (path, file) = ("/v1/audio/transcriptions?model=whisper-fake&response_format=text", words());
    let reply = server.send(post_form(path, form(&[], Some(("a.wav", &file))))).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "three five\n"));
    // Its clients' SDKs send a model of their own.
    let fields = [("model", "whisper-1"), ("response_format", "json")];
    let reply = server.send(post_form(path, form(&fields, Some(("a.wav", &file))))).await;
    assert_eq!(reply.body, "three five\n");
}

#[tokio::test]
async fn translations_and_languages() {
    let server = listening();
    let file = words();
    let fields = [("model", "ears"), ("response_format", "verbose_json"), ("language", "German")];
    let reply = server.send(post_form("/v1/audio/translations", form(&fields, Some(("a.wav", &file))))).await.json();
    assert_eq!((&reply["task"], &reply["language"]), (&json!("translate"), &json!("german")));
    for (given, found) in [("de", "german"), ("Japanese", "japanese"), ("EN", "english")] {
        let fields = [("language", given), ("response_format", "verbose_json")];
        assert_eq!(transcribe(&server, &fields).await.json()["language"], found);
    }
}

#[tokio::test]
async fn a_recording_without_speech_has_no_text() {
    let server = listening();
    // Not silent, but below what the model hears.
    let mut quiet = wav(3000, std::slice::from_ref(&(0..3000)));
    for sample in quiet[44..].chunks_exact_mut(2) {
        let soft = i16::from_le_bytes([sample[0], sample[1]]) / 4096;
        sample.copy_from_slice(&soft.to_le_bytes());
    }
    let reply =
        server.send(post_form("/v1/audio/transcriptions", form(&[("model", "ears")], Some(("a.wav", &quiet))))).await;
    assert_eq!((reply.status, &reply.json()["text"]), (StatusCode::OK, &json!("")), "{}", reply.body);
}

#[tokio::test]
async fn bad_fields_are_named() {
    let server = listening();
    hearing_along(&server);
    let cases: &[(Sent<'_>, u16, &str, &str)] = &[
        (&[("response_format", "xml")], 400, "response_format is \"xml\"", "response_format"),
        (&[("response_format", "diarized_json")], 400, "tells speakers apart", "response_format"),
        (&[("language", "klingon")], 400, "klingon", "language"),
        (&[("language", "fr")], 400, "has not learnt it", "language"),
        (&[("temperature", "1.5")], 400, "temperature is 1.5", "temperature"),
        (&[("temperature", "warm")], 400, "temperature is \"warm\"", "temperature"),
        (&[("stream", "yes")], 400, "stream is \"yes\"", "stream"),
        (&[("stream", "true"), ("response_format", "srt")], 400, "json and text only", "stream"),
        (&[("timestamp_granularities[]", "word")], 400, "verbose_json only", "timestamp_granularities"),
        (
            &[("timestamp_granularities[]", "letter"), ("response_format", "verbose_json")],
            400,
            "has \"letter\"",
            "timestamp_granularities",
        ),
        (&[("include[]", "logprobs")], 400, "has \"logprobs\"", "include"),
        (&[("chunking_strategy", "auto")], 400, "--vad-model", "chunking_strategy"),
        (&[("chunking_strategy", "fixed")], 400, "server_vad", "chunking_strategy"),
        (
            &[("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "2")],
            400,
            "threshold is 2",
            "chunking_strategy.threshold",
        ),
        (&[("seed", "-1")], 400, "seed is \"-1\"", "seed"),
        (&[("timeout", "0")], 400, "timeout is 0", "timeout"),
        (&[("vad_filter", "true")], 400, "there is no field \"vad_filter\"", "vad_filter"),
        (&[("language", "en"), ("language", "de")], 400, "language is there 2 times", "language"),
        (&[("known_speaker_names[]", "Ann")], 400, "speakers apart", "known_speaker_names"),
    ];
    for (fields, status, wanted, param) in cases {
        let reply = transcribe(&server, fields).await;
        let (message, found, _) = reply.error();
        assert_eq!((reply.status.as_u16(), found), (*status, json!(param)), "{fields:?}: {message}");
        assert!(message.contains(wanted), "{fields:?}: {message}");
    }
    // (fields with the model among them, path, status, message, param)
    let cases: &[(Sent<'_>, &str, u16, &str, &str)] = &[
        (&[], "transcriptions", 400, "model is missing", "model"),
        (&[("model", "whisper-1")], "transcriptions", 404, "this server has tiny, org/tiny, ears, along", "model"),
        (&[("model", "tiny")], "transcriptions", 400, "generates text and transcribes nothing", "model"),
        (&[("model", "along")], "translations", 400, "can't be told to translate", "model"),
        (&[("model", "along"), ("language", "en")], "transcriptions", 400, "the language", "language"),
        (&[("model", "along"), ("prompt", "Ann")], "transcriptions", 400, "what came before", "prompt"),
    ];
    let file = words();
    for (fields, path, status, wanted, param) in cases {
        let reply = server.send(post_form(&format!("/v1/audio/{path}"), form(fields, Some(("a.wav", &file))))).await;
        let (message, found, _) = reply.error();
        assert_eq!((reply.status.as_u16(), found), (*status, json!(param)), "{fields:?}: {message}");
        assert!(message.contains(wanted), "{fields:?}: {message}");
    }
    let chat = json!({ "model": "ears", "messages": [{ "role": "user", "content": "hi" }] });
    for path in ["/v1/chat/completions", "/v1/embeddings"] {
        let reply = server.post(path, &chat.to_string()).await;
        assert!(reply.error().0.contains("it is served at /v1/audio/transcriptions"), "{path}: {}", reply.body);
    }
}

#[tokio::test]
async fn models_that_go_along_the_sound() {
    let server = server("hello");
    hearing_along(&server);
    let reply = server
        .send(post_form("/v1/audio/transcriptions", form(&[("model", "along")], Some(("a.wav", &words())))))
        .await;
    let body = reply.json();
    assert!(!body["text"].as_str().unwrap().is_empty(), "{body}");
    assert_eq!((&body["language"], &body["duration"]), (&Value::Null, &json!(4.0)));
}

#[tokio::test]
async fn failures_reach_clients_books_and_lists() {
    let server = server("hello");
    hearing(&server, FakeListenerConfig { fail_encode_at: HashSet::from([0, 2]), ..Default::default() });
    let reply = transcribe(&server, &[]).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (500, json!("engine_error")));
    assert_eq!(transcribe(&server, &[]).await.status, 200);
    // Nothing was sent yet: an error with its status, not an event.
    assert_eq!(transcribe(&server, &[("stream", "true")]).await.status, 500);
    let metrics = server.get("/metrics").await.body;
    for line in [
        "endpoint=\"audio_transcriptions\",stream=\"false\",result=\"error\"} 1",
        "endpoint=\"audio_transcriptions\",stream=\"false\",result=\"success\"} 1",
        "endpoint=\"audio_transcriptions\",stream=\"true\",result=\"error\"} 1",
        "vllm_mlx_transcription_audio_seconds_total{model=\"ears\"} 4",
        "vllm_mlx_transcription_requests_waiting{model=\"ears\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let status = server.get("/v1/status").await.json();
    assert_eq!(status["transcribers"][0]["total_requests_failed"], 2, "{status}");
    let listed = server.get("/v1/models").await.json();
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny", "org/tiny", "ears"]);
    assert_eq!(server.get("/v1/models/ears").await.json()["id"], "ears");
    assert_eq!(server.get("/health").await.json()["status"], "ok");
}
