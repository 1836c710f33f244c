//! Where the rows of a step belong: sequences, positions, blocks, pictures.

use std::sync::Arc;

use vllm_kernels_cpu::{Positions, RaggedBatch};
use vllm_platform::{BlockId, Features, KvCacheSpec, KvDtype, KvGroup, NO_BLOCK, Row, SeqId, StepPlan, rope_positions};

use crate::{Error, Result, speech::HeardText};

/// Where the sequences of a [`Batch`](crate::Batch) stand in its rows, and where their KV lives.
#[derive(Debug, Default)]
pub struct Layout {
    tokens: Vec<u32>,
    /// Position of each row's token for the rotary embedding: in its sequence, or in time where it has others beside.
    pub positions: Vec<u32>,
    /// Its positions in height and width, if any row's are others than in time.
    axes: Option<[Vec<u32>; 2]>,
    /// Rows that hold a picture's place.
    features: Vec<Placed>,
    /// The position before which each row sees everything, where that is further than itself; empty if no row sees so far.
    until: Vec<u32>,
    /// The rows whose results are asked for, in order.
    wanted: Vec<u32>,
    /// First row of each sequence, and the end.
    row_offsets: Vec<u32>,
    /// Position of each sequence's first row: the KV of what comes before is stored already.
    starts: Vec<u32>,
    /// One for each group of layers.
    groups: Vec<Tables>,
    /// One for each sequence, if they are texts about sounds.
    heard: Vec<Arc<HeardText>>,
    /// What the stage before this one made of the rows, [rows, width].
    received: Vec<f32>,
}

/// The block tables of all sequences, for one group of layers.
#[derive(Debug)]
struct Tables {
    /// KV slot of each row: `block · block_size + position % block_size`.
    slots: Vec<u32>,
    /// First entry of each sequence's block table in `blocks`, and the end.
    offsets: Vec<u32>,
    blocks: Vec<BlockId>,
}

/// Rows of a [`Batch`](crate::Batch) that hold the place of a picture's features.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The first of them.
    pub row: usize,
    pub len: usize,
    features: Arc<Features>,
    /// The vector that is for the first row.
    first: usize,
}

impl Placed {
    /// The vectors of a level, [len, width].
    ///
    /// # Errors
    /// If they have another width, or there is no such level.
    pub fn level(&self, level: usize, width: usize) -> Result<&[f32], String> {
        let features = &self.features;
        if features.width() != width || level >= features.levels() {
            return Err(format!("{features:?}: the model wants vectors of {width}, and level {level}"));
        }
        Ok(&features.level(level)[self.first * width..(self.first + self.len) * width])
    }
}

/// What a text about a sound goes on with.
pub(crate) struct TextTokens<'a> {
    /// Tokens that it has.
    pub start: usize,
    pub tokens: &'a [u32],
    /// For how many of the last tokens results are asked for.
    pub wanted: usize,
}

/// One sequence of a [`Batch`](crate::Batch).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First row of the batch's matrices.
    pub first: usize,
    /// Rows, one a token.
    pub len: usize,
    /// Position of the first row's token in its sequence.
    pub start: usize,
}

impl Layout {
    /// Lays out a plan's rows over the blocks of a KV store. What is asked for is the last row of each that samples.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no row, a row is empty, or it hasn't a block table for each group that is long enough
    /// and names blocks of the group's pool wherever the row reads or writes.
    pub fn new(plan: &StepPlan<'_>, kv: &KvCacheSpec) -> Result<Self> {
        let groups = kv.groups.iter().map(|_| Tables::new()).collect();
        let mut layout = Self { row_offsets: vec![0], groups, ..Self::default() };
        for row in &plan.rows {
            let wrong = |problem: String| Error::Plan(format!("sequence {}: {problem}", row.seq.0));
            if row.tokens.is_empty() {
                return Err(wrong("no tokens".into()));
            }
            if row.tables.len() != kv.groups.len() {
                return Err(wrong(format!("{} block tables for {} groups", row.tables.len(), kv.groups.len())));
            }
            for (i, (group, table)) in kv.groups.iter().zip(row.tables).enumerate() {
                let pushed = layout.groups[i].push(row, table, group, kv.block_size);
                pushed.map_err(|problem| wrong(format!("group {i}: {problem}")))?;
            }
            layout.push_media(row).map_err(wrong)?;
            layout.tokens.extend_from_slice(row.tokens);
            layout.row_offsets.push(narrow(layout.tokens.len()));
            layout.starts.push(narrow(row.start));
            if row.sample.is_some() {
                layout.wanted.push(narrow(layout.tokens.len() - 1));
            }
        }
        if layout.tokens.is_empty() {
            return Err(Error::Plan("no rows".into()));
        }
        if !layout.until.is_empty() {
            layout.until.resize(layout.tokens.len(), 0);
        }
        Ok(layout)
    }

    /// Rows of segments of these lengths, one after the other, that attend within themselves; `axes` are their rows' positions on
    /// up to three axes, by default the row's place in its segment. `tables` has a segment's blocks of `block_size` rows each.
    pub(crate) fn of_segments(
        lengths: &[usize],
        tables: &[Vec<Vec<BlockId>>],
        kv: &KvCacheSpec,
        axes: Option<[Vec<u32>; 2]>,
    ) -> Result<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let tokens = vec![0; longest];
        let rows = lengths.iter().zip(tables).zip(0..).map(|((&len, tables), seq)| {
            let tokens = &tokens[..len];
            Row { seq: SeqId(seq), tokens, start: 0, tables, media: &[], sample: None }
        });
        let mut layout = Self::new(&StepPlan { rows: rows.collect(), ..StepPlan::default() }, kv)?;
        if let Some([first, second]) = axes {
            let rows = layout.len();
            if first.len() != rows || second.len() != rows {
                return Err(Error::Plan(format!("positions of {} and {} rows of {rows}", first.len(), second.len())));
            }
            layout.positions = first;
            layout.axes = Some([second, vec![0; rows]]);
        }
        Ok(layout)
    }

    /// Rows of texts about sounds. `heard` has what each has written and hears, on the CPU.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no row, or a row is empty.
    pub(crate) fn of_texts(texts: &[TextTokens<'_>], heard: Vec<Arc<HeardText>>) -> Result<Self> {
        let none = KvCacheSpec { block_size: 1, dtype: KvDtype::F32, groups: Vec::new(), rewind: None };
        let row = |(seq, &TextTokens { start, tokens, .. })| Row {
            seq: SeqId(seq),
            tokens,
            start,
            tables: &[],
            media: &[],
            sample: None,
        };
        let rows = (0..).zip(texts).map(row).collect();
        let mut layout = Self::new(&StepPlan { rows, ..StepPlan::default() }, &none)?;
        let ends = layout.row_offsets[1..].iter().zip(texts);
        layout.wanted = ends.flat_map(|(&end, text)| end - narrow(text.wanted)..end).collect();
        layout.heard = heard;
        Ok(layout)
    }

    /// What each sequence, in the order of [`spans`](Self::spans), has written and hears.
    pub(crate) fn heard(&self) -> &[Arc<HeardText>] {
        &self.heard
    }

    /// Adds the rotary positions of a row's tokens, and its features.
    fn push_media(&mut self, row: &Row<'_>) -> Result<(), String> {
        let (first, end) = (self.tokens.len(), row.start + row.tokens.len());
        if row.media.iter().all(|span| span.grid.is_none()) {
            self.positions.extend((row.start..end).map(narrow));
            if let Some(axes) = &mut self.axes {
                axes.iter_mut().for_each(|axis| axis.extend_from_slice(&self.positions[first..]));
            }
        } else {
            let positions = rope_positions(row.media, row.start, row.tokens.len());
            let [height, width] = self.axes.get_or_insert_with(|| [self.positions.clone(), self.positions.clone()]);
            height.extend(positions.iter().map(|p| p[1]));
            width.extend(positions.iter().map(|p| p[2]));
            self.positions.extend(positions.iter().map(|p| p[0]));
        }
        for span in row.media.iter().filter(|span| span.start < end && span.end() > row.start) {
            let (from, to) = (span.start.max(row.start), span.end().min(end));
            let Some(features) = &span.features else {
                return Err(format!("tokens {from} to {to} hold a picture's place, whose features are missing"));
            };
            let vector = span.first + from - span.start;
            if vector + to - from > features.tokens() {
                return Err(format!("{features:?} has no vectors {vector} to {}", vector + to - from));
            }
            if span.bidirectional {
                if span.end() > end {
                    let (first, last) = (span.start, span.end());
                    return Err(format!("tokens {first} to {last} see each other, but the row ends at {end}"));
                }
                self.until.resize(first + from - row.start, 0);
                self.until.resize(first + to - row.start, narrow(span.end()));
            }
            let features = Arc::clone(features);
            self.features.push(Placed { row: first + from - row.start, len: to - from, features, first: vector });
        }
        Ok(())
    }

    /// Rows that hold a picture's place, in order.
    pub(crate) fn features(&self) -> &[Placed] {
        &self.features
    }

    /// For each row of a sequence, the position before which it sees everything, where that is further than itself: the end of
    /// its picture. Empty if none sees so far.
    pub(crate) fn until(&self, span: Span) -> &[u32] {
        let until = self.until.get(span.first..span.first + span.len).unwrap_or(&[]);
        if until.iter().any(|&until| until > 0) { until } else { &[] }
    }

    /// Whether a row's positions are not the same on all axes.
    pub(crate) fn has_axes(&self) -> bool {
        self.axes.is_some()
    }

    /// The rows' positions on an axis.
    pub(crate) fn on_axis(&self, axis: usize) -> &[u32] {
        match (&self.axes, axis.checked_sub(1)) {
            (Some(axes), Some(other)) => &axes[other],
            _ => &self.positions,
        }
    }

    /// The rows' positions for a rotary embedding whose pairs are on these axes; none: all on the first.
    pub(crate) fn rope_positions<'a>(&'a self, of_pair: &'a [u8]) -> Positions<'a> {
        match of_pair {
            [] => Positions::from(self.positions.as_slice()),
            _ => Positions::on_axes([0, 1, 2].map(|axis| self.on_axis(axis)), of_pair),
        }
    }

    /// With the results of all rows asked for.
    #[must_use]
    pub fn with_all_wanted(self) -> Self {
        Self { wanted: (0..narrow(self.len())).collect(), ..self }
    }

    /// With what the stage before this one made of the rows, [rows, width].
    #[must_use]
    pub fn with_received(self, received: Vec<f32>) -> Self {
        Self { received, ..self }
    }

    /// That, if it is as much as the rows want.
    pub(crate) fn received(&self, width: usize) -> Result<&[f32], String> {
        let (rows, found) = (self.len(), self.received.len());
        if found == rows * width {
            return Ok(&self.received);
        }
        Err(format!("{found} numbers came from the stage before: {rows} rows want {width} each"))
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Never: a layout has at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The rows whose results are asked for, in order.
    #[must_use]
    pub fn wanted(&self) -> &[u32] {
        &self.wanted
    }

    /// Token ids of all rows.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What a recorded step takes in place of [`Batch::tokens`](crate::Batch::tokens) and [`Batch::positions`](crate::Batch::positions).
    pub(crate) fn given(&self) -> [&[u32]; 2] {
        [&self.tokens, &self.positions]
    }

    /// The sequences, in the order of their rows.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.starts.iter().zip(self.row_offsets.windows(2)).map(|(&start, rows)| Span {
            first: rows[0] as usize,
            len: (rows[1] - rows[0]) as usize,
            start: start as usize,
        })
    }

    /// The block table of sequence `sequence` (in the order of [`Layout::spans`]) for the layers of `group`: token `p`
    /// lives in `table[p / block_size]`. Blocks that no row reads may be anything.
    ///
    /// # Panics
    /// If there is no such group or sequence.
    #[must_use]
    pub fn table(&self, group: usize, sequence: usize) -> &[BlockId] {
        let Tables { offsets, blocks, .. } = &self.groups[group];
        &blocks[offsets[sequence] as usize..offsets[sequence + 1] as usize]
    }

    /// KV slot of each row in the pools of `group`: `block · block_size + position % block_size`.
    ///
    /// # Panics
    /// If there is no such group.
    #[must_use]
    pub fn slots(&self, group: usize) -> &[u32] {
        &self.groups[group].slots
    }

    /// As the CPU's attention kernel takes it, for the layers of `group`.
    pub(crate) fn ragged(&self, group: usize) -> RaggedBatch<'_> {
        let Tables { offsets, blocks, .. } = &self.groups[group];
        RaggedBatch {
            query_offsets: &self.row_offsets,
            starts: &self.starts,
            until: &self.until,
            block_offsets: offsets,
            blocks,
        }
    }
}

impl Tables {
    fn new() -> Self {
        Self { slots: Vec::new(), offsets: vec![0], blocks: Vec::new() }
    }

    /// Adds a row's table for `group`, after a look at every block that the row reads or writes.
    fn push(&mut self, row: &Row<'_>, table: &[BlockId], group: &KvGroup, block_size: usize) -> Result<(), String> {
        let end = row.start + row.tokens.len();
        let blocks = end.div_ceil(block_size);
        let Some(table) = table.get(..blocks) else {
            let (len, start) = (row.tokens.len(), row.start);
            return Err(format!("{len} tokens from {start} need {blocks} blocks, {} given", table.len()));
        };
        let read = &table[group.first_read(row.start, block_size).min(blocks)..];
        if let Some(block) = read.iter().find(|&&block| block as usize >= group.num_blocks) {
            return Err(match *block {
                NO_BLOCK => format!("tokens from {} read a block that was given back", row.start),
                block => format!("block {block} of {} was named", group.num_blocks),
            });
        }
        let slot = |p: usize| table[p / block_size] * narrow(block_size) + narrow(p % block_size);
        self.slots.extend((row.start..end).map(slot));
        self.blocks.extend_from_slice(table);
        self.offsets.push(narrow(self.blocks.len()));
        Ok(())
    }
}

/// A position, slot or offset as kernels count it: contexts and pools stay far below 2³².
#[allow(clippy::cast_possible_truncation)]
fn narrow(n: usize) -> u32 {
    debug_assert!(u32::try_from(n).is_ok(), "{n} exceeds a u32");
    n as u32
}

#[cfg(test)]
mod tests {
    use vllm_platform::{KvDtype, MediaSpan, SeqId};

    use super::*;

    fn spec(windows: &[Option<usize>]) -> KvCacheSpec {
        let group = |&window: &Option<usize>| KvGroup { window, num_blocks: 10, block_bytes: 0 };
        KvCacheSpec { block_size: 4, dtype: KvDtype::F32, groups: windows.iter().map(group).collect(), rewind: None }
    }

    fn row<'a>(start: usize, tokens: &'a [u32], tables: &'a [Vec<BlockId>]) -> Row<'a> {
        Row { seq: SeqId(5), tokens, start, tables, media: &[], sample: None }
    }

    fn plan(rows: Vec<Row<'_>>) -> StepPlan<'_> {
        StepPlan { rows, ..StepPlan::default() }
    }

    #[test]
    fn rows_of_all_sequences_stand_one_after_the_other() {
        // The window of 5 hides the second sequence's first block from position 8 on.
        let tables = [[vec![7, 2, 9], vec![1, 0]], [vec![1, 4, 5], vec![NO_BLOCK, 3, 6]]];
        let plan = plan(vec![row(3, &[11, 12, 13], &tables[0]), row(8, &[21], &tables[1])]);
        let layout = Layout::new(&plan, &spec(&[None, Some(5)])).expect("a sound plan");
        assert_eq!(layout.positions, [3, 4, 5, 8]);
        assert_eq!(layout.slots(0), [31, 8, 9, 20]);
        assert_eq!(layout.slots(1), [7, 0, 1, 24]);
        let spans: Vec<_> = layout.spans().collect();
        assert_eq!(spans, [Span { first: 0, len: 3, start: 3 }, Span { first: 3, len: 1, start: 8 }]);
        assert_eq!((layout.table(0, 0), layout.table(0, 1)), (&[7, 2][..], &[1, 4, 5][..]));
        assert_eq!(layout.table(1, 1), [NO_BLOCK, 3, 6]);
    }

    #[test]
    fn features_that_are_missing_or_too_few_are_refused() {
        let tables = [vec![0, 1, 2]];
        let span = |features: Option<usize>| MediaSpan {
            start: 2,
            len: 4,
            first: 1,
            grid: None,
            bidirectional: false,
            features: features.map(|tokens| Features::new(vec![0.0; tokens * 3], 1, 3).into()),
        };
        for (name, start, features, wanted) in [
            ("none", 0, None, "sequence 5: tokens 2 to 3 hold a picture's place, whose features are missing"),
            ("too few", 3, Some(4), "Features[1, 4, 3] has no vectors 2 to 5"),
        ] {
            let (tokens, media) = ([1; 3], [span(features)]);
            let row = Row { media: &media, ..row(start, &tokens, &tables) };
            let error = Layout::new(&plan(vec![row]), &spec(&[None])).map(drop).expect_err(name).to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
        // Who only goes on after a picture needs nothing of it.
        let media = [span(None)];
        let after = Row { media: &media, ..row(6, &[1], &tables) };
        assert!(Layout::new(&plan(vec![after]), &spec(&[None])).expect("sound").features().is_empty());
    }

    #[test]
    fn tokens_of_a_picture_see_each_other_in_one_step() {
        let features = Some(Arc::new(Features::new(vec![0.0; 3], 1, 1)));
        let picture = MediaSpan { start: 3, len: 3, first: 0, grid: None, bidirectional: true, features };
        let until = |start: usize, len: usize| {
            let (tokens, tables) = ([0; 8], [vec![1, 2]]);
            let mut rows = vec![row(0, &tokens[..1], &tables), row(start, &tokens[..len], &tables)];
            rows[1].media = std::slice::from_ref(&picture);
            Layout::new(&plan(rows), &spec(&[None])).map(|layout| layout.until).map_err(|error| error.to_string())
        };
        let [text, whole, end, after] = [until(0, 3), until(2, 5), until(5, 1), until(6, 1)].map(Result::unwrap);
        assert_eq!((text, whole), (vec![], vec![0, 0, 6, 6, 6, 0]));
        assert_eq!((end, after), (vec![0, 6], vec![]));
        let error = until(1, 4).expect_err("a part of it");
        assert!(error.contains("sequence 5: tokens 3 to 6 see each other, but the row ends at 5"), "{error}");
    }

    #[test]
    fn a_plan_that_no_store_can_run_is_refused() {
        let cases: [(&str, usize, &[Vec<BlockId>], &str); 6] = [
            ("one table short", 0, &[vec![0]], "1 block tables for 2 groups"),
            ("a short table", 3, &[vec![1, 2], vec![7]], "group 1: 2 tokens from 3 need 2 blocks, 1 given"),
            ("beyond the pool", 0, &[vec![10], vec![1]], "group 0: block 10 of 10 was named"),
            ("beyond the other pool", 0, &[vec![1], vec![11]], "group 1: block 11 of 10 was named"),
            ("no block to write", 4, &[vec![1, 2], vec![1, NO_BLOCK]], "group 1: tokens from 4 read a block that was"),
            (
                "no block within the window",
                7,
                &[vec![1; 3], vec![NO_BLOCK, 2, 3]],
                "group 1: tokens from 7 read a block",
            ),
        ];
        for (name, start, tables, wanted) in cases {
            let refused = Layout::new(&plan(vec![row(start, &[1, 2], tables)]), &spec(&[None, Some(5)]));
            let error = refused.map(drop).expect_err(name).to_string();
            assert!(error.contains(&format!("bad step plan: sequence 5: {wanted}")), "{name}: {error}");
        }
    }
}
