//! Chat templates of the usual kinds over any messages, tools and variables.
//!
//! Input: a byte for the template, then JSON: a list of messages, or an object with `messages`, `tools` and others, which
//! become variables.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::{Map, Value};
use vllm_fuzz::{JSON, head, insert};
use vllm_text::{ChatTemplate, RenderRequest, TemplateVariables};

/// Strings only; tools, calls, thoughts of old turns taken out.
const CHATML: &str = r#"{%- if tools %}{{ "<|im_start|>system\n" }}
{%- if messages[0].role == "system" %}{{ messages[0].content + "\n\n" }}{% endif %}
{%- for tool in tools %}{{ tool | tojson }}{% endfor %}{{ "<|im_end|>\n" }}{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}{% if message.role == "user" and ns.last < 0 %}
{%- set ns.last = messages | length - 1 - loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}{{ "<|im_start|>" + message.role + "\n" }}
{%- if message.role == "assistant" and message.content %}
{%- if loop.index0 < ns.last %}{{ message.content.split("</think>")[-1].lstrip("\n") }}{% else %}{{ message.content }}{% endif %}
{%- else %}{{ message.content }}{% endif %}
{%- if message.reasoning_content is string %}{{ message.reasoning_content.strip("\n") }}{% endif %}
{%- for call in message.tool_calls %}{% set call = call.function or call %}
{{- "<tool_call>" ~ call.name ~ " " }}{{ call.arguments | tojson(indent=2) }}</tool_call>{% endfor %}
{{- "<|im_end|>\n" }}{% endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}"#;

/// Lists of parts; turns that must alternate; arguments taken apart.
const STRICT: &str = r#"{{- bos_token }}{% for message in messages %}
{%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}{{ raise_exception("roles must alternate") }}{% endif %}
{%- if message["content"] is string %}{{ message["content"] | trim }}{% else %}
{%- for part in message["content"] %}{% if part["type"] == "text" %}{{ part["text"] | trim }}{% endif %}{% endfor %}{% endif %}
{%- if message.tool_calls is defined %}{% for call in message.tool_calls %}
{%- for name, value in call.function.arguments | items %}{{ name ~ "=" ~ (value | tojson if value is mapping else value | string) }}{% endfor %}
{%- endfor %}{% endif %}
{%- if message.role == "assistant" %}{{ eos_token }}{% endif %}{% endfor %}
{%- for key in tools[0].function.parameters.properties | dictsort %}{{ key }}{% endfor %}
{%- if date %}{{ strftime_now(date) }}{% endif %}"#;

static TEMPLATES: LazyLock<[ChatTemplate; 2]> = LazyLock::new(|| {
    let variables =
        [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    [CHATML, STRICT].map(|source| {
        let template = ChatTemplate::new(source, TemplateVariables::from(variables.clone())).expect("a valid template");
        template.with_fixed_time(1_700_000_000).expect("the same template")
    })
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    insert(data, size, max_size, seed, 1, JSON)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([template], json)) = head(data) else { return Corpus::Reject };
    let mut extra = match serde_json::from_slice(json) {
        Ok(Value::Object(fields)) => fields,
        Ok(messages @ Value::Array(_)) => Map::from_iter([("messages".to_owned(), messages)]),
        _ => return Corpus::Reject,
    };
    let mut list = |name| match extra.remove(name) {
        Some(Value::Array(items)) => Some(items),
        _ => None,
    };
    let (messages, tools) = (list("messages").unwrap_or_default(), list("tools"));
    let request = RenderRequest {
        messages: &messages,
        tools: tools.as_deref(),
        add_generation_prompt: template & 128 != 0,
        extra: &extra,
    };
    let template = &TEMPLATES[usize::from(template) % TEMPLATES.len()];
    let (first, second) = (template.render(&request), template.render(&request));
    match (first, second) {
        (Ok(first), Ok(second)) => assert_eq!(first, second, "the same request, another prompt"),
        (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string(), "another error"),
        (first, second) => panic!("once {first:?}, once {second:?}"),
    }
    Corpus::Keep
});
