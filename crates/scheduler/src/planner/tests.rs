use vllm_platform::TokenId;

use super::*;
use crate::Request;

fn planner(max_num_seqs: usize, max_num_batched_tokens: usize, num_blocks: usize) -> Planner {
    let kv = KvCacheSpec { block_size: 4, num_blocks, bytes_per_token: 1 };
    Planner::new(Limits { max_num_seqs, max_num_batched_tokens }, &kv)
}

fn sequence(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
    let request = Request { prompt: vec![7; prompt], max_tokens, stop_tokens: vec![0], ..Request::new("r") };
    Sequence::new(SeqId(id), request)
}

/// Plans a step and answers `token` wherever one is sampled; returns (sequence, start, tokens) of each row.
fn step(planner: &mut Planner, token: TokenId) -> Vec<(u64, usize, usize)> {
    planner.schedule();
    let plan = planner.step_plan();
    let rows: Vec<_> = plan.rows.iter().map(|row| (row.seq.0, row.start, row.tokens.len())).collect();
    let asked = plan.rows.iter().filter(|row| row.sample.is_some());
    let sampled = asked.map(|row| Sampled { seq: row.seq, token, logprobs: None }).collect();
    planner.complete(sampled).unwrap();
    rows
}

#[test]
fn a_long_prompt_goes_in_chunks_and_does_not_stall_an_answer() {
    let mut planner = planner(4, 8, 64);
    planner.add(sequence(0, 3, 9));
    assert_eq!(step(&mut planner, 5), [(0, 0, 3)]);
    planner.add(sequence(1, 20, 2));
    assert_eq!(step(&mut planner, 5), [(0, 3, 1), (1, 0, 7)]);
    // The budget is spent: the third waits, though a place is free.
    planner.add(sequence(2, 2, 1));
    assert_eq!(step(&mut planner, 5), [(0, 4, 1), (1, 7, 7)]);
    assert_eq!(step(&mut planner, 5), [(0, 5, 1), (1, 14, 6), (2, 0, 1)]);
    // Decode tokens first, in the order of admission, then what is left of prompts.
    assert_eq!(step(&mut planner, 5), [(0, 6, 1), (1, 20, 1), (2, 1, 1)]);
    assert_eq!(planner.running(), 1);
}

#[test]
fn first_come_first_served_and_nobody_overtakes() {
    let mut planner = planner(4, 64, 4);
    planner.add(sequence(0, 8, 5)); // 12 computed: 3 blocks
    planner.add(sequence(1, 5, 1)); // 5 computed: 2 blocks
    planner.add(sequence(2, 1, 1)); // 1 block, would fit
    assert_eq!(step(&mut planner, 5), [(0, 0, 8)]);
    assert_eq!((planner.waiting(), planner.blocks_in_use()), (2, 3));
    planner.remove(SeqId(0)).unwrap();
    assert_eq!(step(&mut planner, 5), [(1, 0, 5), (2, 0, 1)]);
    assert!(planner.is_idle());
    assert_eq!(planner.blocks_in_use(), 0);
}

#[test]
fn endings() {
    struct Case {
        name: &'static str,
        max_tokens: usize,
        answers: &'static [TokenId],
        handed_out: &'static [TokenId],
        reason: FinishReason,
    }
    let cases = [
        Case { name: "length", max_tokens: 2, answers: &[5, 6], handed_out: &[5, 6], reason: FinishReason::Length },
        Case { name: "stop", max_tokens: 9, answers: &[5, 0], handed_out: &[5], reason: FinishReason::Stop },
        Case {
            name: "stop on the last",
            max_tokens: 2,
            answers: &[5, 0],
            handed_out: &[5],
            reason: FinishReason::Stop,
        },
        Case { name: "stop at once", max_tokens: 9, answers: &[0], handed_out: &[], reason: FinishReason::Stop },
    ];
    for Case { name, max_tokens, answers, handed_out, reason } in cases {
        let mut planner = planner(1, 16, 16);
        planner.add(sequence(0, 3, max_tokens));
        let mut found = Vec::new();
        let mut end = None;
        for &token in answers {
            assert!(end.is_none(), "{name}: ended early");
            planner.schedule();
            let outcomes = planner.complete(vec![Sampled { seq: SeqId(0), token, logprobs: None }]).unwrap();
            for outcome in outcomes {
                found.extend(outcome.token.map(|t| t.token));
                end = outcome.ended;
            }
        }
        let (found_reason, sequence) = end.unwrap_or_else(|| panic!("{name}: did not end"));
        assert_eq!((found.as_slice(), found_reason), (handed_out, reason), "{name}");
        assert_eq!(sequence.usage().completion_tokens, answers.len(), "{name}");
        assert!(planner.is_idle() && planner.blocks_in_use() == 0, "{name}");
    }
}

#[test]
fn a_failed_step_takes_its_sequences_and_no_others() {
    let mut planner = planner(2, 16, 64);
    for id in 0..3 {
        planner.add(sequence(id, 2, 4));
    }
    planner.schedule();
    let mut failed: Vec<u64> = planner.fail().iter().map(|s| s.id.0).collect();
    failed.sort_unstable();
    assert_eq!(failed, [0, 1]);
    assert_eq!(planner.blocks_in_use(), 0);
    assert_eq!(step(&mut planner, 5), [(2, 0, 2)]);
}

#[test]
fn answers_to_questions_not_asked_are_refused() {
    let mut planner = planner(2, 3, 64);
    planner.add(sequence(0, 2, 4));
    planner.add(sequence(1, 2, 4));
    planner.schedule();
    let sampled = |seq| Sampled { seq: SeqId(seq), token: 1, logprobs: None };
    // The second's prompt is only half done.
    assert!(planner.complete(vec![]).is_err());
    assert!(planner.complete(vec![sampled(0), sampled(1)]).is_err());
    assert!(planner.complete(vec![sampled(1)]).is_err());
    assert_eq!(planner.complete(vec![sampled(0)]).unwrap().len(), 1);
}
