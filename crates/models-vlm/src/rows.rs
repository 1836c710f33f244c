//! Rows of patches and tokens, picked and put together.

use vllm_platform_mlx::{Error, Result, Tensor, mlx_rs::ops::indexing::take_axis};

/// Rows `which` of x [rows, …].
pub(crate) fn pick(x: &Tensor, which: &[u32]) -> Result<Tensor> {
    Ok(take_axis(x, ids(which), 0)?)
}

/// Indices as a tensor, `[ids]`.
pub(crate) fn ids(ids: &[u32]) -> Tensor {
    Tensor::from_slice(ids, &[i32::try_from(ids.len()).unwrap_or(i32::MAX)])
}

/// Patches of pictures, block by block of `side` by `side`: x [patches, hidden] → [blocks, side · side, hidden].
pub(crate) fn blocks(x: &Tensor, grids: &[[usize; 2]], side: usize) -> Result<Tensor> {
    let of_block = i32::try_from(side * side).unwrap_or(i32::MAX);
    Ok(pick(x, &order(grids, side)?)?.reshape(&[-1, of_block, x.dim(-1)])?)
}

/// The patches, which stand row by row in their pictures, in the order of [`blocks`].
fn order(grids: &[[usize; 2]], side: usize) -> Result<Vec<u32>> {
    let mut order = Vec::new();
    let mut first = 0;
    for &[rows, columns] in grids {
        if side == 0 || !rows.is_multiple_of(side) || !columns.is_multiple_of(side) {
            return Err(Error::Plan(format!("{rows} by {columns} patches are no blocks of {side} by {side}")));
        }
        let corners =
            (0..rows).step_by(side).flat_map(|row| (0..columns).step_by(side).map(move |column| (row, column)));
        for (row, column) in corners {
            let patch = |i| first + (row + i / side) * columns + column + i % side;
            order.extend((0..side * side).map(|i| u32::try_from(patch(i)).unwrap_or(u32::MAX)));
        }
        first += rows * columns;
    }
    Ok(order)
}

/// Patches of each picture.
pub(crate) fn lengths(grids: &[[usize; 2]]) -> Vec<usize> {
    grids.iter().map(|[rows, columns]| rows * columns).collect()
}

/// Row and column of each patch, for a rotary embedding on two axes.
pub(crate) fn axes(grids: &[[usize; 2]]) -> [Vec<u32>; 2] {
    let of = |place: fn(usize, usize) -> usize| {
        let of_picture = |&[rows, columns]: &[usize; 2]| (0..rows * columns).map(move |i| place(i, columns));
        grids.iter().flat_map(of_picture).map(|place| u32::try_from(place).unwrap_or(u32::MAX)).collect()
    };
    [of(|i, columns| i / columns), of(|i, columns| i % columns)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_of_two_pictures() {
        assert_eq!(axes(&[[2, 2], [1, 3]]), [[0, 0, 1, 1, 0, 0, 0], [0, 1, 0, 1, 0, 1, 2]]);
    }

    #[test]
    fn blocks_of_two_pictures() {
        let wanted = [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11];
        assert_eq!(order(&[[2, 4], [2, 2]], 2).expect("whole blocks"), wanted);
        let error = order(&[[2, 2], [3, 2]], 2).expect_err("a row too many").to_string();
        assert!(error.contains("3 by 2 patches are no blocks of 2 by 2"), "{error}");
    }
}
