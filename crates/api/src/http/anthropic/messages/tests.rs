use super::*;
use crate::http::media::Takes;

fn of(system: Value, messages: Value) -> Result<Conversation, Value> {
    let Value::Array(messages) = messages else { panic!("messages must be an array") };
    let mut media = Media::new(Takes::default());
    conversation(Some(system).filter(|system| !system.is_null()), messages, &mut media)
        .map_err(|error| error.to_json()["error"]["message"].clone())
}

#[test]
fn accepted_forms() {
    let user = |content: Value| json!([{ "role": "user", "content": content }]);
    let hi = json!({ "role": "user", "content": "hi" });
    let header = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;";
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "look", "arguments": { "b": 1, "a": [2] } } });
    let tool_use = json!({ "type": "tool_use", "id": "t1", "name": "look", "input": { "b": 1, "a": [2] } });
    let cases = [
        ("a string", json!(null), user(json!("hi")), json!([hi])),
        (
            "blocks, marked for caching",
            json!(null),
            user(json!([
                { "type": "text", "text": "a", "cache_control": { "type": "ephemeral", "ttl": "1h" } },
                { "type": "text", "text": "b" },
            ])),
            json!([{ "role": "user", "content": "a\nb" }]),
        ),
        (
            "a system prompt",
            json!("Be kind."),
            user(json!("hi")),
            json!([{ "role": "system", "content": "Be kind." }, hi]),
        ),
        (
            "Claude Code's system prompt",
            json!([{ "type": "text", "text": header }, { "type": "text", "text": "You are Claude Code." }]),
            user(json!("hi")),
            json!([{ "role": "system", "content": "You are Claude Code." }, hi]),
        ),
        (
            "the header in one string with the rest",
            json!(format!("{header}\n\nYou are Claude Code.\nBe brief.")),
            user(json!("hi")),
            json!([{ "role": "system", "content": "You are Claude Code.\nBe brief." }, hi]),
        ),
        ("nothing but the header", json!(header), user(json!("hi")), json!([hi])),
        (
            "a header that is the user's own words",
            json!(null),
            user(json!(header)),
            json!([{ "role": "user", "content": header }]),
        ),
        (
            "a system message in the middle keeps its place",
            json!("s"),
            json!([
                { "role": "user", "content": "hi" },
                { "role": "system", "content": [{ "type": "text", "text": "a reminder" }] },
                { "role": "assistant", "content": "yes" },
                { "role": "user", "content": "hi" },
            ]),
            json!([
                { "role": "system", "content": "s" }, hi, { "role": "system", "content": "a reminder" },
                { "role": "assistant", "content": "yes" }, hi,
            ]),
        ),
        (
            "documents and search results",
            json!(null),
            user(json!([
                { "type": "document", "title": "T", "context": "C",
                  "source": { "type": "text", "media_type": "text/plain", "data": "D" } },
                { "type": "document", "citations": { "enabled": false },
                  "source": { "type": "content", "content": [{ "type": "text", "text": "E" }] } },
                { "type": "search_result", "source": "S", "title": "R",
                  "content": [{ "type": "text", "text": "F" }] },
            ])),
            json!([{ "role": "user", "content": "T\nC\nD\nE\nR\nS\nF" }]),
        ),
        (
            "thoughts, words and uses of tools; results and words",
            json!(null),
            json!([
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "hm", "signature": "x" },
                    { "type": "redacted_thinking", "data": "x" },
                    { "type": "text", "text": "Let me look." },
                    tool_use,
                    { "type": "tool_use", "id": "t2", "name": "look", "input": { "b": 1, "a": [2] } },
                ] },
                { "role": "user", "content": [
                    { "type": "text", "text": "and hurry" },
                    { "type": "tool_result", "tool_use_id": "t2", "is_error": true, "content": "no" },
                    { "type": "tool_result", "tool_use_id": "t1",
                      "content": [{ "type": "text", "text": "4" }, { "type": "text", "text": "2" }] },
                    { "type": "tool_result", "tool_use_id": "unknown" },
                ] },
            ]),
            json!([
                hi,
                { "role": "assistant", "content": "Let me look.", "reasoning_content": "hm",
                  "tool_calls": [call("t1"), call("t2")] },
                { "role": "tool", "tool_call_id": "t2", "content": "The tool failed:\nno", "name": "look" },
                { "role": "tool", "tool_call_id": "t1", "content": "4\n2", "name": "look" },
                { "role": "tool", "tool_call_id": "unknown", "content": "" },
                { "role": "user", "content": "and hurry" },
            ]),
        ),
    ];
    for (name, system, messages, wanted) in cases {
        let conversation = of(system, messages).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(Value::Array(conversation.messages), wanted, "{name}");
        assert!(!conversation.is_prefilled, "{name}");
    }
}

#[test]
fn an_assistants_last_words_are_the_beginning_of_its_answer() {
    let messages = json!([{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "He" }]);
    assert!(of(json!(null), messages).unwrap().is_prefilled);
}

#[test]
fn refused_forms_are_named() {
    let user = |block: Value| json!([{ "role": "user", "content": [block] }]);
    let assistant = |block: Value| json!([{ "role": "assistant", "content": [block] }]);
    let cases = [
        (json!(null), json!([]), "messages is empty: there must be at least one"),
        (json!(3), json!(["x"]), "system is 3: it must be a string or an array of blocks"),
        (json!(null), json!(["x"]), "messages[0] is a string: it must be an object"),
        (json!(null), json!([{ "content": "x" }]), "messages[0].role is missing"),
        (
            json!(null),
            json!([{ "role": "tool", "content": "x" }]),
            "messages[0].role is \"tool\": it must be user, assistant or system",
        ),
        (json!(null), json!([{ "role": "user" }]), "messages[0].content is missing"),
        (
            json!(null),
            json!([{ "role": "user", "content": 7 }]),
            "messages[0].content is 7: it must be a string or an array of blocks",
        ),
        (json!(null), user(json!("x")), "messages[0].content[0] is \"x\": it must be an object with a type"),
        (json!(null), user(json!({})), "messages[0].content[0] has no type"),
        (json!(null), user(json!({ "type": "text" })), "messages[0].content[0] has no text"),
        (
            json!(null),
            user(json!({ "type": "text", "text": 1 })),
            "messages[0].content[0].text is 1: it must be a string",
        ),
        (
            json!(null),
            user(json!({ "type": "image", "source": { "type": "url", "url": "x" } })),
            "messages[0].content[0] is of type \"image\": this model takes text only",
        ),
        (
            json!(null),
            user(json!({ "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "image" }] })),
            "messages[0].content[0].content[0] is of type \"image\": this model takes text only",
        ),
        (
            json!(null),
            user(json!({ "type": "document", "source": { "type": "base64", "data": "" } })),
            "messages[0].content[0].source is of type \"base64\": this model takes text only",
        ),
        (
            json!(null),
            user(json!({ "type": "document", "citations": { "enabled": true }, "source": {} })),
            "messages[0].content[0].citations: this server's answers have no citations",
        ),
        (
            json!(null),
            user(json!({ "type": "web_search_tool_result", "tool_use_id": "t", "content": [] })),
            "messages[0].content[0] is of type \"web_search_tool_result\": this server runs no tools of its own",
        ),
        (
            json!(null),
            user(json!({ "type": "riddle" })),
            "messages[0].content[0] is of type \"riddle\": it is not known here",
        ),
        (
            json!(null),
            user(json!({ "type": "tool_use" })),
            "messages[0].content[0] is of type \"tool_use\": only blocks of the assistant's turns are",
        ),
        (
            json!(null),
            assistant(json!({ "type": "tool_result" })),
            "messages[0].content[0] is of type \"tool_result\": only blocks of the user's turns are",
        ),
        (json!(null), user(json!({ "type": "tool_result" })), "messages[0].content[0] has no tool_use_id"),
        (
            json!(null),
            assistant(json!({ "type": "tool_use", "id": "a", "name": "f", "input": "{}" })),
            "messages[0].content[0].input is \"{}\": it must be an object",
        ),
        (
            json!(null),
            assistant(json!({ "type": "tool_use", "id": "a", "name": "f", "input": {} })),
            "messages ends with a tool_use: its tool_result is missing",
        ),
    ];
    for (system, messages, wanted) in cases {
        assert_eq!(of(system, messages).unwrap_err(), wanted);
    }
}

#[test]
fn images_stand_where_they_were() {
    let gif = "R0lGODlhAQ==";
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/gif", "data": gif } });
    let linked = json!({ "type": "image", "source": { "type": "url", "url": "https://example.com/a.png" },
        "cache_control": { "type": "ephemeral" } });
    let mut media = Media::new(Takes { images: true, ..Takes::default() });
    let messages = json!([
        { "role": "user", "content": [{ "type": "text", "text": "look" }, image] },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "t1", "name": "shot", "input": {} }] },
        { "role": "user", "content": [
            { "type": "text", "text": "and" },
            { "type": "tool_result", "tool_use_id": "t1", "content": [linked, { "type": "text", "text": "done" }], "is_error": true },
            image,
        ] },
    ]);
    let conversation = conversation(None, messages.as_array().unwrap().clone(), &mut media).unwrap();
    let text = |text: &str| json!({ "type": "text", "text": text });
    let image = |index: usize| json!({ "type": "image", "media": index });
    assert_eq!(conversation.messages[0]["content"], json!([text("look"), image(0)]));
    assert_eq!(conversation.messages[2]["content"], json!([text("The tool failed:"), image(1), text("done")]));
    assert_eq!(conversation.messages[3]["content"], json!([text("and"), image(2)]));
    let places: Vec<&str> = media.parts().iter().map(|part| part.at.as_str()).collect();
    assert_eq!(places, ["messages[0].content[1]", "messages[2].content[1].content[0]", "messages[2].content[2]"]);
}

#[test]
fn images_that_can_not_be_had() {
    let of = |takes, block: Value| {
        let message = json!({ "role": "user", "content": [block] });
        let error = conversation(None, vec![message], &mut Media::new(takes)).unwrap_err();
        error.message().to_owned()
    };
    let sees = Takes { images: true, ..Takes::default() };
    let image = |source: Value| json!({ "type": "image", "source": source });
    let url = json!({ "type": "url", "url": "https://example.com/a.png" });
    let at = "messages[0].content[0]";
    let cases = [
        (Takes::default(), image(url.clone()), " is of type \"image\": this model takes text only"),
        (sees, json!({ "type": "image" }), " has no source"),
        (
            sees,
            image(json!({ "type": "file", "file_id": "f" })),
            ".source: this server keeps no files: use base64 or url",
        ),
        (sees, image(json!({ "type": "text", "data": "x" })), ".source is of type \"text\": it must be base64 or url"),
        (sees, image(json!({ "type": "url" })), ".source has no url"),
        (sees, image(json!({ "type": "base64", "data": "x" })), ".source has no media_type"),
        (sees, image(json!({ "type": "base64", "media_type": "image/gif", "data": "" })), ".source.data is empty"),
        (
            sees,
            image(json!({ "type": "base64", "media_type": "application/pdf", "data": "x" })),
            ".source.media_type is \"application/pdf\": it must be image/jpeg, image/png, image/gif, image/webp, image/bmp, image/tiff",
        ),
    ];
    for (takes, block, wanted) in cases {
        assert_eq!(of(takes, block), format!("{at}{wanted}"));
    }
    let assistant = json!({ "role": "assistant", "content": [image(url)] });
    let error = conversation(None, vec![assistant], &mut Media::new(sees)).unwrap_err();
    assert_eq!(
        error.message(),
        format!("{at} is of type \"image\": images stand in what users say and in results of tools only")
    );
}
