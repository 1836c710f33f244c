//! Claude Code's traffic: every turn finds the one before it in the prefix cache.

use serde_json::{Value, json};
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{EOS, Server, fake, formats::formats, server_like};

const BLOCK: usize = 4;

/// As many models have it: tools before the conversation, all turns as they are.
const PLAIN: &str = "<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}</tools>{% for m in messages %}<{{ m.role }}>\
    {% if m.reasoning_content %}~{{ m.reasoning_content }}~{% endif %}{{ m.content }}\
    {% for c in m.tool_calls %}[{{ c.function.name }}|{{ c.function.arguments | tojson }}]{% endfor %};{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";

/// As others have it: no system message but the first, turns that alternate, and no word of tools.
const STRICT: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
    {{ raise_exception('System message must be at the beginning') }}{% endif %}\
    {% if loop.index0 > 0 and m.role == messages[loop.index0 - 1].role %}\
    {{ raise_exception('Roles must alternate') }}{% endif %}\
    <{{ m.role }}>{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

/// An answer that thinks, says something and calls a tool.
const ANSWER: &str = "~hm~Let me look.[Read|{\"file_path\": \"a.rs\"}]";

fn agent(template: &str) -> Server {
    let script = ANSWER.bytes().map(u32::from).chain([EOS]).collect();
    let config = FakeConfig { script, context_length: 20_000, num_blocks: 10_000, block_size: BLOCK, ..fake() };
    server_like(config, EngineConfig::default(), App::new(HttpConfig::default()), template, formats())
}

fn tools() -> Vec<Value> {
    let tool = |name: &str| {
        json!({
            "name": name,
            "description": format!("{name} does what its name says. ").repeat(4),
            "input_schema": { "type": "object", "properties": { "file_path": { "type": "string" } } },
        })
    };
    ["Bash", "Edit", "Glob", "Grep", "Read", "Task", "Write"].map(tool).into()
}

/// One turn's request: a header that is new each time, marks for caching that move along.
fn request(turn: usize, messages: &[Value]) -> Value {
    let mut messages = messages.to_vec();
    let last = messages.last_mut().and_then(|message| message["content"].as_array_mut());
    last.unwrap().last_mut().unwrap()["cache_control"] = json!({ "type": "ephemeral" });
    json!({
        "model": "tiny",
        "max_tokens": 32_000,
        "thinking": { "type": "adaptive" },
        "metadata": { "user_id": "user_1_account__session_2" },
        "system": [
            { "type": "text", "text": format!("x-anthropic-billing-header: cc_version=2.1.{turn}; cch={turn:05x};") },
            { "type": "text", "text": "You are Claude Code.", "cache_control": { "type": "ephemeral" } },
            { "type": "text", "text": "Be brief. ".repeat(20), "cache_control": { "type": "ephemeral" } },
        ],
        "messages": messages,
        "tools": tools(),
    })
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// Prompt and cached tokens of `turns` turns, and the counts of `count_tokens` beforehand.
async fn play(server: &Server, turns: usize) -> Vec<(usize, usize)> {
    let mut messages = vec![
        json!({ "role": "user", "content": [text("<system-reminder>Today.</system-reminder>"), text("Fix it.")] }),
    ];
    let mut usages = Vec::new();
    for turn in 0..turns {
        let body = request(turn, &messages);
        let counted = server.post("/v1/messages/count_tokens", &body.to_string()).await.json();
        let reply = server.post("/v1/messages?beta=true", &body.to_string()).await;
        assert_eq!(reply.status, 200, "turn {turn}: {}", reply.body);
        let answer = reply.json();
        assert_eq!(answer["stop_reason"], "tool_use", "turn {turn}: {answer}");
        let tokens = |field: &str| answer["usage"][field].as_u64().unwrap() as usize;
        let cached = tokens("cache_read_input_tokens");
        let prompt = tokens("input_tokens") + cached;
        assert_eq!(counted["input_tokens"], prompt, "turn {turn}");
        usages.push((prompt, cached));

        let id = &answer["content"].as_array().unwrap().last().unwrap()["id"];
        messages.push(json!({ "role": "assistant", "content": answer["content"] }));
        let result = json!({ "type": "tool_result", "tool_use_id": id, "content": format!("line {turn}") });
        messages.push(json!({ "role": "user", "content": [result, text(&format!("Go on: {turn}."))] }));
        if turn % 2 == 1 {
            messages.push(json!({ "role": "system", "content": [text(&format!("A reminder, {turn}."))] }));
        }
    }
    server.idle().await;
    usages
}

#[tokio::test]
async fn every_turn_finds_the_one_before_it() {
    let usages = play(&agent(PLAIN), 8).await;
    assert_eq!(usages[0].1, 0);
    for (turn, pair) in usages.windows(2).enumerate() {
        let [(before, _), (_, cached)] = pair else { panic!("windows of two") };
        // The whole prompt and the whole answer, but for the block that was not full.
        let known = before + ANSWER.len();
        assert!(*cached > known - BLOCK && *cached <= known, "turn {}: {cached} of {known}", turn + 1);
    }
}

#[tokio::test]
async fn so_it_does_where_the_template_wants_turns_that_alternate() {
    let usages = play(&agent(STRICT), 8).await;
    for (turn, pair) in usages.windows(2).enumerate() {
        let [(before, _), (_, cached)] = pair else { panic!("windows of two") };
        // What is said after a turn may become part of it: at most the turn's end is new.
        let known = before - ";<assistant>".len();
        assert!(*cached > known - BLOCK, "turn {}: {cached} of {known}", turn + 1);
    }
}

#[tokio::test]
async fn another_header_is_the_same_request() {
    let server = agent(PLAIN);
    let messages = [json!({ "role": "user", "content": [text("hi")] })];
    let mut answers = Vec::new();
    for turn in 0..2 {
        let reply = server.post("/v1/messages", &request(turn, &messages).to_string()).await;
        answers.push(reply.json()["usage"].clone());
    }
    let sum =
        |usage: &Value| usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(sum(&answers[0]), sum(&answers[1]));
    // All but the last block, one token of which must be computed for the answer to begin.
    assert!(answers[1]["input_tokens"].as_u64().unwrap() <= BLOCK as u64, "{}", answers[1]);
}
