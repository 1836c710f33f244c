//! Random answers full of markers: no panic, and the same whatever the cut.

mod support;

use proptest::prelude::*;
use support::{both_of, calls_of, check_splits, merged, reasoning_of};
use vllm_parsers::{OutputEvent, calls, reasoning};

/// Pieces of markup and of what stands between them.
fn pieces() -> Vec<&'static str> {
    let mut pieces = vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ":",
        ",",
        "\n",
        " ",
        "1",
        "a",
        "é🦀",
        "<",
        ">",
        "/",
        "<|",
        "</",
        "```json\n",
        "```",
        "{\"a\": 1}",
        "{\"a\": \"",
        "call:f{",
        "a:",
        "<function=f>",
        "<parameter=a>",
        "</parameter>",
        "</function>",
        "<invoke name=\"f\">",
        "</invoke>",
        "<parameter name=\"a\">",
        "<arg_key>a</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "{\"name\": \"get_time\", \"arguments\": {}}",
        "get_weather",
        "<｜DSML｜tool_calls>",
        "</｜DSML｜tool_calls>",
        "<｜DSML｜invoke name=\"f\">",
        "</｜DSML｜invoke>",
        "<｜DSML｜parameter name=\"a\" string=\"true\">",
        "</｜DSML｜parameter>",
        "<|start|>assistant",
        "<|channel|>analysis<|message|>",
        "<|channel|>final<|message|>",
        "<|channel|>commentary to=functions.f<|message|>",
        " to=functions.f",
        "thought\n",
        "functions.f:0",
    ];
    pieces.extend(calls::FORMATS.iter().flat_map(|format| format.markers));
    pieces.extend(reasoning::FORMATS.iter().flat_map(|format| format.markers));
    pieces
}

fn answers() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![9 => proptest::sample::select(pieces()).prop_map(str::to_owned), 1 => "\\PC{0,4}"],
        0..14,
    )
    .prop_map(|pieces| pieces.concat())
}

/// What is broken in these events: a piece of nothing, or arguments that are no object although neither the answer's end
/// nor text cut them off.
fn broken(events: &[OutputEvent]) -> Option<&OutputEvent> {
    let mut events = events.iter().peekable();
    while let Some(event) = events.next() {
        let fine = match event {
            OutputEvent::Reasoning(text) | OutputEvent::Text(text) => !text.is_empty(),
            OutputEvent::Call { name, .. } => !name.is_empty(),
            OutputEvent::Arguments(json) => {
                let cut_off = !matches!(events.peek(), Some(OutputEvent::Call { .. }));
                cut_off || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(json).is_ok()
            }
        };
        if !fine {
            return Some(event);
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_do_not_depend_on_the_cut(answer in answers(), format in proptest::sample::select(calls::FORMATS)) {
        let name = format.names[0];
        let whole = merged(calls_of(name, &[&answer]));
        prop_assert_eq!(broken(&whole), None, "{}: {:?}: {:?}", name, answer, whole);
        check_splits(&format!("{name}: {answer:?}"), &answer, &whole, |pieces| calls_of(name, pieces));
    }

    #[test]
    fn reasoning_does_not_depend_on_the_cut(
        answer in answers(),
        format in proptest::sample::select(reasoning::FORMATS),
        open: bool,
    ) {
        let name = format.names[0];
        let whole = merged(reasoning_of(name, open, &[&answer]));
        check_splits(&format!("{name}: {answer:?}"), &answer, &whole, |pieces| reasoning_of(name, open, pieces));
    }

    #[test]
    fn both_do_not_depend_on_the_cut(
        answer in answers(),
        reasoning in proptest::sample::select(reasoning::FORMATS),
        calls in proptest::sample::select(calls::FORMATS),
        open: bool,
    ) {
        let (reasoning, calls) = (reasoning.names[0], calls.names[0]);
        let whole = merged(both_of(reasoning, open, calls, &[&answer]));
        let name = format!("{reasoning} and {calls}: {answer:?}");
        check_splits(&name, &answer, &whole, |pieces| both_of(reasoning, open, calls, pieces));
    }
}
