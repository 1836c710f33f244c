use proptest::prelude::*;
use vllm_platform::{KvDtype, KvGroup, TokenId};

use super::*;
use crate::Request;

fn planner(max_num_seqs: usize, max_num_batched_tokens: usize, num_blocks: usize) -> Planner {
    let groups = vec![KvGroup { window: None, num_blocks, block_bytes: 1 }];
    let kv = KvCacheSpec { block_size: 4, dtype: KvDtype::F32, groups, rewind: None };
    Planner::new(Limits { max_num_seqs, max_num_batched_tokens, prefill_step_size: usize::MAX }, &kv, true)
}

/// A prompt that shares nothing with others.
fn request(id: u64, prompt: usize, max_tokens: usize) -> Request {
    let prompt = (0..prompt).map(|i| (100 * id as usize + i) as TokenId).collect();
    Request { prompt, max_tokens, stop_tokens: vec![0], ..Request::new("r") }
}

fn sequence(id: u64, prompt: usize, max_tokens: usize) -> Sequence {
    Sequence::new(SeqId(id), request(id, prompt, max_tokens))
}

fn in_use(planner: &Planner) -> usize {
    planner.blocks().iter().map(|group| group.in_use).sum()
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
fn a_long_prompt_goes_in_chunks_and_stalls_neither_an_answer_nor_a_short_prompt() {
    let mut planner = planner(4, 8, 64);
    planner.add(sequence(0, 3, 9));
    assert_eq!(step(&mut planner, 5), [(0, 0, 3)]);
    planner.add(sequence(1, 20, 2));
    assert_eq!(step(&mut planner, 5), [(0, 3, 1), (1, 0, 7)]);
    planner.add(sequence(2, 2, 1));
    assert_eq!(step(&mut planner, 5), [(0, 4, 1), (1, 7, 5), (2, 0, 2)]);
    assert_eq!(step(&mut planner, 5), [(0, 5, 1), (1, 12, 7)]);
    assert_eq!(step(&mut planner, 5), [(0, 6, 1), (1, 19, 1)]);
    assert_eq!(step(&mut planner, 5), [(0, 7, 1), (1, 20, 1)]);
    assert_eq!(planner.running().len(), 1);
}

#[test]
fn first_come_first_served_and_nobody_overtakes() {
    let mut planner = planner(4, 64, 4);
    planner.add(sequence(0, 10, 5)); // 3 blocks, and 1 more as it grows
    planner.add(sequence(1, 5, 1)); // 2 blocks
    planner.add(sequence(2, 1, 1)); // 1 block, would fit
    assert_eq!(step(&mut planner, 5), [(0, 0, 10)]);
    assert_eq!((planner.waiting().count(), in_use(&planner)), (2, 3));
    planner.remove(SeqId(0)).unwrap();
    assert_eq!(step(&mut planner, 5), [(1, 0, 5), (2, 0, 1)]);
    assert!(planner.is_idle());
    assert_eq!(in_use(&planner), 0);
}

#[test]
fn the_newest_gives_way_and_finds_what_it_had_computed() {
    let mut planner = planner(4, 64, 6);
    planner.add(sequence(0, 8, 12)); // 19 tokens at its end: 5 blocks
    planner.add(sequence(1, 7, 9));
    assert_eq!(step(&mut planner, 5), [(0, 0, 8), (1, 0, 7)]);
    let mut preempted = Vec::new();
    let mut starts = Vec::new();
    for _ in 0..40 {
        let scheduled = planner.schedule();
        preempted.extend(scheduled.preempted.iter().map(|seq| seq.0));
        starts.extend(scheduled.admitted.iter().map(|admitted| (admitted.seq.0, admitted.cached)));
        let sampled: Vec<_> = planner.step_plan().rows.iter().filter(|r| r.sample.is_some()).map(|r| r.seq).collect();
        let sampled = sampled.into_iter().map(|seq| Sampled { seq, token: 5, logprobs: None }).collect();
        planner.complete(sampled).unwrap();
        assert!(in_use(&planner) <= 6);
        if planner.is_idle() {
            break;
        }
    }
    assert!(planner.is_idle(), "both end");
    assert!(!preempted.is_empty() && preempted.iter().all(|&seq| seq == 1), "{preempted:?}");
    assert!(starts.iter().all(|&(seq, cached)| seq == 1 && cached >= 4), "{starts:?}");
    assert_eq!(in_use(&planner), 0);
}

#[test]
fn lower_numbers_are_sooner_and_take_the_place_of_higher_ones() {
    let mut planner = planner(2, 64, 64);
    let with_priority = |id, priority| Sequence::new(SeqId(id), Request { priority, ..request(id, 3, 5) });
    for (id, priority) in [(0, 5), (1, 5), (2, 7)] {
        planner.add(with_priority(id, priority));
    }
    assert_eq!(step(&mut planner, 5), [(0, 0, 3), (1, 0, 3)]);
    planner.add(with_priority(3, -1));
    let scheduled = planner.schedule();
    assert_eq!((scheduled.preempted, scheduled.admitted.len()), (vec![SeqId(1)], 1));
    assert_eq!(scheduled.admitted[0].seq, SeqId(3));
    planner.fail();
    // The one sent back comes before the one that never ran.
    let order: Vec<_> = planner.schedule().admitted.iter().map(|admitted| admitted.seq.0).collect();
    assert_eq!(order, [1, 2]);
}

#[test]
fn a_flood_of_one_client_does_not_starve_another() {
    let mut planner = planner(4, 64, 256);
    let of = |id, client: &str| Sequence::new(SeqId(id), Request { client: Some(client.into()), ..request(id, 3, 50) });
    for id in 0..10 {
        planner.add(of(id, "flood"));
    }
    step(&mut planner, 5);
    assert_eq!(planner.running().len(), 4);
    planner.add(of(10, "other"));
    planner.add(of(11, "other"));
    planner.add(of(12, "other"));
    // They begin with what the others have had. From the next step on they have had less.
    step(&mut planner, 5);
    let scheduled = planner.schedule();
    let admitted: Vec<_> = scheduled.admitted.iter().map(|admitted| admitted.seq.0).collect();
    assert_eq!(admitted, [10, 11], "its fair share of the places, at once");
    assert_eq!(scheduled.preempted, [SeqId(3), SeqId(2)]);
}

#[test]
fn who_begins_alike_waits_for_the_one_that_computes_it() {
    let mut planner = planner(4, 16, 64);
    let prompt = |tail: &[TokenId]| (100..140).chain(tail.iter().copied()).collect::<Vec<_>>();
    let with_prompt = |id, prompt| Sequence::new(SeqId(id), Request { prompt, ..request(id, 1, 2) });
    planner.add(with_prompt(0, prompt(&[1])));
    planner.add(with_prompt(1, prompt(&[2, 3])));
    planner.add(sequence(9, 3, 1));
    assert_eq!(step(&mut planner, 5), [(0, 0, 13), (9, 0, 3)]);
    assert_eq!(step(&mut planner, 5), [(0, 13, 16)]);
    assert_eq!(step(&mut planner, 5), [(0, 29, 12)]);
    assert_eq!(step(&mut planner, 5), [(0, 41, 1), (1, 40, 2)]);
    // Another salt shares nothing and waits for nobody.
    planner.add(with_prompt(2, prompt(&[1])));
    let salted = Request { prompt: prompt(&[1]), cache_salt: Some("b".into()), ..request(3, 1, 2) };
    planner.add(Sequence::new(SeqId(3), salted));
    assert_eq!(step(&mut planner, 5), [(1, 42, 1), (2, 40, 1), (3, 0, 14)]);
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
                let stopped = matches!(outcome.ended, Some((FinishReason::Stop, _)));
                assert_eq!(outcome.stop.map(|stop| stop.token), stopped.then_some(token), "{name}");
                end = outcome.ended;
            }
        }
        let (found_reason, sequence) = end.unwrap_or_else(|| panic!("{name}: did not end"));
        assert_eq!((found.as_slice(), found_reason), (handed_out, reason), "{name}");
        assert_eq!(sequence.usage().completion_tokens, answers.len(), "{name}");
        assert!(planner.is_idle() && in_use(&planner) == 0, "{name}");
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
    assert_eq!(in_use(&planner), 0);
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

/// Computes a step with made-up tokens.
fn take_step(planner: &mut Planner) -> Scheduled {
    let scheduled = planner.schedule();
    let asked: Vec<_> = planner.step_plan().rows.iter().filter(|r| r.sample.is_some()).map(|r| r.seq).collect();
    let sampled = asked.into_iter().map(|seq| Sampled { seq, token: 5, logprobs: None }).collect();
    planner.complete(sampled).unwrap();
    scheduled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, and in however little room: the budget holds, blocks are all there in the end, everybody gets to the
    /// end in time, and of one client's requests of one priority the older one is let in first.
    #[test]
    fn first_come_first_served_within_a_priority_and_nobody_starves(
        arrivals in prop::collection::vec((0usize..4, 1usize..40, 1usize..20, -1i32..2, 0u8..3), 1..40),
        places in 1usize..6,
        room in 0usize..40,
        num_blocks in 15usize..40,
    ) {
        let mut planner = planner(places, places + room, num_blocks);
        let mut fresh: Vec<(SeqId, i32, u8)> = Vec::new();
        let mut work = 0;
        let check = |planner: &mut Planner, fresh: &mut Vec<(SeqId, i32, u8)>| {
            let scheduled = take_step(planner);
            let mut admitted: Vec<_> = Vec::new();
            for start in scheduled.admitted {
                // Those who come back after a preemption are not new.
                admitted.extend(fresh.iter().position(|f| f.0 == start.seq).map(|at| fresh.remove(at)));
            }
            for (seq, priority, client) in admitted {
                let older = fresh.iter().find(|f| (f.1, f.2) == (priority, client) && f.0 < seq);
                assert_eq!(older, None, "{seq:?} was let in before an older one");
            }
            assert!(in_use(planner) <= num_blocks);
        };
        for (id, &(pause, prompt, max_tokens, priority, client)) in arrivals.iter().enumerate() {
            for _ in 0..pause {
                check(&mut planner, &mut fresh);
            }
            let id = id as u64;
            let request = Request {
                priority,
                client: Some(client.to_string().into()),
                ..request(id, prompt, max_tokens)
            };
            planner.add(Sequence::new(SeqId(id), request));
            fresh.push((SeqId(id), priority, client));
            work += prompt + max_tokens;
        }
        // Each step computes at least one token that needs no computing again, but for those of preempted tails.
        for _ in 0..20 * work {
            if planner.is_idle() {
                break;
            }
            check(&mut planner, &mut fresh);
        }
        prop_assert!(planner.is_idle(), "somebody starves: {} run, {} wait", planner.running().len(), planner.waiting().count());
        prop_assert_eq!(in_use(&planner), 0);
    }
}
