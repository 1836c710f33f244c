//! Turning pictures as their camera was held.

use image::metadata::Orientation;

use crate::Picture;

/// Rows that are written side by side, so that what a turned row reads is not fetched anew for each of its pixels.
const ROWS: usize = 16;

/// `rgb`, [height, width, 3], turned and mirrored as its EXIF orientation wants it.
pub(super) fn upright(width: u32, height: u32, rgb: Vec<u8>, orientation: Orientation) -> Picture {
    if orientation == Orientation::NoTransforms {
        return Picture::from_rgb(width, height, rgb);
    }
    let (columns, rows) = (width as usize, height as usize);
    // Where in the file the pixel (x, y) of the result is: `start + x * right + y * down`, wrapping around below 0.
    let (row, last_row, last_column) = (columns, (rows - 1) * columns, columns - 1);
    let back = |step: usize| step.wrapping_neg();
    let (start, right, down) = match orientation {
        Orientation::NoTransforms => (0, 1, row),
        Orientation::FlipHorizontal => (last_column, back(1), row),
        Orientation::Rotate180 => (last_row + last_column, back(1), back(row)),
        Orientation::FlipVertical => (last_row, 1, back(row)),
        // Transposed.
        Orientation::Rotate90FlipH => (0, row, 1),
        Orientation::Rotate90 => (last_row, back(row), 1),
        // Transposed along the other diagonal.
        Orientation::Rotate270FlipH => (last_row + last_column, back(row), back(1)),
        Orientation::Rotate270 => (last_column, row, back(1)),
    };
    let turned = right == row || right == back(row);
    let (width, height) = if turned { (height, width) } else { (width, height) };
    let columns = width as usize;

    let mut pixels = vec![0; rgb.len()];
    for (band, rows) in pixels.chunks_mut(columns * 3 * ROWS).enumerate() {
        let count = rows.len() / (columns * 3);
        for x in 0..columns {
            for y in 0..count {
                let from = start.wrapping_add(x.wrapping_mul(right)).wrapping_add((band * ROWS + y).wrapping_mul(down));
                let to = (y * columns + x) * 3;
                rows[to..to + 3].copy_from_slice(&rgb[from * 3..from * 3 + 3]);
            }
        }
    }
    Picture::from_rgb(width, height, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_eight() {
        // 1 2 3
        // 4 5 6
        let rgb: Vec<u8> = (1..=6).flat_map(|value| [value, value + 10, value + 20]).collect();
        let cases: [(u8, u32, [u8; 6]); 8] = [
            (1, 3, [1, 2, 3, 4, 5, 6]),
            (2, 3, [3, 2, 1, 6, 5, 4]),
            (3, 3, [6, 5, 4, 3, 2, 1]),
            (4, 3, [4, 5, 6, 1, 2, 3]),
            (5, 2, [1, 4, 2, 5, 3, 6]),
            (6, 2, [4, 1, 5, 2, 6, 3]),
            (7, 2, [6, 3, 5, 2, 4, 1]),
            (8, 2, [3, 6, 2, 5, 1, 4]),
        ];
        for (exif, width, wanted) in cases {
            let picture = upright(3, 2, rgb.clone(), Orientation::from_exif(exif).unwrap());
            let wanted: Vec<u8> = wanted.iter().flat_map(|value| [*value, value + 10, value + 20]).collect();
            assert_eq!((picture.width(), picture.height(), picture.pixels()), (width, 6 / width, &*wanted), "{exif}");
        }
    }

    #[test]
    fn more_rows_than_a_band() {
        let (width, height) = (5, 37);
        let rgb: Vec<u8> = (0..width * height).flat_map(|i| [u8::try_from(i).unwrap(); 3]).collect();
        let turned = upright(width, height, rgb.clone(), Orientation::Rotate90);
        let back = upright(height, width, turned.pixels().to_vec(), Orientation::Rotate270);
        assert_eq!((turned.width(), turned.pixels()[0]), (37, 180));
        assert_eq!(back.pixels(), rgb);
    }
}
