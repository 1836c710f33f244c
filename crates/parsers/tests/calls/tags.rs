//! `<function=f><parameter=k>v</parameter></function>`, for all formats that read it.

use serde_json::json;

use crate::support::{Case, call, case, check_calls, cut, text};

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    vec![
        case("a call", "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>", vec![
            call("get_weather", json!({"city": "Paris", "days": 3})),
        ]),
        case("no white space", "<tool_call><function=get_weather><parameter=city>Paris</parameter><parameter=days>3</parameter></function></tool_call>", vec![
            call("get_weather", json!({"city": "Paris", "days": 3})),
        ]),
        case("no block around", "Sure.\n<function=search>\n<parameter=query>\nx\n</parameter>\n</function>\nDone.", vec![
            text("Sure."),
            call("search", json!({"query": "x"})),
            text("\n\nDone."),
        ]),
        case("only the block's end", "<function=search>\n<parameter=query>\nx\n</parameter>\n</function>\n</tool_call>\nDone.", vec![
            call("search", json!({"query": "x"})),
            text("Done."),
        ]),
        case("two calls", "<tool_call>\n<function=search>\n<parameter=query>\nx\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=get_time>\n</function>\n</tool_call>", vec![
            call("search", json!({"query": "x"})),
            call("get_time", json!({})),
        ]),
        case("two calls in one block", "<tool_call>\n<function=search>\n<parameter=query>\nx\n</parameter>\n</function>\n<function=get_time>\n</function>\n</tool_call>", vec![
            call("search", json!({"query": "x"})),
            call("get_time", json!({})),
        ]),
        case("no parameters", "<tool_call><function=get_time></function></tool_call>", vec![call("get_time", json!({}))]),
        case("no parameters and no end", "<tool_call>\n<function=get_time>\n</tool_call>", vec![call("get_time", json!({}))]),
        case("values by the schema", "<function=write_file><parameter=path>42</parameter><parameter=content>{\"a\": 1}</parameter><parameter=mode>{\"a\": 1}</parameter></function>", vec![
            call("write_file", json!({"path": "42", "content": "{\"a\": 1}", "mode": {"a": 1}})),
        ]),
        case("values of a tool that nobody offered", "<function=launch><parameter=n>3</parameter><parameter=when>now, \"soon\"</parameter><parameter=how>{'a': 1}</parameter><parameter=if>True</parameter></function>", vec![
            call("launch", json!({"n": 3, "when": "now, \"soon\"", "how": {"a": 1}, "if": true})),
        ]),
        case("numbers, words, lists", "<function=get_weather><parameter=days>3.0</parameter><parameter=metric>True</parameter><parameter=city>true</parameter></function> <function=search><parameter=tags>[\"a\", 1]</parameter><parameter=filters>{\"b\": {}}</parameter></function>", vec![
            call("get_weather", json!({"days": 3, "metric": true, "city": "true"})),
            call("search", json!({"tags": ["a", 1], "filters": {"b": {}}})),
        ]),
        case("a value that doesn't fit", "<function=get_weather><parameter=days>many</parameter></function>", vec![
            call("get_weather", json!({"days": "many"})),
        ]),
        case("one line break each side is markup", "<function=write_file><parameter=content>\n\n a\n\nb \n\n</parameter></function>", vec![
            call("write_file", json!({"content": "\n a\n\nb \n"})),
        ]),
        case("an empty value", "<function=write_file><parameter=content>\n</parameter><parameter=path></parameter></function>", vec![
            call("write_file", json!({"content": "", "path": ""})),
        ]),
        case("tags in a value", "<function=write_file>\n<parameter=content>\n<a href=\"x\">1 < 2</a> </parameter> is a tag, </function> and </tool_call> too,\n<parameter=x> as well, <parameter=path> in a line\n</parameter>\n</function>", vec![
            call("write_file", json!({"content": "<a href=\"x\">1 < 2</a> </parameter> is a tag, </function> and </tool_call> too,\n<parameter=x> as well, <parameter=path> in a line"})),
        ]),
        case("escapes", "<function=write_file><parameter=content>a \"b\" \\n \u{1} \t é 🚀 日本</parameter></function>", vec![
            call("write_file", json!({"content": "a \"b\" \\n \u{1} \t é 🚀 日本"})),
        ]),
        case("JSON in place of parameters", "<tool_call><function=search>\n{\"query\": \"</function>\", \"filters\": {}}\n</function></tool_call> ok", vec![
            call("search", json!({"query": "</function>", "filters": {}})),
            text("ok"),
        ]),
        case("quoted names", "<function=\"search\"><parameter=\"query\">x</parameter></function>", vec![call("search", json!({"query": "x"}))]),
        case("the same parameter twice: the first counts", "<function=search><parameter=query>a</parameter><parameter=query>b</parameter><parameter=tags>[]</parameter></function>", vec![
            call("search", json!({"query": "a", "tags": []})),
        ]),
        case("a parameter not closed before the next", "<function=search>\n<parameter=query>\nx\n<parameter=tags>\n[]\n</parameter>\n</function>", vec![
            call("search", json!({"query": "x", "tags": []})),
        ]),
        case("a parameter not closed before the end", "<tool_call><function=search><parameter=query>\nx\n</function></tool_call>", vec![
            call("search", json!({"query": "x"})),
        ]),
        case("a function not closed", "<tool_call><function=search><parameter=query>\nx\n</parameter></tool_call> ok", vec![
            call("search", json!({"query": "x"})),
            text("ok"),
        ]),
        case("nothing closed but the parameter", "<tool_call>\n<function=search>\n<parameter=query>\nx\n</parameter>\n", vec![
            call("search", json!({"query": "x"})),
        ]),
        case("an end cut off", "<tool_call><function=search><parameter=query>x</parameter></func", vec![call("search", json!({"query": "x"}))]),
        case("the end of the block cut off", "<tool_call><function=search><parameter=query>x</parameter></function>\n</tool", vec![call("search", json!({"query": "x"}))]),
        case("cut off in a value", "<tool_call><function=write_file><parameter=content>half of", vec![cut("write_file", r#"{"content": "half of"#)]),
        case("cut off in the value's end", "<tool_call><function=write_file><parameter=content>half of\n</para", vec![cut("write_file", r#"{"content": "half of"#)]),
        case("cut off in a number", "<function=get_weather><parameter=city>Paris</parameter><parameter=days>1", vec![cut("get_weather", r#"{"city": "Paris", "days": "#)]),
        case("cut off in a parameter's name", "<function=get_weather><parameter=city>Paris</parameter><parameter=da", vec![cut("get_weather", r#"{"city": "Paris""#)]),
        case("cut off in the name", "<tool_call><function=get_w", vec![text("<tool_call><function=get_w")]),
        case("prose behind the tag", "Use <function=search> to search.", vec![text("Use <function=search> to search.")]),
        case("prose behind the tag in a block", "<tool_call><function=search> to search.</tool_call>", vec![text("<tool_call><function=search> to search.</tool_call>")]),
        case("prose behind a parameter belongs to it", "<function=search><parameter=query>x</parameter> and </function>", vec![
            call("search", json!({"query": "x</parameter> and "})),
        ]),
        case("no name", "<function=></function>", vec![text("<function=></function>")]),
        case("other tags", "<function>f</function> <parameter=x>", vec![text("<function>f</function> <parameter=x>")]),
    ]
}

#[test]
fn hermes_reads_them() {
    check_calls("hermes", &cases());
}

#[test]
fn qwen_reads_them() {
    check_calls("qwen3", &cases());
}

#[test]
fn qwen3_xml_reads_them() {
    check_calls("qwen3.5", &cases());
}

#[test]
fn qwen3_coder_reads_them() {
    check_calls("qwen3_coder", &cases());
}

#[test]
fn nemotron_reads_them() {
    check_calls("nemotron3", &cases());
}

#[test]
fn auto_reads_them() {
    check_calls("auto", &cases());
}
