use super::*;
use crate::{SamplingParams, SeqId};

fn row<'a>(seq: u64, tokens: &'a [TokenId], start: usize, blocks: &[BlockId]) -> Row<'a> {
    // Tests are short: their tables may live as long as they do.
    let tables = vec![blocks.to_vec()].leak();
    Row { seq: SeqId(seq), tokens, start, tables, media: &[], sample: None }
}

fn plan(rows: Vec<Row<'_>>) -> StepPlan<'_> {
    StepPlan { copies: Vec::new(), rows }
}

fn sampled<'a>(row: Row<'a>, prompt: &'a [TokenId], params: &'a SamplingParams) -> Row<'a> {
    Row { sample: Some(SampleAt { params, prompt, output: &[], processors: &[] }), ..row }
}

#[test]
fn chunks_and_batches_do_not_change_the_answer() {
    let params = SamplingParams::default();
    let prompt = [1, 2, 3, 4, 5, 6];
    let mut whole = FakeRunner::new(FakeConfig::default());
    let whole_plan = plan(vec![sampled(row(0, &prompt, 0, &[3, 1]), &prompt, &params)]);
    let wanted = whole.step(&whole_plan).unwrap().sampled[0].token;

    let mut chunked = FakeRunner::new(FakeConfig::default());
    chunked.step(&plan(vec![row(0, &prompt[..5], 0, &[7, 8]), row(1, &[9], 0, &[2])])).unwrap();
    let last = sampled(row(0, &prompt[5..], 5, &[7, 8]), &prompt, &params);
    let found = chunked.step(&plan(vec![last])).unwrap();
    assert_eq!(found.sampled[0].token, wanted);
    assert_eq!(chunked.probe().tokens.load(Relaxed), 7);
}

#[test]
fn broken_plans_are_named() {
    let params = SamplingParams::default();
    let cases: [(&str, Vec<Row<'_>>, &str); 9] = [
        ("empty row", vec![row(0, &[], 0, &[1])], "has no tokens"),
        ("short table", vec![row(0, &[1; 5], 0, &[1])], "its 1 blocks before that"),
        ("no such block", vec![row(0, &[1], 0, &[999])], "has block 999 of 256"),
        ("no such token", vec![row(0, &[64], 0, &[1])], "has token 64"),
        ("two rows", vec![row(0, &[1], 0, &[1]), row(0, &[1], 1, &[1])], "stands in two rows"),
        ("shared block", vec![row(0, &[1], 0, &[1]), row(1, &[1], 0, &[1])], "written by two sequences"),
        ("gap", vec![row(0, &[1], 3, &[1])], "position 2, which was never written"),
        ("samples early", vec![sampled(row(0, &[1], 0, &[1]), &[1, 2], &params)], "prompt and output have 2"),
        ("wrong token", vec![sampled(row(0, &[1], 0, &[1]), &[2], &params)], "position 0 is token 2"),
    ];
    for (name, rows, wanted) in cases {
        let mut runner = FakeRunner::new(FakeConfig::default());
        let error = runner.step(&plan(rows)).unwrap_err().to_string();
        assert!(error.contains(wanted), "{name}: {error}");
        assert_eq!(runner.probe().violations.load(Relaxed), 1, "{name}");
    }
}

#[test]
fn a_block_taken_over_by_another_sequence_is_found() {
    let params = SamplingParams::default();
    let mut runner = FakeRunner::new(FakeConfig::default());
    runner.step(&plan(vec![row(0, &[1, 2], 0, &[5])])).unwrap();
    runner.step(&plan(vec![row(1, &[3, 2], 0, &[5])])).unwrap();
    let plan = plan(vec![sampled(row(0, &[3], 2, &[5]), &[1, 2, 3], &params)]);
    let error = runner.step(&plan).unwrap_err().to_string();
    assert!(error.contains("position 0 is token 1"), "{error}");
}
