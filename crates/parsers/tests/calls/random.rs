//! What holds for any text: no panic, the same whatever the cut, and arguments that are the beginning of JSON.

use proptest::prelude::*;
use serde_json::Value;
use vllm_parsers::{OutputEvent, calls};

use crate::support::{calls_of, merged};

/// What answers are made of.
const PIECES: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "<tool_call",
    "<function=",
    "search>",
    "get_time>",
    "</function>",
    "<parameter=",
    "query>",
    "tags>",
    "</parameter>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "search",
    "<|python_tag|>",
    "<|tool_call|>",
    "<|from|>",
    "assistant\n",
    "<|recipient|>",
    "<|content|>",
    "all\n",
    "[Calling tool: ",
    "[get_time(",
    "(",
    ")]",
    "```json",
    "```",
    "</think>",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    ";",
    "\"",
    "\"name\": ",
    "\"search\"",
    "\"arguments\": ",
    "{\"query\": \"",
    "\"type\": \"function\", ",
    "\"function\": ",
    "{\"name\": \"search\", \"arguments\": {",
    "\"}}",
    "\\",
    "\\u",
    "d83d",
    "\\n",
    "\n",
    " ",
    "<",
    "</",
    "a",
    "é",
    "🚀",
    "\u{1}",
    "null",
    "12",
    "-",
    "tru",
    "True",
];

fn answer() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => proptest::sample::select(PIECES).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// All text that came out, and whatever can't be.
fn check_events(answer: &str, events: &[OutputEvent]) -> Result<(), TestCaseError> {
    let mut text = String::new();
    for event in events {
        match event {
            OutputEvent::Text(more) => text.push_str(more),
            OutputEvent::Call { name, .. } => prop_assert!(!name.is_empty()),
            OutputEvent::Arguments(json) => {
                prop_assert_eq!(json.chars().next(), Some('{'));
                if let Err(error) = serde_json::from_str::<Value>(json) {
                    prop_assert!(error.is_eof(), "{json:?}: {error}");
                }
            }
            OutputEvent::Reasoning(_) => prop_assert!(false, "a call parser doesn't know thoughts"),
        }
    }
    // Text is never invented or reordered: it is the answer with markup left out.
    let mut rest = answer.chars();
    for c in text.chars() {
        prop_assert!(rest.any(|other| other == c), "{text:?} is no part of {answer:?}");
    }
    if !events.iter().any(|event| matches!(event, OutputEvent::Call { .. })) && !answer.contains("<|content|>") {
        prop_assert_eq!(text, answer);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_comes_out_the_same_whatever_the_cut(answer in answer(), cuts in proptest::collection::vec(0.0..1.0f64, 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (cut * answer.len() as f64) as usize).collect();
        cuts.retain(|&cut| answer.is_char_boundary(cut));
        cuts.sort_unstable();
        let bounds: Vec<usize> = [0].into_iter().chain(cuts).chain([answer.len()]).collect();
        let pieces: Vec<&str> = bounds.windows(2).map(|bound| &answer[bound[0]..bound[1]]).collect();
        let characters: Vec<String> = answer.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        for format in calls::FORMATS {
            let name = format.names[0];
            let whole = merged(calls_of(name, &[&answer]));
            check_events(&answer, &whole)?;
            prop_assert_eq!(&merged(calls_of(name, &pieces)), &whole, "{} of {:?}, in {:?}", name, answer, pieces);
            prop_assert_eq!(&merged(calls_of(name, &characters)), &whole, "{} of {:?}, by character", name, answer);
        }
    }
}

/// Answers that would be slow or large if work or memory grew faster than the text.
#[test]
fn long_answers_take_time_in_proportion() {
    let long = 1 << 18;
    for unit in [
        "<tool_call>",
        "<tool_call>{\"",
        "<function=",
        "<function=f><parameter=a>",
        "</parameter>",
        "</parameter>\n",
        "{\"a\":",
        "[[",
        "[{\"name\": ",
        "\"\\",
        " ",
        "\n",
        "<",
        "[TOOL_CALLS] [",
        "```json\n{",
        "<|from|>assistant\n",
        "{\"name\": \"search\", \"arguments\": {",
    ] {
        for (prefix, formats) in [
            ("", calls::FORMATS.iter().map(|format| format.names[0]).collect()),
            ("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"", vec!["hermes", "auto"]),
            ("<function=write_file><parameter=content>", vec!["qwen3_xml", "auto"]),
        ] {
            let answer = format!("{prefix}{}", unit.repeat(long / unit.len()));
            for format in formats {
                let start = std::time::Instant::now();
                calls_of(format, &[&answer]);
                // A quarter of a megabyte takes some hundredths of a second; copied for each character, many seconds.
                assert!(start.elapsed().as_secs() < 3, "{format} of {unit:?} behind {prefix:?}");
            }
        }
    }
}
