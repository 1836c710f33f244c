//! Chains of thought: free of the grammar, and no longer than allowed.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use common::{Model, Noise, PADDING};
use vllm_grammar::{Constraint, Reasoning, ThinkingBudget};
use vllm_parsers::{ReasoningFormat, ReasoningParser};
use vllm_platform::sampling::LogitsProcessor;

fn no_parser(_open: bool) -> Box<dyn ReasoningParser> {
    unreachable!("nothing is parsed here")
}

static FORMAT: ReasoningFormat =
    ReasoningFormat { names: &["test"], markers: &[], start: "<think>", end: "</think>", parser: no_parser };

const OPEN: Reasoning = Reasoning { format: &FORMAT, open: true };
const CLOSED: Reasoning = Reasoning { format: &FORMAT, open: false };

fn models() -> [(&'static str, Model); 3] {
    [
        ("bytes", Model::of_bytes(&[])),
        ("special tokens", Model::of_bytes(&["<think>", "</think>"])),
        ("SmolLM2", Model::smollm2()),
    ]
}

fn choice() -> Constraint {
    Constraint::Choice(vec!["yes".into(), "no".into()])
}

/// Noise of a model that has learnt not to use what is no token: nothing holds it to that while it thinks.
fn thinking(seed: u64) -> Noise {
    Noise { padding: -100.0, ..Noise::new(seed) }
}

/// Tokens that are left, as text; of many only their number.
fn left(model: &Model, processor: &dyn LogitsProcessor, output: &[u32]) -> Result<Vec<String>, usize> {
    let mut logits = vec![1.0; model.tokenizer.vocab_size() + PADDING];
    processor.process(&[7], output, &mut logits);
    let tokens: Vec<u32> =
        (0..logits.len() as u32).filter(|&token| logits[token as usize] > f32::NEG_INFINITY).collect();
    if tokens.len() > 40 {
        return Err(tokens.len());
    }
    Ok(tokens.iter().map(|&token| model.text(&[token])).collect())
}

#[test]
fn the_constraint_begins_behind_the_chain_of_thought() {
    let model = Model::of_bytes(&[]);
    let grammar = model.compile(&choice());
    let all = Err(model.tokenizer.vocab_size() + PADDING);
    let few = |texts: &[&str]| Ok(texts.iter().map(|&text| text.to_owned()).collect());
    type Case<'a> = (&'a str, Reasoning, &'a str, Result<Vec<String>, usize>);
    let cases: [Case<'_>; 13] = [
        ("either", CLOSED, "", few(&["<", "n", "y"])),
        ("a tag begins", CLOSED, "<", few(&["t"])),
        ("the answer begins", CLOSED, "y", few(&["e"])),
        ("thinking", CLOSED, "<think>", all.clone()),
        ("thinking of the answer", CLOSED, "<think>yes", all.clone()),
        ("nearly done", CLOSED, "<think>a</thin", all.clone()),
        ("done", CLOSED, "<think>a</think>", few(&["\n", "n", "y"])),
        ("done, with an empty line", CLOSED, "<think>a</think>\n\n", few(&["n", "y"])),
        ("the answer behind it", CLOSED, "<think>a</think>\nye", few(&["s"])),
        ("open", OPEN, "", all.clone()),
        ("open, and a false end", OPEN, "yes</thing>", all),
        ("open, and done", OPEN, "a<</think>", few(&["\n", "n", "y"])),
        ("an end tag without a beginning", CLOSED, "no", few(&["<eos>"])),
    ];
    for (name, reasoning, text, wanted) in cases {
        let processor = grammar.processor(&[], Some(reasoning)).unwrap();
        let output: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(left(&model, &processor, &output), wanted, "{name}");
    }
}

#[test]
fn a_special_token_opens_and_ends_it() {
    let model = Model::of_bytes(&["<think>", "</think>"]);
    let processor = model.compile(&choice()).processor(&[], Some(CLOSED)).unwrap();
    assert_eq!(left(&model, &processor, &[]), Ok(vec!["<".into(), "n".into(), "y".into(), "<think>".into()]));
    assert!(left(&model, &processor, &[257, 65]).is_err());
    assert_eq!(left(&model, &processor, &[257, 65, 258]), Ok(vec!["\n".into(), "n".into(), "y".into()]));
}

#[test]
fn a_token_may_not_end_it_and_begin_the_answer() {
    let model = Model::smollm2();
    let processor = model.compile(&choice()).processor(&[], Some(OPEN)).unwrap();
    let output = model.tokenizer.encode("a</think", false).unwrap();
    let mut logits = vec![1.0; model.tokenizer.vocab_size()];
    processor.process(&[], &output, &mut logits);
    let mut seen = 0;
    for token in 0..logits.len() as u32 {
        let text = model.tokenizer.token_bytes(token).unwrap();
        let overshoots = text.first() == Some(&b'>') && text[1..].iter().any(|&byte| byte != b'\n');
        assert_eq!(logits[token as usize] == f32::NEG_INFINITY, overshoots, "{:?}", model.text(&[token]));
        seen += usize::from(overshoots);
    }
    assert!(seen > 3, "SmolLM2 has such tokens");
}

#[test]
fn noise_thinks_and_answers() {
    let answer = regex::Regex::new(r"(?s)^(?:<think>.*?</think>\n{0,2})?(yes|no)$").unwrap();
    let open = regex::Regex::new(r"(?s)^.*?</think>\n{0,2}(yes|no)$").unwrap();
    for (name, model) in models() {
        let grammar = model.compile(&choice());
        let mut answers = 0;
        for (reasoning, regex) in [(CLOSED, &answer), (OPEN, &open)] {
            for seed in 0..6 {
                let grammar: Arc<dyn LogitsProcessor> = Arc::new(grammar.processor(&[], Some(reasoning)).unwrap());
                let budget = || Arc::new(ThinkingBudget::new(&model.vocabulary, reasoning, 25).unwrap()) as Arc<_>;
                let processors = if seed % 2 == 0 { vec![grammar, budget()] } else { vec![budget(), grammar] };
                let written = model.write_with(&processors, Noise { calm: 200, ..thinking(seed) });
                // A model may end its answer while it thinks.
                let answered =
                    written.text.contains("</think>") || !written.text.starts_with("<think>") && !reasoning.open;
                answers += usize::from(answered);
                assert!(written.finished, "{name}, {seed}: {:?}", written.text);
                assert!(!answered || regex.is_match(&written.text), "{name}, {seed}: {:?}", written.text);
            }
        }
        assert!(answers > 6, "{name}: {answers} answers");
    }
}

#[test]
fn thinking_ends_when_the_budget_does() {
    for (name, model) in models() {
        for most in [0, 1, 7, 30] {
            for (reasoning, before) in [(OPEN, ""), (CLOSED, "<think>")] {
                let budget = || Arc::new(ThinkingBudget::new(&model.vocabulary, reasoning, most).unwrap()) as Arc<_>;
                let start = model.tokenizer.encode(before, false).unwrap();
                let noise = Noise { calm: 1000, most: start.len() + most + 40, ..thinking(3) };
                let written = model.go_on(&[budget()], start.clone(), noise);
                let text = model.text(&written.tokens);
                // The noise may end the answer by itself.
                if written.finished && written.tokens.len() <= start.len() + most {
                    continue;
                }
                let end = (start.len()..=written.tokens.len())
                    .find(|&at| model.text(&written.tokens[..at]).contains("</think>"))
                    .unwrap_or_else(|| panic!("{name}, {most}: {text:?}"));
                let tag = model.tokenizer.encode("</think>", false).unwrap().len();
                assert!(end - start.len() <= most + tag, "{name}, {most}: ends after {end} tokens: {text:?}");
            }
        }
    }
}

#[test]
fn what_a_budget_leaves() {
    let model = Model::of_bytes(&[]);
    let vocab = model.tokenizer.vocab_size() + PADDING;
    let few = |text: &str| Ok(vec![text.to_owned()]);
    type Case<'a> = (&'a str, Reasoning, &'a str, Result<Vec<String>, usize>);
    let cases: [Case<'_>; 14] = [
        ("below the budget", OPEN, "ab", Err(vocab)),
        ("at the budget", OPEN, "abc", few("<")),
        ("in the tag", OPEN, "abc</th", few("i")),
        ("in the tag that it had begun itself", OPEN, "ab</", few("t")),
        ("behind it", OPEN, "abc</think>", Err(vocab)),
        ("about to begin again", OPEN, "abc</think>x<think", Err(vocab - 1)),
        ("not about to begin again", OPEN, "abc</think>x<thin", Err(vocab)),
        ("not begun", CLOSED, "", Err(vocab)),
        ("never begun", CLOSED, "abcdefgh", Err(vocab)),
        ("begun late, which is text", CLOSED, "abc<think>defgh", Err(vocab)),
        ("begun", CLOSED, "<think>ab", Err(vocab)),
        ("begun behind blanks", CLOSED, "\n <think>abc", few("<")),
        ("begun, and at the budget", CLOSED, "<think>abc", few("<")),
        ("ended by itself", CLOSED, "<think></think>abcdefgh", Err(vocab)),
    ];
    for (name, reasoning, text, wanted) in cases {
        let budget = ThinkingBudget::new(&model.vocabulary, reasoning, 3).unwrap();
        let output: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(left(&model, &budget, &output), wanted, "{name}");
        // Another answer in between, and back.
        let _ = left(&model, &budget, &[65; 20]);
        assert_eq!(left(&model, &budget, &output), wanted, "{name}, again");
    }
}

#[test]
fn a_budget_leaves_what_a_grammar_wants() {
    let model = Model::of_bytes(&[]);
    let grammar = model.compile(&Constraint::Choice(vec!["<think>".into()]));
    let grammar: Arc<dyn LogitsProcessor> = Arc::new(grammar.processor(&[], Some(OPEN)).unwrap());
    let budget = Arc::new(ThinkingBudget::new(&model.vocabulary, OPEN, 3).unwrap());
    let written = model.write_with(&[grammar, budget], thinking(1));
    assert!(written.finished && written.text.ends_with("<think>"), "{:?}", written.text);
}
