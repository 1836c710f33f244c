//! A processor is a function of the answer so far, whatever happened before.
#![allow(missing_docs)]

mod common;

use std::sync::Arc;

use common::{Model, Noise, PADDING};
use serde_json::json;
use vllm_grammar::{Constraint, Grammar, GrammarProcessor};
use vllm_platform::sampling::LogitsProcessor;

fn person() -> Constraint {
    Constraint::JsonSchema(json!({"type": "object", "properties": {
        "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}}, "required": ["name", "age", "tags"]}))
}

/// Tokens that a processor leaves.
fn left(model: &Model, processor: &GrammarProcessor, output: &[u32]) -> Vec<usize> {
    let mut logits = vec![1.0; model.tokenizer.vocab_size() + PADDING];
    processor.process(&[7], output, &mut logits);
    (0..logits.len()).filter(|&token| logits[token] == 1.0).collect()
}

fn fresh(grammar: &Grammar) -> GrammarProcessor {
    grammar.processor(&[], None).unwrap()
}

#[test]
fn the_same_answer_gives_the_same_mask() {
    for model in [Model::of_bytes(&[]), Model::smollm2()] {
        let grammar = model.compile(&person());
        let answer = model.write_with(&[Arc::new(fresh(&grammar))], Noise::new(5)).tokens;
        let masks: Vec<Vec<usize>> =
            (0..answer.len()).map(|at| left(&model, &fresh(&grammar), &answer[..at])).collect();
        assert!(masks.iter().all(|mask| !mask.is_empty()));
        let stopped = &answer[..answer.len() - 1];
        let told = fresh(&grammar);
        let not_told = fresh(&grammar);
        for at in 0..answer.len() {
            assert_eq!(left(&model, &told, &answer[..at]), masks[at], "told of every token, at {at}");
            told.sampled(&[7], &answer[..=at]);
            assert_eq!(left(&model, &not_told, &answer[..at]), masks[at], "never told, at {at}");
        }
        // Back and forth: computed again after a preemption, or asked for another request's answer.
        let other = model.write_with(&[Arc::new(fresh(&grammar))], Noise::new(6)).tokens;
        for at in [stopped.len(), 0, 3, 2, stopped.len() / 2, 1] {
            assert_eq!(left(&model, &told, &answer[..at]), masks[at], "after a jump, at {at}");
            told.sampled(&[7], &answer[..at / 2]);
            assert_eq!(left(&model, &told, &answer[..at]), masks[at], "told something else, at {at}");
            let elsewhere = &other[..at.min(other.len() - 1)];
            assert_eq!(
                left(&model, &told, elsewhere),
                left(&model, &fresh(&grammar), elsewhere),
                "another answer, at {at}"
            );
        }
    }
}

#[test]
fn at_the_end_only_an_end_is_left() {
    let model = Model::of_bytes(&["<stop>"]);
    let grammar = model.compile(&Constraint::Choice(vec!["a".into(), "ab".into()]));
    let a = u32::from(b'a');
    let b = u32::from(b'b');
    type Case<'a> = (&'a str, &'a [u32], Vec<u32>, Vec<usize>);
    let cases: [Case<'_>; 7] = [
        ("at the start", &[], vec![], vec![97]),
        ("may end", &[], vec![a], vec![98, 256]),
        ("must end", &[], vec![a, b], vec![256]),
        ("ended", &[], vec![a, 256], vec![256]),
        ("not what was allowed", &[], vec![b], vec![256]),
        ("its own end tokens, and the model's", &[257], vec![a], vec![98, 256, 257]),
        ("its own end tokens", &[257], vec![a, b], vec![257]),
    ];
    for (name, stop, output, wanted) in cases {
        assert_eq!(left(&model, &grammar.processor(stop, None).unwrap(), &output), wanted, "{name}");
    }
}

#[test]
fn many_answers_at_once() {
    let model = Model::smollm2();
    let grammar = model.compile(&person());
    let alone: Vec<Vec<u32>> =
        (0..6).map(|seed| model.write_with(&[Arc::new(fresh(&grammar))], Noise::new(seed)).tokens).collect();
    let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let write = |seed| {
            let (model, grammar) = (&model, &grammar);
            scope.spawn(move || model.write_with(&[Arc::new(fresh(grammar))], Noise::new(seed)).tokens)
        };
        let threads: Vec<_> = (0..6).map(write).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
}

#[test]
fn answers_that_share_a_processor_get_what_they_should() {
    let model = Model::of_bytes(&[]);
    let grammar = model.compile(&person());
    let alone: Vec<Vec<u32>> =
        (0..3).map(|seed| model.write_with(&[Arc::new(fresh(&grammar))], Noise::new(seed)).tokens).collect();
    let shared: Arc<dyn LogitsProcessor> = Arc::new(fresh(&grammar));
    std::thread::scope(|scope| {
        for (seed, wanted) in alone.iter().enumerate() {
            let (model, shared) = (&model, Arc::clone(&shared));
            scope.spawn(move || assert_eq!(&model.write_with(&[shared], Noise::new(seed as u64)).tokens, wanted));
        }
    });
}

#[test]
fn special_tokens_only_where_the_grammar_has_them() {
    let model = Model::of_bytes(&["<tool_call>"]);
    let cases = [
        ("text", Constraint::Regex("(?s:.)*".into()), false),
        ("that very text", Constraint::Choice(vec!["<tool_call>".into()]), false),
        ("the marker", Constraint::Shape(vllm_parsers::Shape::Marker("<tool_call>".into())), true),
    ];
    for (name, constraint, wanted) in cases {
        let grammar = model.compile(&constraint);
        assert_eq!(left(&model, &fresh(&grammar), &[]).contains(&257), wanted, "{name}");
    }
}
