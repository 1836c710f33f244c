//! Images and videos in messages, for templates that have a place for them and for those that don't.

use serde_json::{Map, Value, json};
use vllm_text::{ChatTemplate, MediaMarks, RenderRequest, TemplateError, TemplateVariables};

const MARKS: MediaMarks<'_> = MediaMarks { image: "<img>", video: "<vid>" };

/// Strings only.
const STRINGS: &str = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
/// Of the kind of Qwen2-VL's: marks in their places, in messages of every role.
const PARTS: &str = "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}\
    {% for p in m.content %}{% if p.type == 'image' %}[<img>]{% elif p.type == 'video' %}[<vid>]{% else %}{{ p.text }}{% endif %}\
    {% endfor %}{% endif %};{% endfor %}";
/// Of the kind of LLaVA's: images of users first, no videos, and text only in other roles.
const IMAGES_FIRST: &str = "{% for m in messages %}{{ m.role }}:{% if m.role == 'user' and m.content is not string %}\
    {% for p in m.content | selectattr('type', 'equalto', 'image') %}<img>\n{% endfor %}\
    {% for p in m.content | selectattr('type', 'equalto', 'text') %}{{ p.text }}{% endfor %}{% else %}{{ m.content }}{% endif %};{% endfor %}";
/// Takes parts and overlooks all but texts.
const TEXT_PARTS: &str = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
    {% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %};{% endfor %}";

fn render(source: &str, messages: &[Value], marks: &MediaMarks<'_>) -> Result<String, TemplateError> {
    let template = ChatTemplate::new(source, TemplateVariables::new()).expect("a valid template");
    let request = RenderRequest { messages, tools: None, add_generation_prompt: false, extra: &Map::new() };
    template.render_with_media(&request, marks)
}

fn user(parts: Value) -> Value {
    json!({"role": "user", "content": parts})
}

#[test]
fn every_template_shows_media() {
    let (image, video) = (json!({"type": "image"}), json!({"type": "video"}));
    let text = |text: &str| json!({"type": "text", "text": text});
    let two = user(json!([text("a"), image, text("b"), image]));
    let film = user(json!([video, text("a")]));
    let call = json!({"role": "assistant", "content": "", "tool_calls":
        [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}]});
    let shot = [user(json!("x")), call, json!({"role": "tool", "tool_call_id": "1", "content": [text("t"), image]})];
    let cases: [(&str, &str, &[Value], &str); 10] = [
        ("strings, images", STRINGS, std::slice::from_ref(&two), "user:a\n<img>\nb\n<img>;"),
        ("strings, a video", STRINGS, std::slice::from_ref(&film), "user:<vid>\na;"),
        ("strings, a tool", STRINGS, &shot, "user:x;assistant:;tool:t\n<img>;"),
        ("parts, images", PARTS, std::slice::from_ref(&two), "user:a[<img>]b[<img>];"),
        ("parts, a video", PARTS, std::slice::from_ref(&film), "user:[<vid>]a;"),
        ("parts, a tool", PARTS, &shot, "user:x;assistant:;tool:t[<img>];"),
        ("its own order", IMAGES_FIRST, std::slice::from_ref(&two), "user:<img>\n<img>\nab;"),
        ("a kind it doesn't know", IMAGES_FIRST, std::slice::from_ref(&film), "user:<vid>\na;"),
        ("a role it doesn't know", IMAGES_FIRST, &shot, "user:x;assistant:;tool:t\n<img>;"),
        ("overlooked", TEXT_PARTS, std::slice::from_ref(&two), "a\n<img>\nb\n<img>;"),
    ];
    for (name, source, messages, wanted) in cases {
        assert_eq!(render(source, messages, &MARKS).expect(name), wanted, "{name}");
    }
}

#[test]
fn text_parts_are_as_without_media() {
    let messages = [user(json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))];
    for (source, wanted) in [(STRINGS, "user:a\nb;"), (PARTS, "user:ab;"), (IMAGES_FIRST, "user:ab;")] {
        assert_eq!(render(source, &messages, &MARKS).expect(source), wanted);
        assert_eq!(render(source, &messages, &MediaMarks::default()).expect(source), wanted);
    }
}

#[test]
fn what_has_no_mark_is_refused() {
    let messages = [user(json!([{"type": "text", "text": "a"}, {"type": "video"}]))];
    let marks = MediaMarks { video: "", ..MARKS };
    let error = render(STRINGS, &messages, &marks).unwrap_err().to_string();
    assert_eq!(error, "messages[0].content[1] is of type \"video\", but this model's chat template takes text only");
}
