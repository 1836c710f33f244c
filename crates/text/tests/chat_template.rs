//! Chat templates with the constructs of real ones, and what bad ones and bad messages give.

use serde_json::{Map, Value, json};
use vllm_text::{ChatTemplate, RenderRequest, TemplateError, TemplateVariables};

fn variables() -> TemplateVariables {
    [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(name, text)| (name.to_owned(), text.to_owned())).into()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, variables()).expect("a valid template")
}

struct Chat {
    messages: Vec<Value>,
    tools: Option<Vec<Value>>,
    add_generation_prompt: bool,
    extra: Map<String, Value>,
}

/// Messages given as a JSON array, with a generation prompt.
fn chat(messages: Value) -> Chat {
    let messages = messages.as_array().expect("an array").clone();
    Chat { messages, tools: None, add_generation_prompt: true, extra: Map::new() }
}

impl Chat {
    fn tools(mut self, tools: Value) -> Self {
        self.tools = tools.as_array().cloned();
        self
    }

    fn extra(mut self, extra: Value) -> Self {
        self.extra = extra.as_object().expect("an object").clone();
        self
    }

    fn without_generation_prompt(mut self) -> Self {
        self.add_generation_prompt = false;
        self
    }

    fn render(&self, template: &ChatTemplate) -> Result<String, TemplateError> {
        template.render(&RenderRequest {
            messages: &self.messages,
            tools: self.tools.as_deref(),
            add_generation_prompt: self.add_generation_prompt,
            extra: &self.extra,
        })
    }
}

/// A template of the kind of ChatML: default system prompt, reasoning removed from old turns, tools, tool calls.
const CHATML: &str = r#"{%- if tools %}
    {{- "<|im_start|>system\n" }}
    {%- if messages[0].role == "system" %}{{ messages[0].content + "\n\n" }}{% endif %}
    {{- "Tools:" }}
    {%- for tool in tools %}{{ "\n" }}{{ tool | tojson }}{% endfor %}
    {{- "<|im_end|>\n" }}
{%- elif messages[0].role == "system" %}
    {{- "<|im_start|>system\n" ~ messages[0].content ~ "<|im_end|>\n" }}
{%- endif %}
{%- set ns = namespace(last_question=-1) %}
{%- for message in messages[::-1] %}
    {%- if message.role == "user" and ns.last_question < 0 %}
        {%- set ns.last_question = messages | length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- macro turn(role, text) %}{{ "<|im_start|>" ~ role ~ "\n" ~ text ~ "<|im_end|>\n" }}{% endmacro %}
{%- for message in messages %}
    {%- if message.role == "system" %}{% continue %}{% endif %}
    {%- if message.role == "tool" %}
        {{- turn("user", "<result>" ~ message.content ~ "</result>") }}
    {%- elif message.role == "assistant" %}
        {%- set text = message.content or "" %}
        {%- if "</think>" in text and loop.index0 < ns.last_question %}
            {%- set text = text.split("</think>")[-1].lstrip("\n") %}
        {%- endif %}
        {%- set calls %}
            {%- for call in message.tool_calls or [] -%}
                <call>{{ {"name": call.function.name, "arguments": call.function.arguments} | tojson }}</call>
            {%- endfor %}
        {%- endset %}
        {%- generation %}{{ turn("assistant", text ~ calls) }}{% endgeneration %}
    {%- else %}
        {{- turn(message.role, message.content) }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\n" }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ "<think></think>" }}{% endif %}
{%- endif %}"#;

/// Content that may be a list of parts, turns that must alternate, a date.
const STRICT: &str = r#"{{- bos_token }}
{%- for message in messages %}
    {%- if (message["role"] == "user") != (loop.index0 is even) %}
        {{- raise_exception("roles must alternate, not '" + message["role"] + "' at " ~ loop.index0) }}
    {%- endif %}
    {%- if message["content"] is string %}
        {{- "[" + message["role"] + "] " + message["content"] | trim }}
    {%- else %}
        {{- "[" + message["role"] + "] " }}
        {%- for part in message["content"] if part["type"] == "text" %}{{ part["text"] | trim }}{% endfor %}
    {%- endif %}
    {{- eos_token if message["role"] == "assistant" else "\n" }}
{%- endfor %}
{%- if date is true %}{{ strftime_now("%d %b %Y") }}{% endif %}"#;

fn weather_call(arguments: Value) -> Value {
    json!({"role": "assistant", "content": null,
           "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]})
}

#[test]
fn prompts() {
    let hi = json!({"role": "user", "content": "Hi"});
    let tool = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]);
    let cases = [
        ("one question", CHATML, chat(json!([hi])), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "no generation prompt",
            CHATML,
            chat(json!([hi])).without_generation_prompt(),
            "<|im_start|>user\nHi<|im_end|>\n",
        ),
        (
            "a template argument",
            CHATML,
            chat(json!([hi])).extra(json!({"enable_thinking": false})),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think></think>",
        ),
        (
            "system and old reasoning",
            CHATML,
            chat(
                json!([{"role": "system", "content": "Be <b>brief</b>."}, hi, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello."}, hi]),
            ),
            "<|im_start|>system\nBe <b>brief</b>.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "tools, in the order and spacing of json.dumps",
            CHATML,
            chat(json!([hi])).tools(tool),
            "<|im_start|>system\nTools:\n{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"parameters\": {\"type\": \"object\", \"properties\": {}}}}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "arguments as JSON text become an object",
            CHATML,
            chat(
                json!([hi, weather_call(json!("{\"city\":\"Ulm\"}")), {"role": "tool", "tool_call_id": "c1", "content": "rain"}]),
            ),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<call>{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}</call><|im_end|>\n<|im_start|>user\n<result>rain</result><|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "an empty tools list is no tools",
            CHATML,
            chat(json!([hi])).tools(json!([])),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "text parts are joined for a template that takes strings",
            CHATML,
            chat(json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}])),
            "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            "parts stay parts for a template that takes them",
            STRICT,
            chat(
                json!([{"role": "user", "content": [{"type": "text", "text": " a "}, {"type": "image"}, {"type": "text", "text": "b"}]}]),
            ),
            "<s>[user] ab\n",
        ),
        (
            "strings too",
            STRICT,
            chat(json!([{"role": "user", "content": " a "}, {"role": "assistant", "content": "b"}])),
            "<s>[user] a\n[assistant] b</s>",
        ),
        ("a date", STRICT, chat(json!([hi])).extra(json!({"date": true})), "<s>[user] Hi\n06 Sep 2024"),
        (
            "a template that takes only parts",
            "{% for m in messages %}{% for p in m.content %}{{ p.text }};{% endfor %}{% endfor %}",
            chat(json!([hi])),
            "Hi;",
        ),
        (
            "a template that wants arguments as text and null content",
            "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls[0].function.name + ' ' + m.tool_calls[0].function.arguments }}{% endif %}{% endfor %}",
            chat(json!([hi, weather_call(json!("{\"city\":  \"Ulm\"}"))])),
            "weather {\"city\":  \"Ulm\"}",
        ),
        (
            "reasoning under its other name",
            "{% for m in messages %}{{ m.reasoning_content }}{% endfor %}",
            chat(json!([{"role": "assistant", "content": "", "reasoning": "because"}])),
            "because",
        ),
        (
            "documents",
            "{{ documents[0].title }}{{ tools is none }}",
            chat(json!([hi])).extra(json!({"documents": [{"title": "T"}]})),
            "TTrue",
        ),
    ];
    for (name, source, chat, expected) in cases {
        let template = template(source).with_fixed_time(1_725_580_800).expect(name);
        assert_eq!(chat.render(&template).expect(name), expected, "{name}");
    }
}

#[test]
fn the_tool_template_is_for_requests_with_tools() {
    let template = template("plain").with_tool_use("tools: {{ tools | length }}").expect("valid");
    let hi = json!([{"role": "user", "content": "Hi"}]);
    assert_eq!(chat(hi.clone()).render(&template).expect("plain"), "plain");
    assert_eq!(chat(hi).tools(json!([{"type": "function"}])).render(&template).expect("tools"), "tools: 1");
}

#[test]
fn syntax_errors_quote_the_line() {
    let cases = [
        ("unclosed", "a\n{% for m in messages %}", "line 2"),
        ("unknown tag", "a\n\n{% frobnicate %}", "{% frobnicate %}"),
        ("unbalanced", "{{ (1 }}", "line 1"),
    ];
    for (name, source, part) in cases {
        let error = ChatTemplate::new(source, variables()).expect_err(name);
        assert!(matches!(error, TemplateError::Syntax { .. }), "{name}: {error:?}");
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
}

#[test]
fn render_errors_say_what_and_where() {
    let hi = json!([{"role": "user", "content": "Hi"}]);
    let cases = [
        (
            "raised",
            STRICT,
            chat(json!([{"role": "assistant", "content": "b"}])),
            "rejects these messages: roles must alternate, not 'assistant' at 0",
        ),
        (
            "raised in a macro",
            "{% macro m() %}{{ raise_exception('no <b>') }}{% endmacro %}{{ m() }}",
            chat(hi.clone()),
            "rejects these messages: no <b>",
        ),
        (
            "undefined attribute",
            "a\n{{ messages[0].tool.name }}",
            chat(hi.clone()),
            "line 2: undefined value: `{{ messages[0].tool.name }}`",
        ),
        ("adding to nothing", "{{ 'a' + messages[0].name }}", chat(hi.clone()), "line 1"),
        ("unknown filter", "{{ messages | frobnicate }}", chat(hi.clone()), "frobnicate"),
        ("bad date", "{{ strftime_now('%') }}", chat(hi.clone()), "strftime_now"),
        ("no messages", STRICT, chat(json!([])), "messages is empty"),
        ("not an object", STRICT, chat(json!([{"role": "user", "content": "a"}, "b"])), "messages[1] is a string"),
        (
            "an image",
            CHATML,
            chat(json!([{"role": "user", "content": [{"type": "image_url"}]}])),
            "messages[0].content[0] is of type \"image_url\"",
        ),
        ("reserved", CHATML, chat(hi.clone()).extra(json!({"messages": []})), "chat_template_kwargs.messages"),
        ("includes reach nothing", "{% include '/etc/passwd' %}", chat(hi.clone()), "template not found"),
    ];
    for (name, source, chat, part) in cases {
        let error = chat.render(&template(source)).expect_err(name).to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

#[test]
fn hostile_templates_end() {
    let cases = [
        (
            "endless loops",
            "{% for a in range(99999) %}{% for b in range(99999) %}{% set x = a * b %}{% endfor %}{% endfor %}",
            "steps",
        ),
        ("endless recursion", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion"),
        ("endless prompt", "{% set s = 'x' * 9999999 %}{% for a in range(99) %}{{ s }}{% endfor %}", "more than"),
        (
            "deep nesting",
            "{% set ns = namespace(x=[]) %}{% for a in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x | tojson }}",
            "deep",
        ),
    ];
    for (name, source, part) in cases {
        let error =
            chat(json!([{"role": "user", "content": "Hi"}])).render(&template(source)).expect_err(name).to_string();
        assert!(error.contains(part), "{name}: {error}");
    }
}

/// One client's odd variables must not decide how the next client's messages are read.
#[test]
fn probing_does_not_depend_on_the_request() {
    let source = "{% if odd %}{{ raise_exception('odd') }}{% endif %}\
                  {% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
    let template = template(source);
    let hi = json!([{"role": "user", "content": "Hi"}]);
    assert!(chat(hi.clone()).extra(json!({"odd": true})).render(&template).is_err());
    assert_eq!(chat(hi).render(&template).expect("a prompt"), "Hi");
}
