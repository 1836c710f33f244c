//! Media in chat messages: all forms in which they come, and what is wrong with those that can't be had.

use serde_json::{Value, json};
use vllm_media::{Detail, Source};

use super::{Given, Media, MediaLimits, Sampling, Takes, place};
use crate::http::messages::normalise;

const ALL: Takes = Takes { images: true, videos: true, limits: MediaLimits { images: 3, videos: 1 } };
/// The beginning of a GIF, in base64.
const GIF: &str = "R0lGODlhAQ==";

fn bytes() -> Source {
    Source::Bytes(b"GIF89a\x01"[..].into())
}

fn image(source: Source, detail: Detail) -> Given {
    Given::Image { source, detail }
}

fn take(role: &str, parts: Value, takes: Takes) -> Result<(Value, Vec<Given>), String> {
    let mut media = Media::new(takes);
    let call = json!({ "role": "assistant", "content": "", "tool_calls": [{ "function": { "name": "f" } }] });
    let messages = normalise(vec![call, json!({ "role": role, "content": parts })], &mut media);
    let messages = messages.map_err(|error| error.message().to_owned())?;
    Ok((messages[1]["content"].clone(), media.parts().iter().map(|part| part.given.clone()).collect()))
}

#[test]
fn every_form_of_an_image() {
    let url = || Source::parse("https://example.com/a.png").unwrap();
    let data = format!("data:image/gif;base64,{GIF}");
    let cases = [
        ("a URL", json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}), url(), Detail::Auto),
        ("a string", json!({"type": "image_url", "image_url": data}), bytes(), Detail::Auto),
        ("detail", json!({"type": "image_url", "image_url": {"url": data, "detail": "low"}}), bytes(), Detail::Low),
        ("detail beside", json!({"type": "image_url", "image_url": data, "detail": "high"}), bytes(), Detail::High),
        (
            "a name for caches",
            json!({"type": "image_url", "image_url": {"url": data}, "uuid": "x"}),
            bytes(),
            Detail::Auto,
        ),
        ("Responses' form", json!({"type": "input_image", "image_url": data, "detail": "auto"}), bytes(), Detail::Auto),
        ("Hugging Face's URL", json!({"type": "image", "url": "https://example.com/a.png"}), url(), Detail::Auto),
        ("Hugging Face's base64", json!({"type": "image", "base64": GIF}), bytes(), Detail::Auto),
        ("data", json!({"type": "image", "data": GIF}), bytes(), Detail::Auto),
        ("the original's", json!({"type": "image", "image": GIF}), bytes(), Detail::Auto),
        ("the original's object", json!({"type": "image", "image": {"url": data}}), bytes(), Detail::Auto),
        ("a path", json!({"type": "image", "path": "/tmp/a.png"}), Source::Path("/tmp/a.png".into()), Detail::Auto),
    ];
    for (name, part, source, detail) in cases {
        let (content, given) = take("user", json!([part]), ALL).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(content, json!([{"type": "image", "media": 0}]), "{name}");
        assert_eq!(given, [image(source, detail)], "{name}");
    }
}

#[test]
fn every_form_of_a_video() {
    let url = || Source::parse("https://example.com/a.mp4").unwrap();
    let video = |fps, max_frames| Given::Video { source: url(), sampling: Sampling { fps, max_frames } };
    let cases = [
        ("a URL", json!({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4"}}), video(None, None)),
        ("a string", json!({"type": "video", "video": "https://example.com/a.mp4"}), video(None, None)),
        (
            "its frames",
            json!({"type": "video", "video": "https://example.com/a.mp4", "fps": 1.5, "max_frames": 8}),
            video(Some(1.5), Some(8)),
        ),
        (
            "its frames inside",
            json!({"type": "video_url", "video_url": {"url": "https://example.com/a.mp4", "fps": 2}, "fps": 1, "max_frames": 3}),
            video(Some(2.0), Some(3)),
        ),
        (
            "a list",
            json!({"type": "video", "video": [GIF, {"type": "image_url", "image_url": {"url": "https://example.com/a.mp4"}}], "fps": 4}),
            Given::Frames { sources: vec![bytes(), url()], sampling: Sampling { fps: Some(4.0), max_frames: None } },
        ),
    ];
    for (name, part, wanted) in cases {
        let (content, given) = take("user", json!([part]), ALL).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(content, json!([{"type": "video", "media": 0}]), "{name}");
        assert_eq!(given, [wanted], "{name}");
    }
}

#[test]
fn media_keep_their_places_among_texts() {
    let gif = json!({"type": "image", "image": GIF});
    let parts = json!([{"type": "text", "text": "a"}, gif, "b", gif]);
    let (first, second) = (json!({"type": "image", "media": 0}), json!({"type": "image", "media": 1}));
    for role in ["user", "tool"] {
        let (content, given) = take(role, parts.clone(), ALL).unwrap();
        let text = |text: &str| json!({"type": "text", "text": text});
        assert_eq!(content, json!([text("a"), first, text("b"), second]), "{role}");
        assert_eq!(given.len(), 2, "{role}");
        // For templates the numbers go; they say what stands where.
        let (messages, order) = place(&[json!({"content": [second, text("a"), first]}), json!({"content": "x"})]);
        assert_eq!((messages[0]["content"][0].clone(), order), (json!({"type": "image"}), vec![1, 0]));
    }
    // A client can't name what stands elsewhere.
    let (content, given) = take("user", json!([gif, {"type": "image", "media": 0, "image": GIF}]), ALL).unwrap();
    assert_eq!((content[1].clone(), given.len()), (second, 2));
}

#[test]
fn what_can_not_be_had_is_named() {
    let gif = || json!({"type": "image", "image": GIF});
    let video = || json!({"type": "video", "video": GIF});
    let images = Takes { videos: false, ..ALL };
    let text = Takes { images: false, ..images };
    let at = "messages[1].content[0]";
    let cases = [
        (text, json!([gif()]), "is of type image: this model takes text only"),
        (text, json!([video()]), "is of type video: this model takes text only"),
        (images, json!([video()]), "is of type video: this model takes text and images only"),
        (
            ALL,
            json!([{"type": "input_audio", "input_audio": {}}]),
            "is of type input_audio: this model takes text, images and videos only",
        ),
        (ALL, json!([{"type": "image_url"}]), "has no image_url"),
        (ALL, json!([{"type": "input_image"}]), "has no image_url"),
        (ALL, json!([{"type": "image_url", "image_url": null}]), "has no image_url"),
        (ALL, json!([{"type": "image_url", "image_url": {}}]), ".image_url has no url"),
        (ALL, json!([{"type": "image_url", "image_url": ""}]), ".image_url is empty"),
        (ALL, json!([{"type": "image", "base64": " "}]), ".base64 is empty"),
        (
            ALL,
            json!([{"type": "image_url", "image_url": 7}]),
            ".image_url is 7: it must be a string or an object with a url",
        ),
        (
            ALL,
            json!([{"type": "image_url", "image_url": [GIF]}]),
            ".image_url is an array: it must be a string or an object with a url",
        ),
        (
            ALL,
            json!([{"type": "image_url", "image_url": {"url": GIF, "detail": "best"}}]),
            ".image_url.detail is \"best\": it must be auto, low or high",
        ),
        (ALL, json!([{"type": "image_url", "image_url": {"url": 7}}]), ".image_url.url is 7: it must be a string"),
        (
            ALL,
            json!([{"type": "image_url", "image_url": "gopher://x"}]),
            ".image_url: gopher: is not an address to read media from; http:, https:, data: and file: are",
        ),
        (
            ALL,
            json!([{"type": "input_image", "file_id": "f"}]),
            ".file_id: this server keeps no files: send the image itself, or its URL",
        ),
        (
            ALL,
            json!([{"type": "image", "image": GIF, "max_pixels": 9}]),
            ".max_pixels can't be set for one part: use fps and max_frames for videos, detail for images",
        ),
        (ALL, json!([{"type": "video", "video": []}]), ".video is empty: there must be a frame at least"),
        (ALL, json!([{"type": "video", "video": [7]}]), ".video[0] is 7: it must be a string or an object with a url"),
        (
            ALL,
            json!([{"type": "video", "video": GIF, "fps": 0}]),
            ".fps is 0: it must be above 0 and at most 240 frames a second",
        ),
        (
            ALL,
            json!([{"type": "video", "video": GIF, "max_frames": 0}]),
            ".max_frames is 0: it must be a whole number from 1 to 4294967295",
        ),
    ];
    for (takes, parts, wanted) in cases {
        let error = take("user", parts.clone(), takes).unwrap_err();
        let gap = if wanted.starts_with('.') { "" } else { " " };
        assert_eq!(error, format!("{at}{gap}{wanted}"), "{parts}");
    }
    let too_many = take("user", json!([gif(), gif(), gif(), gif()]), ALL).unwrap_err();
    assert_eq!(too_many, "messages[1].content[3] is image number 4: a prompt may have 3 here (--limit-mm-per-prompt)");
    let too_many = take("user", json!([video(), gif(), video()]), ALL).unwrap_err();
    assert_eq!(too_many, "messages[1].content[2] is video number 2: a prompt may have 1 here (--limit-mm-per-prompt)");
    for role in ["system", "assistant"] {
        let error = take(role, json!([gif()]), ALL).unwrap_err();
        assert_eq!(error, format!("{at} is of type image: it may stand in messages of the user and of tools only"));
    }
}
