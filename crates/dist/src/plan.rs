//! A step as ranks that don't sample see it.

use serde::{Deserialize, Serialize};
use vllm_platform::{BlockCopy, BlockId, Row, SeqId, StepPlan, TokenId};

/// A [`StepPlan`] that can travel: without how to sample, which is rank 0's business.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanData {
    /// Group, from, to, tokens.
    copies: Vec<(usize, BlockId, BlockId, usize)>,
    rows: Vec<RowData>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct RowData {
    seq: u64,
    tokens: Vec<TokenId>,
    start: usize,
    tables: Vec<Vec<BlockId>>,
}

impl PlanData {
    /// # Errors
    /// If it has pictures in it: what stands in for them is on rank 0 only.
    pub fn of(plan: &StepPlan<'_>) -> Result<Self, String> {
        if plan.rows.iter().any(|row| !row.media.is_empty()) {
            return Err("a model over several machines takes no images".into());
        }
        let row = |row: &Row<'_>| RowData {
            seq: row.seq.0,
            tokens: row.tokens.to_vec(),
            start: row.start,
            tables: row.tables.to_vec(),
        };
        let copy = |copy: &BlockCopy| (copy.group, copy.from, copy.to, copy.tokens);
        Ok(Self { copies: plan.copies.iter().map(copy).collect(), rows: plan.rows.iter().map(row).collect() })
    }

    /// As a stage takes it.
    pub fn plan(&self) -> StepPlan<'_> {
        StepPlan {
            copies: self
                .copies
                .iter()
                .map(|&(group, from, to, tokens)| BlockCopy { group, from, to, tokens })
                .collect(),
            rows: self.rows.iter().map(RowData::row).collect(),
        }
    }

    /// Tokens computed.
    pub fn tokens(&self) -> usize {
        self.rows.iter().map(|row| row.tokens.len()).sum()
    }
}

impl RowData {
    fn row(&self) -> Row<'_> {
        let Self { seq, tokens, start, tables } = self;
        Row { seq: SeqId(*seq), tokens, start: *start, tables, media: &[], sample: None }
    }
}

#[cfg(test)]
mod tests {
    use vllm_platform::{NO_BLOCK, SampleAt, SamplingParams};

    use super::*;

    #[test]
    fn a_plan_arrives_as_it_was_but_for_sampling() {
        let (params, tables) = (SamplingParams::default(), [vec![3, 1], vec![NO_BLOCK, 2]]);
        let sample = SampleAt { params: &params, prompt: &[1], output: &[], processors: &[] };
        let row = Row { seq: SeqId(9), tokens: &[5, 6], start: 17, tables: &tables, media: &[], sample: Some(sample) };
        let copies = vec![BlockCopy { group: 1, from: 4, to: 2, tokens: 7 }];
        let plan = StepPlan { copies, rows: vec![row] };
        let bytes = postcard::to_stdvec(&PlanData::of(&plan).unwrap()).unwrap();
        let back: PlanData = postcard::from_bytes(&bytes).unwrap();
        let back = back.plan();
        assert_eq!(back.copies, plan.copies);
        let [row] = &back.rows[..] else { panic!("one row") };
        assert_eq!((row.seq, row.tokens, row.start, row.tables), (SeqId(9), &[5, 6][..], 17, &tables[..]));
        assert!(row.sample.is_none());
        assert!(bytes.len() < 32, "{} bytes", bytes.len());
    }
}
