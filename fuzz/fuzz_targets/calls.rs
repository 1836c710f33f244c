//! Tool calls, in every format.
//!
//! Input: a byte for the format, a byte for the cuts, the answer.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::json;
use vllm_fuzz::{check_calls, head, insert, markers, merged, pieces};
use vllm_parsers::{CallFormat, OutputEvent, Tool, Tools, calls};

static TOOLS: LazyLock<Arc<Tools>> = LazyLock::new(|| {
    let types = json!({"city": {"type": "string"}, "days": {"type": "integer"}, "metric": {"type": "boolean"},
        "a": {"type": "array"}, "o": {"type": "object"}, "any": {}});
    let parameters = Some(json!({"type": "object", "properties": types}));
    Arc::new(Tools(vec![
        Tool { name: "get_weather".to_owned(), parameters: parameters.clone(), strict: false },
        Tool { name: "f".to_owned(), parameters, strict: true },
        Tool { name: "get_time".to_owned(), parameters: None, strict: false },
    ]))
});

static MARKERS: LazyLock<Vec<&str>> = LazyLock::new(markers);

fn parse(format: &CallFormat, pieces: &[&str]) -> Vec<OutputEvent> {
    let (mut parser, mut events) = ((format.parser)(Arc::clone(&TOOLS)), Vec::new());
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    merged(events)
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    insert(data, size, max_size, seed, 2, &MARKERS)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([format, cuts], answer)) = head(data) else { return Corpus::Reject };
    let Ok(answer) = std::str::from_utf8(answer) else { return Corpus::Reject };
    let format = calls::FORMATS[usize::from(format) % calls::FORMATS.len()];
    let whole = parse(format, &[answer]);
    check_calls(&whole);
    assert!(!whole.iter().any(|event| matches!(event, OutputEvent::Reasoning(_))), "a call parser knows no thoughts");
    for longest in [1, 4, 16] {
        let pieces = pieces(answer, cuts, longest);
        assert_eq!(parse(format, &pieces), whole, "{} in {pieces:?}", format.names[0]);
    }
    Corpus::Keep
});
