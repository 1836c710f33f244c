//! Both parsers of an answer, one behind the other.

mod support;

use serde_json::json;
use support::{Case, both_of, call, call_with_id, case, check, cut, text, thought};

fn run(reasoning: &str, open: bool, calls: &str, cases: &[Case]) {
    for case in cases {
        check(&format!("{reasoning} and {calls}"), case, |pieces| both_of(reasoning, open, calls, pieces));
    }
}

#[test]
fn deepseek() {
    let one = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    let is = || call("f", json!({}));
    run(
        "deepseek_r1",
        true,
        "deepseek",
        &[
            case("a thought and a call", format!("r\n</think>\n\n{one}"), vec![thought("r"), is()]),
            case("text in between", format!("r</think>t{one}"), vec![thought("r"), text("t"), is()]),
            case("a call inside", format!("r{one}</think>t"), vec![thought("r"), is(), text("t")]),
            case(
                "a call inside, thought on",
                format!("r{one}s</think>t"),
                vec![thought("r"), is(), thought("s"), text("t")],
            ),
            case("never closed", "r", vec![thought("r")]),
        ],
    );
    let dsml = "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    run(
        "deepseek_v4",
        true,
        "deepseek_v4",
        &[
            case("a thought and a call", format!("r</think>\n\n{dsml}"), vec![thought("r"), is()]),
            case("a call ends the thought", format!("r\n\n{dsml}"), vec![thought("r"), is()]),
            case(
                "a call ends the thought, which is closed all the same",
                format!("r{dsml}\n</think>t"),
                vec![thought("r"), is(), text("t")],
            ),
        ],
    );
}

#[test]
fn glm() {
    let one = "<tool_call>f<arg_key>a</arg_key><arg_value>1</arg_value></tool_call>";
    let is = || call("f", json!({"a": 1}));
    for (reasoning, calls) in [("glm4", "glm47"), ("poolside_v1", "poolside_v1")] {
        run(
            reasoning,
            true,
            calls,
            &[
                case("a thought and a call", format!("r</think>{one}"), vec![thought("r"), is()]),
                case(
                    "a thought, text, two calls",
                    format!("r</think>\nt\n{one}\n{one}"),
                    vec![thought("r"), text("t"), is(), is()],
                ),
                case("a call inside", format!("r{one}</think>t"), vec![thought("r"), is(), text("t")]),
                case(
                    "a call inside, cut off",
                    "r<tool_call>f<arg_key>a</arg_key><arg_value>[",
                    vec![thought("r"), cut("f", "{\"a\": ")],
                ),
            ],
        );
    }
}

#[test]
fn kimi_and_minimax() {
    run(
        "qwen3",
        true,
        "kimi",
        &[case(
            "a call inside",
            "r<|tool_calls_section_begin|><|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
            vec![thought("r"), call_with_id("f", "functions.f:3", json!({}))],
        )],
    );
    let one = "<minimax:tool_call>\n<invoke name=\"f\">\n</invoke>\n</minimax:tool_call>";
    run(
        "qwen3",
        true,
        "minimax",
        &[
            case("a thought and a call", format!("r\n</think>\n\n{one}"), vec![thought("r"), call("f", json!({}))]),
            case(
                "a call inside",
                format!("r\n{one}\n</think>\n\nt"),
                vec![thought("r"), call("f", json!({})), text("t")],
            ),
        ],
    );
}

#[test]
fn gemma() {
    let one = "<|tool_call>call:f{a:<|\"|>b<|\"|>}<tool_call|>";
    let is = || call("f", json!({"a": "b"}));
    run(
        "gemma4",
        false,
        "gemma4",
        &[
            case("a thought and a call", format!("<|channel>thought\nr\n<channel|>{one}"), vec![thought("r"), is()]),
            case(
                "a thought, text, a call",
                format!("<|channel>thought\nr<channel|>t{one}"),
                vec![thought("r"), text("t"), is()],
            ),
            case("a call inside", format!("<|channel>thought\nr{one}"), vec![thought("r"), is()]),
            case("no thought", format!("t{one}"), vec![text("t"), is()]),
            case("text only", "t", vec![text("t")]),
        ],
    );
}

#[test]
fn harmony() {
    let one = "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\":1}<|call|>";
    let analysis = "<|channel|>analysis<|message|>r<|end|><|start|>assistant";
    let answer = "<|channel|>final<|message|>t<|return|>";
    let is = || call("f", json!({"a": 1}));
    run(
        "harmony",
        false,
        "harmony",
        &[
            case("a thought and a call", format!("{analysis}{one}"), vec![thought("r"), is()]),
            case("a thought and an answer", format!("{analysis}{answer}"), vec![thought("r"), text("t")]),
            case(
                "a thought, a preamble, a call",
                format!("{analysis}<|channel|>commentary<|message|>p<|end|><|start|>assistant{one}"),
                vec![thought("r"), text("p"), is()],
            ),
            case("two calls", format!("{one}<|start|>assistant{one}"), vec![is(), is()]),
            case(
                "the recipient behind the role",
                format!("{analysis} to=functions.f<|channel|>commentary json<|message|>{{\"a\":1}}"),
                vec![thought("r"), is()],
            ),
            case(
                "no end of the call",
                format!("{}<|start|>assistant{answer}", one.replace("<|call|>", "")),
                vec![is(), text("t")],
            ),
            case("a call, an answer", format!("{one}<|start|>assistant{answer}"), vec![is(), text("t")]),
            case(
                "cut off",
                format!("{analysis}<|channel|>commentary to=functions.f<|message|>{{\"a"),
                vec![thought("r"), cut("f", "{\"a")],
            ),
            case(
                "marks in a string",
                one.replace('1', "\"<|end|><|start|>\""),
                vec![call("f", json!({"a": "<|end|><|start|>"}))],
            ),
            case("untagged", "t", vec![text("t")]),
        ],
    );
}

#[test]
fn qwen() {
    let json = "<tool_call>\n{\"name\": \"get_time\", \"arguments\": {}}\n</tool_call>";
    let tags = "<tool_call>\n<function=get_time>\n</function>\n</tool_call>";
    let is = || call("get_time", json!({}));
    for (calls, one) in [("hermes", json), ("qwen", json), ("qwen3_xml", tags)] {
        run(
            "qwen3",
            false,
            calls,
            &[
                case("a thought and a call", format!("<think>\nr\n</think>\n\n{one}"), vec![thought("r"), is()]),
                case(
                    "a thought, text, two calls",
                    format!("<think>r</think>t\n{one}\n{one}"),
                    vec![thought("r"), text("t"), is(), is()],
                ),
                case("no thought", format!("t\n{one}"), vec![text("t"), is()]),
                case("a call inside", format!("<think>\nr\n{one}\n</think>\n\nt"), vec![thought("r"), is(), text("t")]),
                case("a call inside, never closed", format!("<think>\nr\n{one}"), vec![thought("r"), is()]),
                case(
                    "the mark mentioned",
                    "<think>a <tool_call> b</think>t",
                    vec![thought("a <tool_call> b"), text("t")],
                ),
            ],
        );
    }
}

#[test]
fn mistral() {
    let is = || call("get_time", json!({}));
    let without_ids = |pieces: &[&str]| {
        let mut events = both_of("mistral", false, "mistral", pieces);
        for event in &mut events {
            if let vllm_parsers::OutputEvent::Call { id, .. } = event {
                *id = None;
            }
        }
        events
    };
    for case in [
        case("a thought and a call", "[THINK]r[/THINK][TOOL_CALLS]get_time[ARGS]{}", vec![thought("r"), is()]),
        case(
            "the older form",
            "[THINK]r[/THINK][TOOL_CALLS] [{\"name\": \"get_time\", \"arguments\": {}}]",
            vec![thought("r"), is()],
        ),
        case("text in between", "[THINK]r[/THINK]t[TOOL_CALLS]get_time{}", vec![thought("r"), text("t"), is()]),
        case("a call inside", "[THINK]r[TOOL_CALLS]get_time[ARGS]{}", vec![thought("r"), is()]),
        case("no thought", "t", vec![text("t")]),
    ] {
        check("mistral", &case, without_ids);
    }
}
