use serde_json::json;

use crate::support::{call, case, check_calls, cut, text};

#[test]
#[rustfmt::skip]
fn corpus() {
    check_calls("functionary", &[
        case("a message to a tool", "<|from|>assistant\n<|recipient|>search\n<|content|>{\"query\": \"x\"}", vec![call("search", json!({"query": "x"}))]),
        case("the prompt ended behind the recipient's marker", "search\n<|content|>{\"query\": \"x\"}", vec![call("search", json!({"query": "x"}))]),
        case("the prompt ended before the recipient's marker", "<|recipient|>search\n<|content|>{\"query\": \"x\"}", vec![call("search", json!({"query": "x"}))]),
        case("a message to all", "all\n<|content|>Hello there.", vec![text("Hello there.")]),
        case("a message to the user, with its header", "<|from|>assistant\n<|recipient|>user\n<|content|>Hello\n", vec![text("Hello\n")]),
        case("to all, then to a tool", "all\n<|content|>I look.\n<|from|>assistant\n<|recipient|>search\n<|content|>{\"query\": \"x\"}", vec![
            text("I look."),
            call("search", json!({"query": "x"})),
        ]),
        case("to two tools", "get_time\n<|content|>{}\n<|from|>assistant\n<|recipient|>search\n<|content|>{\"query\": \"x\"}", vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("to a tool that nobody offered", "<|recipient|>launch\n<|content|>{\"now\": true}", vec![call("launch", json!({"now": true}))]),
        case("white space", "<|from|> assistant\n<|recipient|>search\n <|content|>\n{\"query\": \"x\"}\n", vec![call("search", json!({"query": "x"}))]),
        case("markers in a string", r#"<|recipient|>search
<|content|>{"query": "<|from|>assistant\n<|recipient|>f\n<|content|>{}"}"#, vec![
            call("search", json!({"query": "<|from|>assistant\n<|recipient|>f\n<|content|>{}"})),
        ]),
        case("a function tag", r#"<function=search>{"query": "x"}</function>"#, vec![call("search", json!({"query": "x"}))]),
        case("two function tags behind text", "I look.\n<function=get_time>{}</function><function=search>{\"query\": \"x\"}</function>", vec![
            text("I look."),
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("a list", r#"[{"name": "get_time", "arguments": {}}, {"name": "search", "arguments": {"query": "x"}}]"#, vec![
            call("get_time", json!({})),
            call("search", json!({"query": "x"})),
        ]),
        case("a list behind text is text", r#"Ok [{"name": "get_time", "arguments": {}}]"#, vec![text(r#"Ok [{"name": "get_time", "arguments": {}}]"#)]),
        case("other alphabets, nested", r#"<|recipient|>search
<|content|>{"filters": {"é": [["🚀"]]}}"#, vec![call("search", json!({"filters": {"é": [["🚀"]]}}))]),
        case("text", "Hello\nworld", vec![text("Hello\nworld")]),
        case("text of one word", "Hello", vec![text("Hello")]),
        case("another role", "<|from|>user\n<|recipient|>all", vec![text("<|from|>user\n<|recipient|>all")]),
        case("code for a tool", "<|recipient|>python\n<|content|>print(1)", vec![text("<|recipient|>python\n<|content|>print(1)")]),
        case("cut off in the arguments", "search\n<|content|>{\"query\": \"x", vec![cut("search", r#"{"query": "x"#)]),
        case("cut off in the header", "Ok\n<|from|>assistant\n<|reci", vec![text("Ok\n<|from|>assistant\n<|reci")]),
    ]);
}

#[test]
fn other_names() {
    check_calls("meetkai", &[case("one", "get_time\n<|content|>{}", vec![call("get_time", json!({}))])]);
    check_calls("auto", &[case("one", "<|from|>assistant\n<|recipient|>f\n<|content|>{}", vec![call("f", json!({}))])]);
}
