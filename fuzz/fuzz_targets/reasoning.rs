//! Chains of thought, in every format, alone and with tool calls behind them.
//!
//! Input: a byte for the format of reasoning, one for that of calls, one for the cuts, the answer.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use vllm_fuzz::{check_calls, head, insert, markers, merged, pieces};
use vllm_parsers::{CallFormat, OutputEvent, OutputParser, ReasoningFormat, Tools, calls, reasoning};

static MARKERS: LazyLock<Vec<&str>> = LazyLock::new(markers);

fn parse(format: &ReasoningFormat, open: bool, calls: Option<&CallFormat>, pieces: &[&str]) -> Vec<OutputEvent> {
    let calls = calls.map(|calls| (calls.parser)(Arc::new(Tools::default())));
    let (mut parser, mut events) = (OutputParser::new(Some((format.parser)(open)), calls), Vec::new());
    for piece in pieces {
        parser.push(piece, &mut events);
    }
    parser.finish(&mut events);
    merged(events)
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    insert(data, size, max_size, seed, 3, &MARKERS)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([format, calls, cuts], answer)) = head(data) else { return Corpus::Reject };
    let Ok(answer) = std::str::from_utf8(answer) else { return Corpus::Reject };
    let open = format >= 128;
    let format = reasoning::FORMATS[usize::from(format) % reasoning::FORMATS.len()];
    // One more than there are: none.
    let calls = calls::FORMATS.get(usize::from(calls) % (calls::FORMATS.len() + 1)).copied();
    let whole = parse(format, open, calls, &[answer]);
    check_calls(&whole);
    for longest in [1, 4, 16] {
        let pieces = pieces(answer, cuts, longest);
        let name = (format.names[0], open, calls.map(|calls| calls.names[0]));
        assert_eq!(parse(format, open, calls, &pieces), whole, "{name:?} in {pieces:?}");
    }
    Corpus::Keep
});
