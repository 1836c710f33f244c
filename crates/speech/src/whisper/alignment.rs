//! Which place of a window each token was heard at, by what attention heads look at.
//!
//! Some heads of the decoder follow the words through the sound. Their attention is sharpened, smoothed and averaged; the cheapest
//! path through it that goes back neither in text nor in time (dynamic time warping) says when each token begins.

/// Places of the median filter.
const MEDIAN: usize = 7;

/// What heads attend to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention<'a> {
    /// [heads, tokens, places], before the softmax.
    pub weights: &'a [f32],
    pub tokens: usize,
    pub places: usize,
    /// How many of the places hold sound.
    pub heard: usize,
}

impl Attention<'_> {
    /// For each of the tokens from `first` to the last but one, the place at which it begins.
    ///
    /// # Panics
    /// If `weights` is not of this shape, or holds no head.
    pub fn begins(&self, first: usize) -> Vec<usize> {
        let rows = self.tokens - 1 - first;
        let matrix = self.matrix();
        let heard = &matrix[first * self.heard..(first + rows) * self.heard];
        let path = cheapest_path(heard, rows, self.heard);
        let mut begins = vec![0; rows];
        // Backwards in time: what is written last is the first place of the row.
        for (row, place) in path {
            begins[row] = place;
        }
        begins
    }

    /// How much all heads together attend from each token to each place that holds sound: [tokens, heard].
    fn matrix(&self) -> Vec<f32> {
        let (tokens, heard) = (self.tokens, self.heard);
        let size = tokens * self.places;
        let heads = self.weights.len() / size;
        assert!(heads > 0 && self.weights.len() == heads * size && heard <= self.places, "attention of another shape");
        let mut sum = vec![0.0; tokens * heard];
        let mut head = vec![0.0; tokens * heard];
        let mut padded = vec![];
        for weights in self.weights.chunks_exact(size) {
            for (row, weights) in head.chunks_exact_mut(heard).zip(weights.chunks_exact(self.places)) {
                softmax(&weights[..heard], row);
            }
            standardise(&mut head, heard);
            for (row, sum) in head.chunks_exact(heard).zip(sum.chunks_exact_mut(heard)) {
                add_medians(row, sum, &mut padded);
            }
        }
        for number in &mut sum {
            *number /= heads as f32;
        }
        sum
    }
}

fn softmax(from: &[f32], to: &mut [f32]) {
    let greatest = from.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (to, from) in to.iter_mut().zip(from) {
        *to = (from - greatest).exp();
        sum += *to;
    }
    for to in to {
        *to /= sum;
    }
}

/// Gives each column of a matrix mean 0 and variance 1; one whose numbers are all the same becomes 0.
fn standardise(matrix: &mut [f32], columns: usize) {
    let rows = (matrix.len() / columns) as f64;
    let mut mean = vec![0.0f64; columns];
    let mut variance = vec![0.0f64; columns];
    for row in matrix.chunks_exact(columns) {
        for (mean, number) in mean.iter_mut().zip(row) {
            *mean += f64::from(*number) / rows;
        }
    }
    for row in matrix.chunks_exact(columns) {
        for ((variance, mean), number) in variance.iter_mut().zip(&mean).zip(row) {
            *variance += (f64::from(*number) - mean).powi(2) / rows;
        }
    }
    let deviation: Vec<f32> = variance.iter().map(|variance| variance.sqrt() as f32).collect();
    for row in matrix.chunks_exact_mut(columns) {
        for ((number, mean), deviation) in row.iter_mut().zip(&mean).zip(&deviation) {
            *number = if *deviation > 0.0 { (*number - *mean as f32) / deviation } else { 0.0 };
        }
    }
}

/// Adds to each number of `sum` the median of the numbers around its place in `row`, which is mirrored at its ends.
fn add_medians(row: &[f32], sum: &mut [f32], padded: &mut Vec<f32>) {
    let half = MEDIAN / 2;
    if row.len() <= half {
        sum.iter_mut().zip(row).for_each(|(sum, number)| *sum += number);
        return;
    }
    padded.clear();
    padded.extend(row[1..=half].iter().rev());
    padded.extend(row);
    padded.extend(row[row.len() - 1 - half..row.len() - 1].iter().rev());
    for (sum, around) in sum.iter_mut().zip(padded.windows(MEDIAN)) {
        *sum += median([around[0], around[1], around[2], around[3], around[4], around[5], around[6]]);
    }
}

/// The fourth of seven numbers, by a network of exchanges without branches (Devillard's).
fn median(mut x: [f32; MEDIAN]) -> f32 {
    for (a, b) in
        [(0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4)]
    {
        (x[a], x[b]) = (if x[a] < x[b] { x[a] } else { x[b] }, if x[a] < x[b] { x[b] } else { x[a] });
    }
    x[3]
}

/// The path from the last row and column of a matrix [rows, columns] to the first, each step one back in row, column or both, that
/// gathers most.
fn cheapest_path(matrix: &[f32], rows: usize, columns: usize) -> Vec<(usize, usize)> {
    const BOTH: u8 = 0;
    const ROW: u8 = 1;
    const COLUMN: u8 = 2;
    let mut steps = vec![COLUMN; rows * columns];
    // Costs up to the row above, and to this one, with what is before the first column.
    let mut above = vec![f64::INFINITY; columns + 1];
    let mut here = above.clone();
    above[0] = 0.0;
    for (row, (numbers, steps)) in matrix.chunks_exact(columns).zip(steps.chunks_exact_mut(columns)).enumerate() {
        here[0] = f64::INFINITY;
        for (column, number) in numbers.iter().enumerate() {
            let (both, by_row, by_column) = (above[column], above[column + 1], here[column]);
            let (cost, step) = if both < by_row && both < by_column {
                (both, BOTH)
            } else if by_row < both && by_row < by_column {
                (by_row, ROW)
            } else {
                (by_column, COLUMN)
            };
            here[column + 1] = cost - f64::from(*number);
            steps[column] = if row == 0 { COLUMN } else { step };
        }
        if row > 0 {
            steps[0] = ROW;
        }
        std::mem::swap(&mut above, &mut here);
    }
    let (mut row, mut column) = (rows - 1, columns - 1);
    let mut path = vec![(row, column)];
    while row > 0 || column > 0 {
        match steps[row * columns + column] {
            BOTH => (row, column) = (row - 1, column - 1),
            ROW => row -= 1,
            _ => column -= 1,
        }
        path.push((row, column));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn median_is_the_fourth_of_seven() {
        // All ways of seven numbers that are 0 or 1: by the principle of zeros and ones the network then sorts anything.
        for bits in 0..128u32 {
            let numbers: [f32; 7] = std::array::from_fn(|place| ((bits >> place) & 1) as f32);
            assert_eq!(median(numbers), if bits.count_ones() >= 4 { 1.0 } else { 0.0 }, "{bits:07b}");
        }
    }
}
