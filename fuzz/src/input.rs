//! Reading an input.

/// Splits off the bytes that choose what to do. `None` if the input is shorter.
#[must_use]
pub fn head<const N: usize>(data: &[u8]) -> Option<([u8; N], &[u8])> {
    data.split_first_chunk().map(|(head, rest)| (*head, rest))
}

/// Numbers that depend on their seed alone, so that an input does the same each time.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, which is not 0. SplitMix64.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as usize
    }
}

/// `text` cut into pieces of one to about `longest` bytes.
#[must_use]
pub fn pieces(text: &str, seed: u8, longest: usize) -> Vec<&str> {
    let mut rng = Rng::new(seed.into());
    let (mut pieces, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(rest.ceil_char_boundary(1 + rng.below(longest)));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}
